"""What pytest reports: its JUnit file and its summary line. Both are read as if the project forged them.

The summary line, "1 failed, 2 passed in 0.03s", goes through a pipe. What is written there cannot be changed
afterwards, while any code that runs meanwhile can rewrite the file.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from xml.etree import ElementTree

LARGEST_REPORT = 16_000_000
"""Bytes. Its elements take 25 times as much memory in this process."""
_TAIL = 1_500


class CaseEnding(Enum):
    """How one test ended."""

    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True)
class Case:
    """One test. A failed collection is a case, too, named after its file."""

    id: str
    file: str
    ending: CaseEnding
    message: str = ""
    """The tail of what a failure said."""
    dotted: str = ""
    """Module, classes and function without parameters; the module when its file could not be collected."""


def parse(report: bytes) -> list[Case] | None:
    """Return the cases of a report, or None when it is cut short, not XML, or has a document type (an XML bomb)."""
    try:
        text = report.decode()
        if "<!DOCTYPE" in text:
            return None
        root = ElementTree.fromstring(text)  # noqa: S314 - without a document type there are no entities to blow up
    except (ElementTree.ParseError, ValueError):
        return None
    return _merged([_case(element) for element in root.iter("testcase")])


def without(report: bytes, name: str) -> bytes:
    """Return a parsed report without the test `name`, so that people read about the project's own tests only."""
    root = ElementTree.fromstring(report.decode())  # noqa: S314 - `parse` has accepted it
    for suite in root.iter("testsuite"):
        for case in suite.findall("testcase"):
            if case.get("name") == name:
                suite.remove(case)
        suite.set("tests", str(len(suite.findall("testcase"))))
        suite.set("failures", str(len(suite.findall("testcase/failure"))))
    try:
        text: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    except RecursionError:  # nested a thousand deep: forged
        return report
    return text


def count(cases: list[Case]) -> Counter[CaseEnding]:
    """Count cases by ending."""
    return Counter(case.ending for case in cases)


def _case(element: ElementTree.Element) -> Case:
    file, name = element.get("file", ""), element.get("name", "")
    module = file.removesuffix(".py").replace("/", ".")
    classes = element.get("classname", "").removeprefix(module).strip(".").replace(".", "::")
    identity = "::".join(part for part in (file, classes, name) if part) if element.get("classname") else file or name
    dotted = ".".join(part for part in (element.get("classname"), name.partition("[")[0]) if part)
    for kind, ending in (("error", CaseEnding.FAILED), ("failure", CaseEnding.FAILED), ("skipped", CaseEnding.SKIPPED)):
        detail = element.find(kind)
        if detail is not None:
            return Case(identity, file, ending, (detail.text or detail.get("message") or "").strip()[-_TAIL:], dotted)
    return Case(identity, file, CaseEnding.PASSED, dotted=dotted)


def _merged(cases: list[Case]) -> list[Case]:
    """Return one case per id, the worst: pytest reports a test twice that passes and then fails to clean up."""
    worst: dict[str, Case] = {}
    rank = (CaseEnding.PASSED, CaseEnding.SKIPPED, CaseEnding.FAILED).index
    for case in cases:
        known = worst.get(case.id)
        if known is None or rank(case.ending) > rank(known.ending):
            worst[case.id] = case
    return list(worst.values())


_LINE = re.compile(
    r"(?<!\d)(?:\d{1,9} [a-z]{1,20}(?: [a-z]{1,20})?, ){0,12}\d{1,9} [a-z]{1,20}(?: [a-z]{1,20})? in \d[\d.]*s"
)
_COUNT = re.compile(r"(\d{1,9}) (passed|xpassed|failed|errors?)\b")


def contradicts(output: str, cases: Iterable[Case]) -> bool:
    """Whether the output's summary lines contradict the report: other failures than the canary, or fewer passes.

    Also true when there is no summary line. All of several lines count, so that an added line hides nothing.
    """
    endings = [case.ending for case in cases]
    lines = [_counts(line) for line in _LINE.findall(output)]
    failed = max((bad for _, bad in lines), default=0)
    passed = max((good for good, _ in lines), default=0)
    hidden = endings.count(CaseEnding.FAILED) == 1 and failed != 1
    return not lines or hidden or endings.count(CaseEnding.PASSED) > passed


def _counts(line: str) -> tuple[int, int]:
    """Return the passed and failed tests of one summary line."""
    numbers = [(int(number), kind.endswith("passed")) for number, kind in _COUNT.findall(line)]
    return sum(n for n, good in numbers if good), sum(n for n, good in numbers if not good)
