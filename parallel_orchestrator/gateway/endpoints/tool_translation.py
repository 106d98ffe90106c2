"""One recording for both kinds of tools: the Messages API's own, and Claude Code's.

A recorded answer calls the tools of whoever was recorded. Asked by somebody who has the other ones, it is told in
theirs: a file is created by `Write`, say. What has no counterpart, and what is known to both, stays as it is.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from parallel_orchestrator.records.command import MOUNT

Json = dict[str, Any]

EDITOR, BASH = "str_replace_based_edit_tool", "bash"
STRUCTURED = "StructuredOutput"


def told_for(body: Mapping[str, Any], content: Sequence[Json], stop_reason: str) -> tuple[list[Json], str]:
    """Content and stop reason of a recorded answer, in the tools that the request `body` offers."""
    offered = {tool.get("name") for tool in body.get("tools") or () if isinstance(tool, dict)}
    if STRUCTURED in offered:
        return _structured(content, stop_reason)
    if any(block.get("name") == STRUCTURED for block in content):
        return _unstructured(content), "end_turn"
    ways = _TO_CLAUDE_CODE if "Write" in offered else _TO_API if EDITOR in offered else {}
    return [_told(block, ways, offered) for block in content], stop_reason


def _told(block: Json, ways: Mapping[str, Callable[[Json], tuple[str, Json]]], offered: set[Any]) -> Json:
    called = block.get("name")
    if block.get("type") != "tool_use" or not isinstance(called, str) or called in offered or called not in ways:
        return block
    try:
        name, arguments = ways[called](block["input"])
    except (KeyError, TypeError, AttributeError):
        return block  # not a call that any tool understands: its own error tells best
    return {**block, "name": name, "input": arguments}


def _structured(content: Sequence[Json], stop_reason: str) -> tuple[list[Json], str]:
    """A plan that was written as text, as the call that a structured answer is."""
    text = "".join(block["text"] for block in content if block["type"] == "text")
    try:
        value = json.loads(text)
    except ValueError:
        return list(content), stop_reason
    if not isinstance(value, dict) or stop_reason != "end_turn":
        return list(content), stop_reason
    kept = [block for block in content if block["type"] != "text"]
    return [*kept, {"type": "tool_use", "id": "toolu_structured", "name": STRUCTURED, "input": value}], "tool_use"


def _unstructured(content: Sequence[Json]) -> list[Json]:
    return [
        {"type": "text", "text": json.dumps(block["input"])} if block.get("name") == STRUCTURED else block
        for block in content
    ]


def _edited(arguments: Json) -> tuple[str, Json]:
    """A call of the text editor, in Claude Code's tools."""
    path = arguments["path"]
    absolute = path if path.startswith("/") else MOUNT if path in ("", ".") else f"{MOUNT}/{path}"
    match arguments["command"]:
        case "create":
            return "Write", {"file_path": absolute, "content": arguments["file_text"]}
        case "str_replace":
            new = arguments.get("new_str", "")
            return "Edit", {"file_path": absolute, "old_string": arguments["old_str"], "new_string": new}
        case "insert":
            return "Bash", {"command": _insertion(path, arguments["insert_line"], arguments["insert_text"])}
        case "view" if "view_range" in arguments:
            first, last = arguments["view_range"]
            more = {} if last == -1 else {"limit": last - first + 1}
            return "Read", {"file_path": absolute, "offset": first, **more}
        case "view":
            # Which of the two it is, a recording does not say, and Read opens no directory.
            return "Bash", {
                "command": f"if [ -d {shlex.quote(path)} ]; then ls -R {shlex.quote(path)}; else cat -n "
                f"{shlex.quote(path)}; fi"
            }
    raise KeyError(arguments["command"])


def _insertion(path: str, after: int, text: str) -> str:
    """A command that puts text after a line of a file."""
    added = text if text.endswith("\n") else text + "\n"
    file = shlex.quote(path)
    return (
        f"{{ head -n {int(after)} {file}; printf %s {shlex.quote(added)}; tail -n +{int(after) + 1} {file}; }} "
        f"> {file}.new && cat {file}.new > {file} && rm {file}.new"
    )


def _relative(path: str) -> str:
    return path.removeprefix(MOUNT).lstrip("/") or "."


def _read(arguments: Json) -> tuple[str, Json]:
    call = {"command": "view", "path": _relative(arguments["file_path"])}
    if "offset" in arguments or "limit" in arguments:
        first = arguments.get("offset", 1)
        last = first + arguments["limit"] - 1 if "limit" in arguments else -1
        return EDITOR, {**call, "view_range": [first, last]}
    return EDITOR, call


def _write(arguments: Json) -> tuple[str, Json]:
    path = _relative(arguments["file_path"])
    return EDITOR, {"command": "create", "path": path, "file_text": arguments["content"]}


def _edit(arguments: Json) -> tuple[str, Json]:
    call = {"command": "str_replace", "path": _relative(arguments["file_path"])}
    return EDITOR, {**call, "old_str": arguments["old_string"], "new_str": arguments["new_string"]}


_TO_CLAUDE_CODE: dict[str, Callable[[Json], tuple[str, Json]]] = {
    EDITOR: _edited,
    BASH: lambda arguments: ("Bash", {"command": arguments["command"]}),
}
_TO_API: dict[str, Callable[[Json], tuple[str, Json]]] = {
    "Read": _read,
    "Write": _write,
    "Edit": _edit,
    "Bash": lambda arguments: (BASH, {"command": arguments["command"]}),
}
