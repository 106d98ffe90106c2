"""What is kept of an answer: blocks that the API takes back, and what is wrong with its tool calls."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from parallel_orchestrator.agent.transcript import NEVER_ACTED_ON, Conversation
from parallel_orchestrator.messages_api.tool_calls import BASH, EDITOR

Block = dict[str, Any]

_UNNAMED = "unnamed"
"""The name, in the conversation, of a call that has none."""
_NOT_IN_NAMES = re.compile(r"[^a-zA-Z0-9_-]")
_LONGEST_NAME = 128
_SHOWN_NAMES = 20
_EXCERPT = 30
"""Characters on each side of the place where arguments stop being JSON."""

_FORMS = {
    BASH: '{"command": "ls"}',
    EDITOR: '{"command": "create", "path": "docs/page.md", "file_text": "…"}',
}
"""Arguments of the Messages API's own tools, whose schema no request holds."""


@dataclass(frozen=True)
class Kept:
    """What a transcript keeps of an answer."""

    content: list[Block]
    """Valid in a request: each tool call has an id of its own, a name and an object of arguments."""
    discarded: bool
    """Whether nothing of the answer can be used."""
    faults: dict[str, str] = field(default_factory=dict)
    """Why calls cannot be carried out and what to send instead, by the call's id; written for the model."""


def kept_of(content: Iterable[Any], stop_reason: str | None, conversation: Conversation) -> Kept:
    """What is kept of the next answer in `conversation`, from the blocks as the endpoint gave them."""
    blocks, faults = [], {}
    used = _used_ids(conversation)
    tools = conversation.start.tools
    for index, block in enumerate(_readable(content)):
        if block["type"] != "tool_use":
            blocks.append(block)
            continue
        call_id = _new_id(block.get("id"), f"toolu_turn_{conversation.turns + 1}_{index + 1}", used)
        used.add(call_id)
        blocks.append({**block, "id": call_id, "name": _name(block.get("name")), "input": _arguments(block)})
        if fault := _fault(block, tools):
            faults[call_id] = fault
    return Kept(blocks, _is_useless(stop_reason, blocks), faults)


def _readable(content: Iterable[Any]) -> Iterator[Block]:
    """Returns the blocks that a request may hold: no blank texts, nothing that is not a block."""
    for block in content:
        if not isinstance(block, dict) or not isinstance(block.get("type"), str):
            continue
        text = block.get("text")
        if block["type"] != "text" or (isinstance(text, str) and text.strip()):
            yield block


def _is_useless(stop_reason: str | None, content: Sequence[Block]) -> bool:
    """Whether nothing of the answer can be used.

    One cut off inside a tool call is useless: the call would run with half its arguments.
    """
    if stop_reason == "max_tokens":
        return not content or content[-1]["type"] != "text"
    if stop_reason in NEVER_ACTED_ON:
        return False
    return all(block["type"] in ("thinking", "redacted_thinking") for block in content)


def _used_ids(conversation: Conversation) -> set[str]:
    blocks = (block for message in conversation.messages for block in message["content"])
    return {block["id"] for block in blocks if block["type"] == "tool_use"}


def _new_id(given: Any, ours: str, used: set[str]) -> str:
    """The call's own id, ours where it has none, made different from those in use."""
    own = given if isinstance(given, str) and given else ours
    return next(name for name in (own, *(f"{own}_{n}" for n in range(2, len(used) + 3))) if name not in used)


def _name(given: Any) -> str:
    """The tool's name in a form that the API takes back."""
    return _NOT_IN_NAMES.sub("_", given)[:_LONGEST_NAME] if isinstance(given, str) and given else _UNNAMED


def _arguments(block: Block) -> Block:
    arguments = block.get("input", {})
    return arguments if isinstance(arguments, dict) else {}


def _fault(block: Block, tools: Sequence[Mapping[str, Any]]) -> str | None:
    """Why a call cannot be carried out, and what to send instead; None for a usable one."""
    name = block.get("name")
    tool = next((tool for tool in tools if tool["name"] == name), None)
    if tool is None and tools:
        known = ", ".join(tool["name"] for tool in tools[:_SHOWN_NAMES])
        what = f"there is no tool {name!r}" if isinstance(name, str) and name else "the call names no tool"
        return f"{what}; the tools are {known}. Call one of them: {tools[0]['name']}, say, with {_form(tools[0])}."
    if isinstance(block.get("input", {}), dict):
        return None
    what = _why_no_object(block["input"])
    form = f" {_form(tool)}" if tool else ""
    return f"the arguments have to be a JSON object, {what}. Send the call again, with arguments in this form:{form}"


def _why_no_object(value: Any) -> str:
    if not isinstance(value, str):
        kind = {type(None): "null", list: "a list", bool: "true or false"}.get(type(value), "a number")
        return f"not {kind}"
    try:
        parsed = json.loads(value)
    except json.JSONDecodeError as error:
        near = value[max(0, error.pos - _EXCERPT) : error.pos + _EXCERPT]
        return f"and these are not JSON at character {error.pos + 1}, near {near!r}: {error.msg}"
    except (ValueError, RecursionError):
        parsed = {}
    deep = "and these are nested too deep, or hold what JSON does not have (NaN, say)"
    return deep if isinstance(parsed, dict | list) else "not a string"


def _form(tool: Mapping[str, Any]) -> str:
    """An example of a tool's arguments: its required ones."""
    schema = tool.get("input_schema")
    required = schema.get("required", ()) if isinstance(schema, Mapping) else ()
    return _FORMS.get(tool["name"]) or json.dumps(dict.fromkeys(required, "…"), ensure_ascii=False)
