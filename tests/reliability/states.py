"""Where a run stood when it was killed, as its files say."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from parallel_orchestrator.records.errors import OrchestratorError
from tests.journals import read_all
from tests.reliability.project import TASKS

STATES = (
    *("not begun", "planning", "planned", "between turns", "first turns", "tools", "testing or merging"),
    *("trunk moved, not recorded", "last tests", "summary", "finished", "unreadable"),
)


def state(directory: Path) -> str:
    """One of STATES; of several things that executors did at once, the one that is furthest."""
    if not (directory / "scenario.json").exists():
        return "not begun"
    try:
        if (directory / "execution_summary.json").exists():
            summary = json.loads((directory / "execution_summary.json").read_bytes())
            if summary["status"] == "done":
                return "finished"
        if not (directory / "execution_plan.json").exists():
            return "planning"
        return _building(directory)
    except (OrchestratorError, ValueError):
        return "unreadable"  # torn where nothing may be torn


def _building(directory: Path) -> str:
    moves = [record for record in read_all(directory / "queue.jsonl") if "task" in record]
    now = {move["task"]: move["state"] for move in moves}
    merged = sum(state == "merged" for state in now.values())
    if merged == len(TASKS):
        described = "Describe the project" in _log(directory)
        return "summary" if described else "last tests"
    if _log(directory).count("Task: ") > merged:
        return "trunk moved, not recorded"
    if not now:
        return "planned"
    doing = {_doing(path) for path in directory.glob("executor_*/task_*.jsonl") if now.get(path.stem) == "claimed"}
    order = ("testing or merging", "tools", "first turns")
    return next((what for what in order if what in doing), "between turns")


def _doing(transcript: Path) -> str:
    records = read_all(transcript)
    last = records[-1]["kind"] if records else "start"
    if last == "submitted":
        return "testing or merging"
    if last in ("answer", "tree"):
        return "tools"
    return "first turns" if len(records) <= 1 else "between turns"


def _log(directory: Path) -> str:
    command = ["git", f"--git-dir={directory / '.git'}", "log", "--format=%B", "main"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout
