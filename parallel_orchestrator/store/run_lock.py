"""One orchestrator per run directory, by a kernel lock that its whole process family holds.

The lock belongs to the open file, not to a process: gateway and workers inherit the
descriptor, so a free lock proves that no process of the run is alive, however they
ended. The file's content names the owner, for the message to a second process;
it decides nothing. Promised on local file systems only.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from filelock import lock_descriptor

from parallel_orchestrator.records.errors import DirectoryHeld, UsageError
from parallel_orchestrator.system.files import disk_error, read_at, write_all
from parallel_orchestrator.system.process import process_birth

_FAMILY_POLL_S = 0.1


@dataclass(frozen=True)
class Owner:
    """The orchestrator that holds a directory."""

    pid: int
    host: str
    started: str
    """Wall clock, for people."""
    birth: int
    """Start time of the process in clock ticks since boot: tells a reused pid apart."""
    pids: str = ""
    """The pid namespace in which `pid` means something, as the kernel names it; "" where unknown."""

    def alive(self) -> bool:
        """Whether that very process still runs. One that cannot be seen from here counts as alive."""
        elsewhere = self.host != socket.gethostname() or self.pids not in ("", _pid_namespace())
        return elsewhere or process_birth(self.pid) == self.birth


class RunLock:
    """A held run.lock. Its descriptor is what gateway and workers keep open."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    @classmethod
    def acquire(cls, path: Path, *, say: Callable[[str], None], patience_s: float = 660.0) -> RunLock:
        """Take the lock or raise DirectoryHeld at once, naming the owner.

        When the owner is dead and only its gateway still lands the calls in flight, waits for that, and says so.
        """
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise disk_error(path, error) from error
        try:
            _wait_for(descriptor, path, say, patience_s)
            _probe(path)
            _write_owner(descriptor)
        except OSError as error:
            os.close(descriptor)
            raise disk_error(path, error) from error
        except BaseException:
            os.close(descriptor)
            raise
        return cls(descriptor)

    def release(self) -> None:
        """Close our descriptor; the lock is free when every process of the run has."""
        os.close(self.descriptor)


def read_owner(path: Path) -> Owner | None:
    """Whom a run.lock names as its last owner. Says nothing on whether the lock is held."""
    try:
        return _owner(path.read_bytes())
    except OSError:
        return None


def is_held(path: Path) -> bool:
    """Whether a living owner holds a run.lock, as far as can be seen without taking it. Changes nothing."""
    owner = read_owner(path)
    if owner is None or not owner.alive():
        return False
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


def _wait_for(descriptor: int, path: Path, say: Callable[[str], None], patience_s: float) -> None:
    """Lock `descriptor`, waiting for the family of a dead owner alone. Raises DirectoryHeld."""
    deadline = time.monotonic() + patience_s
    said_so = False
    while not _lock(descriptor, path):
        owner = _owner(read_at(descriptor, 4096, 0))
        if owner is None or owner.alive() or time.monotonic() > deadline:
            raise DirectoryHeld(_held_message(path, owner))
        if not said_so:
            say(f"orchestrator {owner.pid} is gone; waiting for its calls in flight to land in the ledger")
            said_so = True
        time.sleep(_FAMILY_POLL_S)


def _lock(descriptor: int, path: Path) -> bool:
    try:
        return lock_descriptor(descriptor, blocking=False)
    except OSError as error:
        raise UsageError(
            f"{path.parent} lies on a file system that cannot lock files ({error.strerror}): "
            "choose an --output-dir on a local disk"
        ) from error


def _probe(path: Path) -> None:
    """Raise UsageError when a second lock beside ours is granted: then locks mean nothing here."""
    second = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        granted = _lock(second, path)
    finally:
        os.close(second)
    if granted:
        raise UsageError(
            f"{path.parent} lies on a file system whose locks have no effect, so two runs could spoil each other: "
            "choose an --output-dir on a local disk"
        )


def _pid_namespace() -> str:
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""


def _owner(content: bytes) -> Owner | None:
    try:
        owner = json.loads(content)
        return Owner(**{field.name: owner[field.name] for field in fields(Owner) if field.name in owner})
    except (ValueError, TypeError):
        return None  # taken this very moment, and not named yet


def _write_owner(descriptor: int) -> None:
    pid = os.getpid()
    started = time.strftime("%Y-%m-%d %H:%M:%S")
    owner = Owner(pid, socket.gethostname(), started, process_birth(pid) or -1, _pid_namespace())
    os.ftruncate(descriptor, 0)
    os.lseek(descriptor, 0, os.SEEK_SET)
    write_all(descriptor, json.dumps(asdict(owner)).encode())


def _held_message(path: Path, owner: Owner | None) -> str:
    who = f"process {owner.pid} on {owner.host}, started {owner.started}" if owner else "a process that just started"
    return (
        f"{path.parent} is in use by another orchestrator ({who}). "
        "Wait for it, stop it, or choose another --output-dir."
    )
