"""Where the gateway's socket lies: a short path in a directory of its own, and nothing left of it at the end."""

from __future__ import annotations

import contextlib
import os
import socket
from pathlib import Path

from parallel_orchestrator.records.errors import UsageError
from parallel_orchestrator.system.folders import new_folder, places
from parallel_orchestrator.system.memory import LOCKS

LONGEST_PATH = 90
"""Bytes; the kernel's limit is 107 on Linux and 103 on macOS."""

_PREFIX = "po-"
_ROOM = 50
"""Bytes for the directory's name and the socket's."""


def new_socket_directory() -> Path:
    """A new directory of mode 0700 for one socket, in $XDG_RUNTIME_DIR or /tmp: Unix socket paths have to be short.

    The gateway removes it when it ends.
    """
    for base in places():
        if os.access(base, os.W_OK) and len(os.fsencode(base)) <= LONGEST_PATH - _ROOM:
            return new_folder(_PREFIX, base)
    raise UsageError("no place for a socket: neither $XDG_RUNTIME_DIR nor /tmp can be written")


def listen(path: Path) -> socket.socket:
    """Bind and listen, for this user alone; a dead gateway's file is replaced. Raises UsageError."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        path.unlink(missing_ok=True)
        listener.bind(str(path))
        listener.listen(1024)
    except OSError as error:
        listener.close()
        raise UsageError(f"cannot listen on {path}: {error}") from error
    finally:
        os.umask(before)
    return listener


def remove_socket(path: Path) -> None:
    """Remove the socket file, and its directory when `new_socket_directory` made it."""
    with contextlib.suppress(OSError):
        path.unlink()
    with contextlib.suppress(OSError):
        for name in LOCKS if path.parent.name.startswith(_PREFIX) else ():
            (path.parent / name).unlink(missing_ok=True)
        if path.parent.name.startswith(_PREFIX):
            path.parent.rmdir()
