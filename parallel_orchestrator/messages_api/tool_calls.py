"""Tool calls and their results, the names of the tools, and the blocks of content that they are sent in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]

EDITOR, BASH = "str_replace_based_edit_tool", "bash"
"""The Messages API's own tools."""
STRUCTURED_OUTPUT = "StructuredOutput"
"""The tool by which Claude Code returns an answer that has a schema."""


class ToolFault(Exception):
    """A call that cannot be carried out. Its message is for the model and names nothing of the host."""


@dataclass(frozen=True)
class ToolResult:
    """The result of one tool call, as the model reads it. `content` is never empty."""

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
        """Returns the call in one line, for progress."""
        arguments = self.arguments if isinstance(self.arguments, Mapping) else {}
        values = [str(arguments[key]) for key in ("command", "path", "file_path") if key in arguments]
        name = [] if len(values) > 1 else [self.name]  # the editor's commands say enough
        return " ".join([*name, *values]).replace("\n", "; ")[:120]

    def block(self) -> Json:
        """Returns the call as a block of an answer."""
        return {"type": "tool_use", "id": self.id, "name": self.name, "input": self.arguments}


def calls_in(content: Sequence[Mapping[str, Any]], faults: Mapping[str, str]) -> tuple[ToolCall, ...]:
    """Returns the tool calls among an answer's blocks. `faults`: why some cannot be carried out, by id."""
    blocks = (block for block in content if block["type"] == "tool_use")
    return tuple(ToolCall(b["id"], b["name"], b["input"], faults.get(b["id"], "")) for b in blocks)


def text_block(text: str) -> Json:
    """Returns a text as a block of content."""
    return {"type": "text", "text": text}


def text_of(content: Sequence[Mapping[str, Any]]) -> str:
    """Joins the text blocks of an answer."""
    return "".join(block["text"] for block in content if block["type"] == "text")
