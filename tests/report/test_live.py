"""What a person sees: plain lines, the resume's line, the warning before the cap; nothing steers the terminal."""

from __future__ import annotations

import io
import os
import pty
import re
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console

from parallel_orchestrator.records.lifecycle import TaskState
from parallel_orchestrator.records.outcome import Outcome
from parallel_orchestrator.records.usage import Spending
from parallel_orchestrator.report.live import console
from parallel_orchestrator.report.live.console import HEARTBEAT_S, PlainView, make_view
from parallel_orchestrator.report.live.eta import OpenRun, seconds_left
from parallel_orchestrator.report.live.followed_run import SeenExecutor as Slot
from parallel_orchestrator.report.live.follower import RunFollower
from parallel_orchestrator.report.live.snapshot import Item, Row, Snapshot, Standing, Traffic, traffic_text
from parallel_orchestrator.report.live.table import LiveView, table_of
from parallel_orchestrator.report.live.view import View, waiting
from parallel_orchestrator.report.pages.summary_text import reuse_note
from tests.records.plans import plan, task
from tests.report.runs import CONTROL, ESCAPED, NASTY, Story


@dataclass
class Heard(View):
    """A view that remembers."""

    said: list[str] = field(default_factory=list)
    shown: list[Snapshot] = field(default_factory=list)

    def say(self, text: str) -> None:
        self.said.append(text)

    def show(self, snapshot: Snapshot) -> None:
        self.shown.append(snapshot)


def _follower(story: Story, view: View, cap: float | None = None) -> RunFollower:
    return RunFollower(view, story.run, story.plan, cap)


def test_a_snapshot_is_what_files_and_workers_say(story: Story) -> None:
    view = Heard()
    follower = _follower(story, view)
    story.calls.buy("plan", 1)
    follower.look([Slot(2), Slot(1, "task_1", story.run.root, "asking")])
    story.merge()
    story.calls.buy("task_1", 1)
    follower.look([])
    first, second = view.shown
    assert [(row.executor, row.task, row.name, row.doing) for row in first.rows] == [
        (1, "task_1", "Part 1", "asking"),
        (2, None, "", "idle"),
    ]
    assert (first.done(), first.spent.usd, second.done(), second.spent.usd) == (0, 0.5, 1, 1.0)
    assert second.items["task_1"] == Item("Part 1", Standing.DONE, "merged")
    assert view.said == []


def test_a_rate_limit_is_seen_in_the_files_alone(story: Story) -> None:
    view = Heard()
    follower = _follower(story, view)
    call = story.calls.begin("task_1", 1)
    follower.look([])
    assert traffic_text(view.shown[-1].traffic) == "1 call in flight"
    story.calls.failed(call, ambiguous=False, kind="429")
    follower.look([])
    assert re.fullmatch(r"rate limit: reached \d+ s ago", traffic_text(view.shown[-1].traffic))
    story.calls.answered(story.calls.again(call, 2))
    follower.look([])
    assert traffic_text(view.shown[-1].traffic) == ""


def test_the_cap_is_warned_of_once_at_four_fifths(story: Story) -> None:
    view = Heard()
    follower = _follower(story, view, cap=2.0)
    for turn in range(1, 7):
        story.calls.buy("task_1", turn)
        follower.look([])
    assert view.said == ["80 % of the budget is spent: $2.00 of $2.00"]


def test_a_resume_says_what_it_takes_over(story: Story) -> None:
    story.calls.buy("plan", 1)
    story.merge()
    story.calls.buy("task_1", 1, 2)
    story.queue.claim(1), story.queue.claim(2)
    story.calls.buy("task_2", 1, 2, 3)
    story.queue.take_back(None, "its orchestrator ended")
    line = reuse_note(story.run, story.queue.refresh())
    assert line == (
        "resuming: reusing 1 task, 3 turns of task_2, $3.00; task_2 goes on from turn 4 "
        "(its orchestrator ended); 2 tasks to begin"
    )


def test_a_resume_of_a_replay_counts_answers_in_place_of_money(story: Story) -> None:
    story.calls.answered(story.calls.begin("task_1", 1), usd=0.0, recorded=0.5)
    line = reuse_note(story.run, story.queue.refresh())
    assert line == (
        "resuming: reusing 0 tasks, 1 turn of task_1, 1 recorded answer; task_1 goes on from turn 2; 3 tasks to begin"
    )


def test_what_failed_does_not_go_on_and_a_retry_begins_at_its_first_turn(story: Story) -> None:
    story.merge()
    assert story.fail("too hard") == "task_3"
    story.calls.buy("task_3", 1, 2)
    story.merge()
    line = reuse_note(story.run, story.queue.refresh())
    assert line == "resuming: reusing 2 tasks, $1.00; nothing left to do but the last tests"
    story.queue.retry("task_3", "asked")
    assert reuse_note(story.run, story.queue.refresh()) == "resuming: reusing 2 tasks, $1.00; 2 tasks to begin"


# Plain lines


def test_without_a_terminal_there_is_one_line_a_change(story: Story, capsys: pytest.CaptureFixture[str]) -> None:
    view = make_view()
    assert isinstance(view, PlainView)
    follower = _follower(story, view)
    claim = story.queue.claim(1).claim
    assert claim
    for _ in range(3):
        follower.look([Slot(1, "task_1", story.run.root, "asking")])
    story.queue.finish(claim, Outcome(TaskState.MERGED))
    follower.look([Slot(1)])
    story.fail("too\nhard")
    follower.look([Slot(1)])
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
    assert capsys.readouterr().err == "one\n  two \\x1b[31m\\x9b2J\n"


@pytest.mark.parametrize(
    ("encoding", "kind"), [("utf-8", LiveView), ("ascii", PlainView), ("latin-1", PlainView), ("gb18030", LiveView)]
)
def test_a_terminal_that_lacks_the_signs_of_a_table_gets_lines(
    encoding: str, kind: type[View], monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = pty.openpty()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    with os.fdopen(theirs, "w", encoding=encoding, errors="backslashreplace") as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        view = make_view()
        assert type(view) is kind
        if kind is PlainView:
            view.say("planning …")
            assert os.read(ours, 100) == b"planning \\u2026\r\n"
        view.close()
    os.close(ours)


def test_a_quiet_view_shows_nothing(story: Story, capsys: pytest.CaptureFixture[str]) -> None:
    view = make_view(quiet=True)
    assert type(view) is View
    view.say("x")
    RunFollower(view, story.run, story.plan).look([Slot(1)])
    view.close()
    assert capsys.readouterr() == ("", "")


def test_the_live_table_shows_names_that_steer_nothing(
    story: Story, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"FORCE_COLOR": "1", "TERM": "xterm", "COLUMNS": "200"}.items():
        monkeypatch.setenv(name, value)
    view = LiveView()
    follower = _follower(story, view, cap=5.0)
    story.merge()
    follower.look([Slot(1)])
    for _ in range(2):
        story.merge()
    follower.look([Slot(1, "task_4", story.run.root, f"[bold]running[/bold] {NASTY}")])
    view.say(NASTY)
    view.close()
    printed = capsys.readouterr().err
    assert "✓ task_1 Part 1: merged" not in printed  # as it was when the view began
    assert "✓ task_2 Part 2: merged" in printed
    assert "executor 1" in printed
    assert f"[bold]running[/bold] {ESCAPED}" in printed
    assert "3/4 tasks" in printed
    assert "\x1b[2J" not in printed
    assert "\x07" not in printed


# What the snapshots say besides


def _snapshot(**changes: Any) -> Snapshot:
    rows = [Row(n, f"task_{n}", "Part", "$ pytest", 61.0, 3, 12_345) for n in range(1, 21)]
    items = {f"task_{n}": Item("Part", Standing.RUNNING, "claimed") for n in range(1, 21)}
    fields = {"traffic": Traffic(4, 2, 8), "elapsed_s": 75.0, "left_s": 62.0, "max_cost_usd": 5.0, **changes}
    return Snapshot(rows, items, Spending(usd=1.5), **fields)


@pytest.mark.parametrize(("width", "height"), [(60, 12), (80, 24), (200, 50), (40, 10)])
def test_the_table_fits_every_screen(width: int, height: int) -> None:
    console = Console(width=width, height=height, file=io.StringIO(), color_system=None)
    with console.capture() as captured:
        console.print(table_of(_snapshot(), width, height), width=width - 1)
    lines = captured.get().splitlines()
    assert max(map(cell_len, lines)) < width
    assert len(lines) < height
    if width >= 60:
        assert any("~1:02 left" in line for line in lines)
        assert any("$1.50 of $5.00" in line for line in lines)
        assert any("2 waiting" in line for line in lines)
        assert any("… and" in line for line in lines) == (height < 28)
        assert any("12.3k tok" in line for line in lines) == (width >= 80)


def test_after_ten_silent_seconds_there_is_a_sign_of_life(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    view, now = PlainView(), time.monotonic()
    view.show(_snapshot())
    capsys.readouterr()
    for seconds in (HEARTBEAT_S - 1, HEARTBEAT_S + 1, HEARTBEAT_S + 2, 2 * HEARTBEAT_S, 2 * HEARTBEAT_S + 2):
        monkeypatch.setattr(time, "monotonic", lambda seconds=seconds: now + seconds)
        view.show(_snapshot(traffic=Traffic(held_s=30)))
    first, second = capsys.readouterr().err.splitlines()
    assert first == second
    assert first == (
        "[0/20] 0 done · 20 running · 0 ready · 0 waiting · 0 failed · 0 blocked; $1.50 of $5.00; "
        "rate limit: all calls wait 30 s; 1:15, ~1:02 left"
    )


@pytest.mark.parametrize(
    ("environment", "terminal", "kind", "coloured"),
    [
        ({"TERM": "xterm"}, True, LiveView, True),
        ({"TERM": "xterm", "NO_COLOR": "1", "FORCE_COLOR": "1"}, True, LiveView, True),
        ({"TERM": "xterm", "NO_COLOR": "1", "FORCE_COLOR": "1"}, False, PlainView, False),
        ({"TERM": "dumb", "FORCE_COLOR": "1"}, True, PlainView, False),
        ({"TERM": "xterm"}, False, PlainView, False),
        ({"TERM": "xterm", "FORCE_COLOR": "1"}, False, PlainView, True),
    ],
)
def test_escapes_are_printed_only_where_they_are_wanted(
    environment: dict[str, str],
    terminal: bool,
    kind: type,
    coloured: bool,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    view = make_view()
    assert type(view) is kind
    view.show(_snapshot())
    items = {"task_1": Item("Part", Standing.DONE, "merged")}
    view.show(Snapshot([], items, Spending()))
    view.close()
    printed = capsys.readouterr().err
    assert "merged" in printed
    assert ("\x1b[" in printed) == coloured
    assert ("\x1b[2K" in printed) == (kind is LiveView)
    colours = re.findall(r"\x1b\[(?:\d+;)*(?:3[0-7]|9[0-7]|38)(?:;\d+)*m", printed)
    assert bool(colours) == (coloured and "NO_COLOR" not in environment)


def test_a_time_to_the_end_comes_after_three_tasks(tmp_path: Path) -> None:
    story = Story(tmp_path, plan(*(task(n) for n in range(1, 7))))
    view = Heard()
    follower = _follower(story, view)
    story.queue.start_session(2)
    for merged in range(5):
        snapshot = follower.look([])
        assert (snapshot.left_s is None) == (merged < 3)
        assert (snapshot.left_s or 0.0) >= 0
        story.merge()
    claim = story.queue.claim(2).claim
    assert claim
    story.calls.buy(claim.task, 1)
    story.calls.begin(claim.task, 2)
    for hours in (0, 1, 10):  # long overdue, it still is not at its end
        left = seconds_left([OpenRun(story.queue.queue_state, 2)], 2, time.monotonic() + 3600 * hours)
        assert left is not None
        assert left >= 360 * hours
    (row,) = follower.look([Slot(2, claim.task, story.run.root, "asking the model (turn 2)")]).rows
    assert (row.executor, row.task, row.doing, row.turns, row.tokens) == (
        2,
        "task_6",
        "asking the model (turn 2)",
        1,
        115,
    )
    story.queue.finish(claim, Outcome(TaskState.MERGED))
    last = follower.look([])
    assert (list(last.rows), last.done(), last.left_s) == ([], 6, None)
    follower.close()
    story.close()


def test_what_goes_on_without_a_table_is_said_every_ten_seconds(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "HEARTBEAT_S", 0.6)
    view = PlainView()
    view.say("planning …")
    with waiting(view, "planning"):
        time.sleep(1.6)
    silent = capsys.readouterr().err.splitlines()
    assert silent == ["planning …", "planning: 0:00 so far", "planning: 0:01 so far"]


def test_a_live_view_shows_what_goes_on_below_its_table_and_takes_it_off_again(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"TERM": "xterm", "COLUMNS": "80", "LINES": "24"}.items():
        monkeypatch.setenv(name, value)
    view = LiveView()
    view.wait("planning", 83)
    assert capsys.readouterr().err == "\x1b[?25l\x1b[?25hplanning … 1:23\n"
    view.wait("", 0)
    assert capsys.readouterr().err.endswith("\r\x1b[1A\x1b[2K")
    view.show(_snapshot())
    view.wait("testing the whole", 2)
    shown = capsys.readouterr().err.splitlines()
    assert shown[-1].startswith("testing the whole … 0:02")
    view.close()


def test_another_size_of_the_terminal_has_the_screen_drawn_anew(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"FORCE_COLOR": "1", "TERM": "xterm", "COLUMNS": "80", "LINES": "24"}.items():
        monkeypatch.setenv(name, value)
    view = LiveView()
    for number in range(30):
        view.say(f"line {number}")
    snapshot = _snapshot()
    view.show(snapshot)
    capsys.readouterr()
    monkeypatch.setattr(view, "_drawn", 0.0)
    view.show(snapshot)
    assert "\x1b[H" not in capsys.readouterr().err
    for columns, lines in ((60, 30), (200, 12), (80, 24)):
        monkeypatch.setattr(view._console, "size", (columns, lines))
        monkeypatch.setattr(view, "_drawn", 0.0)
        view.show(snapshot)
        printed = capsys.readouterr().err
        assert printed.startswith("\x1b[H\x1b[J")
        shown = re.sub(r"\x1b\[[?0-9;]*[A-Za-z]", "", printed).splitlines()
        assert sum(-(-max(1, cell_len(line)) // columns) for line in shown) < lines
        assert shown[0].startswith("line ") or lines == 12
        assert "line 0" not in shown
        assert any("tasks" in line for line in shown)
    view.close()


class SlowGateway:
    """Answers after a while."""

    def __init__(self) -> None:
        self.asked = 0
        self.answer = threading.Event()

    def status(self) -> dict[str, Any]:
        self.asked += 1
        self.answer.wait(10)
        return {"in_flight": 3, "waiting": 1, "limit": 4, "held_until_s": 7.5}


def test_a_gateway_that_is_slow_to_answer_keeps_nobody_waiting(story: Story) -> None:
    view, gateway = Heard(), SlowGateway()
    follower = _follower(story, view)
    for _ in range(20):
        assert follower.look([], gateway).traffic is None
    assert gateway.asked == 1
    gateway.answer.set()
    deadline = time.monotonic() + 20
    while (traffic := follower.look([], gateway).traffic) is None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert traffic == Traffic(3, 1, 4, 7.5)
