"""What is wrong with a scenario file, as a person reads it: each fault with its place, its line and a caret below."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from parallel_orchestrator.config.yaml_nodes import Fault, Place
from parallel_orchestrator.system import redact
from parallel_orchestrator.system.terminal_text import counted

MOST_FAULTS = 50
"""Faults of one file that are shown."""
LONGEST_LINE = 200
"""Characters of a line that are shown."""
_LONGEST_MESSAGE = 1000
_CREDENTIAL = re.compile(r"((?:key|token|secret|passw|credential)\w{0,40}[\"']?\s{0,9}:\s{0,9})\S.*", re.IGNORECASE)
"""A value that may be a credential of whatever form: the name says so."""


def faults_page(path: Path, text: str, faults: Sequence[Fault]) -> str:
    """The first faults of the file, in its order, and how many more there are."""
    lines = text.splitlines()
    ordered = sorted(dict.fromkeys(faults), key=lambda fault: (fault.place.line, fault.place.column))
    told = [f"{path}: {counted(len(ordered), 'fault')}; nothing was started"]

    @cache
    def cleaned(number: int) -> str:
        # Before it is cut to what is shown: half a key is found by nobody. And once: a line may be the whole file.
        line = lines[number - 1].replace("\t", " ")
        return _CREDENTIAL.sub(r"\1…", redact.foreign(line))

    for fault in ordered[:MOST_FAULTS] + [fault for fault in ordered[MOST_FAULTS:] if fault.ends]:
        told.append(f"{path}:{fault.place.line}:{fault.place.column}: {_cut(fault.message)}")
        told += _excerpt(cleaned(fault.place.line), fault.place) if fault.place.line <= len(lines) else []
    more = sum(not fault.ends for fault in ordered[MOST_FAULTS:])
    return "\n".join([*told, f"… and {more} more"] if more else told)


def _cut(message: str) -> str:
    return message if len(message) <= _LONGEST_MESSAGE else f"{message[:_LONGEST_MESSAGE]}…"


def _excerpt(line: str, place: Place) -> list[str]:
    from_ = max(0, place.column - 1 - LONGEST_LINE // 2)
    shown = line[from_ : from_ + LONGEST_LINE]
    caret = " " * (place.column - 1 - from_) + "^" * min(place.length, max(1, len(shown) - (place.column - 1 - from_)))
    return [f"{place.line:5} | {shown}", f"      | {caret}"]
