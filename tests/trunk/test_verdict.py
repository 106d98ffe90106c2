"""What counts as green, and that a verdict cannot be forged cheaply."""

from __future__ import annotations

from pathlib import Path

import pytest

from parallel_orchestrator.trunk import TestsFailed
from parallel_orchestrator.trunk.git.repository import Repository
from parallel_orchestrator.trunk.testing.junit import Case, CaseEnding, contradicts, parse
from parallel_orchestrator.trunk.testing.testbench import TestBench
from tests.trunk.bench import ADD, TEST_ADD, Bench, merged, run_plainly, task, write

CALC = task(1, "src/calc.py", "tests/test_calc.py")
WITH_CONFTEST = task(1, "src/calc.py", "tests/test_calc.py", "tests/conftest.py")
BAD = "def test_bad():\n    assert 0\n"


def _red(bench: Bench, test: str, conftest: str | None = None) -> tuple[str, ...]:
    files = {"src/calc.py": ADD, "tests/test_calc.py": test}
    if conftest is not None:
        files["tests/conftest.py"] = conftest
    head = bench.trunk.head()
    result = bench.offer(WITH_CONFTEST if conftest is not None else CALC, files)
    assert isinstance(result, TestsFailed), result
    assert bench.trunk.head() == head
    return result.facts


@pytest.mark.parametrize(
    ("test", "fact"),
    [
        (BAD, "tests/test_calc.py::test_bad failed:"),
        ("class TestIt:\n    def test_bad(self):\n        assert 0\n", "tests/test_calc.py::TestIt::test_bad failed:"),
        ("import nowhere\n", "tests/test_calc.py failed:"),
        ("x = 1\n", "No passing test was added"),
        ("import pytest\npytestmark = pytest.mark.skip\ndef test_a(): pass\n", "All tests are skipped (1)"),
        ("import os\ndef test_a():\n    os._exit(0)\n", "pytest ended with 0 before it wrote its report"),
        ("import sys\ndef test_a(): pass\nsys.exit(0)\n", "pytest ended with"),
        ("import os, signal\ndef test_a():\n    os.kill(os.getpid(), 9)\n", "pytest ended with 137 before"),
        (
            "import os, sys, pathlib\ndef test_a():\n"
            "    out = [a for a in sys.argv if a.startswith('--junitxml')][0].partition('=')[2]\n"
            '    pathlib.Path(out).write_text(\'<testsuites><testsuite><testcase classname="tests.test_calc"'
            ' name="a" file="tests/test_calc.py"/></testsuite></testsuites>\')\n    os._exit(0)\n',
            "pytest ended with 0 and did not run every test",
        ),
    ],
)
def test_red(bench: Bench, test: str, fact: str) -> None:
    assert _red(bench, test)[0].startswith(fact)


@pytest.mark.parametrize(
    ("conftest", "reason"),
    [
        (
            "import pytest\n@pytest.hookimpl(hookwrapper=True)\ndef pytest_runtest_makereport():\n"
            "    r = yield\n    r.get_result().outcome = 'passed'\n    r.get_result().longrepr = None\n",
            "pytest ended with 0, and a test that must fail was not reported as failed",
        ),
        ("def pytest_collection_modifyitems(items):\n    items.clear()\n", "pytest ended with 5 and did not run every"),
        (
            "def pytest_sessionfinish(session):\n    session.exitstatus = 0\n",
            "pytest ended with 0 although a test failed",
        ),
        ("import os\ndef pytest_unconfigure():\n    os._exit(0)\n", "pytest ended with 0 although a test failed"),
        (
            "import pytest\n@pytest.hookimpl(trylast=True)\ndef pytest_collection_modifyitems(items):\n"
            "    [i.add_marker(pytest.mark.skip) for i in items]\n",
            "pytest ended with 0, and a test that must fail was not reported as failed",
        ),
    ],
)
def test_a_conftest_that_lies_proves_nothing(bench: Bench, conftest: str, reason: str) -> None:
    assert _red(bench, TEST_ADD + BAD, conftest)[0].startswith(reason)


HIDES_BAD = "def pytest_collection_modifyitems(items):\n    items[:] = [i for i in items if 'bad' not in i.name]\n"
CLASSES = """
import unittest
import pytest


class TestIt:
    def test_bad(self): pass


class TestOther(unittest.TestCase):
    def test_bad(self): pass


class TestNone:
    __test__ = False
    def test_bad_but_not_collected(self): pass


class TestMade:
    def __init__(self): pass
    def test_bad_but_not_collected(self): pass


@pytest.fixture
def test_bad_client(): return 1


@pytest.mark.parametrize("n", [1, 2])
def test_bad_too(n, test_bad_client): pass
"""


def test_a_test_that_is_defined_has_to_run(bench: Bench) -> None:
    facts = _red(bench, CLASSES, HIDES_BAD)
    assert [fact.partition(" is defined and did not run")[0] for fact in facts] == [
        "tests/test_calc.py::TestIt::test_bad",
        "tests/test_calc.py::TestOther::test_bad",
        "tests/test_calc.py::test_bad_too",
    ]


@pytest.mark.filterwarnings("ignore")
def test_all_forms_of_tests_are_accounted_for(bench: Bench) -> None:
    merged(bench.offer(CALC, {"src/calc.py": ADD, "tests/test_calc.py": CLASSES + TEST_ADD}))


def test_a_file_that_is_skipped_as_a_whole_tells_of_all_in_it(bench: Bench) -> None:
    skipped = "import pytest\n\nif True:\n    pytest.skip(allow_module_level=True)\n" + TEST_ADD
    more = task(1, "src/calc.py", "tests/test_calc.py", "tests/test_more.py")
    merged(bench.offer(more, {"src/calc.py": ADD, "tests/test_calc.py": TEST_ADD, "tests/test_more.py": skipped}))


@pytest.mark.parametrize(
    "path",
    ["src/calc.py", "pyproject.toml", "tests/conftest.py"],
)
def test_tests_may_not_change_the_code_that_they_test(bench: Bench, path: str) -> None:
    test = f"import pathlib\npathlib.Path({path!r}).write_text('[tool.x]')\n" + TEST_ADD
    assert _red(bench, test)[0].startswith(f"The tests changed code while they ran: {path}.")


@pytest.mark.parametrize(
    ("output", "report", "wrong"),
    [
        ("1 failed, 2 passed in 0.03s", ["failed", "passed", "passed"], False),
        (
            "1 failed, 1 passed, 1 xfailed, 1 xpassed, 2 subtests passed in 61.03s (0:01:01)",
            ["failed", "passed"],
            False,
        ),
        ("2 failed, 1 passed, 1 error in 0.03s", ["failed", "failed", "passed"], False),
        ("2 failed, 1 passed in 0.03s", ["failed", "passed"], True),
        ("1 failed, 1 passed, 1 error in 0.03s", ["failed", "passed"], True),
        ("1 failed, 1 passed in 0.03s", ["failed", "passed", "passed"], True),
        ("2 failed, 1 passed in 0.03s\n1 failed, 1 passed in 0.03s", ["failed", "passed"], True),
        ("", ["failed", "passed"], True),
    ],
)
def test_the_report_has_to_be_what_was_printed(output: str, report: list[str], wrong: bool) -> None:
    cases = [Case(f"t{number}", "t", CaseEnding(ending)) for number, ending in enumerate(report)]
    assert contradicts(output, cases) is wrong


def test_pytest_is_configured_by_us_alone(bench: Bench) -> None:
    """A pytest.ini goes before pyproject.toml wherever one gets to the top of the tree."""
    write(bench.workspace(CALC), {"pytest.ini": "[pytest]\naddopts = -k nothing\n", "tests/test_calc.py": BAD})
    tree = bench.trunk.snapshot(bench.run.workspace(1, "task_1", 1))
    repository = Repository(bench.run)
    report = TestBench(repository.objects, run_plainly, 60).test(repository.tree(tree))
    assert report.red == {"tests/test_calc.py::test_bad"}


def test_facts_name_no_scratch_path(bench: Bench) -> None:
    (fact,) = _red(bench, "import nowhere\n")
    assert "merge-" not in fact
    assert "No module named 'nowhere'" in fact


def test_a_flood_of_failures_is_cut_short(bench: Bench) -> None:
    many = "import pytest\n@pytest.mark.parametrize('n', range(50))\ndef test_n(n):\n    assert 0, 'x' * 9000\n"
    facts = _red(bench, many)
    assert facts[-1] == "30 more tests failed."
    assert len("".join(facts)) < 40_000


def test_tests_that_never_end(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "out", test_timeout_s=4)
    bench.trunk.create()
    facts = _red(bench, "import time\ndef test_a():\n    time.sleep(60)\n")
    assert facts[0].startswith("The tests ran longer than 4 s")


def test_no_passing_test_may_get_lost(bench: Bench) -> None:
    merged(bench.offer(CALC, {"src/calc.py": ADD, "tests/test_calc.py": TEST_ADD + "def test_b(): pass\n"}))
    owner = task(2, "tests/test_calc.py", "docs/a.md")
    result = bench.offer(owner, {"docs/a.md": "a", "tests/test_calc.py": TEST_ADD})
    assert isinstance(result, TestsFailed)
    assert result.facts == ("Passing tests with your work: 1; without it: 2. No passing test may be lost.",)


def test_documents_are_merged_but_not_tested(bench: Bench) -> None:
    evidence = merged(bench.offer(task(1, "docs/a.md"), {"docs/a.md": "a"})).evidence.as_json()
    assert evidence["tested"] == "merged, not tested"
    assert evidence["not_checked"] == ["docs/a.md"]


def test_changed_tests_of_its_own_count_as_proof(bench: Bench) -> None:
    merged(bench.offer(CALC, {"src/calc.py": ADD, "tests/test_calc.py": TEST_ADD}))
    again = task(2, "src/calc.py", "tests/test_calc.py")
    assert merged(bench.offer(again, {"src/calc.py": ADD + "#\n"})).evidence.as_json()["tests"]["added"] == 0


def test_a_test_counts_as_defined_however_its_source_is_nested(bench: Bench) -> None:
    """What the inventory reads, it reads without recursion: that would end this very process."""
    deep = "a" + ".b" * 600
    hidden = (
        "class A:\n    def __getattr__(self, _): return self\n    def __call__(self, f): return None\n\n\na = A()\n"
    )
    facts = _red(bench, f"{TEST_ADD}\n\n{hidden}\n\n@{deep}\ndef test_bad():\n    assert 0\n")
    assert facts[0].startswith("tests/test_calc.py::test_bad is defined and did not run")
    stranger = f"\n\n{hidden}\n\nclass TestX(type({deep})):\n    def test_bad(self): pass\n"
    merged(bench.offer(CALC, {"src/calc.py": ADD, "tests/test_calc.py": TEST_ADD + stranger}))


def test_folders_that_tests_make_may_be_deep(bench: Bench) -> None:
    nests = "import os\n\n\ndef test_deep():\n    for _ in range(1100):\n        os.mkdir('d')\n        os.chdir('d')\n"
    merged(bench.offer(CALC, {"src/calc.py": ADD, "tests/test_calc.py": TEST_ADD + nests}))


@pytest.mark.parametrize(
    "report",
    [
        b"",
        b"<testsuites>",
        b"\xff",
        b'<!DOCTYPE x [<!ENTITY a "b">]><x>&a;</x>',
        '<?xml version="1.0" encoding="utf-16"?><!DOCTYPE x [<!ENTITY a "b">]><x>&a;</x>'.encode("utf-16"),
    ],
)
def test_what_is_no_report(report: bytes) -> None:
    assert parse(report) is None
