"""Scenario files that tests write, and what is said of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from parallel_orchestrator.config.options import Options
from parallel_orchestrator.config.scenarios import load_options
from parallel_orchestrator.records.errors import UsageError

SOME = "scenarios: [{name: a, requirements: B}]"
"""Scenarios without a fault."""


def load(folder: Path, content: str, only: str | None = None) -> Options:
    """The options of a scenario file with that content."""
    path = folder / "scenarios.yaml"
    path.write_text(content)
    return load_options(path, only)


def faults_of(folder: Path, content: str) -> list[str]:
    """LINE:COLUMN and message of each fault; the excerpts are checked to point there."""
    with pytest.raises(UsageError) as caught:
        load(folder, content)
    head, *told = str(caught.value).split("\n")
    path = folder / "scenarios.yaml"
    found = []
    while told:
        line = told.pop(0).removeprefix(f"{path}:")
        found.append(line)
        if told and " | " in told[0]:
            excerpt, caret = told.pop(0), told.pop(0)
            number, column, _ = line.split(":", 2)
            shown = content.splitlines()[int(number) - 1].replace("\t", " ")
            assert excerpt.startswith(f"{number:>5} | {shown}"[:20])
            assert caret.index("^") - len("      | ") == int(column) - 1
    assert head == f"{path}: {len(found)} {'fault' if len(found) == 1 else 'faults'}; nothing was started"
    return found


def bomb(levels: int, a: str = "a") -> str:
    """Aliases of aliases: ten to the power of so many levels."""
    lines = [f"{a}0: &{a}0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"{a}{n}: &{a}{n} [{', '.join([f'*{a}{n - 1}'] * 10)}]" for n in range(1, levels)]
    return "\n".join(lines)
