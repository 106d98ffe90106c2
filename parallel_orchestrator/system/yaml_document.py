"""Reads YAML that a person wrote: bounded, plain values only, each value with its place.

PyYAML parses the text and composes its nodes. No object is constructed from a node, so a tag cannot run anything. Where
YAML 1.1 reads a word otherwise than people mean it (`no` as false, 010 as 8, 1:30 as 90), a fault says what to write.
"""

from __future__ import annotations

import math
import re
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import yaml
from yaml.composer import Composer
from yaml.reader import Reader
from yaml.resolver import Resolver

_PREFIX = "tag:yaml.org,2002:"
_UNQUOTED = "unquoted"
"""Stands in for the tag of a word without quotes and without a tag: `_read_word` says what it means."""
_TEXT = _PREFIX + "str"
_TAGS = {_UNQUOTED, *(_PREFIX + name for name in ("str", "int", "float", "bool", "null", "map", "seq"))}
_LONGEST_SHOWN = 40
"""Characters of a word that are shown."""
_LONGEST_WORD = 1000
"""Characters of a word that YAML's own patterns look at. A longer one is a text, or a number that nothing can use."""
_RESOLVER: Any = Resolver()
_ALL_DIGITS = re.compile(r"[-+0-9_.:eE]+")
_NUMBER = re.compile(r"[-+]?(0|[1-9][0-9]*)")
# The composer in libyaml calls itself for each level and crashes on deep nesting; PyYAML's own can be bounded.
_BASES: Any = (Composer, yaml.CSafeLoader) if yaml.__with_libyaml__ else (yaml.SafeLoader,)
_TAB = "a tab is no indentation in YAML; use spaces"
_HINTS = {
    "mapping values are not allowed": (
        'the colon here begins a value inside a text: put the whole text in quotes ("…"), or below `key: |`'
    ),
    "but found another document": "a second document begins; a file has one",
    "exceeded maximum nesting depth": "nested too deep",
}
"""What to say instead of the parser's message that begins so."""

KeyPath = tuple[str | int, ...]
"""The keys and indices that lead to a value."""


class Place(NamedTuple):
    """Where something stands: line and column from 1, and how many characters of its line it takes."""

    line: int
    column: int
    length: int = 1


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong, and where."""

    place: Place
    message: str


@dataclass(frozen=True)
class Bounds:
    """How much a file may hold. An alias counts as all that it stands for."""

    values: int
    levels: int
    characters: int = 20_000_000
    """Of all keys and values."""
    aliases: bool = True


@dataclass
class Document:
    """The plain value of a YAML text, and the place of everything in it."""

    value: Any = None
    """None when the text could not be read to its end: `faults` then holds the reason alone."""
    faults: list[Fault] = field(default_factory=list)
    keys: dict[KeyPath, Place] = field(default_factory=dict)
    """By the path of a mapping's value: where its key stands."""
    values: dict[KeyPath, Place] = field(default_factory=dict)

    def place(self, path: KeyPath) -> Place:
        """The place of the value at `path`, or of the innermost value around it."""
        while path and path not in self.values:
            path = path[:-1]
        return self.values.get(path, Place(1, 1))


class _Refused(Exception):
    """The text is not read any further."""

    def __init__(self, at: yaml.Event | yaml.Node, message: str) -> None:
        self.fault = Fault(_place(at), message)


@dataclass
class _Budget:
    """Counts what was read, and refuses what is too much."""

    bounds: Bounds
    values: int = 0
    characters: int = 0

    def spend(self, at: yaml.Event | yaml.Node, depth: int, characters: int = 0) -> None:
        """Count one value, inside `depth` others. Raises _Refused."""
        self.values += 1
        self.characters += characters
        if depth > self.bounds.levels:
            raise _Refused(at, f"nested deeper than {self.bounds.levels} levels")
        if self.values > self.bounds.values:
            raise _Refused(at, f"a file holds at most {self.bounds.values:,} values, and here they end")
        if self.characters > self.bounds.characters:
            raise _Refused(at, f"with its aliases the file has more than {self.bounds.characters:,} characters")


class _Loader(*_BASES):  # type: ignore[misc]
    """PyYAML's loader, stopped where a bound is passed."""

    def __init__(self, text: str, bounds: Bounds) -> None:
        _BASES[-1].__init__(self, text)
        self.anchors: dict[str, yaml.Node] = {}
        self._aliases = bounds.aliases
        self._budget = _Budget(bounds)
        self._depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node:
        """The next node. Raises _Refused or YAMLError."""
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent) and not self._aliases:
            raise _Refused(event, "aliases (*name) are not allowed; write the value out")
        self._budget.spend(event, self._depth)
        self._depth += 1
        node: yaml.Node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def resolve(self, kind: type[yaml.Node], value: str, implicit: Any) -> str:
        """The tag of a node without one."""
        return _UNQUOTED if kind is yaml.ScalarNode and implicit[0] else _TEXT


def _place(marked: yaml.Event | yaml.Node) -> Place:
    start: Any = marked.start_mark
    end: Any = marked.end_mark
    line, column = start.line, start.column
    return Place(line + 1, column + 1, max(1, end.column - column) if end.line == line else 1)


def place_at(text: str, index: int) -> Place:
    """The place of the character at that index."""
    lines = (text[:index] + ".").splitlines()
    return Place(len(lines), len(lines[-1]))


def read_yaml(text: str, bounds: Bounds) -> Document:
    """What a YAML text holds, with every fault; a syntax error or a passed bound is its only fault."""
    if control := Reader.NON_PRINTABLE.search(text):
        shown = f"the character {control[0]!a} is not allowed in YAML"
        return Document(faults=[Fault(place_at(text, control.start()), shown)])
    document = Document()
    try:
        if root := _Loader(text, bounds).get_single_node():
            document.value = _Converter(document, _Budget(bounds)).value(root, ())
    except _Refused as refused:
        return Document(faults=[refused.fault])
    except yaml.MarkedYAMLError as error:
        mark: Any = error.problem_mark or error.context_mark
        return Document(faults=[Fault(Place(mark.line + 1, mark.column + 1), _message(error, text[mark.index :][:1]))])
    return document


def _message(error: yaml.MarkedYAMLError, character: str) -> str:
    """What a person reads of a syntax error at that character."""
    problem = error.problem or "this is not YAML"
    if character == "\t":
        return _TAB
    if hint := next((hint for start, hint in _HINTS.items() if problem.startswith(start)), None):
        return hint
    return f"{problem} ({error.context})" if error.context else problem


@dataclass
class _Converter:
    """Makes plain values of nodes, and notes places and faults."""

    document: Document
    budget: _Budget

    def value(self, node: yaml.Node, path: KeyPath) -> Any:
        """The node's value. Raises _Refused where aliases expand to too much."""
        place = _place(node)
        self.budget.spend(node, len(path), len(node.value) if isinstance(node, yaml.ScalarNode) else 0)
        self.document.values[path] = place
        if node.tag not in _TAGS:
            shown = node.tag.replace(_PREFIX, "!!", 1)
            self._fault(place, f"the tag {shown} is not allowed; only plain values are")
        if isinstance(node, yaml.SequenceNode):
            return [self.value(part, (*path, number)) for number, part in enumerate(node.value)]
        return self._mapping(node, path) if isinstance(node, yaml.MappingNode) else self._scalar(node, place)

    def _scalar(self, node: yaml.Node, place: Place) -> Any:
        value, complaint = _read_word(node.value) if node.tag == _UNQUOTED else (node.value, "")
        if complaint:
            self._fault(place, complaint)
        return value

    def _mapping(self, node: yaml.MappingNode, path: KeyPath) -> dict[str, Any]:
        made: dict[str, Any] = {}
        for key, value in node.value:
            place = _place(key)
            if not isinstance(key, yaml.ScalarNode):
                self._fault(place, "a key has to be a word; put it in quotes")
                continue
            self.budget.spend(key, len(path), len(key.value))
            below = (*path, key.value)
            if key.value in made:
                first = self.document.keys[below].line
                name = repr(key.value[:_LONGEST_SHOWN])
                self._fault(place, f"the key {name} stands here twice, first in line {first}")
            else:
                self.document.keys[below] = place
                made[key.value] = self.value(value, below)
        return made

    def _fault(self, place: Place, message: str) -> None:
        self.document.faults.append(Fault(place, message))


def _read_word(text: str) -> tuple[Any, str]:
    """The value of a word without quotes and without a tag, and what to say where YAML 1.1 reads it unexpectedly."""
    if len(text) > _LONGEST_WORD:
        return (0, _odd_number(text, "a number")) if _ALL_DIGITS.fullmatch(text) else (text, "")
    kind = str(_RESOLVER.resolve(yaml.ScalarNode, text, (True, False))).rpartition(":")[2]
    if kind == "null":
        return None, ""
    if kind == "bool":
        return _bool(text)
    return _number(text, kind) if kind in ("int", "float") else (text, "")  # a date is a text, as in JSON


def _bool(text: str) -> tuple[Any, str]:
    if text.lower() in ("true", "false"):
        return text.lower() == "true", ""
    meant = "true" if text.lower() in ("yes", "on", "y") else "false"
    return text, f'{text} means {meant} in YAML: write {meant}, or "{text}" in quotes'


def _number(text: str, kind: str) -> tuple[Any, str]:
    if kind == "int":
        short = len(text) < _LONGEST_SHOWN
        if short and _NUMBER.fullmatch(text):
            return int(text), ""
        return 0, _odd_number(text, str(yaml.safe_load(text)) if short else "a number")
    with suppress(ValueError):
        if math.isfinite(number := float(text)):
            return number, ""
    return 0.0, _odd_number(text, "a number")


def _odd_number(text: str, read: str) -> str:
    shown = text if len(text) <= _LONGEST_SHOWN else f"{text[: _LONGEST_SHOWN - 1]}…"
    return f'{shown} is read as {read} in YAML: write the plain number, or "{shown}" in quotes'
