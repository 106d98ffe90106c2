"""Where in a text something stands: lines as YAML counts them, and characters, not bytes."""

from __future__ import annotations

import re
from typing import Any

import yaml

_BREAK = re.compile("\r\n|[\r\n\x85\u2028\u2029]")


def mark_at(text: str, index: int) -> yaml.Mark:
    """The mark, with line and column from 0, of the character at that index."""
    starts = [0, *(found.end() for found in _BREAK.finditer(text, 0, index))]
    return yaml.Mark("", index, len(starts) - 1, index - starts[-1], None, 0)


def mark_of(error: yaml.YAMLError, text: str) -> Any:
    """The mark where the parser found no sense in the text, or the reader a character that YAML does not allow."""
    if isinstance(error, yaml.MarkedYAMLError) and (mark := error.problem_mark or error.context_mark):
        return mark
    position = getattr(error, "position", 0)
    if getattr(error, "encoding", "") != "unicode":  # libyaml, which was given UTF-8 and counts its bytes
        position = len(text.encode()[:position].decode(errors="ignore"))
    return mark_at(text, position)
