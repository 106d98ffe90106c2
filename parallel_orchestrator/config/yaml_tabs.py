"""Tabs in the indentation. They are no YAML; yet what follows is to be read, so that all faults are told at once."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, ClassVar

import yaml

from parallel_orchestrator.store.yaml_marks import mark_of

_LONGEST_TEXT = 50_000
"""Characters. In a longer text no place is sought for each tab: that takes some more passes of the parser."""
_MOST_TABS = 10
"""For which a place is sought one by one. All others are read as so many spaces as suit the text best."""
_MOST_PLACES = 20
"""That are tried for one line, and as many of those at which items of one line begin: no more levels are read."""
_WIDTHS = (2, 4, 8)
_MOST_EVENTS = 70_000
"""Of one parsing: more than a text has that is not too long for other reasons."""
_MOST_SOUGHT = 100_000
"""Events of all parsing after which no place is sought any more: some tenths of a second."""
_DEEPEST = 1020
"""Levels after which a text is parsed no further: the parser's time grows with their square."""
_LINES_BEFORE = 20
_BLANK = " \t"
_OPENS = re.compile(r"(:|[|>][-+]?)\s*$")
"""The end of a line after which what belongs to it stands further in."""


@dataclass
class Untabbed:
    """A text in which spaces stand for the tabs that the parser would have stumbled over."""

    text: str
    tabs: list[tuple[int, int]] = field(default_factory=list)
    """Line and column, from 1, of each first one of a line."""
    longer: dict[int, int] = field(default_factory=dict)
    """By line: how many characters more its indentation has now."""
    guessed: dict[int, int] = field(default_factory=dict)
    """Column of the first tab by line, of lines that were not looked at one by one. It may do no harm where it is."""
    given: Sequence[str] = ()
    """The lines as they were."""
    width: int = 0
    """Of a tab in those lines."""
    reached: int = 0
    """The line, from 0, in which the parser stumbles now; `_Parser.END` where it does in none."""


@dataclass
class _Parser:
    """Tells how far a text makes sense, and what telling it has cost."""

    END: ClassVar = sys.maxsize

    loader: Any
    events: int = 0
    """That it has gone through for all texts together."""

    @property
    def tired(self) -> bool:
        """It has done all that a search is worth."""
        return self.events >= _MOST_SOUGHT

    def stumbles_in(self, text: str) -> int:
        """The line, from 0, in which it finds no sense; END where it does everywhere."""
        depth = 0
        try:
            for event in islice(yaml.parse(text, Loader=self.loader), _MOST_EVENTS):
                self.events += 1
                depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
                if depth > _DEEPEST:
                    break
        except yaml.YAMLError as error:
            return int(mark_of(error, text).line)
        return self.END


def without_tabs(text: str, loader: Any) -> Untabbed:
    """The text with a likely indentation in place of each tab that is in the way."""
    lines, parser = text.splitlines(keepends=True), _Parser(loader)
    first = parser.stumbles_in(text) if "\t" in text else _Parser.END
    if not _is_tabbed(lines, first):
        return Untabbed(text)
    if len(text) > _LONGEST_TEXT:
        return _guessed(Untabbed(text), lines, first, parser)
    ways = (_sought(Untabbed(text, reached=first), parser), _guessed(Untabbed(text), lines, first, parser))
    return max(ways, key=lambda way: way.reached)


def _is_tabbed(lines: Sequence[str], number: int) -> bool:
    return number < len(lines) and "\t" in _lead(lines[number])


def _sought(found: Untabbed, parser: _Parser) -> Untabbed:
    """A place for one tabbed line after the other; for those after too many, spaces."""
    lines = found.text.splitlines(keepends=True)
    found.given = tuple(lines)
    while _is_tabbed(lines, found.reached):
        if len(found.tabs) == _MOST_TABS or parser.tired:
            return _guessed(found, lines, found.reached, parser)
        _seek(found, lines, parser)
        found.text = "".join(lines)
    return found


def _seek(found: Untabbed, lines: list[str], parser: _Parser) -> None:
    """Give the line that was reached the indentation with which the parser comes furthest."""
    number = found.reached
    lead, content = _lead(lines[number]), lines[number].lstrip(_BLANK)
    ways = sorted(_likely(lines[:number]), key=_unlike_before(lead, found.given[:number], lines))[:_MOST_PLACES]
    best = ways[0]
    for by in ways:
        reached = parser.stumbles_in("".join([*lines[:number], " " * by, content, *lines[number + 1 :]]))
        if by == ways[0] or reached > found.reached:
            best, found.reached = by, reached
        if reached == parser.END or parser.tired:
            break
    lines[number] = " " * best + content
    found.tabs.append((number + 1, lead.index("\t") + 1))
    found.longer[number + 1] = best - len(lead)


def _unlike_before(lead: str, given: Sequence[str], lines: Sequence[str]) -> Callable[[int], bool]:
    """What an indentation must not be by the line before, as that was given: as deep as it, or less deep."""
    before = next((number for number in reversed(range(len(given))) if given[number].strip()), None)
    if before is None or "\t" not in (its := _lead(given[before])):
        return lambda by: False
    at = len(_lead(lines[before]))
    if its == lead:
        return lambda by: by != at
    return lambda by: by >= at and its.startswith(lead)


def _guessed(found: Untabbed, lines: Sequence[str], first: int, parser: _Parser) -> Untabbed:
    """All lines from `first` on with spaces for tabs, so many for each that the parser comes furthest."""
    leads = {number: lead for number in range(first, len(lines)) if "\t" in (lead := _lead(lines[number]))}

    def spaced(width: int) -> str:
        return "".join(
            leads[number].replace("\t", " " * width) + line[len(leads[number]) :] if number in leads else line
            for number, line in enumerate(lines)
        )

    tried = {width: parser.stumbles_in(spaced(width)[:_LONGEST_TEXT]) for width in _WIDTHS}
    found.width = max(_WIDTHS, key=lambda width: tried[width])
    found.text, found.reached = spaced(found.width), tried[found.width]
    for number, lead in leads.items():
        found.guessed[number + 1] = lead.index("\t") + 1
        found.longer[number + 1] = lead.count("\t") * (found.width - 1)
    return found


def _likely(before: Sequence[str]) -> list[int]:
    """Indentations that a line may have after those: the likeliest first, no other than where something begins."""
    told = [line for line in before[-_LINES_BEFORE:] if line.strip() and not line.lstrip().startswith("#")]
    if not told:
        return [0]
    last = told[-1]
    beginnings = list(_beginnings(last))
    deeper = [beginnings[-1] + 2] if _OPENS.search(last) else []
    others = sorted({at for line in told for at in _beginnings(line)}, reverse=True)
    return list(dict.fromkeys([*deeper, *reversed(beginnings), *others]))


def _beginnings(line: str) -> Iterator[int]:
    """Columns, from 0, where the line's content and that of its list items begin."""
    at = len(_lead(line))
    yield at
    for _ in range(_MOST_PLACES):
        if line[at : at + 2] != "- ":
            break
        at += 2
        yield at


def _lead(line: str) -> str:
    return line[: len(line) - len(line.lstrip(_BLANK))]
