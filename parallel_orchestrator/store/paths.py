"""Every path of a run directory, in one place."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from parallel_orchestrator.system.invocation import command

_TRANSCRIPT = re.compile(r"((?:task|fix)_[1-9][0-9]{0,3})(?:\.([1-9][0-9]*))?\.jsonl")


@dataclass(frozen=True)
class AttemptFile:
    """The transcript of one attempt, by its place."""

    path: Path
    executor: int
    task: str
    attempt: int


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
        """Held by every process of the run; its content names the owner. The runs of a batch share the batch's."""
        return self.batch.run_lock if self.batch else self.root / "run.lock"

    @property
    def batch(self) -> BatchDirectory | None:
        """The batch that the run is part of."""
        folder = BatchDirectory(self.root.parent)
        return folder if folder.journal.exists() else None

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
    def page(self) -> Path:
        """The result, for people."""
        return self.root / "execution_summary.md"

    @property
    def venv(self) -> Path:
        """Where the plan's packages are installed, when it has any that were not there."""
        return self.root / ".venv"

    @property
    def planning(self) -> Path:
        """Where Claude Code works while it plans; gone when there is a plan."""
        return self.root / "planner.claude"

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

    def claude_state(self, executor: int, task: str, attempt: int) -> Path:
        """Where Claude Code keeps what is its own in one attempt, beside the workspace."""
        workspace = self.workspace(executor, task, attempt)
        return workspace.with_name(workspace.name + ".claude")

    def transcripts(self) -> Iterator[AttemptFile]:
        """Every transcript there is, by executor, task and attempt."""
        for path in sorted(self.root.glob("executor_*/*.jsonl")):
            executor, named = path.parent.name.removeprefix("executor_"), _TRANSCRIPT.fullmatch(path.name)
            if executor.isdecimal() and named:
                yield AttemptFile(path, int(executor), named[1], int(named[2] or 1))

    def journals(self) -> Iterator[Path]:
        """Every journal there is."""
        yield from (path for path in (self.queue, self.ledger) if path.exists())
        yield from (found.path for found in self.transcripts())


def repair_hint(path: Path) -> str:
    """What a person does about a damaged state file of a run."""
    root = path.parent.parent if path.parent.name.startswith("executor_") else path.parent
    return f"To repair what can be repaired, with a backup: {command('repair', root)}"


@dataclass(frozen=True)
class BatchDirectory:
    """Where things of a batch lie: its own files, and a folder for each scenario's run. `root` is absolute."""

    root: Path

    @property
    def journal(self) -> Path:
        """How each scenario stands."""
        return self.root / "batch.jsonl"

    @property
    def lock(self) -> Path:
        """Held for each read-pick-append on the journal."""
        return self.root / "batch.lock"

    @property
    def config(self) -> Path:
        """The scenarios as they were given last, for `resume`."""
        return self.root / "batch.json"

    @property
    def run_lock(self) -> Path:
        """Held by every process of the batch, and by a session that resumes one of its runs alone."""
        return self.root / "run.lock"

    @property
    def log(self) -> Path:
        """What happened, for a person."""
        return self.root / "orchestrator.log"

    @property
    def summary(self) -> Path:
        """The result, for programs."""
        return self.root / "batch_summary.json"

    @property
    def page(self) -> Path:
        """The result, for people."""
        return self.root / "batch_summary.md"
