"""The Python API, from every place where a person would type it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.end_to_end import harness, scripted
from tests.fake_api import FakeApi

EXAMPLE = """
from orchestrator import ParallelOrchestrator

class Unrelated:
    pass

orchestrator = ParallelOrchestrator(requirements="Build two parts", output_dir={directory!r}, yes=True)
orchestrator.max_executors = 2
summary = orchestrator.run()
print(summary["total_tasks"], summary["completed"], summary["success_rate"], summary["executors_used"])
print("the SDK was imported here" if "anthropic" in __import__("sys").modules else "no SDK here")
"""


@pytest.mark.parametrize(
    "how", ["script", *(pytest.param(how, marks=pytest.mark.thorough) for how in ("stdin", "command"))]
)
def test_the_unguarded_example(how: str, tmp_path: Path) -> None:
    code = EXAMPLE.format(directory=str(tmp_path / "out"))
    script = tmp_path / "example.py"
    script.write_text(code)
    call = {"script": [str(script)], "stdin": ["-"], "command": ["-c", code]}[how]
    planned = scripted.plan([scripted.task(1, []), scripted.task(2, [])])
    with FakeApi(scripted.model(planned), task_of=scripted.task_of, latency_s=0.05) as api:
        done = subprocess.run(
            [sys.executable, *call],
            input=code if how == "stdin" else "",
            env=harness.environment(api.url, PYTHONPATH=str(harness.ROOT)),
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )
        assert api.answered_twice() == []
    assert done.returncode == 0, done.stderr
    # A run imports it once, in the process that planner and executors are forked from.
    assert done.stdout.splitlines()[-2:] == ["2 2 1.0 2", "no SDK here"]
    assert json.loads((tmp_path / "out" / "execution_summary.json").read_text())["status"] == "done"


PROGRESS = """
import asyncio, json, sys
from parallel_orchestrator import ParallelOrchestrator, Progress

events = []

async def main():
    settings = {"replay": "simple", "speed": 100, "quiet": True}
    run = ParallelOrchestrator("Create a hello world function", sys.argv[1], on_progress=events.append, **settings)
    summary = await asyncio.to_thread(run.run)
    assert all(isinstance(event, Progress) for event in events)
    print(json.dumps([[event.text, event.task, event.state, event.done, event.total] for event in events]))

asyncio.run(main())
"""


def test_progress_is_reported_from_a_thread_of_an_async_program(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRESS, str(tmp_path / "out")],
        env=harness.environment(None, PYTHONPATH=str(harness.ROOT)),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    events = json.loads(done.stdout)
    assert any(text.startswith("plan: simple") and task is None for text, task, *_ in events)
    states = [state for _, task, state, *_ in events if task == "task_1"]
    assert states == ["running", "done"]
    assert [event[3:] for event in events if event[2] == "done"] == [[1, 1]]


def test_a_callback_that_fails_does_not_stop_the_run() -> None:
    from parallel_orchestrator.report.live.progress import Progress, ReportingView
    from parallel_orchestrator.report.live.view import View

    calls: list[Progress] = []

    def fail(event: Progress) -> None:
        calls.append(event)
        raise ValueError("no")

    view = ReportingView(View(), fail)
    view.say("one")
    view.say("two")
    assert [event.text for event in calls] == ["one"]


@pytest.mark.parametrize("arguments", [["--version"], ["resum", "x"]])
def test_the_package_can_be_run_as_a_module(arguments: list[str]) -> None:
    command = [sys.executable, "-m", "parallel_orchestrator", *arguments]
    done = subprocess.run(command, cwd=harness.ROOT, capture_output=True, text=True, check=False)
    expected = {"--version": 0, "resum": 2}[arguments[0]]
    assert done.returncode == expected, done.stderr
    assert "Traceback" not in done.stderr
