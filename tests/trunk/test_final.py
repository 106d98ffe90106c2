"""The last checks, and files that we publish ourselves."""

from __future__ import annotations

import pytest

from parallel_orchestrator.trunk import Coverage, TestCounts
from tests.trunk.bench import ADD, TEST_ADD, Bench, merged, task, tree_of

CALC = task(1, "src/calc.py", "tests/test_calc.py", "docs/calc.md")
EXTRA = "\n\ndef never(a):\n    return a\n"
GOOD = {"src/calc.py": ADD + EXTRA, "tests/test_calc.py": TEST_ADD, "docs/calc.md": "# Calc\n\n\nText\n"}


def test_final_checks_of_a_green_trunk(bench: Bench) -> None:
    merged(bench.offer(CALC, GOOD))
    before = tree_of(bench.run.root)
    verify = ["test -f src/calc.py && echo 1 > made", "cat made; PYTHONPATH=src python -c 'import calc'"]
    report = bench.trunk.final_checks(verify)
    assert report.green
    assert report.commit == bench.trunk.head()
    assert report.tests == TestCounts(passed=1)
    assert report.coverage == Coverage(covered=3, statements=4)
    assert report.coverage.percent == 75.0
    assert [(result.command, result.code) for result in report.verify] == [(command, 0) for command in verify]
    assert report.verify[1].output == "1\n"
    assert report.lines == {"src": 4, "tests": 3, "docs": 2}
    assert (bench.run.evidence / "final.junit.xml").exists()
    assert (bench.run.evidence / "coverage.json").exists()
    after = {path: kept for path, kept in tree_of(bench.run.root).items() if not path.startswith(".git")}
    assert after == {path: kept for path, kept in before.items() if not path.startswith(".git")}


def test_a_verify_command_that_fails_decides(bench: Bench) -> None:
    merged(bench.offer(CALC, GOOD))
    report = bench.trunk.final_checks(["echo no; exit 3"])
    assert not report.green
    assert (report.verify[0].code, report.verify[0].output) == (3, "no\n")
    assert report.facts == ()


def test_a_trunk_without_tests_is_not_green(bench: Bench) -> None:
    report = bench.trunk.final_checks([])
    assert not report.green
    assert report.facts == ("No test passed.",)
    assert report.coverage is None
    assert report.lines == {"src": 0, "tests": 0, "docs": 0}


FORGES_COVERAGE = """
import pathlib
CONTENT = {content}
if pathlib.Path("src").exists():
    pathlib.Path("coverage.py").write_text(
        "import pathlib, sys\\n"
        f"pathlib.Path(sys.argv[-1]).write_text({{CONTENT!r}})"
    )
"""


@pytest.mark.parametrize(
    "content",
    [
        '"[" * 200_000',
        """'{"totals": {"covered_lines": Infinity, "num_statements": 1}}'""",
        """'{"totals": {"covered_lines": 9, "num_statements": 1}}'""",
        """'{"totals": {"covered_lines": -9, "num_statements": -1}}'""",
        '"x" * 17_000_000',
    ],
    ids=["deep", "infinite", "too much", "negative", "long"],
)
def test_a_report_on_coverage_that_the_tests_wrote_is_not_believed(bench: Bench, content: str) -> None:
    """They leave a module where the interpreter looks first, for the command that writes the report."""
    forging = TEST_ADD + FORGES_COVERAGE.format(content=content)
    merged(bench.offer(CALC, {**GOOD, "tests/test_calc.py": forging}))
    report = bench.trunk.final_checks([])
    assert report.tests.passed == 1
    assert report.coverage is None


def test_publish_commits_what_changed_and_keeps_the_count_of_tests(bench: Bench) -> None:
    merged(bench.offer(CALC, GOOD))
    head = bench.trunk.head()
    published = bench.trunk.publish({"README.md": b"hello\n", "docs/plan.json": b"{}"}, "Describe the result")
    assert published == bench.trunk.head() != head
    assert bench.trunk.publish({"README.md": b"hello\n"}, "Again") == published
    assert bench.subjects()[-1] == "Describe the result"
    assert bench.git("log", "-1", "--format=%(trailers:key=Tests-Passed,valueonly)") == "1"
    assert (bench.run.root / "docs/plan.json").read_text() == "{}"
    assert bench.git("status", "--porcelain") == ""
