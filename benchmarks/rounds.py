"""Measuring several contestants fairly: each once a round, in an order that changes."""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.contestants import NotMeasured

ROOT = Path(__file__).resolve().parents[1]
Sample = Any
"""What one measurement gives: JSON."""


def interleaved(contestants: Mapping[str, Callable[[], Sample]], repeat: int) -> dict[str, Any]:
    """Samples by contestant, or the reason why it has none.

    A machine's speed drifts: whoever is compared is measured in the same minutes. Shuffled, so that nobody always
    runs after the same neighbour. A contestant that fails once is left out from then on, with what it said.
    """
    samples: dict[str, list[Sample]] = {name: [] for name in contestants}
    failed: dict[str, str] = {}
    order = random.Random(6)
    for number in range(1, repeat + 1):
        for name in order.sample(sorted(contestants), len(contestants)):
            if name in failed:
                continue
            print(f"  round {number} of {repeat}: {name}", flush=True)
            try:
                samples[name].append(contestants[name]())
            except NotMeasured as reason:
                failed[name] = str(reason)
                print(f"    not measured: {reason}", flush=True)
    return {name: {"not measured": failed[name]} if name in failed else taken for name, taken in samples.items()}


@contextmanager
def folder() -> Iterator[Path]:
    """A directory on the disk that the checkout is on: /tmp may be memory, where a sync costs nothing."""
    place = ROOT / ".bench"
    place.mkdir(exist_ok=True)
    with TemporaryDirectory(dir=place, ignore_cleanup_errors=True) as name:
        yield Path(name)


def middle(values: Sequence[float]) -> float:
    """The median."""
    return statistics.median(values)


def spread(values: Sequence[float], form: str = ".2f") -> str:
    """Median and range: `1.02 [1.01-1.04]`."""
    return f"{middle(values):{form}} [{min(values):{form}}-{max(values):{form}}]"


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; the first column is text, the others are figures."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
