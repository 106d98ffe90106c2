"""merge.lock: who holds it may move the trunk."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from parallel_orchestrator.records.errors import CannotGoOn
from parallel_orchestrator.system.files import disk_error


@contextmanager
def held(path: Path) -> Iterator[int]:
    """Wait for the kernel lock on `path` and hold it; gives the descriptor that carries it. Not re-entrant.

    It is free as soon as its holder is dead, and every child that was given the descriptor is, too.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise disk_error(path, error) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    except OSError as error:
        os.close(descriptor)
        raise CannotGoOn(f"cannot lock {path}: {error.strerror}. Put the output directory on a local disk.") from error
    try:
        yield descriptor
    finally:
        os.close(descriptor)  # the file stays: removing it would let two holders lock two files of one name
