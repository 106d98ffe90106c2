"""Puts the `line_recorder` into a copy of a project before its tests run, and reads what it wrote."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from parallel_orchestrator.trunk.changes.folder import read_plain
from parallel_orchestrator.trunk.changes.own import OwnFiles
from parallel_orchestrator.trunk.testing.proof import LARGEST_RECORD, Ran, parse_record

_SUFFIX = "_lines"
"""How the recorder's module is named, after the canary. A pytest that was started early looks for it."""


def add_recorder(folder: Path, name: str, own: OwnFiles | None) -> tuple[str, ...]:
    """Add it to the project in `folder`; pytest's arguments for it. Empty where nothing is or can be recorded."""
    if not own or not own.sources or not own.tests or _shadows_coverage(folder):
        return ()
    (folder / f"{name}{_SUFFIX}.py").write_text(f"{_source()}\n\nTESTS = {tuple(sorted(own.tests))!r}\n")
    return ("-p", f"{name}{_SUFFIX}")


def read_record(folder: Path, results: Path, name: str) -> Ran:
    """What the tests ran, by a recorder that was to be added; nothing where there was no reason to."""
    if (folder / f"{name}{_SUFFIX}.py").exists():
        return parse_record(read_plain(results / f"{name}.json", LARGEST_RECORD))
    return Ran(doubt="the project has a module named coverage") if _shadows_coverage(folder) else Ran()


def _shadows_coverage(folder: Path) -> bool:
    """Whether the project has such a module: with the recorder, its tests would get the wrong one."""
    places = (folder / root / name for root in ("src", "tests") for name in ("coverage", "coverage.py"))
    return any(place.exists() for place in places)


@cache
def _source() -> str:
    return Path(__file__).with_name("line_recorder.py").read_text()
