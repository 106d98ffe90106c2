"""The one home of durable writes: whole files by rename, lines by append.

`write_whole` leaves the old content or the new, never a mixture: a temporary file
beside the target, fsync, rename, fsync of the directory. `append_line` adds one
line with a single write; a process killed inside it leaves a torn tail at worst,
which `journal` repairs. Neither promises anything about power loss on storage
that lies about fsync, nor on network file systems.
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
"""What a disk answers that is full, broken or may not be written to."""
_UNFINISHED = ".tmp"
_SYNCS = 16
"""That are waited for at the same time."""


def write_whole(path: Path, content: str | bytes) -> None:
    """Replace `path` by `content`, without known secrets, durably, with mode 0600.

    Raises CannotGoOn when the disk refuses.
    """
    write_whole_all({path: content})


def write_pieces(path: Path, pieces: Iterable[bytes]) -> None:
    """`write_whole` of a content that need not be in memory as a whole. Known secrets are taken out of each piece."""
    _replace({path: map(redact.known, pieces)})


def write_whole_all(contents: Mapping[Path, str | bytes]) -> None:
    """`write_whole` of several files: the disk is waited for once for all of them. Renamed in their order."""
    whole = {path: redact.known(content) for path, content in contents.items()}
    _replace({path: [text.encode() if isinstance(text, str) else text] for path, text in whole.items()})


def _replace(contents: Mapping[Path, Iterable[bytes]]) -> None:
    temporaries: dict[Path, Path] = {}
    try:
        for path, pieces in contents.items():
            temporaries[path] = path.with_name(f".{path.name}.{os.getpid()}{_UNFINISHED}")
            _write_new(temporaries[path], path, pieces)
        sync_all(temporaries.values())
        for path, temporary in temporaries.items():
            _rename(temporary, path)
        sync_all({path.parent for path in contents})
    except CannotGoOn:
        for temporary in temporaries.values():
            with contextlib.suppress(OSError):
                temporary.unlink()
        raise


def _write_new(temporary: Path, path: Path, pieces: Iterable[bytes]) -> None:
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            for piece in pieces:
                write_all(descriptor, piece)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise disk_error(path, error) from error


def _rename(temporary: Path, path: Path) -> None:
    try:
        os.replace(temporary, path)
    except OSError as error:
        raise disk_error(path, error) from error


def replace_by_lock(path: Path, data: bytes) -> None:
    """Replace `path` durably in git's own way: by the rename of `path`.lock, which must not be there before.

    Raises CannotGoOn when the disk refuses.
    """
    lock = path.with_name(f"{path.name}.lock")
    try:
        descriptor = os.open(lock, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise disk_error(lock, error) from error
    try:
        try:
            write_all(descriptor, data)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.replace(lock, path)
        sync_directory(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            lock.unlink()
        raise disk_error(path, error) from error


def remove_unfinished(directory: Path) -> None:
    """Remove what a `write_whole` that was killed left in `directory`. Only while nobody else writes there."""
    for leftover in directory.glob(f".*{_UNFINISHED}"):
        leftover.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """`write_whole` of indented JSON that people can read."""
    write_whole(path, json_text(value))


def write_all(descriptor: int, data: bytes) -> None:
    """Write every byte; `os.write` may stop early, on a full disk for instance."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def read_at(descriptor: int, size: int, place: int) -> bytes:
    """`size` bytes from `place` on, fewer only where the file ends; `os.pread` may stop early."""
    pieces: list[bytes] = []
    while size and (piece := os.pread(descriptor, size, place)):
        pieces.append(piece)
        place, size = place + len(piece), size - len(piece)
    return b"".join(pieces)


def sync_directory(directory: Path) -> None:
    """Make a rename or a new name in `directory` durable."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_all(paths: Iterable[Path | str]) -> None:
    """Make files and directories durable, all at once: a journalling file system waits for the disk once for many.

    Raises CannotGoOn when the disk refuses one of them.
    """
    waiting = list(paths)
    if len(waiting) == 1:
        _sync(waiting[0])
    elif waiting:
        with ThreadPoolExecutor(min(_SYNCS, len(waiting))) as pool:
            list(pool.map(_sync, waiting))


def _sync(path: Path | str) -> None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise disk_error(Path(path), error) from error


@contextlib.contextmanager
def disk_faults_in(folder: Path, *, ours: bool = False) -> Iterator[None]:
    """Tell a refusal of the disk in its clear form, whoever met it; `folder` where the error names no path.

    Missing rights are one only with `ours`: elsewhere an agent can have set them, and that does not stop a run.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in OF_THE_DISK and not (ours and error.errno in (errno.EACCES, errno.EPERM)):
            raise
        raise disk_error(Path(error.filename) if isinstance(error.filename, str) else folder, error) from error


def _room(there: Path) -> str:
    """What is left of the file system that holds `there`, by the name of its mount point."""
    about, mount = os.statvfs(there), there.resolve()
    while not os.path.ismount(mount):
        mount = mount.parent
    if about.f_files and not about.f_favail:
        return f"no inode is free on the file system at {mount}, so it takes no new file: remove files there"
    return f"{about.f_bavail * about.f_frsize // 2**20} MiB free there, on the file system at {mount}"


def disk_error(path: Path, error: OSError) -> CannotGoOn:
    """The clear form of a refused write: what, where, how much room there is."""
    try:
        there = next(folder for folder in path.absolute().parents if folder.is_dir())
        free = _room(there)
    except OSError:
        free = "free space unknown"
    return CannotGoOn(
        f"cannot write {path}: {error.strerror or error} ({free}). "
        "Nothing that was recorded is lost; make room or mend the permissions, then resume."
    )
