"""Every path of a run directory, in one place."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class RunDirectory:
    """Where things of one run lie. `root` is absolute."""

    root: Path

    @property
    def git(self) -> Path:
        """The trunk's repository."""
        return self.root / ".git"

    @property
    def evidence(self) -> Path:
        """JUnit and coverage results of the merged tree, kept out of the project's own files."""
        return self.git / "evidence"

    @property
    def scenario(self) -> Path:
        """The effective configuration."""
        return self.root / "scenario.json"

    @property
    def plan(self) -> Path:
        """The plan; never rewritten."""
        return self.root / "execution_plan.json"

    @property
    def queue(self) -> Path:
        """Task moves."""
        return self.root / "queue.jsonl"

    @property
    def queue_lock(self) -> Path:
        """Held for each read-pick-append on the queue."""
        return self.root / "queue.lock"

    @property
    def ledger(self) -> Path:
        """Model calls, written by the gateway alone."""
        return self.root / "ledger.jsonl"

    @property
    def run_lock(self) -> Path:
        """Held by every process of the run; its content names the owner."""
        return self.root / "run.lock"

    @property
    def merge_lock(self) -> Path:
        """Held while the trunk moves."""
        return self.root / "merge.lock"

    @property
    def log(self) -> Path:
        """What happened, for a person."""
        return self.root / "orchestrator.log"

    @property
    def summary(self) -> Path:
        """The result, for programs."""
        return self.root / "execution_summary.json"

    @property
    def venv(self) -> Path:
        """Where the plan's packages are installed, when it has any that were not there."""
        return self.root / ".venv"

    def folder(self, executor: int) -> Path:
        """The folder of one executor slot."""
        return self.root / f"executor_{executor}"

    def workspace(self, executor: int, task: str, attempt: int) -> Path:
        """Where one attempt works. The first has the task's name, retries have their number added."""
        return self.folder(executor) / (task if attempt == 1 else f"{task}.{attempt}")

    def transcript(self, executor: int, task: str, attempt: int) -> Path:
        """The conversation of one attempt, beside its workspace."""
        workspace = self.workspace(executor, task, attempt)
        return workspace.with_name(workspace.name + ".jsonl")
