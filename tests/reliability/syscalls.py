"""Syscalls that change what is on disk: which of them a process of a run makes, and being killed at one of them.

A run is traced once undisturbed; that gives the points. A point is the N-th call of one kind by one process. strace
delivers SIGKILL on entering the call, so that it does not happen; at an opening for writing the process does it itself,
as strace can only count all openings. The points together are all instants between two changes to the disk. Two runs
are not alike to the last call, so what a kill really hit is read from the trace.

Of the gateway all threads are traced, which sync its ledger, and calls to the ledger alone; strace counts those of each
thread by themselves. Of the others the main thread is traced: to follow threads is to follow programs, too.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

HOOK = Path(__file__).parent / "hook"

KINDS = (
    *("openat", "write", "pwrite64", "fsync", "fdatasync", "ftruncate", "flock"),
    *("rename", "unlink", "unlinkat", "mkdir", "mkdirat", "rmdir", "link", "symlink", "fchmod"),
)
_CALL = re.compile(r"(?:(\d+) +)?(\w+)\((.*)")
"""Number of the thread, where several are traced, name and arguments."""
_WRITES = ("O_CREAT", "O_WRONLY", "O_TRUNC")


@dataclass(frozen=True)
class Point:
    """The `number`-th call of a kind (from 1) in the life of the first process of a role."""

    role: str
    kind: str
    number: int
    where: str = field(default="", compare=False)
    """What it was called with in the undisturbed run, paths in the run as they are there."""
    opening: int = field(default=0, compare=False)
    """For an opening: its number among those for writing. How many there are for reading differs from run to run."""

    def __str__(self) -> str:
        return f"{self.role}, {self.kind} {self.number}"


def variables(
    role: str, directory: Path, folder: Path, point: Point | None = None, what: str = "signal=KILL"
) -> dict[str, str]:
    """The environment in which the first process of `role` in the run `directory` is traced into `folder`, and killed
    at `point`.

    `what` else may happen there, in strace's words: "error=EIO" has the call fail.
    """
    threads = ["-f", "-P", str(directory / "ledger.jsonl")] if role == "gateway" else []
    options = [*threads, "-y", "-qq", "-o", str(folder / "trace"), "-e", f"trace={','.join(KINDS)}"]
    opening = point.opening if point and what == "signal=KILL" else 0
    if point and not opening:
        options += ["-e", f"inject={point.kind}:{what}:when={point.number}"]
    trace = {"role": role, "options": options, "marker": str(folder / "traced"), "opening": opening}
    return {"PYTHONPATH": str(HOOK), "PYTHONTRACED": json.dumps(trace)}


def points(role: str, trace: Path, directory: Path) -> list[Point]:
    """The calls in a trace that change something in `directory`, its locks included, in order."""
    seen: Counter[tuple[str, str]] = Counter()
    openings = 0
    found: dict[Point, None] = {}
    for line in trace.read_text(errors="replace").splitlines():
        call = _CALL.match(line)
        if call is None:
            continue
        thread, kind, arguments = call.groups(default="")
        seen[thread, kind] += 1
        opens = kind == "openat" and any(flag in arguments for flag in _WRITES)
        openings += opens
        if f"{directory}/" in arguments and (opens or kind != "openat"):
            where = arguments.replace(f"{directory}/", "")
            # Of two threads that make their N-th call of a kind, the one that is first is hit.
            found.setdefault(Point(role, kind, seen[thread, kind], where, openings if opens else 0))
    return list(found)


def failed(trace: Path) -> str | None:
    """The call that was made to fail; None if none was."""
    lines = trace.read_text(errors="replace").splitlines() if trace.exists() else []
    return next((line for line in lines if line.endswith("(INJECTED)")), None)


def hit(trace: Path, directory: Path) -> str | None:
    """The call that the traced process was killed at, with paths in the run as they are there; None if it was not."""
    lines = trace.read_text(errors="replace").splitlines() if trace.exists() else []
    if not lines or "killed by SIGKILL" not in lines[-1]:
        return None
    calls = [line for line in lines if _CALL.match(line)]
    return calls[-1].replace(f"{directory}/", "")[:160] if calls else "?"
