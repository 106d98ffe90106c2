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

orchestrator = ParallelOrchestrator(requirements="Build two parts", output_dir={directory!r})
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
