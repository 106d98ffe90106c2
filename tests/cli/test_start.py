"""What the command line imports before it does anything: what a person waits for at each command."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from parallel_orchestrator.store.plan_file import plan_text
from parallel_orchestrator.system.files import write_json
from tests.records.plans import plan, task
from tests.report.runs import Story

ROOT = Path(__file__).resolve().parents[2]
PLAN = plan(task(1), task(2, (1,)))

HEAVY = ("anthropic", "httpx2", "uvicorn", "multiprocessing")
"""The SDK, and what only the gateway and the workers need."""
AND_SLOW = (*HEAVY, "pydantic", "yaml", "rich", "importlib.metadata")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    story = Story(tmp_path, PLAN, max_cost_usd=9.0)
    write_json(story.run.scenario, story.scenario.model_dump())
    story.run.plan.write_text(plan_text(PLAN))
    story.close()
    return tmp_path


def loaded(arguments: list[str], names: tuple[str, ...]) -> tuple[str, list[str]]:
    """What the program said, and which of these modules were loaded when it ended."""
    code = (
        "import atexit, sys\n"
        f"atexit.register(lambda: print('loaded:', *(n for n in {names!r} if n in sys.modules)))\n"
        f"sys.argv = ['parallel-orchestrator', *{arguments!r}]\n"
        "import orchestrator\norchestrator.main()"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    *said, last = done.stdout.splitlines()
    first, *found = last.split()
    assert first == "loaded:"
    return "\n".join(said), found


def test_help_imports_nothing_slow() -> None:
    said, found = loaded(["--help"], AND_SLOW)
    assert "Usage: parallel-orchestrator" in said
    assert found == []


@pytest.mark.parametrize("command", ["status", "doctor"])
def test_looking_at_things_imports_no_sdk(command: str, run: Path) -> None:
    # Typer itself loads pydantic as soon as a command has an argument.
    arguments = {"status": ["status", str(run)], "doctor": ["doctor", "--output-dir", str(run)]}[command]
    said, found = loaded(arguments, HEAVY)
    assert {"status": "task_1", "doctor": "sandbox"}[command] in said
    assert found == []


@pytest.mark.parametrize("script", ["orchestrator.py", "demo.py"])
def test_a_python_without_the_packages_is_told_of_in_one_line(script: str) -> None:
    done = subprocess.run([sys.executable, "-S", ROOT / script, "--help"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (1, "", 1)
    assert "`make setup` makes .venv/bin/python, which has them" in done.stderr
