"""Text that is only text: what would steer a terminal, end a line or turn a line round is escaped.

Steering are the control characters of C0 and C1 (ESC, CSI and OSC among them), the line and paragraph separators,
the marks, overrides and isolates of bidirectional text, invisible tags, and lone surrogates, which cannot be
encoded at all. What is meant for a terminal or a log loses its secrets here, too. Everything else is left as it is.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from parallel_orchestrator.system import json_codec, redact

_STEERING = (
    r"\x00-\x1f\x7f-\x9f\u2028\u2029"
    r"\u061c\u200e\u200f\u202a-\u202e\u2066-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e007f"
    r"\ud800-\udfff"
)
_ANY = re.compile(f"[{_STEERING}]")
_IN_JSON = re.compile(rf"[^\n -~](?<=[{_STEERING}])")
"""A line end stands between the values of indented JSON, never inside one."""
_IN_MARKDOWN = re.compile(rf"[^\n\t -~](?<=[{_STEERING}])")


def one_line(text: str) -> str:
    """`text` without secrets, every steering character escaped: it can neither end its line nor steer a terminal."""
    return _ANY.sub(_escaped, redact.foreign(text))


def printable(text: str) -> str:
    """`text` without secrets, with every steering character but the newline escaped."""
    return "\n".join(_ANY.sub(_escaped, line) for line in redact.foreign(text).split("\n"))


def indented(text: str) -> str:
    """`printable` with every further line set in: what is quoted in a message cannot pass for a line of ours."""
    return printable(text).replace("\n", "\n  ")


def page(text: str) -> str:
    """A text file for people: line ends and tabs stay, every other steering character is escaped."""
    return _IN_MARKDOWN.sub(_escaped, text.replace("\r\n", "\n"))


def escape_json(text: str) -> str:
    """JSON text that says the same, with nothing in it that steers a terminal."""
    if text.isascii() and text.isprintable():  # as nearly every line of a journal is: a hundred times quicker to see
        return text
    return _IN_JSON.sub(lambda match: json.dumps(match.group())[1:-1], text)


def counted(count: int, noun: str) -> str:
    """`1 task`, `2 tasks`."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def listed(names: Sequence[str], most: int = 5) -> str:
    """The first of the names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def json_text(value: Any) -> str:
    """`value` as indented JSON that people can read and print; NaN and infinity become null."""
    return escape_json(json.dumps(json_codec.finite(value), indent=2, ensure_ascii=False, allow_nan=False)) + "\n"


def _escaped(match: re.Match[str]) -> str:
    return match.group().encode("unicode_escape").decode()
