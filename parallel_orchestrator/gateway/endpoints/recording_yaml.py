"""YAML as recordings use it: strict and bounded when read, and written so that people can review the code in it.

A text is read from the parser's events. The composer of libyaml calls itself for each level, and a text of nothing
but brackets ends the process; events come without that, and reading stops where a bound is passed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import yaml

try:
    from yaml import CSafeDumper as _BaseDumper
except ImportError:  # a PyYAML without libyaml
    from yaml import SafeDumper as _BaseDumper  # type: ignore[assignment]

from parallel_orchestrator.store.yaml_marks import mark_of
from parallel_orchestrator.store.yaml_scalars import PLAIN_TAGS, PREFIX, read_scalar

_PARSER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

DEEPEST = 100
"""Levels. The parser's time grows with their square."""
MOST_VALUES = 100_000
"""Keys and values: some thousand answers. They take about a second."""
_LONGEST_KEY = 40


class BadYaml(ValueError):
    """The text is not YAML, or not the YAML that a recording may use; the message names the line."""


@dataclass
class _Reader:
    """Puts plain values together while the events come."""

    lines: dict[int, int] = field(default_factory=dict)
    """By a list's or mapping's id: the line, from 1, where it begins."""
    root: Any = None
    _open: list[list[Any] | dict[str, Any]] = field(default_factory=list)
    _keys: list[str | None] = field(default_factory=list)
    """Of each open mapping: the key whose value comes next."""
    _count: int = 0

    def take(self, event: Any) -> None:
        """Take in one event. Raises BadYaml."""
        if isinstance(event, yaml.ScalarEvent):
            self._check(event)
            self._add(_value(event) if event.implicit[0] else event.value, event)
        elif isinstance(event, yaml.CollectionStartEvent):
            self._check(event)
            self._begin(event)
        elif isinstance(event, yaml.CollectionEndEvent):
            self._open.pop()
            self._keys.pop()
        elif isinstance(event, yaml.AliasEvent):
            raise _bad(event, "aliases (*name) are not allowed; write the value out")
        elif isinstance(event, yaml.DocumentStartEvent) and self._count:
            raise _bad(event, "a second document begins; a recording has one")

    def _check(self, event: Any) -> None:
        self._count += 1
        if self._count > MOST_VALUES:
            raise _bad(event, f"up to here there are more than {MOST_VALUES:,} values; divide the recording")
        if event.tag and event.tag not in PLAIN_TAGS and event.tag != "!":
            shown = event.tag.replace(PREFIX, "!!", 1)[:_LONGEST_KEY]
            raise _bad(event, f"the tag {shown} is not allowed; a recording holds plain values only")

    def _begin(self, event: Any) -> None:
        if len(self._open) >= DEEPEST:
            raise _bad(event, f"nested deeper than {DEEPEST} levels")
        made: list[Any] | dict[str, Any] = [] if isinstance(event, yaml.SequenceStartEvent) else {}
        self.lines[id(made)] = event.start_mark.line + 1
        self._add(made, event)
        self._open.append(made)
        self._keys.append(None)

    def _add(self, value: Any, event: Any) -> None:
        within = self._open[-1] if self._open else None
        if within is None:
            self.root = value
        elif isinstance(within, list):
            within.append(value)
        elif (key := self._keys[-1]) is not None:
            within[key], self._keys[-1] = value, None
        elif not isinstance(value, str):
            raise _bad(event, "a key has to be a word; put it in quotes")
        elif value in within:
            raise _bad(event, f"{value[:_LONGEST_KEY]!r} is given twice")
        else:
            self._keys[-1] = value


def _value(event: Any) -> Any:
    value, complaint = read_scalar(event.value, dates=True)
    if complaint:
        raise _bad(event, complaint)
    return value


def _bad(event: Any, why: str) -> BadYaml:
    return BadYaml(f"line {event.start_mark.line + 1}: {why}")


def load_yaml(text: str) -> tuple[Any, dict[int, int]]:
    """The value of a YAML text, and by the id of each list and mapping in it the line where it begins.

    Raises BadYaml.
    """
    reader = _Reader()
    try:
        for event in yaml.parse(text, Loader=_PARSER):
            reader.take(event)
    except yaml.YAMLError as error:
        why = getattr(error, "problem", None) or getattr(error, "reason", None) or "this is not YAML"
        raise BadYaml(f"line {mark_of(error, text).line + 1}: {why}") from error
    return reader.root, reader.lines


class _Dumper(_BaseDumper):
    """Writes texts of several lines as literal blocks."""


def _represent_text(dumper: _BaseDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _represent_text)


def dump_yaml(value: Any) -> str:
    """The YAML text of a value, keys in their own order, lines never folded."""
    text: str = yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=10**9)
    return text
