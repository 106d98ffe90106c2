"""A test that comes with a change has to pass every time; a flaky one of the trunk is held against nobody."""

from __future__ import annotations

from pathlib import Path

import pytest

from parallel_orchestrator.trunk import TestsFailed
from tests.trunk.bench import ADD, TEST_ADD, Bench, merged, task, write

CALC = task(1, "src/calc.py", "tests/test_calc.py")
TEXT = task(2, "src/text.py", "tests/test_text.py")
SHOUT = "def shout(text):\n    return text.upper() + '!'\n"
TEST_SHOUT = "from text import shout\n\n\ndef test_shout():\n    assert shout('a') == 'A!'\n"
OLD_FLAKY = "tests/test_calc.py::test_moody"


def fails_once(folder: Path, name: str = "second_time") -> str:
    """Source of a function that fails at its first call in the life of `folder`, and never again."""
    return f"""
import pathlib


def {name}():
    seen = pathlib.Path({str(folder)!r}) / "seen"
    first = not seen.exists()
    seen.touch()
    assert not first
"""


def moody(switch: Path) -> str:
    """Source of a test that fails once after `switch` was made, and passes otherwise."""
    return f"""
import pathlib


def test_moody():
    switch = pathlib.Path({str(switch)!r})
    if switch.exists():
        switch.unlink()
        assert False, "moody"
"""


FUNCTION = "def test_it():\n    second_time()\n"
CLASS = "class TestIt:\n    def test_it(self):\n        second_time()\n"
UNITTEST = "import unittest\n\n\nclass TestIt(unittest.TestCase):\n    def test_it(self):\n        second_time()\n"
PARAMETRISED = "import pytest\n\n\n@pytest.mark.parametrize('n', ['a::b[c]'])\ndef test_it(n):\n    second_time()\n"
INHERITED = CLASS.replace("TestIt", "Base") + "\n\nclass TestIt(Base):\n    pass\n"


@pytest.mark.parametrize(
    ("test", "name"),
    [
        (FUNCTION, "test_it"),
        (CLASS, "TestIt::test_it"),
        (UNITTEST, "TestIt::test_it"),
        (PARAMETRISED, "test_it[a::b[c]]"),
        (INHERITED, "TestIt::test_it"),
    ],
    ids=["function", "class", "unittest", "parametrised", "inherited"],
)
def test_a_new_test_that_fails_once_goes_back_to_its_author(bench: Bench, tmp_path: Path, test: str, name: str) -> None:
    flaky = f"{fails_once(tmp_path)}\n\n{test}"
    head = bench.trunk.head()
    result = bench.offer(CALC, {"src/calc.py": ADD, "tests/test_calc.py": TEST_ADD + flaky})
    assert isinstance(result, TestsFailed)
    (fact,) = result.facts
    assert fact.startswith(
        f"tests/test_calc.py::{name} failed once and passed when repeated. A test must pass every time"
    )
    assert "assert not first" in fact
    assert result.head == head == bench.trunk.head()


def test_a_file_of_tests_that_cannot_be_collected_once_goes_back(bench: Bench, tmp_path: Path) -> None:
    flaky = f"{fails_once(tmp_path)}\n\nsecond_time()\n"
    result = bench.offer(CALC, {"src/calc.py": ADD, "tests/test_calc.py": TEST_ADD + flaky})
    assert isinstance(result, TestsFailed)
    assert result.facts[0].startswith("tests/test_calc.py failed once and passed when repeated.")


def test_it_is_still_new_in_a_repair_round(bench: Bench, tmp_path: Path) -> None:
    files = {"src/calc.py": ADD, "tests/test_calc.py": TEST_ADD + "def test_bad():\n    assert 0\n"}
    first = bench.offer(CALC, files)
    assert isinstance(first, TestsFailed)
    folder = bench.run.workspace(1, "task_1", 1)
    write(folder, {"tests/test_calc.py": f"{TEST_ADD}{fails_once(tmp_path)}\n\n{FUNCTION}"})
    second = bench.submit(CALC, first.head)
    assert isinstance(second, TestsFailed)
    assert second.facts[0].startswith("tests/test_calc.py::test_it failed once")
    merged(bench.submit(CALC, second.head))


@pytest.mark.parametrize("changed", ["", "    assert add(1, 1) == 2\n"], ids=["as it was", "changed"])
def test_in_a_file_that_was_there_only_what_changed_is_new(bench: Bench, tmp_path: Path, changed: str) -> None:
    switch = tmp_path / "switch"
    before = TEST_ADD + moody(switch)
    merged(bench.offer(CALC, {"src/calc.py": ADD, "tests/test_calc.py": before}))
    switch.touch()
    again = task(2, "src/calc.py", "tests/test_calc.py")
    after = f"{before}{changed}\n\ndef test_more():\n    assert add(2, 2) == 4\n"
    result = bench.offer(again, {"src/calc.py": ADD + "#\n", "tests/test_calc.py": after})
    if changed:
        assert isinstance(result, TestsFailed)
        assert result.facts[0].startswith(f"{OLD_FLAKY} failed once")
    else:
        assert merged(result).evidence.as_json()["flaky"] == [OLD_FLAKY]


def test_a_flaky_test_that_moves_is_its_movers(bench: Bench, tmp_path: Path) -> None:
    switch = tmp_path / "switch"
    merged(bench.offer(CALC, {"src/calc.py": ADD, "tests/test_calc.py": TEST_ADD + moody(switch)}))
    switch.touch()
    mover = task(2, "src/calc.py", "tests/test_calc.py", "tests/test_moved.py")
    moved = {"src/calc.py": ADD, "tests/test_calc.py": TEST_ADD, "tests/test_moved.py": moody(switch)}
    result = bench.offer(mover, moved)
    assert isinstance(result, TestsFailed)
    assert result.facts[0].startswith("tests/test_moved.py::test_moody failed once")


def test_a_new_test_that_falls_with_a_flaky_one_of_the_trunk_is_not_held_against_it(
    bench: Bench, tmp_path: Path
) -> None:
    """The old test leaves its mark in the process, and the new one trips over it."""
    switch = tmp_path / "switch"
    polluting = moody(switch).replace(
        "        switch.unlink()\n", "        switch.unlink()\n        add.broken = True\n"
    )
    merged(bench.offer(CALC, {"src/calc.py": ADD, "tests/test_calc.py": TEST_ADD + polluting}))
    switch.touch()
    trips = "from calc import add\n" + TEST_SHOUT + "    assert not hasattr(add, 'broken')\n"
    result = merged(bench.offer(TEXT, {"src/text.py": SHOUT, "tests/test_text.py": trips}))
    assert result.evidence.as_json()["flaky"] == [OLD_FLAKY, "tests/test_text.py::test_shout"]


def test_a_run_that_breaks_off_once_names_no_test_and_is_held_against_nobody(bench: Bench, tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    dies = f"""
import os
import pathlib


def test_dies_once():
    seen = pathlib.Path({str(seen)!r})
    if not seen.exists():
        seen.touch()
        os._exit(3)
"""
    result = merged(bench.offer(CALC, {"src/calc.py": ADD, "tests/test_calc.py": TEST_ADD + dies}))
    assert result.evidence.as_json()["flaky"] == ["the test run itself"]


def test_a_test_of_the_trunk_that_fails_always_excuses_no_new_one(bench: Bench, tmp_path: Path) -> None:
    switch = tmp_path / "switch"
    always = moody(switch).replace("switch.unlink()", "pass")
    merged(bench.offer(CALC, {"src/calc.py": ADD, "tests/test_calc.py": TEST_ADD + always}))
    switch.touch()
    flaky = f"{TEST_SHOUT}{fails_once(tmp_path)}\n\n{FUNCTION}"
    result = bench.offer(TEXT, {"src/text.py": SHOUT, "tests/test_text.py": flaky})
    assert isinstance(result, TestsFailed)
    assert [fact.partition(".py::")[0] for fact in result.facts] == ["tests/test_text"]
    assert result.facts[0].startswith("tests/test_text.py::test_it failed once")
