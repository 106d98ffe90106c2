"""The medium recording through the real command line: what it leaves, and whether its figures are true."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.end_to_end import harness

REQUIREMENT = "Build a simple todo list application with add, delete, and mark complete features"
PROJECT = {"src", "tests", "docs", "README.md", "pyproject.toml"}
STATE = {"scenario.json", "queue.jsonl", "queue.lock", "ledger.jsonl", "run.lock", "merge.lock", ".git"}
RESULT = {
    "orchestrator.log",
    "execution_plan.json",
    "execution_summary.json",
    "execution_summary.md",
    "executor_1",
    "executor_2",
}
TYPED = {**harness.environment(None), "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
"""The environment of a person who types commands with ours active."""


@pytest.mark.long
def test_the_medium_recording(tmp_path: Path, subtests: pytest.Subtests) -> None:
    made = tmp_path / "out"
    harness.run(REQUIREMENT, "--replay", "medium", "--speed", "40", "--output-dir", str(made))
    # One run for all of them, whichever processes the tests are spread over.
    for number, check in enumerate(CHECKS):
        scratch = tmp_path / str(number)
        scratch.mkdir()
        with subtests.test(check.__name__):
            check(made, scratch)


def _project(made: Path, scratch: Path) -> Path:
    """A copy of the project alone, without the run's state."""
    return shutil.copytree(made, scratch / "project", symlinks=True, ignore=shutil.ignore_patterns(*STATE, *RESULT))


def check_every_figure_of_the_summary_is_what_the_other_files_say(made: Path, _scratch: Path) -> None:
    assert harness.recount(made, "--run-verify") == []


def check_false_figures_are_found(made: Path, scratch: Path) -> None:
    copy = shutil.copytree(made, scratch / "copy", symlinks=True)
    summary = harness.summary(copy)
    fields = ["completed", "coverage_percent", "makespan_s", "cost_usd", "retries"]
    summary |= {field: summary[field] + 0.01 for field in fields}
    (copy / "execution_summary.json").write_text(json.dumps(summary))
    assert [line.partition(":")[0] for line in harness.recount(copy)] == fields


def check_the_directory_holds_what_is_documented_and_nothing_else(made: Path, _scratch: Path) -> None:
    assert {path.name for path in made.iterdir()} == PROJECT | RESULT | STATE
    assert {path.name for path in made.glob("executor_*/*")} == {
        name for number in range(1, 7) for name in (f"task_{number}", f"task_{number}.jsonl")
    }


def check_the_project_is_committed_and_holds_copies_of_plan_and_summary(made: Path, _scratch: Path) -> None:
    status = ["git", "status", "--porcelain"]
    assert subprocess.run(status, cwd=made, capture_output=True, text=True, check=True).stdout == ""
    for name in ("execution_plan.json", "execution_summary.json"):
        assert (made / "docs" / name).read_bytes() == (made / name).read_bytes()


def check_the_summary_says_what_was_done(made: Path, _scratch: Path) -> None:
    summary = harness.summary(made)
    assert (summary["status"], summary["completed"], summary["success_rate"]) == ("done", 6, 1.0)
    assert summary["tests"]["passed"] >= 20
    assert summary["cost_usd"] == 0 < summary["recorded_cost_usd"]
    assert 1 < summary["executors_used"] <= summary["executors_budget"] == 5


def _pytest(directory: Path) -> str:
    done = subprocess.run(["pytest"], cwd=directory, env=TYPED, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    return done.stdout.splitlines()[-1]


def check_its_tests_pass_where_it_was_made_and_where_it_is_moved_to(made: Path, scratch: Path) -> None:
    here, elsewhere = _pytest(made), scratch / "moved to" / "a new home"
    elsewhere.parent.mkdir()
    made.rename(elsewhere)
    try:
        there = _pytest(elsewhere)
        status = ["git", "status", "--porcelain"]
        assert subprocess.run(status, cwd=elsewhere, capture_output=True, text=True, check=True).stdout == ""
    finally:
        elsewhere.rename(made)
    passed = f"{harness.summary(made)['tests']['passed']} passed"
    assert passed in here
    assert passed in there


def _examples(directory: Path, language: str) -> list[str]:
    pages = [directory / "README.md", *sorted((directory / "docs").glob("*.md"))]
    found = [re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL) for page in pages]
    return list(dict.fromkeys(block for blocks in found for block in blocks))


def _type(commands: str, directory: Path) -> str:
    done = subprocess.run(
        ["bash", "-euc", commands], cwd=directory, env=TYPED, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{commands}\n{done.stdout}{done.stderr}"
    return done.stdout


@contextlib.contextmanager
def _serving(command: str, directory: Path) -> Iterator[str]:
    """The documented server on a free port; its address."""
    words = ["bash", "-c", f"exec env {command.strip()} --port 0"]
    with subprocess.Popen(words, cwd=directory, env=TYPED, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout
            yield re.findall(r"http://[\w.:]+", server.stdout.readline())[0]
        finally:
            server.send_signal(signal.SIGINT)


def check_every_documented_command_runs(made: Path, scratch: Path) -> None:
    project = _project(made, scratch)
    typed = {commands: _type(commands, project) for commands in _examples(project, "sh") if "serve" not in commands}
    assert any("Buy milk" in output for output in typed.values())
    assert any(" passed" in output for output in typed.values())
    (serve,) = (commands for commands in _examples(project, "sh") if "serve" in commands)
    with _serving(serve, project) as address, urllib.request.urlopen(f"{address}/") as page:
        assert "Buy milk" in page.read().decode()


def check_every_documented_line_of_python_runs(made: Path, scratch: Path) -> None:
    project = _project(made, scratch)
    blocks = _examples(project, "python")
    assert len(blocks) >= 3
    for block in blocks:
        # What the examples leave open: some items, and an end to the server.
        given = "items = []\n"
        if "serve_forever" in block:
            given += "import signal, sys\nsignal.signal(14, lambda *_: sys.exit())\nsignal.alarm(1)\n"
        code = given + block.replace("8000", "0")
        environment = {**TYPED, "PYTHONPATH": "src"}
        subprocess.run([sys.executable, "-c", code], cwd=project, env=environment, check=True)


CHECKS: list[Callable[[Path, Path], None]] = [
    check_every_figure_of_the_summary_is_what_the_other_files_say,
    check_false_figures_are_found,
    check_the_directory_holds_what_is_documented_and_nothing_else,
    check_the_project_is_committed_and_holds_copies_of_plan_and_summary,
    check_the_summary_says_what_was_done,
    check_its_tests_pass_where_it_was_made_and_where_it_is_moved_to,
    check_every_documented_command_runs,
    check_every_documented_line_of_python_runs,
]
