"""Tabs in the indentation. They are no YAML; yet what follows is to be read, so that all faults are told at once."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import yaml

_LONGEST_TEXT = 50_000
"""Characters. In a longer text no place is sought for each tab: that takes some more passes of the parser."""
_MOST_TABS = 10
"""For which a place is sought one by one. All others are read as so many spaces as suit the text best."""
_WIDTHS = (2, 4, 8)
_MOST_EVENTS = 70_000
"""More than a text has that is not too long for other reasons."""
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


def without_tabs(text: str, loader: Any) -> Untabbed:
    """The text with a likely indentation in place of each tab that is in the way."""
    lines = text.splitlines(keepends=True)
    first = _stumbles_in(text, loader) if "\t" in text else len(lines)
    if not _is_tabbed(lines, first):
        return Untabbed(text)
    if len(text) > _LONGEST_TEXT:
        return _guessed(Untabbed(text), lines, first, loader)
    ways = (_sought(text, loader), _guessed(Untabbed(text), lines, first, loader))
    return max(ways, key=lambda way: _stumbles_in(way.text, loader))


def _is_tabbed(lines: Sequence[str], number: int) -> bool:
    return number < len(lines) and "\t" in _lead(lines[number])


def _sought(text: str, loader: Any) -> Untabbed:
    """A place for one tabbed line after the other; for those after too many, spaces."""
    lines = text.splitlines(keepends=True)
    found = Untabbed(text, given=tuple(lines))
    while _is_tabbed(lines, number := _stumbles_in(found.text, loader)):
        if len(found.tabs) == _MOST_TABS:
            return _guessed(found, lines, number, loader)
        _seek(found, lines, number, loader)
        found.text = "".join(lines)
    return found


def _seek(found: Untabbed, lines: list[str], number: int, loader: Any) -> None:
    """Give one line the indentation with which the parser comes furthest."""
    lead, content = _lead(lines[number]), lines[number].lstrip(_BLANK)

    def reached(by: int) -> int:
        return _stumbles_in("".join([*lines[:number], " " * by, content, *lines[number + 1 :]]), loader)

    ways = sorted(_likely(lines[:number]), key=_unlike_before(lead, found.given[:number], lines))
    best = max(ways, key=reached)
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


def _guessed(found: Untabbed, lines: Sequence[str], first: int, loader: Any) -> Untabbed:
    """All lines from `first` on with spaces for tabs, so many for each that the parser comes furthest."""
    leads = {number: lead for number in range(first, len(lines)) if "\t" in (lead := _lead(lines[number]))}

    def spaced(width: int) -> str:
        return "".join(
            leads[number].replace("\t", " " * width) + line[len(leads[number]) :] if number in leads else line
            for number, line in enumerate(lines)
        )

    found.width = max(_WIDTHS, key=lambda width: _stumbles_in(spaced(width)[:_LONGEST_TEXT], loader))
    found.text = spaced(found.width)
    for number, lead in leads.items():
        found.guessed[number + 1] = lead.index("\t") + 1
        found.longer[number + 1] = lead.count("\t") * (found.width - 1)
    return found


def _stumbles_in(text: str, loader: Any) -> int:
    """The line, from 0, in which the parser finds no sense; that after the last where it does everywhere."""
    try:
        for _ in islice(yaml.parse(text, Loader=loader), _MOST_EVENTS):
            pass
    except yaml.MarkedYAMLError as error:
        if error.problem_mark:
            return int(error.problem_mark.line)
    except yaml.YAMLError:
        return 0
    return text.count("\n") + 1


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
    while line[at : at + 2] == "- ":
        at += 2
        yield at


def _lead(line: str) -> str:
    return line[: len(line) - len(line.lstrip(_BLANK))]
