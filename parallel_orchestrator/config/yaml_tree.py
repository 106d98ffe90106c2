"""YAML text as a tree whose every node knows its place, and all that is wrong with the text on the way.

Built from the parser's events, never by constructing objects: a tag cannot run anything, and an alias is a second
name for one node, so that what a text expands to is counted and not made.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import yaml

from parallel_orchestrator.config.yaml_nodes import Fault, Node, Place
from parallel_orchestrator.config.yaml_tabs import Untabbed, without_tabs
from parallel_orchestrator.store.yaml_marks import mark_at, mark_of
from parallel_orchestrator.store.yaml_scalars import PLAIN_TAGS, PREFIX, read_scalar

LONGEST_TEXT = 1_000_000
"""Bytes. Some thousand scenarios fit; parsing takes a fraction of a second."""
DEEPEST = 20
_PASSED = 1000
"""Levels below the deepest that are skipped, to read what follows them. The parser's time grows with their square."""
MOST_NODES = 30_000
MOST_CHARACTERS = 2_000_000
"""Of a text together with what its aliases stand for."""
MOST_DIRECTIVES = 100
"""%TAG, of which a scenario file needs none. The parser's time grows with their square."""
MOST_BOMBS = 3
"""Aliases that expand to too much, each of another origin, before the rest of the file is given up."""

_PARSER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_LONGEST_KEY = 40
_DIRECTIVE = re.compile(r"(?<![^\n\r\x85\u2028\u2029])%TAG")
_TAB = "a tab is no indentation in YAML; use spaces"


@dataclass
class _Frame:
    """A sequence or mapping whose end has not come yet."""

    node: Node
    anchor: str | None = None
    flow: bool = False
    """It is in brackets."""
    key: Node | None = None
    """Of a mapping: the key whose value comes next."""
    seen: dict[str, Place] = field(default_factory=dict)
    """Of a mapping: its keys so far."""


@dataclass
class _Builder:
    """Puts nodes together while the events come."""

    source: Untabbed
    faults: list[Fault] = field(default_factory=list)
    root: Node | None = None
    _open: list[_Frame] = field(default_factory=list)
    _anchors: dict[str, Node] = field(default_factory=dict)
    _sizes: dict[int, int] = field(default_factory=dict)
    """By a node's id: how many nodes it expands to, itself included."""
    _lengths: dict[int, int] = field(default_factory=dict)
    """By a node's id, if it has parts: how many characters they expand to."""
    _aliased: int = 0
    """Characters that aliases stood for so far."""
    _count: int = 0
    """Values so far, what aliases stand for included."""
    _written: int = 0
    """Values so far, an alias being one."""
    _bombs: int = 0
    _unread: set[str] = field(default_factory=set)
    """Anchors that expand to too much."""
    _below: int = 0
    """How many levels deeper than allowed."""
    _last: Node | None = None
    """What came last, if it was a scalar."""

    def take(self, event: Any) -> bool:
        """Take in one event; False when the text is given up."""
        place = self._place(event)
        self._last = None
        if place.line in self.source.guessed and isinstance(event, yaml.NodeEvent):
            self._tab(place.line)
        if self._below:
            return self._skip(event, place)
        if isinstance(event, yaml.DocumentStartEvent) and self.root is not None:
            return self._give_up(place, "a second document begins; a scenario file has one")
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event, place)
        if isinstance(event, yaml.ScalarEvent):
            self._last = self._scalar(event, place)
            return self._add(self._last, place, event.anchor)
        if isinstance(event, (yaml.SequenceStartEvent, yaml.MappingStartEvent)):
            return self._begin(event, place)
        if isinstance(event, (yaml.SequenceEndEvent, yaml.MappingEndEvent)):
            self._measure(self._open.pop().node)
        return True

    def _tab(self, line: int) -> None:
        """Something begins in a line with a tab before it, of which nobody knows yet whether it is in the way."""
        column = self.source.guessed.pop(line)
        if not (self._open and self._open[-1].flow):
            self.faults.append(Fault(Place(line, column), _TAB))

    def _begin(self, event: Any, place: Place) -> bool:
        self._check_tag(event, place)
        if len(self._open) >= DEEPEST:
            self.faults.append(Fault(place, f"nested deeper than {DEEPEST} levels"))
            self._below = 1
            return self._add(_unread(place), place, event.anchor)
        node = Node(place, [], "sequence" if isinstance(event, yaml.SequenceStartEvent) else "mapping")
        going_on = self._add(node, place, event.anchor)
        self._open.append(_Frame(node, event.anchor, event.flow_style))
        return going_on

    def _skip(self, event: Any, place: Place) -> bool:
        """Pass over what is nested too deep."""
        self._below += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if not isinstance(event, yaml.NodeEvent):
            return True
        if not isinstance(event, yaml.AliasEvent):
            self._check_tag(event, place)
            if event.anchor:
                self._anchors[event.anchor] = _unread(place)
        return self._below <= _PASSED and self._counted(1, place)

    def _alias(self, event: Any, place: Place) -> bool:
        target = self._anchors.get(event.anchor)
        if target is None:
            return self._unusable(place, f"the alias *{event.anchor} names nothing that stands before it")
        if any(frame.node is target for frame in self._open):
            return self._unusable(place, f"the alias *{event.anchor} stands inside what it names")
        if event.anchor not in self._unread and (bound := self._bound_passed(target)):
            self.faults.append(Fault(place, f"with this alias the file expands to more than {bound}"))
            self._bombs += 1
            # As if none had been there, so that another one is found where it stands.
            self._count, self._aliased = self._written, 0
            self._unread.add(event.anchor)
        if event.anchor not in self._unread:
            self._aliased += self._length(target)
            return self._add(target, place)
        self._unread |= {frame.anchor for frame in self._open if frame.anchor}
        return self._bombs <= MOST_BOMBS and self._add(_unread(place), place)

    def _bound_passed(self, target: Node) -> str:
        """Which bound is broken when one more alias stands for that; empty when none is."""
        if self._count + self._sizes.get(id(target), 1) > MOST_NODES:
            return f"{MOST_NODES:,} values"
        passed = len(self.source.text) + self._aliased + self._length(target) > MOST_CHARACTERS
        return f"{MOST_CHARACTERS:,} characters" if passed else ""

    def _length(self, node: Node) -> int:
        return self._lengths.get(id(node), len(node.value) if isinstance(node.value, str) else 0)

    def _unusable(self, place: Place, why: str) -> bool:
        self.faults.append(Fault(place, why))
        return self._add(_unread(place), place)

    def _add(self, node: Node, place: Place, anchor: str | None = None) -> bool:
        if not self._counted(self._sizes.get(id(node), 1), place):
            return False
        if anchor:
            self._anchors[anchor] = node
        if not self._open:
            self.root = node
        elif self._open[-1].node.kind == "sequence":
            self._open[-1].node.value.append(node)
        else:
            self._add_to_mapping(self._open[-1], node, place)
        return True

    def _counted(self, size: int, place: Place) -> bool:
        self._count += size
        self._written += 1
        if self._count > MOST_NODES:
            return self._give_up(place, f"up to here the file expands to more than {MOST_NODES:,} values")
        return True

    def _add_to_mapping(self, frame: _Frame, node: Node, place: Place) -> None:
        if frame.key is not None:
            frame.node.value.append((frame.key, node))
            frame.key = None
            return
        frame.key = node
        if node.kind == "unread":
            return
        if node.kind != "scalar" or not isinstance(node.value, str):
            self.faults.append(Fault(place, "a key has to be a word; put it in quotes"))
        elif (first := frame.seen.setdefault(node.value, place)) != place:
            shown = repr(node.value[:_LONGEST_KEY])
            self.faults.append(Fault(place, f"the key {shown} stands here twice, first in line {first.line}"))

    def _measure(self, node: Node) -> None:
        below = node.value if node.kind == "sequence" else [part for pair in node.value for part in pair]
        self._sizes[id(node)] = 1 + sum(self._sizes.get(id(part), 1) for part in below)
        self._lengths[id(node)] = sum(map(self._length, below))

    def _scalar(self, event: Any, place: Place) -> Node:
        self._check_tag(event, place)
        if not event.implicit[0]:
            return Node(place, event.value)
        value, complaint = read_scalar(event.value)
        # `yes` as a key can only mean the option --yes, so it needs no quotes.
        if complaint and not (event.value == "yes" and self._awaits_key()):
            self.faults.append(Fault(place, complaint))
        return Node(place, value)

    def _awaits_key(self) -> bool:
        """Whether the next node is a key of a mapping."""
        return bool(self._open) and self._open[-1].node.kind == "mapping" and self._open[-1].key is None

    def _check_tag(self, event: Any, place: Place) -> None:
        if event.tag and event.tag not in PLAIN_TAGS and event.tag != "!":
            shown = "!!" + event.tag.removeprefix(PREFIX) if event.tag.startswith(PREFIX) else event.tag
            self.faults.append(Fault(place, f"the tag {shown} is not allowed; a scenario file holds plain values only"))

    def _place(self, event: Any) -> Place:
        start, end = event.start_mark, event.end_mark
        length = end.column - start.column if end.line == start.line else 1
        return self.placed(start, max(1, length))

    def placed(self, mark: Any, length: int = 1) -> Place:
        """Where a mark of the parser stands in the text as it was given."""
        column = mark.column - self.source.longer.get(mark.line + 1, 0)
        return Place(mark.line + 1, max(0, column) + 1, length)

    def _give_up(self, place: Place, why: str) -> bool:
        self.faults.append(Fault(place, why, ends=True))
        return False

    def broken_off(self, fault: Fault) -> None:
        """The parser found no sense. What it read last may be more than was meant: up to a quote or a bracket."""
        self.faults.append(fault)
        if self._last and not (self._open and self._open[-1].key is self._last):
            self._last.kind, self._last.value = "unread", None
        if brackets := next((frame for frame in self._open if frame.flow), None):
            brackets.node.kind, brackets.node.value = "unread", None
            brackets.key = None

    def close(self) -> Node | None:
        """The tree as far as it was read."""
        for frame in self._open:
            frame.node.complete = False
            if frame.key is not None:
                frame.node.value.append((frame.key, _unread(frame.key.place)))
        return self.root


def _unread(place: Place) -> Node:
    return Node(place, None, "unread")


def read_tree(text: str) -> tuple[Node | None, list[Fault]]:
    """The tree of a text, as far as it can be read, and its faults. None when there is nothing in it."""
    if one_more := next(islice(_DIRECTIVE.finditer(text), MOST_DIRECTIVES, None), None):
        message = f"up to here there are more than {MOST_DIRECTIVES} %TAG directives; a scenario file needs none"
        mark = mark_at(text, one_more.start())
        return None, [Fault(Place(mark.line + 1, mark.column + 1), message, ends=True)]
    source = without_tabs(text, _PARSER)
    builder = _Builder(source, [Fault(Place(*place), _TAB) for place in source.tabs])
    try:
        all(map(builder.take, yaml.parse(source.text, Loader=_PARSER)))
    except yaml.YAMLError as error:
        place = builder.placed(mark_of(error, source.text))
        builder.broken_off(Fault(place, _parser_message(error, place, source), ends=True))
    return builder.close(), builder.faults


def _parser_message(error: yaml.YAMLError, place: Place, source: Untabbed) -> str:
    if not isinstance(error, yaml.MarkedYAMLError):
        return str(error).splitlines()[0]
    lines = source.text.splitlines()
    line = lines[place.line - 1] if place.line <= len(lines) else ""
    if "\t" in line[: len(line) - len(line.lstrip())] or line[place.column - 1 : place.column] == "\t":
        return _TAB
    if (error.problem or "").startswith("mapping values are not allowed"):
        return 'the colon here begins a value inside a text: put the whole text in quotes ("…"), or below `key: |`'
    context = f" ({error.context})" if error.context else ""
    guessed = f"; the tabs before it were read as {source.width} spaces each" if source.width else ""
    return f"{error.problem or 'this is not YAML'}{context}{guessed}"
