"""A disk that refuses: one write, sync, rename or opening for writing fails, with each error that disks have.

strace makes the N-th call of orchestrator, gateway or a worker fail. The run stops with 3, one message that names
path and free space, and every file whole; no call is made that is not in the ledger, and a file that failed to
reach the disk is not written to again. Resumed, it ends as if nothing had been, and nothing is bought twice.

A disk that fills up for good is in tests/attacks/test_surroundings.py.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import pytest

from parallel_orchestrator.maintenance.check import check
from tests.end_to_end import harness
from tests.fake_api import FakeApi
from tests.journals import read_all
from tests.reliability import killing, syscalls
from tests.reliability.accounts import Account, Job, folder_of_a_run, play
from tests.reliability.campaign import undisturbed
from tests.reliability.killing import GATEWAY, LATENCY_S, ORCHESTRATOR, WORKER, Outcome, Victim
from tests.reliability.project import answer, conversation_of
from tests.reliability.syscalls import Point

pytestmark = pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")

ERRORS = {
    "write": ("ENOSPC", "EIO"),
    "fsync": ("EIO", "ENOSPC"),
    "fdatasync": ("EIO", "ENOSPC"),
    "rename": ("EACCES", "EROFS", "EIO"),
    "openat": ("EROFS", "EACCES", "ENOSPC"),
    "mkdir": ("EROFS", "EACCES", "ENOSPC"),
}
SPOKEN = {
    "ENOSPC": "No space left on device",
    "EIO": "Input/output error",
    "EROFS": "Read-only file system",
    "EACCES": "Permission denied",
}
EXECUTORS = 2

_OF_THE_MODEL = re.compile(r"executor_\d+/task_\d+(\.\d+)?[/>]")
"""Files of a workspace: what cannot be written there, the model is told."""
_NO_STATE = re.compile(r"orchestrator\.log|run\.lock|execution_summary\.md")
"""Nothing depends on what is in them."""
_THERE_ALREADY = re.compile(r"mkdir\(\S+/(\.git-new|\.git/objects/\w\w|executor_\d+(/task_\d+)?)\"")
"""Folders that may be there by then, and then it is no matter why they cannot be made."""
_READING = re.compile(r"openat\([^|]*O_RDONLY")
"""Met instead: how many openings there are for reading differs from run to run, and a disk refuses none of them so."""
_LOOKING_AROUND = re.compile(r"openat\([^|]*executor_\d+/task_\d+(\.\d+)?\", O_RDONLY")
"""The opening of a workspace itself, by a tool or a snapshot of the model's work: told to the model, too."""
_NO_DISK = re.compile(r"\(\d+<(pipe|socket|anon_inode):")
"""Met instead: which of a process's writes go to a pipe differs from run to run."""
_FILE = re.compile(r"\d+<([^>]+)>")


def faults_at(points: Iterable[Point]) -> list[tuple[Point, str]]:
    """Each call that writes what a run is made of, and an error for it: by turns, those of its kind."""
    chosen = [point for point in points if point.kind in ERRORS and not _OF_THE_MODEL.search(point.where)]
    return [(point, ERRORS[point.kind][n % len(ERRORS[point.kind])]) for n, point in enumerate(chosen)]


def run_with_fault(point: Point, error: str, golden: dict[str, bytes]) -> Outcome:
    """Run, with that call failing; look at what is there; resume, and judge."""
    with folder_of_a_run() as (folder, outcome), FakeApi(answer, task_of=conversation_of, latency_s=LATENCY_S) as api:
        victim = Victim(folder, api, {}, outcome)
        variables = syscalls.variables(point.role, victim.directory, folder, point, f"error={error}")
        with harness.started(*victim.command(), url=api.url, variables=variables) as process:
            asked = _await_fault(victim, process)
            output, _ = process.communicate(timeout=200)
        failed = syscalls.failed(folder / "trace")
        if failed and any(met.search(failed) for met in (_OF_THE_MODEL, _LOOKING_AROUND, _NO_DISK)):
            return outcome  # met instead; what the scripted model makes of it, or a pipe that is a disk, is not ours
        if failed and not _READING.search(failed):
            outcome.kills.append(failed.replace(f"{victim.directory}/", "")[:160])
            new = len(api.requests) - asked
            outcome.faults += _faults_of(victim.directory, process.returncode, output, failed, error, new)
            outcome.faults += _written_again(folder / "trace", failed)
            if point.role == GATEWAY and "ledger.jsonl" in failed:
                outcome.faults += _unannounced(folder / "trace", failed, len(api.requests))
        outcome.faults += _finish(victim, golden)
    return outcome


def _await_fault(victim: Victim, process: subprocess.Popen[str]) -> int:
    """The number of requests when the call failed, or when the run ended without."""
    while process.poll() is None and not syscalls.failed(victim.folder / "trace"):
        time.sleep(0.005)
    return len(victim.api.requests)


def _faults_of(directory: Path, code: int, output: str, failed: str, error: str, new: int) -> list[str]:
    """What is not as it must be after a call failed."""
    elsewhere = f"{directory}/" not in failed
    harmless = elsewhere or _NO_STATE.search(failed) or _THERE_ALREADY.search(failed)
    log = directory / "orchestrator.log"
    told = output + (log.read_text(errors="replace") if log.exists() else "")
    message = output.partition("error: ")[2]
    stopped = code == 3
    findings = {
        f"ended with {code}": code not in ((0, 2, 3) if harmless else (3,)),
        "a traceback": "Traceback" in told or "Exception ignored" in told,
        "not one message": stopped and output.count("error: ") != 1,
        "no path in it": stopped and not elsewhere and str(directory) not in message,
        "not the reason": stopped and SPOKEN[error] not in message,
        "no free space in it": stopped and "MiB free" not in message,
        "no word on going on": stopped and "resume" not in message,
        f"{new} calls afterwards": stopped and new > EXECUTORS - 1,  # one that was on its way may come
        "calls that are not in the ledger": _calls(directory) < new,
    }
    found = [what for what, is_so in findings.items() if is_so]
    if (directory / "scenario.json").exists():
        found += map(str, check(directory).findings)
    return [f"{failed}, {what}: {output[-800:]}" for what in found]


def _calls(directory: Path) -> int:
    ledger = directory / "ledger.jsonl"
    return sum(record["kind"] == "intent" for record in read_all(ledger)) if ledger.exists() else 0


def _written_again(trace: Path, failed: str) -> list[str]:
    """Writes by the same process to a journal that had failed: a page may be lost although the next sync says not.

    The gateway syncs in a thread: its event loop may have been about to write a record. No sync follows that one.
    """
    file = _FILE.search(failed)
    if not file or not file[1].endswith(".jsonl"):
        return []
    later = trace.read_text(errors="replace").partition(failed)[2].splitlines()
    calls = [line for line in later if f"<{file[1]}>" in line]
    writes = [line for line in calls if " write(" in f" {line}"]
    about_to = len(writes) == 1 and "fdatasync" in failed and writes[0].split()[0] != failed.split(maxsplit=1)[0]
    again = [line for line in calls if "sync(" in line] if about_to else writes
    return [f"written again: {line[:200]}" for line in again]


def _unannounced(trace: Path, failed: str, requests: int) -> list[str]:
    """Requests whose intents were not on disk when the ledger failed."""
    before = trace.read_text(errors="replace").partition(failed)[0].splitlines()
    syncs = [number for number, line in enumerate(before) if "fdatasync" in line and line.endswith("= 0")]
    on_disk = before[: syncs[-1]] if syncs else []
    announced = sum('\\"kind\\":\\"intent\\"' in line for line in on_disk)
    return [f"{requests} requests, of which {announced} were announced on disk"] if requests > announced else []


def _finish(victim: Victim, golden: dict[str, bytes]) -> list[str]:
    """Go on with a run, or begin it anew where nothing of it is there, to its end."""
    done = subprocess.run(
        harness.command(*victim.command()),
        env=harness.environment(victim.api.url),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        return [f"resumed, it ends with {done.returncode}: {(done.stdout + done.stderr)[-800:]}"]
    killing.judge(victim, golden, gateway_died=True)
    return []


def all_faults(
    title: str, role: str, choose: Callable[[list[tuple[Point, str]]], Sequence[tuple[Point, str]]]
) -> Account:
    """A run for each chosen fault of a role; a `kill` in the account is a fault that came about."""
    golden = undisturbed(role)
    chosen = choose(faults_at(golden.points))
    jobs = [Job(f"{point}: {error}", run_with_fault, (point, error, golden.tree)) for point, error in chosen]
    return play(f"disk faults of {role}, {title}", jobs)


def _some(pairs: list[tuple[Point, str]], *wanted: tuple[str, str]) -> list[tuple[Point, str]]:
    """For each kind and text one call that is like it: of a worker the first, for how many it makes differs."""
    found = []
    for kind, text in wanted:
        alike = [pair for pair in pairs if pair[0].kind == kind and text in pair[0].where]
        found += alike[0 if alike[0][0].role == WORKER else len(alike) // 2 :][:1]
    return found


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("role", "wanted"),
    [
        (ORCHESTRATOR, (("rename", "execution_plan.json"), ("write", "execution_summary"))),
        pytest.param(
            GATEWAY,
            (("fdatasync", "ledger.jsonl"), ("write", '\\"kind\\":\\"answer\\"')),
            marks=pytest.mark.thorough,
        ),
        pytest.param(WORKER, (("fdatasync", "executor_"), ("write", "queue.jsonl")), marks=pytest.mark.thorough),
    ],
)
def test_a_call_that_the_disk_refuses_stops_the_run_which_then_goes_on(
    role: str, wanted: tuple[tuple[str, str], ...], sound: Callable[[Account], None]
) -> None:
    account = all_faults("some", role, lambda pairs: _some(pairs, *wanted))
    sound(account)
    assert account.kills > 0


@pytest.mark.thorough
@pytest.mark.timeout(0)
@pytest.mark.parametrize("role", [ORCHESTRATOR, GATEWAY, WORKER])
def test_every_call_that_the_disk_can_refuse(role: str, sound: Callable[[Account], None]) -> None:
    account = all_faults("each", role, lambda pairs: pairs)
    sound(account)
    assert account.kills > 10
