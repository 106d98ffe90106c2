"""pytest's closing line, "1 failed, 2 passed in 0.03s", beside its report.

The line goes through a pipe: what was written there cannot be taken back, as a file can be
rewritten by anything that runs meanwhile.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from parallel_orchestrator.trunk.testing.junit import Case, Ending

_LINE = re.compile(
    r"(?<!\d)(?:\d{1,9} [a-z]{1,20}(?: [a-z]{1,20})?, ){0,12}\d{1,9} [a-z]{1,20}(?: [a-z]{1,20})? in \d[\d.]*s"
)
_COUNT = re.compile(r"(\d{1,9}) (passed|xpassed|failed|errors?)\b")


def contradicts(output: str, cases: Iterable[Case]) -> bool:
    """Whether the output tells of a failure where the report's only one is the canary, or of fewer passing tests.

    Also when there is no such line. Where there are several, each has a say: whoever adds one hides nothing.
    """
    endings = [case.ending for case in cases]
    lines = [_counts(line) for line in _LINE.findall(output)]
    failed = max((bad for _, bad in lines), default=0)
    passed = max((good for good, _ in lines), default=0)
    hidden = endings.count(Ending.FAILED) == 1 and failed != 1
    return not lines or hidden or endings.count(Ending.PASSED) > passed


def _counts(line: str) -> tuple[int, int]:
    """Passed and failed tests in one closing line."""
    found = [(int(number), kind.endswith("passed")) for number, kind in _COUNT.findall(line)]
    return sum(n for n, good in found if good), sum(n for n, good in found if not good)
