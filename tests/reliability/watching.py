"""Being told by the kernel of each change in a run's directory, at the moment that it happens."""

from __future__ import annotations

import ctypes
import os
import select
import struct
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

_MODIFY, _MOVED_TO, _CREATE, _DELETE, _ISDIR = 0x2, 0x80, 0x100, 0x200, 0x40000000
_HEADER = struct.Struct("iIII")
_LIBC = ctypes.CDLL(None, use_errno=True)

KINDS = ("write", "rename", "create", "delete", "ref move")
"""What a change can be. A ref move is the rename that moves the trunk."""


class Watch:
    """Follows a directory that need not be there yet, and all folders in it; its parent has to be there."""

    def __init__(self, directory: Path) -> None:
        self.seen: Counter[str] = Counter()
        self._directory = directory
        self._descriptor = _LIBC.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        self._folders: dict[int, Path] = {}
        self._add(directory.parent)
        self._add_all(directory)

    def wait_for(self, kind: str, wanted: int, until: float) -> bool:
        """Return when `wanted` changes of that kind were seen in all; False when `until` (monotonic) comes first."""
        while self.seen[kind] < wanted and (left := until - time.monotonic()) > 0:
            if select.select([self._descriptor], [], [], min(left, 0.5))[0]:
                for change in self._changes():
                    self.seen[change] += 1
                    if self.seen[kind] >= wanted:
                        return True
        return self.seen[kind] >= wanted

    def close(self) -> None:
        """Give the descriptor back."""
        os.close(self._descriptor)

    def _changes(self) -> Iterator[str]:
        data, offset = os.read(self._descriptor, 65536), 0
        while offset < len(data):
            watch, mask, _, length = _HEADER.unpack_from(data, offset)
            offset += _HEADER.size + length
            name = data[offset - length : offset].rstrip(b"\0").decode(errors="replace")
            folder = self._folders.get(watch, self._directory.parent)
            if mask & _ISDIR and mask & (_CREATE | _MOVED_TO):
                self._add_all(folder / name)
            if folder != self._directory.parent:
                yield _kind(mask, folder / name)

    def _add_all(self, folder: Path) -> None:
        if folder == self._directory or self._directory in folder.parents:
            for found, _, _ in os.walk(folder):  # takes it well when a folder is gone meanwhile
                self._add(Path(found))

    def _add(self, folder: Path) -> None:
        watch = _LIBC.inotify_add_watch(self._descriptor, os.fsencode(folder), _MODIFY | _MOVED_TO | _CREATE | _DELETE)
        if watch >= 0:
            self._folders[watch] = folder


def _kind(mask: int, path: Path) -> str:
    if mask & _MOVED_TO:
        return "ref move" if path.match("refs/heads/main") else "rename"
    return "write" if mask & _MODIFY else "create" if mask & _CREATE else "delete"
