"""A transcript for a person: what the model said, what it called, and what came back, cut to what can be read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from parallel_orchestrator.records.usage import token_count
from parallel_orchestrator.store.journal import decode
from parallel_orchestrator.system.terminal_text import one_line

_LONGEST_TEXT, _LONGEST_RESULT, _LONGEST_FILE = 200, 20, 8
"""Lines of a text, of a tool's result, of a file that is written; the middle of what is longer is left out."""
_WIDEST = 2_000

_MARKS = {
    "file_text": "| ",
    "old_str": "- ",
    "new_str": "+ ",
    "insert_text": "| ",
    "content": "| ",
    "old_string": "- ",
    "new_string": "+ ",
}
"""What goes before each line of these arguments: the API's own editor's, and Claude Code's."""


def call_text(call: Mapping[str, Any]) -> str:
    """A tool call in one line."""
    arguments = call.get("input")
    arguments_shown = (
        [str(arguments[key]) for key in ("command", "path", "file_path") if key in arguments]
        if isinstance(arguments, dict)
        else []
    )
    name = [] if len(arguments_shown) > 1 else [str(call.get("name", "?"))]  # the editor's commands say enough
    return one_line(" ".join([*name, *arguments_shown]).replace("\n", "; "))[:120]


def page_lines(line: bytes) -> Iterator[str]:
    """One record of a transcript, as lines without control characters."""
    record = decode(line)
    if record is None:
        yield "── bytes that are not a record; `check` says more ──"
        return
    shown = _KINDS.get(record["kind"], _outcome)
    yield from (one_line(text.expandtabs())[:_WIDEST] for text in shown(record))


def _start(record: dict[str, Any]) -> Iterator[str]:
    yield f"── {record['task_id']}, attempt {record['attempt']}, {record['model']} ──"
    yield from _indented(_text(record["task"]), _LONGEST_RESULT)


def _answer(record: dict[str, Any]) -> Iterator[str]:
    phase = "" if record["phase"] == "work" else f", {record['phase']}"
    usage = record.get("usage")
    count = token_count(usage.get("output_tokens")) if isinstance(usage, dict) else None
    tokens = f", {count} tokens" if count else ""
    dropped = ", not used" if record["discarded"] else ""
    yield f"── turn {record['turn']}{phase}, {record['endpoint_s']:.1f} s{tokens}{dropped} ──"
    for block in record["content"]:
        if block["type"] == "text":
            yield from _indented(block["text"], _LONGEST_TEXT)
        elif block["type"] == "tool_use":
            yield from _call(block)
    if record["stop_reason"] not in ("end_turn", "tool_use"):
        yield f"  (stopped: {record['stop_reason']})"


def _call(block: dict[str, Any]) -> Iterator[str]:
    arguments = block["input"] if isinstance(block["input"], dict) else {}
    if block["name"] in ("bash", "Bash"):
        first, *more = str(arguments.get("command", "restart")).split("\n")
        yield f"  $ {first}"
        yield from _indented("\n".join(more), _LONGEST_RESULT)
        return
    yield f"  > {call_text(block)}"
    for key, mark in _MARKS.items():
        if arguments.get(key):
            yield from _indented(f"{arguments[key]}", _LONGEST_FILE, mark)


def _results(record: dict[str, Any]) -> Iterator[str]:
    for result in record["results"]:
        word = "error" if result["is_error"] else "ok"
        text = _text(result["content"]).strip("\n")
        yield f"  = {word}" if "\n" in text or not text else f"  = {word}: {text}"
        yield from _indented(text if "\n" in text else "", _LONGEST_RESULT)


def _repair(record: dict[str, Any]) -> Iterator[str]:
    begun = record["kind"] == "restart"
    yield "── a new conversation in the same workspace ──" if begun else f"── sent back, round {record['round']} ──"
    yield from _indented(record["text"], _LONGEST_TEXT)


def _outcome(record: dict[str, Any]) -> Iterator[str]:
    reason = f": {record['reason']}" if record.get("reason") else ""
    yield f"── {record['kind']}{reason} ──"


def _nothing(_record: dict[str, Any]) -> Iterator[str]:
    return iter(())


_KINDS = {
    "start": _start,
    "answer": _answer,
    "results": _results,
    "repair": _repair,
    "restart": _repair,
    "tree": _nothing,
}


def _text(content: Any) -> str:
    """Text of a message's content, be it a string or a list of blocks."""
    if isinstance(content, str):
        return content
    return "\n".join(str(block.get("text", "")) for block in content if isinstance(block, dict))


def _indented(text: str, longest: int, mark: str = "") -> Iterator[str]:
    lines = text.strip("\n").split("\n") if text.strip("\n") else []
    if len(lines) > longest:
        head = longest * 2 // 3
        left_out = len(lines) - longest
        lines = [*lines[:head], f"… {left_out} more lines …", *lines[len(lines) - (longest - head) :]]
    yield from (f"    {mark}{line}".rstrip() for line in lines)
