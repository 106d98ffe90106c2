"""Whether the files in the output directory are those of the trunk.

They are read here and not by git: a git that does nothing says that all is well, and one that trusts a file's size
and time does not see what a bad disk did to it.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from parallel_orchestrator.trunk.git.objects import FOLDER, LINK, PROGRAM, Entry, Tree

_PIECE = 2**20
_REGULAR = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass(frozen=True)
class Difference:
    """A path of the trunk that the output directory does not hold as the trunk does."""

    path: str
    missing: bool
    """Nothing is there; else something that differs."""


def differences(root: Path, tree: Tree) -> Iterator[Difference]:
    """Each file of `tree` that is missing below `root` or differs, by path. Other files are ignored."""
    for path, entry in sorted(tree.items()):
        if entry.mode != FOLDER and not _is_there(root / path, entry):
            yield Difference(path, missing=not os.path.lexists(root / path))


def _is_there(path: Path, entry: Entry) -> bool:
    try:
        if entry.mode == LINK:
            return _blob_id([os.fsencode(path.readlink())]) == entry.id
        descriptor = os.open(path, _REGULAR)
        try:
            about = os.fstat(descriptor)
            program = bool(about.st_mode & stat.S_IXUSR)
            if not stat.S_ISREG(about.st_mode) or program != (entry.mode == PROGRAM):
                return False
            return _blob_id(_pieces(descriptor), about.st_size) == entry.id
        finally:
            os.close(descriptor)
    except OSError:
        return False


def _blob_id(pieces: Iterator[bytes] | list[bytes], size: int | None = None) -> str:
    size = sum(map(len, pieces)) if size is None else size
    digest = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    for piece in pieces:
        digest.update(piece)
    return digest.hexdigest()


def _pieces(descriptor: int) -> Iterator[bytes]:
    while piece := os.read(descriptor, _PIECE):
        yield piece
