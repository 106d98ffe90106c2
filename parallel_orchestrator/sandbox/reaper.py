"""Runs one command and kills everything it started. A program: `python -I -S reaper.py LIFELINE argv...`

A process that daemonises itself (fork twice, setsid) leaves its session and its process group, but keeps its
ancestry. On Linux this process is the subreaper of everything that the command starts: an orphan becomes its
child. When the command ends, or the lifeline breaks, it kills them all.

LIFELINE is the descriptor of a pipe's reading end. The process that holds the writing end asks the command to
end by writing a byte. It kills the command by closing the pipe or by dying, even by kill -9.

Not covered: a command that kills this process first. Without a sandbox it has the same rights.
"""

from __future__ import annotations

# One starts for each command. Importing contextlib and pathlib takes as long as starting the interpreter.
import ctypes
import os
import select
import signal
import sys
import time

PR_SET_CHILD_SUBREAPER = 36
GRACE_S = 2.0
"""Between SIGTERM and SIGKILL."""


def main(lifeline: int, argv: list[str]) -> int:
    """Run `argv` to its end. Returns its exit code, 128 + N when signal N killed it."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    os.set_inheritable(lifeline, False)  # noqa: FBT003
    bell, bell_end = os.pipe()
    os.set_blocking(bell_end, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(bell_end)
    if select.select([lifeline], [], [], 0)[0]:
        return 128 + signal.SIGKILL  # the caller died before the command started
    # Python ignores these two signals, and a command would inherit that across exec.
    command = os.posix_spawnp(argv[0], argv, os.environ, setsid=True, setsigdef=[signal.SIGPIPE, signal.SIGXFSZ])
    code = _wait(command, lifeline, bell)
    _kill_all(command)
    return code


def _wait(command: int, lifeline: int, bell: int) -> int:
    """Wait until the command ends, and reap orphans meanwhile. Returns its exit code."""
    poll = select.poll()
    poll.register(lifeline, select.POLLIN)
    poll.register(bell, select.POLLIN)
    deadline = float("inf")
    while True:
        code = _reap(command)
        if code is not None:
            return code
        if time.monotonic() >= deadline:
            return 128 + signal.SIGKILL
        for ready, _ in poll.poll(None if deadline == float("inf") else 100):
            if ready == bell:
                os.read(bell, 512)
            elif os.read(lifeline, 1):
                deadline = time.monotonic() + GRACE_S
                _signal(_all(command), signal.SIGTERM)
            else:
                return 128 + signal.SIGKILL


def _reap(command: int) -> int | None:
    """Reap every process that has ended. Returns the command's exit code when it is among them."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return None
        if pid == command:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code
        if pid == 0:
            return None


def _kill_all(command: int) -> None:
    """Kill until nothing is left. Repeatedly: a process may fork between the listing and its SIGKILL."""
    if sys.platform != "linux":
        _signal([-command], signal.SIGKILL)  # orphans do not become our children there
    while True:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            _signal(_all(command), signal.SIGKILL)
            time.sleep(0.002)


def _all(command: int) -> list[int]:
    """Return everything that the command started; without /proc, its process group."""
    return descendants(os.getpid()) if sys.platform == "linux" else [-command]


def _signal(pids: list[int], number: int) -> None:
    for pid in pids:
        try:
            os.kill(pid, number)
        except (ProcessLookupError, PermissionError):
            continue


def descendants(pid: int) -> list[int]:
    """Return the processes below `pid` that /proc lists now, without zombies."""
    children: dict[int, list[int]] = {}
    for name in filter(str.isdecimal, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/stat", "rb") as stat:
                fields = stat.read().rpartition(b")")[2].split()
        except OSError:
            continue
        if fields[0] != b"Z":
            children.setdefault(int(fields[1]), []).append(int(name))
    below = [pid]
    for parent in below:
        below += children.get(parent, [])
    return below[1:]


if __name__ == "__main__":
    # os._exit: a finaliser or a traceback of this process would end up in the command's output.
    os._exit(main(int(sys.argv[1]), sys.argv[2:]))
