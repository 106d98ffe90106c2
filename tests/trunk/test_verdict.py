"""What counts as green, and that a verdict cannot be forged cheaply."""

from __future__ import annotations

from pathlib import Path

import pytest

from parallel_orchestrator.trunk import Red
from parallel_orchestrator.trunk.junit import parse
from tests.trunk.bench import ADD, TEST_ADD, Bench, merged, task

CALC = task(1, "src/calc.py", "tests/test_calc.py")
WITH_CONFTEST = task(1, "src/calc.py", "tests/test_calc.py", "tests/conftest.py")
BAD = "def test_bad():\n    assert 0\n"


def _red(bench: Bench, test: str, conftest: str | None = None) -> tuple[str, ...]:
    files = {"src/calc.py": ADD, "tests/test_calc.py": test}
    if conftest is not None:
        files["tests/conftest.py"] = conftest
    head = bench.trunk.head()
    result = bench.offer(WITH_CONFTEST if conftest is not None else CALC, files)
    assert isinstance(result, Red), result
    assert bench.trunk.head() == head
    return result.facts


@pytest.mark.parametrize(
    ("test", "fact"),
    [
        (BAD, "tests/test_calc.py::test_bad failed:"),
        ("class TestIt:\n    def test_bad(self):\n        assert 0\n", "tests/test_calc.py::TestIt::test_bad failed:"),
        ("import nowhere\n", "tests/test_calc.py failed:"),
        ("x = 1\n", "No passing test was added"),
        ("import pytest\npytestmark = pytest.mark.skip\ndef test_a(): pass\n", "All 1 tests are skipped"),
        ("import os\ndef test_a():\n    os._exit(0)\n", "pytest ended with 0 before it wrote its report"),
        ("import sys\ndef test_a(): pass\nsys.exit(0)\n", "pytest ended with"),
        ("import os, signal\ndef test_a():\n    os.kill(os.getpid(), 9)\n", "pytest ended with 137 before"),
        (
            "import os, sys, pathlib\ndef test_a():\n"
            "    out = [a for a in sys.argv if a.startswith('--junitxml')][0].partition('=')[2]\n"
            '    pathlib.Path(out).write_text(\'<testsuites><testsuite><testcase classname="tests.test_calc"'
            ' name="a" file="tests/test_calc.py"/></testsuite></testsuites>\')\n    os._exit(0)\n',
            "pytest ended with 0 and did not run all tests",
        ),
    ],
)
def test_red(bench: Bench, test: str, fact: str) -> None:
    assert _red(bench, test)[0].startswith(fact)


@pytest.mark.parametrize(
    "conftest",
    [
        "import pytest\n@pytest.hookimpl(hookwrapper=True)\ndef pytest_runtest_makereport():\n"
        "    r = yield\n    r.get_result().outcome = 'passed'\n    r.get_result().longrepr = None\n",
        "def pytest_collection_modifyitems(items):\n    items.clear()\n",
        "def pytest_sessionfinish(session):\n    session.exitstatus = 0\n",
        "import os\ndef pytest_unconfigure():\n    os._exit(0)\n",
        "import pytest\n@pytest.hookimpl(trylast=True)\ndef pytest_collection_modifyitems(items):\n"
        "    [i.add_marker(pytest.mark.skip) for i in items]\n",
    ],
)
def test_a_conftest_that_lies_proves_nothing(bench: Bench, conftest: str) -> None:
    assert _red(bench, TEST_ADD + BAD, conftest)[0].startswith("pytest ended with")


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
    assert facts[0].startswith("The tests did not end within 4 s")


def test_no_passing_test_may_get_lost(bench: Bench) -> None:
    merged(bench.offer(CALC, {"src/calc.py": ADD, "tests/test_calc.py": TEST_ADD + "def test_b(): pass\n"}))
    owner = task(2, "tests/test_calc.py", "docs/a.md")
    result = bench.offer(owner, {"docs/a.md": "a", "tests/test_calc.py": TEST_ADD})
    assert isinstance(result, Red)
    assert result.facts == ("1 tests pass; on the trunk 2 pass. No passing test may get lost.",)


def test_documents_are_merged_but_not_tested(bench: Bench) -> None:
    evidence = merged(bench.offer(task(1, "docs/a.md"), {"docs/a.md": "a"})).evidence
    assert evidence["tested"] == "merged, not tested"
    assert evidence["not_checked"] == ["docs/a.md"]


def test_changed_tests_of_its_own_count_as_proof(bench: Bench) -> None:
    merged(bench.offer(CALC, {"src/calc.py": ADD, "tests/test_calc.py": TEST_ADD}))
    again = task(2, "src/calc.py", "tests/test_calc.py")
    assert merged(bench.offer(again, {"src/calc.py": ADD + "#\n"})).evidence["tests"]["added"] == 0


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
