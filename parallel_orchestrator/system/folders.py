"""Folders that an agent could write to: looked through and cleared away, whatever was left in them.

An agent can nest folders deeper than a path may be long, than this process may hold descriptors and than Python may
recurse, and take away every right to look into them. `shutil.rmtree`, `TemporaryDirectory` and `os.walk` stop at
that; the second also gives the target of a link other rights (CVE-2023-6597, before Python 3.11.8 and 3.12.1).
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def empty_folder(folder: Path) -> None:
    """Remove everything in `folder`, which may not be a link itself. Raises OSError."""
    top = open_folder(folder)
    try:
        while names := _names(top):
            for name in names:
                _remove(top, name)
    finally:
        os.close(top)


def _remove(top: int, name: str) -> None:
    """Remove one entry. Folders in it are moved up to the top, where their turn comes: so none is ever deep."""
    if not _opened_up(top, name):
        os.unlink(name, dir_fd=top)
        return
    inner = os.open(name, _DIRECTORY, dir_fd=top)
    try:
        for below in _names(inner):
            if _opened_up(inner, below):
                os.rename(below, secrets.token_hex(16), src_dir_fd=inner, dst_dir_fd=top)
            else:
                os.unlink(below, dir_fd=inner)
    finally:
        os.close(inner)
    os.rmdir(name, dir_fd=top)


def _names(descriptor: int) -> list[str]:
    with os.scandir(descriptor) as entries:
        return [entry.name for entry in entries]


def _opened_up(parent: int, name: str) -> bool:
    """Whether it is a folder; then its owner may look into it, empty it and move it from now on."""
    mode = os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode
    if stat.S_ISDIR(mode) and mode & stat.S_IRWXU != stat.S_IRWXU:
        os.chmod(name, 0o700, dir_fd=parent)
    return stat.S_ISDIR(mode)


def open_folder(folder: Path) -> int:
    """A descriptor of a folder that is no link, its owner's rights to it given back. Raises OSError."""
    open_up(folder)
    return os.open(folder, _DIRECTORY)


def open_up(folder: Path) -> None:
    """Give its owner the rights to a folder, which an agent may have taken away. What is no folder is left alone."""
    with contextlib.suppress(OSError):
        mode = folder.lstat().st_mode
        if stat.S_ISDIR(mode) and mode & stat.S_IRWXU != stat.S_IRWXU:
            folder.chmod(stat.S_IMODE(mode) | stat.S_IRWXU)


def files_below(folder: Path) -> Iterator[Path]:
    """Every regular file below `folder`, no link followed. What cannot be looked into is passed over."""
    waiting = [str(folder)]
    while waiting:
        with contextlib.suppress(OSError), os.scandir(waiting.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
                elif entry.is_file(follow_symlinks=False):
                    yield Path(entry.path)
