"""pytest's JUnit report, read as the work of somebody who may have wanted to forge it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from enum import Enum
from xml.etree import ElementTree

LARGEST_REPORT = 16_000_000
"""Bytes. Its elements take 25 times as much memory in this process."""
_TAIL = 1_500


class Ending(Enum):
    """How one test ended."""

    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True)
class Case:
    """One test. A collection that failed is a case as well, named after its file."""

    id: str
    file: str
    ending: Ending
    message: str = ""
    """The tail of what a failure said."""
    dotted: str = ""
    """Module, classes and function, without parameters; a file's module where it could not be collected."""


def parse(report: bytes) -> list[Case] | None:
    """The cases of a report, or None when it is none: cut short, not XML, or with a document type (a bomb)."""
    try:
        text = report.decode()
        if "<!DOCTYPE" in text:
            return None
        root = ElementTree.fromstring(text)  # noqa: S314 - without a document type there are no entities to blow up
    except (ElementTree.ParseError, ValueError):
        return None
    return _merged([_case(element) for element in root.iter("testcase")])


def without(report: bytes, name: str) -> bytes:
    """A report that parses, without the test of that name: what people read has the project's own tests only."""
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


def count(cases: list[Case]) -> Counter[Ending]:
    """Cases by ending."""
    return Counter(case.ending for case in cases)


def _case(element: ElementTree.Element) -> Case:
    file, name = element.get("file", ""), element.get("name", "")
    module = file.removesuffix(".py").replace("/", ".")
    classes = element.get("classname", "").removeprefix(module).strip(".").replace(".", "::")
    identity = "::".join(part for part in (file, classes, name) if part) if element.get("classname") else file or name
    dotted = ".".join(part for part in (element.get("classname"), name.partition("[")[0]) if part)
    for kind, ending in (("error", Ending.FAILED), ("failure", Ending.FAILED), ("skipped", Ending.SKIPPED)):
        found = element.find(kind)
        if found is not None:
            return Case(identity, file, ending, (found.text or found.get("message") or "").strip()[-_TAIL:], dotted)
    return Case(identity, file, Ending.PASSED, dotted=dotted)


def _merged(cases: list[Case]) -> list[Case]:
    """One case per id, the worst: a test that passes and then fails to clean up is reported twice."""
    worst: dict[str, Case] = {}
    rank = (Ending.PASSED, Ending.SKIPPED, Ending.FAILED).index
    for case in cases:
        known = worst.get(case.id)
        if known is None or rank(case.ending) > rank(known.ending):
            worst[case.id] = case
    return list(worst.values())
