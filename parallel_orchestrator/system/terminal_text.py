"""Escapes characters that would control a terminal, end a line or reverse its direction.

Escaped are the control characters of C0 and C1 (with ESC, CSI and OSC), line and paragraph separators, the marks,
overrides and isolates of bidirectional text, invisible tags, and lone surrogates, which cannot be encoded. Text for a
terminal or a log also loses its secrets here. Everything else is unchanged.
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
"""Without the line end: in indented JSON it stands between values, never inside one."""
_IN_MARKDOWN = re.compile(rf"[^\n\t -~](?<=[{_STEERING}])")


def one_line(text: str) -> str:
    """Return `text` without secrets and with every control character escaped, as one line."""
    return _ANY.sub(_escaped, redact.foreign(text))


def printable(text: str) -> str:
    """Return `text` without secrets and with every control character but the newline escaped."""
    return "\n".join(_ANY.sub(_escaped, line) for line in redact.foreign(text).split("\n"))


def indented(text: str) -> str:
    """Like `printable`, with all lines but the first indented: a quoted text cannot pass for a line of the log."""
    return printable(text).replace("\n", "\n  ")


def page(text: str) -> str:
    """Return a text file with every control character escaped except line ends and tabs."""
    return _IN_MARKDOWN.sub(_escaped, text.replace("\r\n", "\n"))


def escape_json(text: str) -> str:
    """Return equivalent JSON text without control characters."""
    if text.isascii() and text.isprintable():  # a quick check that nearly every journal line passes
        return text
    return _IN_JSON.sub(lambda match: json.dumps(match.group())[1:-1], text)


def counted(count: int, noun: str) -> str:
    """Return `1 task`, `2 tasks`."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def listed(names: Sequence[str], most: int = 5) -> str:
    """Return the first names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def json_text(value: Any) -> str:
    """Return indented JSON that is safe to print. NaN and infinity become null."""
    return escape_json(json.dumps(json_codec.finite(value), indent=2, ensure_ascii=False, allow_nan=False)) + "\n"


def _escaped(match: re.Match[str]) -> str:
    return match.group().encode("unicode_escape").decode()
