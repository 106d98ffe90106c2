"""Plans that cannot be run: from the planner, who is asked again, and from a person's file, which is refused."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from parallel_orchestrator.config.options import load_plan
from parallel_orchestrator.records.errors import UsageError
from parallel_orchestrator.records.plan import MAX_FAULTS_TOLD
from tests.attacks.stage import Stage
from tests.end_to_end import harness
from tests.end_to_end.scripted import plan, task, task_of
from tests.fake_api import Answer, Block, Body, FakeApi, text

GOOD = plan([task(1, []), task(2, [1])])
SHARED = "src/part_1.py"


def _files(*files: str) -> dict[str, Any]:
    return plan([task(1, [], files=list(files))])


def _tasks(*tasks: dict[str, Any]) -> str:
    return json.dumps(plan(list(tasks)))


FAULTY = {
    "no JSON": ("I would build it like this.", "answer: Invalid JSON"),
    "nothing": ("", "answer: Invalid JSON"),
    "truncated": (json.dumps(GOOD)[:-30], "answer: Invalid JSON"),
    "deep": ('{"tasks":' * 100_000, "answer: Invalid JSON"),
    "unending fences": ("```json\n{" * 50_000, "answer: Invalid JSON"),
    "a list": (json.dumps([GOOD]), "file: has to be an object"),
    "wrong types": (_tasks(task(1, [], priority="first", files="src/a.py")), "task_1.priority: has to be a"),
    "wrong level": (json.dumps(plan([task(1, [])], complexity={"level": "huge"})), "complexity.level: has to be"),
    "a field too many": (_tasks(task(1, [], command="rm -rf /")), "task_1.command: no such field"),
    "cycle": (
        _tasks(task(1, []), task(2, [1, 4]), task(3, [2]), task(4, [3])),
        "the dependencies form a cycle: task_2 -> task_4 -> task_3 -> task_2",
    ),
    "itself": (_tasks(task(1, [1])), "task_1 depends on itself"),
    "missing": (_tasks(task(1, [7])), "task_1 depends on 'task_7', which is not in the plan"),
    "twice": (_tasks(task(1, []), task(1, [])), "task id 'task_1' is used twice"),
    "id that climbs": (_tasks(task(1, [], id="../../x")), "task id '../../x' is not of the form task_1, task_2, …"),
    "id like an option": (_tasks(task(1, [], id="-rf")), "task id '-rf' is not of the form"),
    "id of two lines": (_tasks(task(1, [], id="task_1\nmerged")), r"task id 'task_1\nmerged' is not of the form"),
    "10,000 tasks": (_tasks(*(task(n, []) for n in range(1, 10_001))), "tasks: has to have at most 200 items"),
    "a million items": ('{"tasks": [' + "1," * 1_000_000 + "1]}", "complexity: is missing"),
    "a million packages": (json.dumps(plan([task(1, [])], packages=[1] * 1_000_000)), "packages.0: has to be a"),
    "one file twice": (_tasks(task(1, []), task(2, [], files=[SHARED])), f"may run at once and both own {SHARED}"),
    "everybody owns all": (
        _tasks(*(task(n, [], files=[f"src/f{k}.py" for k in range(100)]) for n in range(1, 201))),
        "task_1 and task_2 may run at once and both own src/f0.py",
    ),
    "a file 10,000 times": (
        json.dumps(_files(*[SHARED] * 10_000)),
        "task_1.files: has to have at most 100 items",
    ),
    "a file elsewhere": (json.dumps(_files("/etc/passwd")), "task_1 owns '/etc/passwd': not a file under src/"),
    "a file that climbs": (json.dumps(_files("src/../../x.py")), "task_1 owns 'src/../../x.py': only letters"),
    "no tasks": (json.dumps(plan([])), "the plan has no tasks"),
}
"""What a planner or a person may come with, and the first fault that is named."""

OF_A_FILE = {
    "no JSON": "it is not JSON (line 1, column 1: Expecting value)",
    "nothing": "it is not JSON (line 1, column 1: Expecting value)",
    "truncated": "it is not JSON (line 1, column 814: Unterminated string starting at)",
    "deep": "it is not JSON that can be used (it is nested too deep)",
    "unending fences": "it is not JSON (line 1, column 1: Expecting value)",
}
"""What a person reads of a file that is no JSON: files go through a stricter reader than a planner's answer."""

GOOD_ENOUGH = {
    "fenced": f"```json\n{json.dumps(GOOD, indent=1)}\n```",
    "fenced, with words": f"Here is the plan.\n\n```\n{json.dumps(GOOD)}\n```\nIt has two tasks.",
    "preamble": f"I thought about it. The plan: {json.dumps(GOOD)}\nShall I go on?",
}


class Planner:
    """A model that gives `answers` one after the other; the builder of parts never gets a word in."""

    def __init__(self, *answers: str | Answer) -> None:
        self._answers = list(answers)

    def __call__(self, body: Body) -> Answer | list[Block]:
        assert task_of(body) == "plan"
        answer = self._answers.pop(0)
        return answer if isinstance(answer, Answer) else [text(answer)]


def _api(*answers: str | Answer) -> FakeApi:
    return FakeApi(Planner(*answers), task_of=task_of)


def _told(body: Body) -> str:
    content = body["messages"][-1]["content"]
    return str(content if isinstance(content, str) else content[-1]["text"])


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    made = Stage(tmp_path)
    yield made
    made.assert_nothing_happened()


def test_three_unusable_plans_are_the_end_and_a_resume_buys_none(stage: Stage) -> None:
    names = ("truncated", "cycle", "id that climbs")
    own = stage.parent.parent / "own.json"
    with _api(*(FAULTY[name][0] for name in names)) as api:
        output = stage.run(api, code=1)
        for request, name in zip(api.requests[1:], names, strict=False):
            assert _told(request.body).startswith(f"This plan cannot be used:\n- {FAULTY[name][1]}")
            assert _told(request.body).endswith("\nAnswer with the whole corrected plan.")
        assert [len(request.body["messages"]) for request in api.requests] == [1, 3, 5]
        assert "error: no usable plan after 3 answers" in output
        assert FAULTY["id that climbs"][1] in output
        assert "--plan" in output
        # The answers are in the ledger: they are read again, and none is bought.
        assert "no usable plan after 3 answers" in harness.run("resume", str(stage.out), api=api, code=1)
        assert len(api.requests) == 3
        assert not list(stage.out.glob("executor_*"))
        # A plan of one's own that cannot be run is refused there, too.
        own.write_text(json.dumps(plan([])))
        assert "the plan has no tasks" in stage.run(api, "--plan", str(own), code=2)
        assert len(api.requests) == 3


def test_the_third_plan_may_be_good_and_a_huge_bad_one_is_not_sent_back_whole(stage: Stage) -> None:
    many = _tasks(*(task(n, []) for n in range(1, 1_001)))
    answers = (many, FAULTY["everybody owns all"][0], GOOD_ENOUGH["fenced, with words"])
    with _api(*answers) as api:
        planned = harness.run("plan", "Build it", "--output-dir", str(stage.out), api=api)
        assert "Part 2" in planned
        _, second, third = (request.body for request in api.requests)
        assert "tasks: has to have at most 200 items after validation, not 1000" in _told(second)
        assert _told(third).count("\n- ") == MAX_FAULTS_TOLD + 1
        assert max(len(json.dumps(body)) for body in (second, third)) < 300_000
        assert all(len(line) < 20_000 for line in planned.splitlines())
        # The plan is there now: planning again is free.
        harness.run("plan", "Build it", "--output-dir", str(stage.out), api=api)
        assert len(api.requests) == 3


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (Answer([text("That I do not plan.")], "refusal"), "the model refuses to plan this requirement: That I do not"),
        (Answer([], "refusal"), "the model refuses to plan this requirement: no reason given"),
    ],
)
def test_a_planner_that_refuses_is_not_asked_again(answer: Answer, told: str, stage: Stage) -> None:
    with _api(answer) as api:
        assert told in stage.run(api, code=1)
        assert len(api.requests) == 1


def test_a_plan_file_that_cannot_be_run_is_refused_before_anything_is_paid_or_made(stage: Stage) -> None:
    file = stage.parent.parent / "plan.json"
    with _api() as api:
        for name in ("truncated", "cycle", "10,000 tasks"):
            file.write_text(FAULTY[name][0])
            output = stage.run(api, "--plan", str(file), code=2)
            assert OF_A_FILE.get(name, FAULTY[name][1]) in output
        file.unlink()
        assert "cannot read the plan" in stage.run(api, "--plan", str(file), code=2)
        assert api.requests == []
    assert not stage.out.exists()


@pytest.mark.parametrize("name", FAULTY)
def test_each_fault_of_a_plan_file_is_told_and_found_quickly(name: str, tmp_path: Path) -> None:
    faulty, message = FAULTY[name]
    file = tmp_path / "plan.json"
    file.write_text(json.dumps(plan([task(n, [n - 1] if n > 1 else []) for n in range(1, 101)])))
    good = min(_seconds(file) for _ in range(3))
    file.write_text(faulty)
    with pytest.raises(UsageError) as caught:
        load_plan(file)
    assert OF_A_FILE.get(name, message) in str(caught.value)
    assert str(caught.value).count("\n") <= MAX_FAULTS_TOLD + 1
    # A good plan of 100 tasks takes 3 ms where nothing else runs: this much is below a second there.
    assert min(_seconds(file) for _ in range(3)) < 300 * good + _reading(faulty)


def _seconds(file: Path) -> float:
    started = time.perf_counter()
    with contextlib.suppress(UsageError):
        load_plan(file)
    return time.perf_counter() - started


def _reading(words: str) -> float:
    """Seconds that it takes Python's own reader to go through the text ten times."""
    started = time.perf_counter()
    for _ in range(10):
        try:
            json.loads(words)
        except (ValueError, RecursionError):
            continue
    return time.perf_counter() - started
