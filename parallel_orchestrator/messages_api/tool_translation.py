"""Translates the calls of a recorded answer into the tools that a request offers.

A recording calls either the Messages API's own tools or Claude Code's. When the request offers the other ones, each
call becomes its counterpart: creating a file becomes `Write`, for example. A call without a counterpart, or of a tool
that is offered, stays as it is.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from parallel_orchestrator.messages_api.tool_calls import BASH, EDITOR, STRUCTURED_OUTPUT, Json, text_block, text_of
from parallel_orchestrator.records.command import MOUNT

Translator = Callable[[Json], tuple[str, Json]]
"""From a call's arguments to the name and arguments of its counterpart."""


def translated(body: Mapping[str, Any], content: Sequence[Json], stop_reason: str) -> tuple[list[Json], str]:
    """Returns content and stop reason of a recorded answer, in the tools that the request `body` offers."""
    offered = {tool.get("name") for tool in body.get("tools") or () if isinstance(tool, dict)}
    if STRUCTURED_OUTPUT in offered:
        return _as_structured(content, stop_reason)
    if any(block.get("name") == STRUCTURED_OUTPUT for block in content):
        return _as_text(content), "end_turn"
    translators = _TO_CLAUDE_CODE if "Write" in offered else _TO_API if EDITOR in offered else {}
    return [_translated_block(block, translators, offered) for block in content], stop_reason


def _translated_block(block: Json, translators: Mapping[str, Translator], offered: set[Any]) -> Json:
    name = block.get("name")
    if block.get("type") != "tool_use" or not isinstance(name, str) or name in offered or name not in translators:
        return block
    try:
        name, arguments = translators[name](block["input"])
    except (KeyError, TypeError, AttributeError):
        return block  # no tool understands this call; the executor answers it with an error of its own
    return {**block, "name": name, "input": arguments}


def _as_structured(content: Sequence[Json], stop_reason: str) -> tuple[list[Json], str]:
    """Returns a plan that was written as text as a call of the structured output."""
    try:
        value = json.loads(text_of(content))
    except ValueError:
        value = None
    if not isinstance(value, dict) or stop_reason != "end_turn":
        return list(content), stop_reason
    kept = [block for block in content if block["type"] != "text"]
    call = {"type": "tool_use", "id": "toolu_structured", "name": STRUCTURED_OUTPUT, "input": value}
    return [*kept, call], "tool_use"


def _as_text(content: Sequence[Json]) -> list[Json]:
    return [
        text_block(json.dumps(block["input"])) if block.get("name") == STRUCTURED_OUTPUT else block for block in content
    ]


def _from_editor(arguments: Json) -> tuple[str, Json]:
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
            # The recording does not say whether this is a file or a directory, and Read opens no directory.
            quoted = shlex.quote(path)
            return "Bash", {"command": f"if [ -d {quoted} ]; then ls -R {quoted}; else cat -n {quoted}; fi"}
    raise KeyError(arguments["command"])


def _insertion(path: str, after: int, text: str) -> str:
    """Returns a command that inserts text after a line of a file."""
    added = text if text.endswith("\n") else text + "\n"
    file = shlex.quote(path)
    return (
        f"{{ head -n {int(after)} {file}; printf %s {shlex.quote(added)}; tail -n +{int(after) + 1} {file}; }} "
        f"> {file}.new && cat {file}.new > {file} && rm {file}.new"
    )


def _relative(path: str) -> str:
    return path.removeprefix(MOUNT).lstrip("/") or "."


def _from_read(arguments: Json) -> tuple[str, Json]:
    call = {"command": "view", "path": _relative(arguments["file_path"])}
    if "offset" in arguments or "limit" in arguments:
        first = arguments.get("offset", 1)
        last = first + arguments["limit"] - 1 if "limit" in arguments else -1
        return EDITOR, {**call, "view_range": [first, last]}
    return EDITOR, call


def _from_write(arguments: Json) -> tuple[str, Json]:
    path = _relative(arguments["file_path"])
    return EDITOR, {"command": "create", "path": path, "file_text": arguments["content"]}


def _from_edit(arguments: Json) -> tuple[str, Json]:
    call = {"command": "str_replace", "path": _relative(arguments["file_path"])}
    return EDITOR, {**call, "old_str": arguments["old_string"], "new_str": arguments["new_string"]}


_TO_CLAUDE_CODE: dict[str, Translator] = {
    EDITOR: _from_editor,
    BASH: lambda arguments: ("Bash", {"command": arguments["command"]}),
}
_TO_API: dict[str, Translator] = {
    "Read": _from_read,
    "Write": _from_write,
    "Edit": _from_edit,
    "Bash": lambda arguments: (BASH, {"command": arguments["command"]}),
}
