"""The summary's fields, for runs that ended in each of the three ways."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from parallel_orchestrator.maintenance.check import folded
from parallel_orchestrator.report.facts.summary import (
    finished_summary,
    incomplete_summary,
    summarize,
)
from parallel_orchestrator.store.paths import RunDirectory
from parallel_orchestrator.system.files import write_whole
from tests.records.plans import plan, task
from tests.reliability.runs import unpack
from tests.report.runs import Story, evidence

Begin = Callable[..., Story]
FINAL: dict[str, Any] = {"green": True, "tests": {"passed": 3}, "coverage_percent": None, "lines_of_code": {}}
PLAN = plan(task(1), task(2, (1,)), task(3))


@pytest.fixture
def begin(tmp_path: Path) -> Iterator[Begin]:
    stories: list[Story] = []

    def make(**fields: Any) -> Story:
        stories.append(Story(tmp_path, PLAN, **fields))
        return stories[-1]

    yield make
    for story in stories:
        story.close()


def test_a_run_that_is_done(begin: Begin) -> None:
    story = begin(max_executors=4)
    story.queue.start_session(2)
    story.calls.buy("plan", 1)
    order = [story.merge(), story.merge(2, evidence(2, "merged, not tested")), story.merge()]
    story.calls.buy(order[0], 1, 2)
    found = summarize(story.state(), FINAL).as_json()
    assert (found["version"], found["run"], found["requirements"]) == (1, "r1", "Build it.")
    assert (found["status"], found["total_tasks"], found["completed"]) == ("done", 3, 3)
    assert (found["failed"], found["blocked"], found["success_rate"]) == (0, 0, 1.0)
    assert (found["total_files_created"], found["model_calls"], found["cost_usd"]) == (8, 3, 1.5)
    assert (found["executors_used"], found["executors_started"], found["executors_budget"]) == (2, 2, 4)
    assert found["sessions"] == 1
    assert set(found["utilisation"]) == {"executor_1", "executor_2"}
    assert found["work_s"] <= found["makespan_s"]  # here one worked after the other
    assert found["tests"] == {"total": 0, "passed": 3, "failed": 0, "skipped": 0, "facts": []}
    assert found["planning"]["complexity"] == "simple"
    assert (found["planning"]["model_calls"], found["planning"]["endpoint_s"]) == (1, 2.0)
    assert [t["id"] for t in found["tasks"]] == ["task_1", "task_2", "task_3"]
    tasks = {t["id"]: t for t in found["tasks"]}
    assert (tasks[order[0]]["cost_usd"], tasks[order[0]]["model_calls"]) == (1.0, 2)
    told_apart = {name: [tasks[t][name] for t in order] for name in ("claimed", "executed", "verified", "merged")}
    assert told_apart == {
        "claimed": [True] * 3,
        "executed": [True] * 3,
        "verified": [True, False, True],
        "merged": [True] * 3,
    }
    assert tasks[order[1]]["executor"] == "executor_2"


@pytest.mark.parametrize("final", [None, {**FINAL, "green": False}])
def test_all_merged_but_not_green_is_failed(final: dict[str, Any] | None, begin: Begin) -> None:
    story = begin()
    for _ in range(3):
        story.merge()
    found = summarize(story.state(), final).as_json()
    assert (found["status"], found["completed"]) == ("failed", 3)


def test_a_failed_task_and_what_it_blocked(begin: Begin) -> None:
    story = begin()
    assert story.fail("too hard") == "task_1"
    story.merge()
    found = summarize(story.state(), FINAL).as_json()
    assert (found["status"], found["completed"], found["failed"], found["blocked"]) == ("failed", 1, 1, 1)
    assert found["success_rate"] == pytest.approx(1 / 3)
    first, second, _ = found["tasks"]
    assert (first["state"], first["reason"], first["claimed"], first["executed"]) == ("failed", "too hard", True, False)
    assert (second["state"], second["reason"], second["claimed"]) == ("blocked", "task_1 failed", False)
    assert (second["executor"], second["started_s"], second["duration_s"]) == (None, None, 0)


def test_a_run_that_was_stopped_counts_what_it_has(begin: Begin) -> None:
    story = begin()
    story.queue.start_session(2)
    story.merge()
    story.queue.claim(1)
    found = incomplete_summary(story.run, story.scenario, PLAN).as_json()
    assert (found["status"], found["completed"], found["tests"], found["verify"]) == ("incomplete", 1, None, None)
    assert "green" not in found
    story.queue.start_session(1)
    story.queue.take_back(None, "its orchestrator ended")
    story.merge()
    story.merge()
    again = summarize(story.state(), FINAL).as_json()
    assert (again["status"], again["sessions"], again["executors_started"]) == ("done", 2, 2)


def test_a_run_that_stops_after_its_last_tests_were_recorded_is_what_they_say(begin: Begin) -> None:
    """The disk may refuse execution_summary.json when everything is recorded: the queue already says "done"."""
    story = begin()
    story.queue.start_session(1)
    for _ in PLAN.tasks:
        story.merge()
    story.queue.record_final(dict(FINAL), head="")
    found = incomplete_summary(story.run, story.scenario, PLAN).as_json()
    assert (found["status"], found["green"]) == ("done", True)


def test_a_summary_without_the_last_tests_is_compared_and_no_crash(begin: Begin) -> None:
    story = begin()
    story.queue.start_session(1)
    for _ in PLAN.tasks:
        story.merge()
    stopped = summarize(story.state(), None).as_json()
    assert folded(story.state(), stopped) == stopped


def test_before_anything_was_done_nothing_is_divided_by_nothing(begin: Begin) -> None:
    found = incomplete_summary(begin().run, begin().scenario, PLAN).as_json()
    assert (found["success_rate"], found["speedup"], found["makespan_s"], found["utilisation"]) == (0.0, None, 0.0, {})


def test_deaths_and_attempts_are_those_of_the_present_attempt(begin: Begin) -> None:
    story = begin()
    for _ in range(3):
        story.queue.claim(1)
        story.queue.take_back(1, "killed")
    first = summarize(story.state(), None).as_json()["tasks"][0]
    assert (first["state"], first["deaths"], first["attempt"]) == ("failed", 3, 1)
    story.queue.retry("task_1", "asked")
    story.merge()
    first = summarize(story.state(), None).as_json()["tasks"][0]
    assert (first["state"], first["deaths"], first["attempt"], first["executed"]) == ("merged", 0, 2, True)


def test_an_earlier_versions_run_is_finished_when_its_summary_says_so_and_the_queue_agrees(tmp_path: Path) -> None:
    assert finished_summary(RunDirectory(tmp_path)) is None
    run = RunDirectory(unpack(tmp_path, "finished"))
    whole = json.loads(run.summary.read_text())
    for changes in ({}, {"status": "failed", "failed": 1}, {"status": "failed", "blocked": 2}):
        write_whole(run.summary, json.dumps(whole | changes))
        finished = finished_summary(run)
        assert finished
        assert finished.as_json() == {**whole, "fixes": [], "corrections": [], **changes}
    # All is merged and only the last tests were red: they can be run again.
    write_whole(run.summary, json.dumps({**whole, "status": "failed", "failed": 0, "blocked": 0}))
    assert finished_summary(run) is None
    # Altered, or written by another version: it is derived, so it is made again.
    for content in ('{"status": "incomplete"}', '{"sta', "\0", "{}", "[]", json.dumps({**whole, "version": 2})):
        write_whole(run.summary, content)
        assert finished_summary(run) is None
    # The queue knows better.
    write_whole(run.summary, json.dumps(whole))
    lines = run.queue.read_bytes().splitlines(keepends=True)
    run.queue.write_bytes(b"".join(lines[:-1]))
    assert finished_summary(run) is None
