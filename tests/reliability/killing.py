"""One run of the real program, killed as often as wanted, resumed until it is done, and compared with what must hold.

The model is `project`, on a fake API server in this process, which is not killed. This process is the subreaper of all
that a run starts, so whatever is left of a run is a descendant of it: nothing else may run below it meanwhile.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from parallel_orchestrator.sandbox import reaper
from tests.end_to_end import harness
from tests.fake_api import FakeApi, Script
from tests.journals import read_all
from tests.reliability import syscalls
from tests.reliability.project import REQUIREMENT, answer, conversation_of
from tests.reliability.states import state
from tests.reliability.syscalls import Point
from tests.reliability.watching import Watch

LATENCY_S = 0.04
EVERYTHING, ORCHESTRATOR, GATEWAY, WORKER = "everything", "orchestrator", "gateway", "worker"
OWN_DOCUMENT = "docs/execution_summary.json"
"""Ours, and about times: it differs from run to run."""

_LONGEST_S = 120
_LAST_WORDS_S = 20
"""For what lives on after a kill to end by itself."""


@dataclass(frozen=True)
class Kill:
    """A SIGKILL: whom and when: at a syscall, `after_s` seconds after the start, or after a change to the disk."""

    whom: str
    after_s: float = 0.0
    """At the pace of a run that takes `startup_s` to its first file; scaled to the pace of the run that is killed."""
    startup_s: float = 0.0
    change: str = ""
    number: int = 0
    point: Point | None = None
    during: str = ""
    """A command's words: it is killed while a process with these on its command line runs."""

    def __str__(self) -> str:
        when = f"{self.change} {self.number}" if self.change else f"{self.after_s:.3f} s"
        when = f"{self.during!r} {self.number}" if self.during else when
        return f"{self.whom} at {self.point or when}"


@dataclass
class Outcome:
    """What came of a run that was killed."""

    kills: list[str]
    """Those that hit something, and what."""
    states: list[str] = field(default_factory=list)
    """Of the run, at each of them."""
    faults: list[str] = field(default_factory=list)
    """What must not be."""
    again: int = 0
    """Answers that the endpoint gave more than once."""
    in_flight: int = 0
    """Calls that the summary counts as lost with their gateway."""
    sessions: int = 0


@dataclass
class Victim:
    """A run directory and what happens to it."""

    folder: Path
    api: FakeApi
    variables: dict[str, str]
    outcome: Outcome
    options: tuple[str, ...] = ()
    """Of the command that begins the run."""
    resumes: bool = False
    """Whether the program was last started to go on."""
    pace: float = 1.0
    """Seconds that it takes for a second of the run that the kills were planned by."""

    @property
    def directory(self) -> Path:
        """The output directory."""
        return self.folder / "run"

    def temporary(self) -> Path:
        """Its own place for temporary folders."""
        place = self.folder / "tmp"
        place.mkdir(exist_ok=True)
        return place

    def command(self) -> list[str]:
        """What a person would type: resume, where there is something to resume."""
        self.resumes = (self.directory / "scenario.json").exists()
        if self.resumes:
            return ["resume", str(self.directory)]
        return [REQUIREMENT, "--output-dir", str(self.directory), "--max-executors", "2", *self.options]


def adopt_orphans() -> None:
    """Make this process the subreaper of what it starts. Once, before the first run."""
    ctypes.CDLL(None).prctl(reaper.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def run_killed(
    folder: Path,
    kills: list[Kill],
    golden: dict[str, bytes],
    outcome: Outcome,
    *,
    variables: dict[str, str] | None = None,
    options: tuple[str, ...] = (),
    model: Script = answer,
) -> None:
    """Begin a run in `folder`, kill it by each of `kills`, resuming in between, finish it, and judge."""
    with FakeApi(model, task_of=conversation_of, latency_s=LATENCY_S) as api:
        victim = Victim(folder, api, variables or {}, outcome, options)
        for together in _sessions(kills):
            before = len(outcome.kills)
            _session(victim, together)
            if len(outcome.kills) == before:
                break  # it was done before: there is nothing left to kill
        for _ in range(3):
            if _session(victim, []) == 0:
                break
        else:
            outcome.faults.append("it does not come to its end")
        if not outcome.faults:
            judge(victim, golden, gateway_died=any(kill.whom in (EVERYTHING, GATEWAY) for kill in kills))


def _sessions(kills: list[Kill]) -> list[list[Kill]]:
    """The kills of each start of the program: it outlives a worker and a gateway."""
    sessions: list[list[Kill]] = [[]]
    for kill in kills:
        sessions[-1].append(kill)
        if kill.whom in (EVERYTHING, ORCHESTRATOR):
            sessions.append([])
    return [session for session in sessions if session]


def _session(victim: Victim, kills: list[Kill]) -> int:
    """One start of the program, killed or not; its exit code. Nothing of it lives afterwards."""
    trace = victim.folder / f"session_{victim.outcome.sessions}"
    trace.mkdir()
    victim.outcome.sessions += 1
    variables = {"PYTHONPATH": str(syscalls.HOOK), **victim.variables}
    for kill in kills:
        if kill.point:
            variables |= syscalls.variables(kill.point.role, victim.directory, trace, kill.point)
    output = victim.folder / f"output_{victim.outcome.sessions}"
    watch = Watch(victim.directory)
    process = _start(victim, variables, output)
    hits: list[str] = []
    try:
        hits = [hit for kill in kills if (hit := _strike(victim, kill, process, watch, trace))]
        code = process.wait(_LONGEST_S)
    except subprocess.TimeoutExpired:
        victim.outcome.faults.append("it hangs")
        _kill_descendants()
        code = process.wait()
    finally:
        watch.close()
    if code == 0 and kills and kills[-1].whom in (EVERYTHING, ORCHESTRATOR):
        hits = hits[: len(kills) - 1]  # it had ended by itself in the instant before
    if not (hits and kills[-1].whom == ORCHESTRATOR and kills[-1].number % 2):
        _await_end(victim)  # else it is resumed at once, while its gateway lands the calls in flight
    victim.outcome.kills += hits
    _look_at(victim, code, output.read_text(errors="replace"), hits)
    return code


def _start(victim: Victim, variables: dict[str, str], output: Path) -> subprocess.Popen[bytes]:
    with output.open("wb") as file:
        return subprocess.Popen(
            harness.command(*victim.command()),
            env=harness.environment(victim.api.url, **{**variables, "TMPDIR": str(victim.temporary())}),
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def _strike(victim: Victim, kill: Kill, process: subprocess.Popen[bytes], watch: Watch, trace: Path) -> str | None:
    """Do it; what was hit, or None when the run had ended before."""
    if kill.point:
        return _strike_at_point(victim, kill, process, trace)
    until = time.monotonic() + _LONGEST_S
    if kill.during:
        if not _wait_for_command(kill, process, until):
            return None
    elif kill.change:
        wanted = watch.seen[kill.change] + kill.number
        while not watch.wait_for(kill.change, wanted, time.monotonic() + 0.2):
            if process.poll() is not None or time.monotonic() > until:
                return None
    else:
        _wait_at_pace(victim, kill, process)
    if process.poll() is not None:
        return None
    pids = _chosen(victim, kill, process.pid)
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    if kill.whom == EVERYTHING:
        _kill_descendants()
    if pids:
        victim.outcome.states.append(state(victim.directory))
    return str(kill) if pids else None


def _strike_at_point(victim: Victim, kill: Kill, process: subprocess.Popen[bytes], trace: Path) -> str | None:
    """strace does it; where everything is to die, the rest follows at once."""
    while process.poll() is None:
        hit = syscalls.hit(trace / "trace", victim.directory)
        if hit:
            if kill.whom == EVERYTHING:
                _kill_descendants()
            victim.outcome.states.append(state(victim.directory))
            return f"{kill}: {hit}"
        time.sleep(0.01)
    hit = syscalls.hit(trace / "trace", victim.directory)
    if hit:
        victim.outcome.states.append(state(victim.directory))
    return f"{kill}: {hit}" if hit else None


def _wait_for_command(kill: Kill, process: subprocess.Popen[bytes], until: float) -> bool:
    """Whether it ran, and, so many hundredths of a second later, the run still goes on."""
    words = kill.during.encode()
    while not any(words in _command_line(pid) for pid in reaper.descendants(os.getpid())):
        if process.poll() is not None or time.monotonic() > until:
            return False
        time.sleep(0.005)
    time.sleep(kill.number / 100)
    return process.poll() is None


def _wait_at_pace(victim: Victim, kill: Kill, process: subprocess.Popen[bytes]) -> None:
    """Other programs come and go on the machine: what was a run's middle an hour ago may be past its end now."""
    started = time.monotonic()
    while kill.startup_s and not victim.resumes and time.monotonic() - started < kill.after_s:
        if (victim.directory / "scenario.json").exists():
            victim.pace = (time.monotonic() - started) / kill.startup_s
            break
        time.sleep(0.005)
    left = started + kill.after_s * victim.pace - time.monotonic()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(max(0.0, left))


def _chosen(victim: Victim, kill: Kill, orchestrator: int) -> list[int]:
    """The processes that are to die, of those that live now."""
    whom = kill.whom
    if whom in (EVERYTHING, ORCHESTRATOR):
        return [orchestrator]
    if not (victim.directory / "run.lock").exists():
        return []
    workers = sorted(harness.workers(victim.directory, orchestrator))
    if whom == WORKER:
        return workers[kill.number % len(workers) :][:1] if workers else []
    return [pid for pid in reaper.descendants(os.getpid()) if b"parallel_orchestrator.gateway" in _command_line(pid)]


def _command_line(pid: int) -> bytes:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


def _living() -> list[int]:
    """What there is of a run. Looked for twice: an orphan escapes one look if its number is lower than its parent's."""
    return reaper.descendants(os.getpid()) or reaper.descendants(os.getpid())


def _kill_descendants() -> None:
    """Until nothing is left: what is being killed may be starting others."""
    while living := _living():
        for pid in living:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _await_end(victim: Victim) -> None:
    """All that a run started has to end by itself soon after its orchestrator."""
    deadline = time.monotonic() + _LAST_WORDS_S
    while left := _living():
        if time.monotonic() > deadline:
            victim.outcome.faults += [f"left running: {_command_line(pid)!r}" for pid in left]
            _kill_descendants()
        time.sleep(0.01)
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass  # orphans that have ended


def _look_at(victim: Victim, code: int, output: str, hits: list[str]) -> None:
    """Exit code and words of one session."""
    died = {hit.partition(" at ")[0] for hit in hits}
    hit = "; ".join(hits) or "undisturbed"
    # A gateway that dies before it was ever there is not replaced, but the next start goes on.
    allowed = (-9,) if died & {EVERYTHING, ORCHESTRATOR} else (0, 3) if GATEWAY in died else (0,)
    if code not in allowed:
        victim.outcome.faults.append(f"ended with {code} ({hit}): {output[-1500:]}")
    if victim.resumes and code == 0 and "nothing to do" not in output and "resuming: reusing" not in output:
        victim.outcome.faults.append(f"it does not say what it reuses ({hit}): {output[-1500:]}")
    log = victim.directory / "orchestrator.log"
    told = output + (log.read_text(errors="replace") if log.exists() else "")
    if "Traceback (most recent call last)" in told:
        start = told.index("Traceback (most recent call last)")
        victim.outcome.faults.append(f"a traceback ({hit}): {told[start:][:3000]}")


def judge(victim: Victim, golden: dict[str, bytes], *, gateway_died: bool) -> None:
    """Compare a finished run with an undisturbed one, and what was bought with what was asked for."""
    outcome, directory = victim.outcome, victim.directory
    summary = harness.summary(directory)
    if (summary["status"], summary["completed"]) != ("done", 4):
        reasons = [task["reason"] for task in summary["tasks"]]
        outcome.faults.append(f"it ends as {summary['status']}, {summary['completed']} merged: {reasons}")
    found = tree(directory)
    differing = sorted(path for path in found.keys() | golden.keys() if found.get(path) != golden.get(path))
    if differing:
        outcome.faults.append(
            f"these differ from an undisturbed run: {[(path, golden.get(path), found.get(path)) for path in differing]}"
        )
    ended = [path.name for path in directory.glob("executor_*/task_*.jsonl") if b"[killed: " in path.read_bytes()]
    if ended:
        outcome.faults.append(f"commands were taken for too greedy: {ended}")
    merged = Counter(move["task"] for move in harness.moves(directory) if move["state"] == "merged")
    if set(merged.values()) != {1}:
        outcome.faults.append(f"merged more than once: {merged}")
    left = [path for folder in (".", ".git/evidence") for path in (directory / folder).glob(".*.tmp")]
    # multiprocessing's own stay where they are when it is killed.
    left += [path for path in victim.temporary().iterdir() if not path.name.startswith("pymp-")]
    if left:
        outcome.faults.append(f"left behind: {left}")
    _audit(victim, summary, gateway_died=gateway_died)


def _audit(victim: Victim, summary: dict[str, object], *, gateway_died: bool) -> None:
    """What the endpoint answered, by key, against the ledger and the summary."""
    outcome, requests = victim.outcome, list(victim.api.requests)
    asked = Counter((request.task, request.turn) for request in requests)
    bodies = {(request.task, request.turn, request.hash) for request in requests}
    answered = Counter((request.task, request.turn) for request in requests if request.whole)
    records = read_all(victim.directory / "ledger.jsonl")
    ended = {record["call"] for record in records if record["kind"] != "intent"}
    lost = [record for record in records if record["kind"] == "intent" and record["call"] not in ended]
    in_flight = Counter(map(_key_of, lost))
    outcome.again, outcome.in_flight = sum(answered.values()) - len(answered), len(lost)
    findings = {
        "bodies changed under one key": len(bodies) != len(asked) or summary["changed_bodies"] != 0,
        "asked again without having been lost": any(asked[key] > 1 + in_flight[key] for key in asked),
        "the summary counts other calls in flight": summary["open_calls"] != len(lost),
        "more was bought again than was in flight": outcome.again > len(lost) or summary["bought_again"] != 0,
        "calls were lost though no gateway died": bool(lost) and not gateway_died,
    }
    outcome.faults += [
        f"{what}: asked {asked}, lost {in_flight}, summary {summary['open_calls']}"
        for what, is_so in findings.items()
        if is_so
    ]


def _key_of(record: dict[str, Any]) -> tuple[str, int]:
    """A ledger record's key as the fake server has it (`conversation_of`)."""
    if record["phase"].startswith("restart"):
        return f"{record['task']} again", record["phase_turn"]
    return record["task"], record["turn"]


def tree(directory: Path) -> dict[str, bytes]:
    """Every file of the project but our account of times."""
    files = (path for root in ("src", "tests", "docs") for path in sorted((directory / root).rglob("*")))
    contents = {path.relative_to(directory).as_posix(): path.read_bytes() for path in files if path.is_file()}
    contents.pop(OWN_DOCUMENT, None)
    return contents
