"""What a tool call comes back with."""

from __future__ import annotations

from dataclasses import dataclass


class ToolFault(Exception):
    """A call that cannot be carried out. Its message is written for the model, and names nothing of the host."""


@dataclass(frozen=True)
class ToolResult:
    """The answer to one tool call, as the model reads it. `content` is never empty."""

    content: str
    is_error: bool = False
