"""Durable writes: whole files by rename; and the clear form of a disk's refusal.

`write_whole` leaves the old content or the new, never a mixture. It writes a temporary file beside the target, syncs
it, renames it, and syncs the directory. It promises nothing on storage that lies about fsync, nor on network file
systems. (`store.journal` appends lines.)
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from parallel_orchestrator.records.errors import CannotGoOn
from parallel_orchestrator.system import redact
from parallel_orchestrator.system.terminal_text import json_text

OF_THE_DISK = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS})
"""Errors of a disk that is full, broken or read-only."""
_UNFINISHED = ".tmp"
_SYNCS = 16
"""Most syncs at the same time."""


@contextlib.contextmanager
def opened(
    path: Path | str, flags: int = os.O_RDONLY, mode: int = 0o600, *, parent: int | None = None
) -> Iterator[int]:
    """Open `path`, below the directory `parent` if given. Yields the descriptor and closes it afterwards.

    Child processes do not inherit it.
    """
    descriptor = os.open(path, flags | os.O_CLOEXEC, mode, dir_fd=parent)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def write_whole(path: Path, content: str | bytes) -> None:
    """Replace `path` by `content` durably, with known secrets removed and mode 0600.

    Raises CannotGoOn when the disk refuses.
    """
    write_whole_all({path: content})


def write_pieces(path: Path, pieces: Iterable[bytes]) -> None:
    """Like `write_whole`, for content that is never in memory as a whole. Removes known secrets from each piece."""
    _replace({path: map(redact.known, pieces)})


def write_whole_all(contents: Mapping[Path, str | bytes]) -> None:
    """`write_whole` of several files with one wait for the disk. Renames them in their order."""
    whole = {path: redact.known(content) for path, content in contents.items()}
    _replace({path: [text.encode() if isinstance(text, str) else text] for path, text in whole.items()})


def _replace(contents: Mapping[Path, Iterable[bytes]]) -> None:
    temporaries: dict[Path, Path] = {}
    try:
        for path, pieces in contents.items():
            temporaries[path] = path.with_name(f".{path.name}.{os.getpid()}{_UNFINISHED}")
            with refusals_of(path), opened(temporaries[path], os.O_WRONLY | os.O_CREAT | os.O_TRUNC) as descriptor:
                for piece in pieces:
                    write_all(descriptor, piece)
        # The content is on disk before the rename, and the rename before this returns: a power loss in between
        # leaves the old file.
        sync_all(temporaries.values())
        for path, temporary in temporaries.items():
            with refusals_of(path):
                os.replace(temporary, path)
        sync_all({path.parent for path in contents})
    except CannotGoOn:
        for temporary in temporaries.values():
            with contextlib.suppress(OSError):
                temporary.unlink()
        raise


def replace_by_lock(path: Path, data: bytes) -> None:
    """Replace `path` durably in git's way: rename `path`.lock, which must not exist before.

    Raises CannotGoOn when the disk refuses.
    """
    lock = path.with_name(f"{path.name}.lock")
    with refusals_of(lock), opened(lock, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644) as descriptor:
        try:
            write_all(descriptor, data)
            os.fsync(descriptor)
            os.replace(lock, path)
            sync_directory(path.parent)
        except OSError as error:
            with contextlib.suppress(OSError):
                lock.unlink()
            raise disk_error(path, error) from error


def remove_unfinished(directory: Path) -> None:
    """Remove what killed `write_whole` calls left in `directory`. Only while no other process writes there."""
    for leftover in directory.glob(f".*{_UNFINISHED}"):
        leftover.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """`write_whole` of indented JSON."""
    write_whole(path, json_text(value))


def write_all(descriptor: int, data: bytes) -> None:
    """Write every byte; `os.write` may write fewer, on a full disk for instance."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def read_at(descriptor: int, size: int, place: int) -> bytes:
    """Read `size` bytes from `place` on, fewer only at the end of the file; `os.pread` may return fewer."""
    pieces: list[bytes] = []
    while size and (piece := os.pread(descriptor, size, place)):
        pieces.append(piece)
        place, size = place + len(piece), size - len(piece)
    return b"".join(pieces)


def sync_directory(directory: Path) -> None:
    """Make a rename or a new name in `directory` durable."""
    with opened(directory, os.O_RDONLY | os.O_DIRECTORY) as descriptor:
        os.fsync(descriptor)


def sync_all(paths: Iterable[Path | str]) -> None:
    """Make files and directories durable together: a journalling file system then waits for the disk once.

    Raises CannotGoOn when the disk refuses one of them.
    """
    waiting = list(paths)
    if len(waiting) == 1:
        _sync(waiting[0])
    elif waiting:
        with ThreadPoolExecutor(min(_SYNCS, len(waiting))) as pool:
            list(pool.map(_sync, waiting))


def _sync(path: Path | str) -> None:
    with refusals_of(path), opened(path) as descriptor:
        os.fsync(descriptor)


@contextlib.contextmanager
def refusals_of(path: Path | str) -> Iterator[None]:
    """Raise any OSError of the block as the `disk_error` of `path`."""
    try:
        yield
    except OSError as error:
        raise disk_error(Path(path), error) from error


@contextlib.contextmanager
def disk_faults_in(folder: Path, *, ours: bool = False) -> Iterator[None]:
    """Raise an OSError of the disk as `disk_error`, of `folder` when the error names no path. Others pass through.

    Missing permissions count only with `ours`. Elsewhere an agent can have caused them, and they stop no run.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in OF_THE_DISK and not (ours and error.errno in (errno.EACCES, errno.EPERM)):
            raise
        raise disk_error(Path(error.filename) if isinstance(error.filename, str) else folder, error) from error


def _room(there: Path) -> str:
    """Describe the free space of the file system that holds `there`, and its mount point."""
    about, mount = os.statvfs(there), there.resolve()
    while not os.path.ismount(mount):
        mount = mount.parent
    if about.f_files and not about.f_favail:
        return f"no inode is free on the file system at {mount}, so it takes no new file: remove files there"
    return f"{about.f_bavail * about.f_frsize // 2**20} MiB free there, on the file system at {mount}"


def disk_error(path: Path, error: OSError) -> CannotGoOn:
    """Return the error for a refused write: what, where, and how much room there is."""
    try:
        there = next(folder for folder in path.absolute().parents if folder.is_dir())
        free = _room(there)
    except OSError:
        free = "free space unknown"
    return CannotGoOn(
        f"cannot write {path}: {error.strerror or error} ({free}). "
        "Nothing that was recorded is lost. Make room or correct the permissions, then resume."
    )
