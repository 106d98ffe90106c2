"""The demonstration: what a comparison says, the menu, and that the sequential side of a live run is computed."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

import demo
from tests.end_to_end import harness
from tests.report.runs import summary_with


def test_the_sequential_side_of_a_live_run_is_computed_from_its_own_tasks() -> None:
    shown = demo.computed(demo.Measured(summary_with(makespan_s=10.0, work_s=25.0), 12.0, Path("/x"))).splitlines()
    assert shown[0].endswith("25.0 s, computed from this run's own tasks, not run")
    assert shown[1].endswith("10.0 s, measured")
    assert (shown[0].count("█"), shown[1].count("█")) == (demo.BAR, demo.BAR * 10 // 25)
    assert shown[2].split() == ["speedup", "2.50"]
    assert "nothing to compare" in demo.computed(demo.Measured(summary_with(), 1.0, Path("/x")))


def _measured(directory: Path, **figures: Any) -> demo.Measured:
    (directory / "src").mkdir(parents=True)
    (directory / "src" / "a.py").write_text("a = 1\n")
    elapsed_s = figures.pop("elapsed_s")
    summary = summary_with(total_tasks=4, completed=4, executors_budget=5, model_calls=9, **figures)
    summary = structs.replace(summary, planning=structs.replace(summary.planning, endpoint_s=1.0))
    return demo.Measured(summary, elapsed_s, directory, last_tests_s=2.0)


def test_planning_and_the_last_tests_are_part_of_what_is_compared(tmp_path: Path) -> None:
    one = _measured(tmp_path / "one", executors_used=1, work_s=17.0, critical_path_s=9.0, elapsed_s=20.0)
    many = _measured(tmp_path / "many", executors_used=2, work_s=17.0, critical_path_s=5.0, elapsed_s=11.0)
    assert (one.path_s, one.work_s, one.bound_s) == (12.0, 20.0, 20.0)
    assert (many.path_s, many.work_s, many.bound_s) == (8.0, 20.0, 10.0)
    shown = demo.comparison("medium", one, many, 50)
    for told in ("50 times", "1 against 2", "1.10 of the bound", "speedup        1.82, efficiency 91%", "identical"):
        assert told in shown
    assert shown.count("█") == 40 + 22
    (many.directory / "src" / "a.py").write_text("a = 2\n")
    assert "DIFFERENT" in demo.comparison("medium", one, many, 50)
    assert "DIFFERENT" in demo.at_a_glance({"medium": (one, many)})


def _asked(answers: str, tmp_path: Path, **variables: str) -> tuple[int, str]:
    """The menu on a terminal of its own, with these answers typed; the exit code and what was shown."""
    terminal, end = pty.openpty()
    os.write(terminal, answers.encode())
    environment = harness.environment(None, TERM="dumb", **variables)
    command = [sys.executable, str(harness.ROOT / "demo.py"), "--speed", "100"]
    done = subprocess.run(
        command, env=environment, cwd=tmp_path, stdin=end, capture_output=True, text=True, timeout=200, check=False
    )
    os.close(terminal)
    os.close(end)
    return done.returncode, done.stdout + done.stderr


def test_the_menu_asks_again_and_builds_what_was_chosen(tmp_path: Path) -> None:
    code, shown = _asked("9\n1\n", tmp_path)
    assert code == 0, shown
    assert "Choose a number from 1 to 5." in shown
    assert "done: 1 of 1 tasks merged" in shown


def test_a_requirement_of_ones_own_needs_a_model_and_says_so_before_it_asks(tmp_path: Path) -> None:
    code, shown = _asked("4\n", tmp_path)
    assert code == 2
    assert "export ANTHROPIC_API_KEY" in shown
    assert "What shall be built?\n" not in shown.partition("5  compare")[2]


@pytest.mark.thorough
def test_a_demonstration_that_is_interrupted_says_how_to_go_on(tmp_path: Path) -> None:
    command = [sys.executable, str(harness.ROOT / "demo.py"), "--scenario", "simple", "--speed", "1"]
    directory = tmp_path / "outputs" / "demo-simple"
    with subprocess.Popen(
        command,
        cwd=tmp_path,
        env=harness.environment(None),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as running:
        harness.wait_until((directory / "queue.jsonl").exists)
        running.send_signal(signal.SIGINT)
        _, told = running.communicate(timeout=120)
    assert running.returncode == 130
    assert told.splitlines()[-1] == f"to go on: {harness.typed('resume', directory)}"
