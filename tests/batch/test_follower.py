"""A batch as a person is shown it: scenarios with their own words, executors with the scenario they work for."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from parallel_orchestrator.records.lifecycle import TaskState
from parallel_orchestrator.records.outcome import Outcome
from parallel_orchestrator.records.scenario import ExecutionEnv
from parallel_orchestrator.report.live.console import PlainView
from parallel_orchestrator.report.live.followed_run import SeenExecutor
from parallel_orchestrator.report.live.follower import BatchFollower
from parallel_orchestrator.report.live.snapshot import Snapshot, counts_text
from parallel_orchestrator.run.cost import by_folder
from parallel_orchestrator.store.paths import BatchDirectory
from parallel_orchestrator.store.plan_file import plan_text
from parallel_orchestrator.store.queue.batch_journal import BatchLog
from parallel_orchestrator.system.files import write_whole
from tests.records.plans import plan, task
from tests.report.runs import Story, evidence


class Remembering(PlainView):
    """Plain lines, and the snapshots they came from."""

    def __init__(self) -> None:
        super().__init__()
        self.shown: list[Snapshot] = []

    def show(self, snapshot: Snapshot) -> None:
        self.shown.append(snapshot)
        super().show(snapshot)


def test_a_batch_is_followed_by_its_files_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    batch = BatchDirectory(tmp_path)
    log, reader, view = BatchLog(batch), BatchLog(batch), Remembering()
    log.start_session(2, {"shop": "shop", "todo": "todo-1a2b3c", "wiki": "wiki", "late": "late"})
    (tmp_path / "shop").mkdir()
    story = Story(tmp_path / "shop", plan(task(1), task(2)))
    write_whole(story.run.plan, plan_text(story.plan))
    follower = BatchFollower(view, reader, {"shop": "Build a shop"})

    slots = [SeenExecutor(2, "task_1", story.run.root), SeenExecutor(1)]

    def look() -> Snapshot:
        time.sleep(0.26)
        follower.look(slots)
        return view.shown[-1]

    assert counts_text(look()) == "0 done · 0 open · 0 planned · 4 waiting · 0 failed · 0 stopped"
    log.planned("shop", 2.0, 5, ExecutionEnv("off"))
    log.open_next()
    story.calls.buy("plan", 1)
    claim = story.queue.claim(2).claim
    assert claim
    story.calls.buy("task_1", 1)
    snapshot = look()
    assert [(row.executor, row.task, row.name, row.turns) for row in snapshot.rows] == [
        (1, None, "", 0),
        (2, "shop/task_1", "Part 1", 1),
    ]
    assert (snapshot.spent.usd, snapshot.left_s) == (1.0, None)
    log.closed("todo", "stopped", "the budget is spent")
    log.closed("wiki", "failed")
    log.closed("shop", "done")
    last = look()
    assert counts_text(last) == "1 done · 0 open · 0 planned · 1 waiting · 1 failed · 1 stopped"
    assert last.spent.usd == 1.0
    assert last.left_s is None
    assert capsys.readouterr().err.splitlines() == [
        "[0/4] · shop Build a shop: open",
        "[1/4] ✓ shop Build a shop: done",
        "[1/4] – todo: stopped (the budget is spent)",
        "[1/4] ✗ wiki: failed",
    ]
    other = Remembering()
    BatchFollower(other, reader, {}).look([])
    assert other.shown[-1].elapsed_s >= last.elapsed_s  # since the batch began, not since it is looked at
    follower.close()
    story.close()
    log.close()
    reader.close()


def test_what_runs_have_cost_before_counts_once_and_the_cap_is_warned_of_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    batch, view = BatchDirectory(tmp_path), Remembering()
    log = BatchLog(batch)
    for name in ("shop", "todo"):
        (tmp_path / name).mkdir()
    shop, todo = (Story(tmp_path / name, plan(task(1))) for name in ("shop", "todo"))
    write_whole(shop.run.plan, plan_text(shop.plan))
    shop.calls.buy("plan", 1)
    todo.calls.buy("plan", 1)
    log.start_session(2, {"shop": "shop"})
    follower = BatchFollower(view, log, {}, 1.8, by_folder(batch))
    follower.look([])
    assert view.shown[-1].spent.usd == 1.0
    assert "budget" not in capsys.readouterr().err
    shop.calls.buy("task_1", 1)
    log.planned("shop", 1.0, 5, ExecutionEnv("off"))
    for _ in range(2):
        time.sleep(0.26)
        follower.look([])
        assert view.shown[-1].spent.usd == 1.5
        log.closed("shop", "done")
    assert capsys.readouterr().err.count("80 % of the batch's budget is spent: $1.50 of $1.80") == 1
    todo.run.ledger.write_bytes(b"no record\n")
    assert by_folder(batch)["todo"].usd == 0.0
    follower.close()
    shop.close()
    todo.close()
    log.close()


def test_the_time_to_the_end_is_by_tasks_and_does_not_grow_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now)
    batch, view = BatchDirectory(tmp_path), Remembering()
    log, reader = BatchLog(batch), BatchLog(batch)
    stories = {}
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        stories[name] = Story(tmp_path / name, plan(*(task(number) for number in range(1, 5))))
        write_whole(stories[name].run.plan, plan_text(stories[name].plan))
    log.start_session(2, {"a": "a", "b": "b", "late": "late"})
    for name in stories:
        log.planned(name, 1.0, 2, ExecutionEnv("off"))
    follower = BatchFollower(view, reader, {})

    def left(passed: float) -> float | None:
        nonlocal now
        now += passed
        follower.look([])
        return view.shown[-1].left_s

    def merge(name: str, seconds: float) -> None:
        nonlocal now
        claim = stories[name].queue.claim(1).claim
        assert claim
        now += seconds
        stories[name].queue.finish(claim, Outcome(TaskState.MERGED, evidence=evidence(1)))

    for _ in range(2):
        merge("a", 10.0)
        assert left(1.0) is None
    merge("a", 10.0)
    # 1 + 4 tasks, and as many as these two have on the average for the one without a plan; two executors.
    assert left(1.0) == pytest.approx((1 + 4 + 4) * 10.0 / 2)
    merge("a", 10.0)
    log.closed("a", "done")
    log.closed("late", "stopped", "no plan came")
    assert left(1.0) == pytest.approx(4 * 10.0 / 2)
    for expected in (15.0, 10.0, 10.0):
        merge("b", 10.0)
        assert left(1.0) == pytest.approx(expected)
    claim = stories["b"].queue.claim(1).claim
    assert claim
    for _ in range(3):
        found = left(20.0)
        assert found is not None
        assert found >= 0
    log.closed("b", "done")
    assert left(1.0) is None
    follower.close()
    for story in stories.values():
        story.close()
    log.close()
    reader.close()
