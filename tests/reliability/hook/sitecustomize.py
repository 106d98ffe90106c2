"""Comes into every Python process of a run under test, by PYTHONPATH, before anything of the program is imported.

What it does is told by the environment; without that, nothing. A gateway gets a clean one, but for names with PYTHON:

    PYTHONTRACED            JSON: role, strace options, marker file. The first process of that role is traced by strace.
                            And the number of the opening for writing at which it dies, 0 for none.
    PYTHONBASHTIMEOUT       seconds that a command may take, instead of the executors' usual limit
    RELIABILITY_IN_PLACE    state files are rewritten in place: what the store must never do, to see that it is noticed.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

_tracers: list[subprocess.Popen[bytes]] = []


def role() -> str:
    """Which process of a run this is."""
    command = " ".join(sys.orig_argv)
    if "multiprocessing.forkserver" in command:
        return "worker"  # its children are
    if "parallel_orchestrator.gateway" in command:
        return "gateway"
    return "orchestrator" if "orchestrator.py" in command else ""


def attach(trace: dict[str, Any]) -> None:
    """Have strace follow this process, once per run: the marker says that it was done."""
    try:
        os.close(os.open(trace["marker"], os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    except FileExistsError:
        return
    command = ["strace", "-p", str(os.getpid()), *trace["options"]]
    quiet = subprocess.DEVNULL
    _tracers.append(subprocess.Popen(command, stdin=quiet, stdout=quiet, stderr=quiet))
    while "TracerPid:\t0\n" in Path("/proc/self/status").read_text():
        time.sleep(0.001)
    if trace["opening"]:
        die_at_opening(trace["opening"])


def trace_executors(trace: dict[str, Any]) -> None:
    """Trace what this fork server forks, but for its first child, which is the planner."""
    forks: list[None] = []

    def in_child() -> None:
        if len(forks) > 1:
            attach(trace)

    os.register_at_fork(before=lambda: forks.append(None), after_in_child=in_child)


def die_at_opening(number: int) -> None:
    """Have this process kill itself when its main thread is about to open the `number`-th file for writing."""
    left, mine = number, os.getpid()

    def look(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal left
        if event != "open" or isinstance(arguments[0], int) or threading.get_native_id() != mine:
            return
        left -= bool(arguments[2] & (os.O_CREAT | os.O_WRONLY | os.O_TRUNC))
        if not left:
            os.kill(mine, signal.SIGKILL)

    sys.addaudithook(look)


def rewrite_in_place() -> None:
    """Replace the store's two ways to write by the naive one: cut the file off, write it anew."""
    from parallel_orchestrator.store import journal
    from parallel_orchestrator.system import files

    def write_whole(path: Path, content: str | bytes) -> None:
        rewrite(path, content.encode() if isinstance(content, str) else content)

    def append(self: Any, record: Any, *, durable: bool) -> Any:
        self.read_new()
        line = journal.encode(self.next_seq, record)
        rewrite(self.path, (self.path.read_bytes() if self.path.exists() else b"") + line)
        record.seq = self.next_seq
        self.offset += len(line)
        self.next_seq += 1
        return record

    def rewrite(path: Path, data: bytes) -> None:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        files.write_all(descriptor, data)
        os.close(descriptor)

    files.write_whole = write_whole
    journal.Journal.append = append  # type: ignore[method-assign]


if os.environ.get("RELIABILITY_IN_PLACE") and role():
    rewrite_in_place()
if os.environ.get("PYTHONBASHTIMEOUT") and role() == "worker":
    import executor_agent

    executor_agent.BASH_TIMEOUT_S = float(os.environ["PYTHONBASHTIMEOUT"])
_wanted = json.loads(os.environ.get("PYTHONTRACED", "{}"))
if _wanted and _wanted["role"] == role():
    if role() == "worker":
        trace_executors(_wanted)
    else:
        attach(_wanted)
