"""Tabs in the indentation. They are no YAML; yet what follows is to be read, so that all faults are told at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

_LONGEST_TEXT = 50_000
"""Characters. In a longer text the first tab alone is told: each one takes some more passes of the parser."""
_MOST_TABS = 10
_LINES_BEFORE = 20
_BLANK = " \t"


@dataclass
class Untabbed:
    """A text in which spaces stand for the tabs that the parser would have stumbled over."""

    text: str
    tabs: list[tuple[int, int]] = field(default_factory=list)
    """Line and column, from 1, of each first one of a line."""
    longer: dict[int, int] = field(default_factory=dict)
    """By line: how many characters more its indentation has now."""


def without_tabs(text: str, loader: Any) -> Untabbed:
    """The text with a likely indentation in place of each tab that is in the way."""
    found = Untabbed(text)
    if "\t" not in text or len(text) > _LONGEST_TEXT:
        return found
    lines = text.splitlines(keepends=True)
    for _ in range(_MOST_TABS):
        number = _stumbles_in("".join(lines), loader)
        lead = _lead(lines[number]) if number < len(lines) else ""
        if "\t" not in lead:
            break
        content = lines[number].lstrip(_BLANK)

        def indented(by: int, number: int = number, content: str = content) -> str:
            return "".join([*lines[:number], " " * by, content, *lines[number + 1 :]])

        best = max(_likely(lines[:number]), key=lambda by: _stumbles_in(indented(by), loader))
        lines[number] = " " * best + content
        found.tabs.append((number + 1, lead.index("\t") + 1))
        found.longer[number + 1] = best - len(lead)
    found.text = "".join(lines)
    return found


def _stumbles_in(text: str, loader: Any) -> int:
    """The line, from 0, in which the parser finds no sense; that after the last where it does everywhere."""
    try:
        for _ in yaml.parse(text, Loader=loader):
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
    deeper = [beginnings[-1] + 2] if last.rstrip().endswith(":") else []
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
