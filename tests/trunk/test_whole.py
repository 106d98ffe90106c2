"""A fix task's work, judged as the whole: what is taken, what comes back, and which commands may be corrected."""

from __future__ import annotations

import json
from typing import Any

import pytest

from parallel_orchestrator.records.fix import CORRECTIONS, FixTask, fix_task
from parallel_orchestrator.records.journals.red_whole import FailedCommand, RedWhole
from parallel_orchestrator.trunk import Conflict, Merged, Rejected, Submission, TestsFailed, VerifyResult
from tests.trunk.bench import ADD, TEST_ADD, Bench, Claim, merged, plan, task, write

CALC = task(1, "src/calc.py", "tests/test_calc.py")
PLAN = plan(CALC)
HELLO = "PYTHONPATH=src python -c 'import calc; calc.hello()'"
WITH_HELLO = ADD + "\n\ndef hello():\n    return 'hello'\n"


def _failed(command: str, *, correctable: bool = False) -> FailedCommand:
    return FailedCommand(command=command, code=1, correctable=correctable)


def _fix(*failed: FailedCommand) -> FixTask:
    return fix_task("fix_1", RedWhole(verify=list(failed)), PLAN)


def _offer(
    bench: Bench, fix: FixTask, files: dict[str, Any], *planned: str, own: tuple[str, ...] = (), last: bool = False
) -> Merged | Conflict | TestsFailed | Rejected:
    base = bench.trunk.head()
    folder = bench.run.workspace(1, fix.id, 1)
    bench.trunk.open_workspace(folder, base)
    write(folder, files)
    attempt = (fix, PLAN, 1, 1, base, folder)
    offer = Submission(*attempt, title=fix.name, planned=planned or (HELLO,), own=own, last=last)
    return bench.trunk.submit(offer, Claim())


@pytest.fixture
def red(bench: Bench) -> Bench:
    """A trunk with a tested part, whose whole lacks a function."""
    merged(bench.offer(CALC, {"src/calc.py": ADD, "tests/test_calc.py": TEST_ADD}))
    return bench


def test_work_that_makes_the_whole_green_lands_whoever_owns_the_files(red: Bench) -> None:
    files = {"src/calc.py": WITH_HELLO, "tests/test_calc.py": TEST_ADD + "\n\ndef test_more():\n    assert True\n"}
    evidence = merged(_offer(red, _fix(_failed(HELLO)), files)).evidence.as_json()
    assert (evidence["whole"], evidence["verify"]) == ("green", [{"command": HELLO, "code": 0}])
    assert evidence["tests"]["added"] == 1
    assert red.subjects()[-1] == "fix_1: Correct the whole"


def test_a_whole_that_stays_red_comes_back_and_is_taken_when_it_is_the_last_time(red: Bench) -> None:
    fix, files = _fix(_failed(HELLO)), {"docs/notes.md": "# Notes\n"}
    back = _offer(red, fix, files)
    assert isinstance(back, TestsFailed)
    assert HELLO in back.facts[0]
    assert "has no attribute 'hello'" in back.facts[0]
    assert merged(_offer(red, fix, files, last=True)).evidence.as_json()["whole"] == "red"


def test_work_that_changes_nothing_is_never_taken_while_the_whole_is_red(red: Bench) -> None:
    back = _offer(red, _fix(_failed(HELLO)), {}, last=True)
    assert isinstance(back, TestsFailed)
    assert back.facts[0].startswith("Nothing was changed")


def test_work_that_changes_nothing_is_taken_where_the_whole_is_green(red: Bench) -> None:
    assert merged(_offer(red, _fix(_failed("true")), {}, "true")).evidence.as_json()["whole"] == "green"


@pytest.mark.parametrize(
    ("test", "fact"),
    [
        (
            TEST_ADD.replace("test_add", "test_other"),
            "tests/test_calc.py::test_add passed on the trunk and does not run",
        ),
        (TEST_ADD.replace("== 3", "== 4"), "tests/test_calc.py::test_add passed on the trunk and fails now"),
        (None, "tests/test_calc.py::test_add passed on the trunk and does not run now"),
    ],
)
def test_a_passing_test_is_never_lost_even_for_another(red: Bench, test: str | None, fact: str) -> None:
    files = {"src/calc.py": WITH_HELLO, "tests/test_calc.py": test}
    back = _offer(red, _fix(_failed(HELLO)), files, last=True)
    assert isinstance(back, TestsFailed)
    assert fact in " ".join(back.facts)


@pytest.mark.parametrize(
    "after", [TEST_ADD, TEST_ADD + "\n\n@__import__('pytest').mark.skip\ndef test_red():\n    pass\n"]
)
def test_a_failing_test_is_neither_removed_nor_skipped(bench: Bench, after: str) -> None:
    red_test = TEST_ADD + "\n\ndef test_red():\n    assert add(1, 1) == 3\n"
    merged(bench.offer(CALC, {"src/calc.py": ADD, "tests/test_calc.py": TEST_ADD}))
    write(bench.run.root, {"tests/test_calc.py": red_test})
    bench.git("-c", "user.name=P", "-c", "user.email=p@example.org", "commit", "-qam", "A failing test")
    back = _offer(bench, _fix(), {"tests/test_calc.py": after}, "true", last=True)
    assert isinstance(back, TestsFailed)
    assert "tests/test_calc.py::test_red fails on the trunk and does not run now" in back.facts[0]
    corrected = red_test.replace("add(1, 1) == 3", "add(1, 1) == 2")
    assert (
        merged(_offer(bench, _fix(), {"tests/test_calc.py": corrected}, "true")).evidence.as_json()["whole"] == "green"
    )


def test_a_command_that_passed_before_may_not_fail_after(red: Bench) -> None:
    absent = "test ! -e docs/notes.md"
    back = _offer(red, _fix(_failed(HELLO)), {"docs/notes.md": "x\n"}, HELLO, absent, last=True)
    assert isinstance(back, TestsFailed)
    assert f"`{absent}` passed on the trunk and fails now." in back.facts


def test_names_that_change_how_python_or_pytest_runs_stay_refused(red: Bench) -> None:
    refused = _offer(red, _fix(_failed(HELLO)), {"tests/conftest.py": "", "src/calc.py": WITH_HELLO})
    assert isinstance(refused, Rejected)
    assert "tests/conftest.py has a name" in refused.facts[0]


ABSENT = "python check_all.py"


def _correction(command: str, replacement: str) -> dict[str, str]:
    return {CORRECTIONS: json.dumps([{"command": command, "replacement": replacement, "reason": "It is not there."}])}


def test_a_correction_alone_lands_and_is_in_the_evidence(red: Bench) -> None:
    works = "PYTHONPATH=src python -c 'import calc'"
    fix = _fix(_failed(ABSENT, correctable=True))
    evidence = merged(_offer(red, fix, _correction(ABSENT, works), ABSENT)).evidence.as_json()
    assert evidence["corrections"] == [
        {"command": ABSENT, "replacement": works, "reason": "It is not there.", "fix": "fix_1"}
    ]
    assert evidence["verify"] == [{"command": works, "code": 0}]
    assert CORRECTIONS not in red.git("ls-tree", "-r", "--name-only", "main")


def test_a_command_that_the_person_named_as_well_is_run_as_it_is(red: Bench) -> None:
    fix = _fix(_failed(ABSENT, correctable=True))
    works = "PYTHONPATH=src python -c 'import calc'"
    back = _offer(red, fix, _correction(ABSENT, works), ABSENT, own=(ABSENT,))
    assert isinstance(back, TestsFailed)
    assert back.facts[0].startswith(f"`{ABSENT}` ended with exit code 2")


@pytest.mark.parametrize(
    ("corrections", "fact"),
    [
        (_correction(ABSENT, "true"), "it proves nothing"),
        (_correction(HELLO, "python -c pass"), "only a command of the plan that cannot work may be"),
        (_correction("make check", "python -c pass"), "it is the command of the person"),
        ({CORRECTIONS: "[1]"}, "must be a JSON list"),
        ({CORRECTIONS: '{"command": "x", "replacement": " ", "reason": "y"}'}, "must be a JSON list"),
        ({CORRECTIONS: "[" * 90_000}, "must be a JSON list"),
        ({CORRECTIONS: "x" * 200_000}, "is not a plain file of at most"),
    ],
)
def test_what_is_no_correction_is_refused_with_a_sentence(red: Bench, corrections: dict[str, str], fact: str) -> None:
    fix = _fix(_failed(ABSENT, correctable=True), _failed(HELLO), _failed("make check"))
    refused = _offer(red, fix, corrections, ABSENT, HELLO, own=("make check",))
    assert isinstance(refused, Rejected)
    assert fact in refused.facts[0]


@pytest.mark.parametrize(
    ("command", "code", "output", "wrong"),
    [
        ("nonsense --all", 127, "bash: line 1: nonsense: command not found", True),
        ("./run.sh", 126, "bash: line 1: ./run.sh: Permission denied", True),
        (
            "python check_all.py",
            2,
            "python: can't open file '/p/check_all.py': [Errno 2] No such file or directory",
            True,
        ),
        ("python -m app.main", 1, "/usr/bin/python: No module named app.main", True),
        ("python -m app", 1, "ModuleNotFoundError: No module named 'flask'", False),
        ("python -m pytest tests/test_all.py", 4, "ERROR: file or directory not found: tests/test_all.py", True),
        ("cat data/x.txt", 1, "cat: data/x.txt: No such file or directory", True),
        ("python -c 'assert False'", 1, "AssertionError", False),
        ("python -c 'open(1)'", 1, "FileNotFoundError: [Errno 2] No such file or directory: 'todo.db'", False),
        ("python check_all.py", 0, "python: can't open file 'check_all.py'", False),
    ],
)
def test_a_command_cannot_work_where_it_does_not_start_or_names_what_is_not_there(
    command: str, code: int, output: str, *, wrong: bool
) -> None:
    assert VerifyResult(command, code, output, timed_out=False, seconds=0.1).cannot_work() is wrong
