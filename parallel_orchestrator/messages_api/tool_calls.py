"""A tool call, and what it comes back with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


class ToolFault(Exception):
    """A call that cannot be carried out. Its message is written for the model, and names nothing of the host."""


@dataclass(frozen=True)
class ToolResult:
    """The answer to one tool call, as the model reads it. `content` is never empty."""

    content: str
    is_error: bool = False


@dataclass(frozen=True)
class ToolCall:
    """One tool call of an answer."""

    id: str
    name: str
    arguments: Any
    fault: str = ""
    """Why it cannot be carried out, and what to send instead; empty for a usable call."""

    def __str__(self) -> str:
        """The call in one line, for progress."""
        arguments = self.arguments if isinstance(self.arguments, Mapping) else {}
        values = [str(arguments[key]) for key in ("command", "path", "file_path") if key in arguments]
        name = [] if len(values) > 1 else [self.name]  # the editor's commands say enough
        return " ".join([*name, *values]).replace("\n", "; ")[:120]


def calls_in(content: Sequence[Mapping[str, Any]], faults: Mapping[str, str]) -> tuple[ToolCall, ...]:
    """The tool calls among an answer's blocks. `faults`: why some cannot be carried out, by id."""
    blocks = (block for block in content if block["type"] == "tool_use")
    return tuple(ToolCall(b["id"], b["name"], b["input"], faults.get(b["id"], "")) for b in blocks)
