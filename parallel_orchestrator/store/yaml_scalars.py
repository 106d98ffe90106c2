"""What a word of YAML means: a number, true, nothing, or a text.

Of what YAML 1.1 reads otherwise than people mean it (`no` as false, 010 as 8, 1:30 as 90), nothing is guessed: it is
a fault that says what to write.
"""

from __future__ import annotations

import math
import re
from functools import cache
from typing import Any

import yaml
from yaml.resolver import Resolver

PREFIX = "tag:yaml.org,2002:"
"""Of the tags that YAML itself knows."""
PLAIN_TAGS = frozenset(PREFIX + name for name in ("str", "int", "float", "bool", "null", "map", "seq"))
"""Tags that name a plain value."""
_RESOLVER: Any = Resolver()
_LONGEST = 40
"""Characters of a word that are shown."""
_LONGEST_WORD = 1000
"""Characters of a word that YAML's own patterns look at. A longer one is a text, or a number that nothing can use."""
_ALL_DIGITS = re.compile(r"[-+0-9_.:eE]+")
_NUMBER = re.compile(r"[-+]?(0|[1-9][0-9]*)")

Reading = tuple[Any, str]
"""A value as YAML 1.1 reads it, and a complaint where that is not what people mean."""


def _text(text: str) -> Reading:
    return text, ""


def _null(_: str) -> Reading:
    return None, ""


def _bool(text: str) -> Reading:
    if text.lower() in ("true", "false"):
        return text.lower() == "true", ""
    meant = "true" if text.lower() in ("yes", "on", "y") else "false"
    return text, f'{text} means {meant} in YAML: write {meant}, or "{text}" in quotes'


def _int(text: str) -> Reading:
    if _NUMBER.fullmatch(text) and len(text) < _LONGEST:
        return int(text), ""
    read = _read_as(text) if len(text) < _LONGEST else "as a number"
    return 0, f'{_shown(text)} is read {read} in YAML: write that number, or "…" in quotes'


@cache
def _read_as(text: str) -> str:
    return f"as {yaml.safe_load(text)}"


def _float(text: str) -> Reading:
    try:
        number = float(text)
    except ValueError:
        return 0.0, _odd_number(text)
    if not math.isfinite(number):
        return 0.0, f"{_shown(text)} is not a number that can be used here"
    return number, ""


def _odd_number(text: str) -> str:
    return f'{_shown(text)} is read as a number in YAML: write "{_shown(text)}" in quotes, or the plain number'


def _special(text: str) -> Reading:
    return text, f'{_shown(text)} has a meaning of its own in YAML: write "{_shown(text)}" in quotes'


_READINGS = {"bool": _bool, "null": _null, "int": _int, "float": _float} | dict.fromkeys(
    ("timestamp", "merge", "value"), _special
)


def read_scalar(text: str, *, dates: bool = False) -> Reading:
    """The value of a word that stands without quotes and without a tag. With `dates` a date is a text."""
    if len(text) > _LONGEST_WORD:
        return (0, _odd_number(text)) if _ALL_DIGITS.fullmatch(text) else (text, "")
    tag: str = _RESOLVER.resolve(yaml.ScalarNode, text, (True, False))
    if dates and tag == f"{PREFIX}timestamp":
        return text, ""
    return _READINGS.get(tag.removeprefix(PREFIX), _text)(text)


def _shown(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
