"""What a person sees: plain lines, the resume's line, the warning before the cap; nothing steers the terminal."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from parallel_orchestrator.records.lifecycle import TaskState
from parallel_orchestrator.records.outcome import Outcome
from parallel_orchestrator.report.account import closing_account, plan_account
from parallel_orchestrator.report.console import LiveView, PlainView, QuietView, Snapshot, make_view
from parallel_orchestrator.report.summary import summarize
from parallel_orchestrator.report.watch import Watch
from tests.records.plans import plan, task
from tests.report.runs import Story

NASTY = "a\x1b[2J\x1b]0;title\x07\r\nb\u202e"
ESCAPED = "a\\x1b[2J\\x1b]0;title\\x07\\r\\nb\\u202e"
CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


@dataclass
class Slot:
    """An executor as a supervisor shows it."""

    number: int
    task: str | None = None
    doing: str = "idle"
    since: float = 0.0


@dataclass
class Heard:
    """A view that remembers."""

    said: list[str] = field(default_factory=list)
    shown: list[Snapshot] = field(default_factory=list)

    def say(self, text: str) -> None:
        self.said.append(text)

    def show(self, snapshot: Snapshot) -> None:
        self.shown.append(snapshot)

    def close(self) -> None:
        pass


@pytest.fixture
def story(tmp_path: Path) -> Iterator[Story]:
    told = Story(tmp_path, plan(task(1), task(2, (1,)), task(3, (1,)), task(4, (3,), name=NASTY)))
    yield told
    told.close()


def _watch(story: Story, view: Heard | PlainView | LiveView, cap: float | None = None) -> Watch:
    return Watch(view, story.run, story.plan, cap)


def test_a_snapshot_is_what_files_and_workers_say(story: Story) -> None:
    view = Heard()
    watch = _watch(story, view)
    story.calls.buy("plan", 1)
    watch.look(story.queue.replica, [Slot(2), Slot(1, "task_1", "asking")])
    story.merge()
    story.calls.buy("task_1", 1)
    watch.look(story.queue.replica, [])
    first, second = view.shown
    assert [(row.executor, row.task, row.name, row.doing) for row in first.rows] == [
        (1, "task_1", "Part 1", "asking"),
        (2, None, "", "idle"),
    ]
    assert (first.done(), first.spent.usd, second.done(), second.spent.usd) == (0, 0.5, 1, 1.0)
    assert second.states["task_1"] == (TaskState.MERGED, "")
    assert view.said == []


def test_the_cap_is_warned_of_once_at_four_fifths(story: Story) -> None:
    view = Heard()
    watch = _watch(story, view, cap=2.0)
    for turn in range(1, 7):
        story.calls.buy("task_1", turn)
        watch.look(story.queue.replica, [])
    assert view.said == ["80 % of the budget is spent: $2.00 of $2.00"]


def test_a_resume_says_what_it_takes_over(story: Story) -> None:
    story.calls.buy("plan", 1)
    story.merge()
    story.calls.buy("task_1", 1, 2)
    story.queue.claim(1)
    story.calls.buy("task_2", 1, 2, 3)
    story.queue.take_back(None, "its orchestrator ended")
    line = _watch(story, Heard()).reuse(story.queue.refresh())
    assert line == ("resuming: reusing 1 task, 3 turns of task_2, $3.00; task_2 goes on from turn 4; 3 tasks to do")


def test_a_resume_of_a_replay_counts_answers_in_place_of_money(story: Story) -> None:
    story.calls.answered(story.calls.begin("task_1", 1), usd=0.0, recorded=0.5)
    line = _watch(story, Heard()).reuse(story.queue.refresh())
    assert line == (
        "resuming: reusing 0 tasks, 1 turn of task_1, 1 recorded answer; task_1 goes on from turn 2; 4 tasks to do"
    )


def test_what_failed_does_not_go_on_and_a_retry_begins_at_its_first_turn(story: Story) -> None:
    story.merge()
    assert story.fail("too hard") == "task_3"
    story.calls.buy("task_3", 1, 2)
    story.merge()
    watch = _watch(story, Heard())
    assert watch.reuse(story.queue.refresh()) == "resuming: reusing 2 tasks, $1.00; nothing left to do"
    story.queue.retry("task_3", "asked")
    assert watch.reuse(story.queue.refresh()) == "resuming: reusing 2 tasks, $1.00; 2 tasks to do"


# Plain lines


def test_without_a_terminal_there_is_one_line_a_change(story: Story, capsys: pytest.CaptureFixture[str]) -> None:
    view = make_view()
    assert isinstance(view, PlainView)
    watch = _watch(story, view)
    claim = story.queue.claim(1).claim
    assert claim
    for _ in range(3):
        watch.look(story.queue.replica, [Slot(1, "task_1", "asking")])
    story.queue.finish(claim, Outcome(TaskState.MERGED))
    watch.look(story.queue.replica, [Slot(1)])
    story.fail("too\nhard")
    watch.look(story.queue.replica, [Slot(1)])
    view.close()
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.splitlines() == [
        "[0/4] · task_1 Part 1: claimed by executor 1",
        "[1/4] ✓ task_1 Part 1: merged",
        "[1/4] ✗ task_3 Part 3: failed (too\\nhard)",
        f"[1/4] – task_4 {ESCAPED}: blocked (task_3 failed)",
    ]
    assert not CONTROL.search(output.err)


def test_what_is_said_keeps_its_lines_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    PlainView().say("one\ntwo \x1b[31m\x9b2J")
    assert capsys.readouterr().err == "one\ntwo \\x1b[31m\\x9b2J\n"


def test_a_quiet_view_shows_nothing(story: Story, capsys: pytest.CaptureFixture[str]) -> None:
    view = make_view(quiet=True)
    assert isinstance(view, QuietView)
    view.say("x")
    Watch(view, story.run, story.plan, None).look(story.queue.replica, [Slot(1)])
    view.close()
    assert capsys.readouterr() == ("", "")


def test_the_live_table_shows_names_that_steer_nothing(
    story: Story, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"FORCE_COLOR": "1", "TERM": "xterm", "COLUMNS": "200"}.items():
        monkeypatch.setenv(name, value)
    view = LiveView()
    watch = _watch(story, view, cap=5.0)
    for _ in range(3):
        story.merge()
    watch.look(story.queue.replica, [Slot(1, "task_4", f"[bold]running[/bold] {NASTY}")])
    view.say(NASTY)
    view.close()
    printed = capsys.readouterr().err
    assert "✓ task_1 Part 1: merged" in printed
    assert "executor 1" in printed
    assert f"[bold]running[/bold] {ESCAPED}" in printed
    assert "3/4 tasks" in printed
    assert "\x1b[2J" not in printed
    assert "\x07" not in printed


# Accounts


def test_a_plan_is_shown_escaped_with_its_order(tmp_path: Path) -> None:
    shown = plan_account(plan(task(1, name=NASTY), task(2, (1,)), task(3)), tmp_path, 5)
    assert not CONTROL.search(shown)
    lines = shown.splitlines()
    assert lines[0] == "simple: It is small."
    assert f"task_1  {ESCAPED}  [medium, priority 1]" in lines
    assert "task_2  Part 2  [medium, priority 1]  after task_1" in lines
    assert "        src/part_2.py" in lines
    assert "critical path: task_1 -> task_2" in lines
    assert "3 tasks, width 2: 2 of 5 executors" in lines
    assert str(tmp_path / "execution_plan.json") in lines[-1]


def _account(story: Story, directory: Path, **final: object) -> list[str]:
    tests = {"passed": 3, "failed": 1, "skipped": 0, "facts": ["test_x fails\nTraceback"]}
    checks = [{"command": "make\x1b[2J", "code": 0}, {"command": "false", "code": 1}]
    defaults = {"green": True, "tests": tests, "coverage_percent": 87.4, "verify": checks, "lines_of_code": {"src": 9}}
    shown = closing_account(summarize(story.state(), {**defaults, **final}), directory)
    assert not CONTROL.search(shown)
    return shown.splitlines()


def test_the_last_words_say_what_was_made_and_what_to_do(story: Story) -> None:
    for _ in range(4):
        story.merge()
    story.calls.buy("task_1", 1)
    lines = _account(story, Path("/my out"))
    assert lines[0] == "done: 4 of 4 tasks merged (100%)"
    assert "  tests:    3 passed, 1 failed, 0 skipped, 87 % of src covered" in lines
    assert "            test_x fails" in lines
    assert "  verify:   ok     make\\x1b[2J" in lines
    assert "  verify:   FAILED false" in lines
    assert "  made:     12 files; lines: src 9" in lines
    assert "  cost:     $0.50; 1 calls, 110 tokens read, 5 written" in lines
    assert lines[-2:] == [
        "  where:    /my out",
        "  next:     cd '/my out' && python -m pytest, and read README.md there",
    ]


def test_the_last_words_name_what_failed_and_how_to_retry(story: Story) -> None:
    story.merge()
    story.fail(NASTY)
    story.merge()
    lines = _account(story, Path("/out"), tests=None, lines_of_code=None)
    assert lines[0] == "not all is done: 2 of 4 tasks merged (50%)"
    assert f"  failed: task_3 Part 3: {ESCAPED}" in lines
    assert f"  blocked: task_4 {ESCAPED}: task_3 failed" in lines
    assert lines[-1] == "  next:     parallel-orchestrator retry /out"


def test_an_uncertain_cost_is_said_to_be_one(story: Story) -> None:
    story.merge()
    story.calls.answered(story.calls.begin("task_1", 1, bound=None), usd=None)
    story.calls.begin("task_1", 2, bound=3.0)
    (cost,) = (line for line in _account(story, Path("/out")) if line.startswith("  cost:"))
    assert "at least $0.00 (1 calls have no known price), up to $3.00 more for calls whose end is unknown" in cost
