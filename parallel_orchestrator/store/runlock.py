"""One orchestrator per run directory, by a kernel lock that its whole process family holds.

The lock belongs to the open file, not to a process: gateway and workers inherit the
descriptor, so a free lock proves that no process of the run is alive, however they
ended. The file's content names the owner, for the message to whoever comes second;
it decides nothing. Promised on local file systems only.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from filelock import lock_descriptor

from parallel_orchestrator.records.errors import DirectoryHeld
from parallel_orchestrator.store.files import disk_error
from parallel_orchestrator.store.process import process_birth

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

    def alive(self) -> bool:
        """Whether that very process still runs. An owner on another host counts as alive."""
        return self.host != socket.gethostname() or process_birth(self.pid) == self.birth


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
        deadline = time.monotonic() + patience_s
        told = False
        while not lock_descriptor(descriptor, blocking=False):
            owner = _read_owner(descriptor)
            if owner is None or owner.alive() or time.monotonic() > deadline:
                os.close(descriptor)
                raise DirectoryHeld(_held_message(path, owner))
            if not told:
                say(f"orchestrator {owner.pid} is gone; waiting for its calls in flight to land in the ledger")
                told = True
            time.sleep(_FAMILY_POLL_S)
        try:
            _write_owner(descriptor)
        except OSError as error:
            os.close(descriptor)
            raise disk_error(path, error) from error
        return cls(descriptor)

    def release(self) -> None:
        """Close our descriptor; the lock is free when every process of the run has."""
        os.close(self.descriptor)


def _read_owner(descriptor: int) -> Owner | None:
    try:
        return Owner(**json.loads(os.pread(descriptor, 4096, 0)))
    except (ValueError, TypeError):
        return None  # taken this very moment, and not named yet


def _write_owner(descriptor: int) -> None:
    pid = os.getpid()
    started = time.strftime("%Y-%m-%d %H:%M:%S")
    owner = Owner(pid, socket.gethostname(), started, process_birth(pid) or -1)
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps(asdict(owner)).encode(), 0)


def _held_message(path: Path, owner: Owner | None) -> str:
    who = f"process {owner.pid} on {owner.host}, started {owner.started}" if owner else "a process that just started"
    return (
        f"{path.parent} is in use by another orchestrator ({who}). "
        "Wait for it, stop it, or choose another --output-dir."
    )
