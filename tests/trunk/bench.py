"""What the trunk's tests share: a runner of commands, short plans, and one object that holds a run together."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from parallel_orchestrator.records.command import RESULTS, Command, CommandResult
from parallel_orchestrator.records.errors import StaleClaim
from parallel_orchestrator.records.journals.evidence import MergeEvidence
from parallel_orchestrator.records.plan import Complexity, Plan, Task
from parallel_orchestrator.store.paths import RunDirectory
from parallel_orchestrator.trunk import Conflict, Merged, Rejected, Submission, TestsFailed, Trunk
from parallel_orchestrator.trunk.results import SubmitterClaim

ADD = "def add(a, b):\n    return a + b\n"
TEST_ADD = "from calc import add\n\n\ndef test_add():\n    assert add(1, 2) == 3\n"


def run_plainly(command: Command) -> CommandResult:
    """Run a command as a plain child, with the environment that the product's runners give."""
    started = time.monotonic()
    argv = [argument.replace(RESULTS, str(command.results)) for argument in command.argv]
    environment = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONHASHSEED": "0",
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
    }
    process = subprocess.Popen(
        argv,
        cwd=command.folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=command.timeout_s)
        timed_out = False
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
        timed_out = True
    code = process.returncode if process.returncode >= 0 else 128 - process.returncode
    return CommandResult(code, output.decode(errors="replace"), timed_out, time.monotonic() - started)


@dataclass
class Claim:
    """A hold that counts its calls, and that is stale when told so."""

    stale: bool = False
    merged_with: list[MergeEvidence] = field(default_factory=list)
    reports: list[tuple[str, float | None]] = field(default_factory=list)

    def report(self, doing: str, within_s: float | None = None) -> None:
        """Note it."""
        self.reports.append((doing, within_s))

    def check(self) -> None:
        """Refuse when stale."""
        if self.stale:
            raise StaleClaim("somebody else holds the task")

    def record_merge_and_claim_next(self, evidence: MergeEvidence) -> None:
        """Note the evidence."""
        self.merged_with.append(evidence)


def task(number: int, *files: str, **changes: Any) -> Task:
    """task_<number>, owner of `files`."""
    fields: dict[str, Any] = {
        "id": f"task_{number}",
        "name": f"Part {number}",
        "description": "Build it.",
        "priority": 1,
        "estimated_effort": "low",
        "dependencies": [],
        "files": list(files),
        "acceptance": [],
        "integration_notes": "",
    }
    return Task(**(fields | changes))


def plan(*tasks: Task) -> Plan:
    """A plan of these tasks."""
    size = Complexity(level="simple", reasoning="", key_features=[], technical_components=[])
    return Plan(complexity=size, contract="", integration_notes="", packages=[], verify=[], tasks=list(tasks))


def write(folder: Path, files: Mapping[str, str | bytes | None]) -> None:
    """Write files below `folder`; None deletes one."""
    for name, content in files.items():
        path = folder / name
        if content is None:
            path.unlink()
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)


class Bench:
    """A run directory with its trunk."""

    def __init__(self, root: Path, test_timeout_s: float = 60) -> None:
        self.run = RunDirectory(root)
        self.trunk = Trunk(self.run, run_plainly, test_timeout_s)

    def git(self, *arguments: str) -> str:
        """What a person's own git says about the output directory."""
        done = subprocess.run(["git", "-C", str(self.run.root), *arguments], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    def subjects(self) -> list[str]:
        """Subjects of the trunk's commits, oldest first."""
        return self.git("log", "--reverse", "--format=%s", "main").splitlines()

    def workspace(self, job: Task, base: str | None = None, attempt: int = 1) -> Path:
        """A workspace of that task, opened at `base`."""
        folder = self.run.workspace(int(job.id.removeprefix("task_")), job.id, attempt)
        self.trunk.open_workspace(folder, base or self.trunk.head())
        return folder

    def offer(
        self,
        job: Task,
        files: Mapping[str, str | bytes | None],
        *,
        among: Plan | None = None,
        base: str | None = None,
        claim: Claim | None = None,
    ) -> Merged | Conflict | TestsFailed | Rejected:
        """Open a workspace, write `files` into it and submit it."""
        base = base or self.trunk.head()
        write(self.workspace(job, base), files)
        return self.submit(job, base, among=among, claim=claim)

    def submit(
        self, job: Task, base: str, *, among: Plan | None = None, claim: SubmitterClaim | None = None
    ) -> Merged | Conflict | TestsFailed | Rejected:
        """Submit the workspace of `job` as it is."""
        folder = self.run.workspace(int(job.id.removeprefix("task_")), job.id, 1)
        submission = Submission(job, among or plan(job), 1, 1, base, folder, job.name)
        return self.trunk.submit(submission, claim or Claim())


def merged(result: Merged | Conflict | TestsFailed | Rejected) -> Merged:
    """The result, which has to be a merge."""
    assert isinstance(result, Merged), result
    return result


def tree_of(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Every file below `folder` with its kind and content, for comparisons."""
    found: dict[str, tuple[int, bytes]] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_symlink():
            found[str(path.relative_to(folder))] = (0, os.fsencode(path.readlink()))
        elif path.is_dir():
            found[str(path.relative_to(folder))] = (1, b"")
        else:
            found[str(path.relative_to(folder))] = (path.stat().st_mode & 0o111, path.read_bytes())
    return found


def clear(folder: Path) -> None:
    """Remove a folder."""
    shutil.rmtree(folder)
