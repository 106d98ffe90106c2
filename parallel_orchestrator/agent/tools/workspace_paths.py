"""Path confinement: a model's paths never leave its workspace.

A path is never checked as text and then used as text. It is split, each name is checked, and directories are opened
relative to the workspace, none through a link. openat2 does that in one step. Where it fails (an old kernel, a missing
directory, a link) each name is opened in turn; that creates missing directories and finds the name to blame. What was
opened is what is used: an agent's process that swaps a directory for a link between check and use changes nothing.

Not covered: a process that may change the workspace can rename a directory elsewhere while it is open. In the sandbox
everything that it can reach is the workspace.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import re
import secrets
import stat
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

from parallel_orchestrator.messages_api.tool_calls import ToolFault
from parallel_orchestrator.records.command import MOUNT
from parallel_orchestrator.system.folders import open_folder

MAX_PATH = 1000
MAX_NAME = 240

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# O_NONBLOCK: opening a FIFO must not wait for its other end.
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_libc = ctypes.CDLL(None)
_OPENAT2 = 437
"""The call's number, the same on every Linux."""
_BENEATH = 0x08 | 0x04 | 0x02
"""RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, RESOLVE_NO_MAGICLINKS."""
_DEVICE_NAME = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)


class PathRefused(ToolFault):
    """A path must not be used. The message says why."""


def split(path: str) -> tuple[str, ...]:
    """Return the names of `path` below the workspace, none for the workspace itself. Raises PathRefused."""
    short = path if len(path) <= 80 else path[:77] + "..."
    if not path:
        raise PathRefused("the path is empty")
    if len(path) > MAX_PATH:
        raise PathRefused(f"the path is longer than {MAX_PATH} characters")
    if path == MOUNT or path.startswith(MOUNT + "/"):
        path = path[len(MOUNT) + 1 :] or "."
    if path.startswith("/"):
        raise PathRefused(f"{short!r} is outside {MOUNT}: use a path relative to the project root")
    names = tuple(name for name in path.split("/") if name not in ("", "."))
    for name in names:
        problem = _name_problem(name)
        if problem:
            raise PathRefused(f"{short!r} is refused: {problem}")
    return names


def _name_problem(name: str) -> str | None:
    if name == "..":
        return f"'..' could lead out of {MOUNT}"
    if not name.isprintable():
        return "it contains characters that cannot be printed"
    if len(name.encode()) > MAX_NAME:
        return f"one of its names is longer than {MAX_NAME} bytes"
    if name.casefold() == ".git":
        return "version control is not part of the workspace"
    if name[0] == "~" or name[-1] in ". " or "\\" in name or ":" in name or _DEVICE_NAME.fullmatch(name):
        return f"the name {name!r} means something else on other systems"
    return None


class Workspace:
    """The folder of one attempt, held by a descriptor. The model's paths are relative to it."""

    def __init__(self, root: Path, *, in_one_step: bool = sys.platform == "linux") -> None:
        self._root = open_folder(root)
        self._in_one_step = in_one_step

    def close(self) -> None:
        """Close the descriptor."""
        os.close(self._root)

    @contextlib.contextmanager
    def directory(self, names: tuple[str, ...], *, create: bool = False) -> Iterator[int]:
        """Yield a descriptor of the directory. With `create`, make missing ones."""
        descriptor = open_beneath(self._root, names) if self._in_one_step else None
        if descriptor is None:
            descriptor = self._walk(names, create)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def _walk(self, names: tuple[str, ...], create: bool) -> int:
        descriptor = os.dup(self._root)
        for depth, name in enumerate(names):
            try:
                inner = _enter(descriptor, name, "/".join(names[: depth + 1]), create)
            finally:
                os.close(descriptor)
            descriptor = inner
        return descriptor

    def is_directory(self, path: str) -> bool:
        """Whether `path` is a directory, and not a link to one."""
        names = split(path)
        if not names:
            return True
        with self.directory(names[:-1]) as parent:
            return stat.S_ISDIR(_entry(parent, names[-1], path).st_mode)

    def read(self, path: str, limit: int) -> bytes:
        """Return the bytes of a regular file. Refuses files of more than `limit` bytes."""
        names = _file_names(path)
        with self.directory(names[:-1]) as parent, _explained(path):
            descriptor = os.open(names[-1], _READ, dir_fd=parent)
        try:
            # fstat checks what was opened. A check of the name would leave time for an agent's process to swap it.
            _require_plain(os.fstat(descriptor), path)
            with os.fdopen(descriptor, "rb", closefd=False) as file:
                data = file.read(limit + 1)
        finally:
            os.close(descriptor)
        if len(data) > limit:
            raise PathRefused(f"{path} is larger than {limit:,} bytes; read parts of it with bash")
        return data

    def write(self, path: str, data: bytes) -> None:
        """Replace or create a whole regular file. Makes missing directories and keeps the file's mode.

        It never writes into an existing file. A new file takes its name, so a reader sees the old or the new content.
        """
        names = _file_names(path)
        with self.directory(names[:-1], create=True) as parent, _explained(path):
            mode = _mode_for_replacing(parent, names[-1], path)
            temporary = f".{secrets.token_hex(8)}.tmp"
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            descriptor = os.open(temporary, flags, 0o600, dir_fd=parent)
            try:
                with os.fdopen(descriptor, "wb") as file:
                    file.write(data)
                    os.fchmod(descriptor, mode)
                os.rename(temporary, names[-1], src_dir_fd=parent, dst_dir_fd=parent)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(temporary, dir_fd=parent)
                raise


def open_beneath(root: int, names: tuple[str, ...]) -> int | None:
    """Return a descriptor of the directory `names` below `root`, or None when openat2 fails."""
    how = struct.pack("=QQQ", _DIRECTORY, 0, _BENEATH)
    path = os.fsencode("/".join(names) or ".")
    opened: int = _libc.syscall(_OPENAT2, root, path, how, ctypes.c_size_t(len(how)))
    return opened if opened >= 0 else None


def _enter(parent: int, name: str, path: str, create: bool) -> int:
    if create:
        with contextlib.suppress(FileExistsError), _explained(path):
            os.mkdir(name, 0o755, dir_fd=parent)
    try:
        return os.open(name, _DIRECTORY, dir_fd=parent)
    except OSError:
        # The open above has refused it already; its kind only decides the message.
        if stat.S_ISLNK(_entry(parent, name, path).st_mode):
            raise PathRefused(f"{path} is a link; links are not followed") from None
        raise PathRefused(f"{path} is not a directory") from None


def _entry(parent: int, name: str, path: str) -> os.stat_result:
    with _explained(path):
        return os.stat(name, dir_fd=parent, follow_symlinks=False)


def _file_names(path: str) -> tuple[str, ...]:
    names = split(path)
    if not names:
        raise PathRefused(f"{path} is the project root, not a file")
    if path.endswith("/"):
        raise PathRefused(f"{path} names a directory, not a file")
    return names


def _require_plain(about: os.stat_result, path: str) -> None:
    if stat.S_ISLNK(about.st_mode):
        raise PathRefused(f"{path} is a link; links are not followed")
    if stat.S_ISDIR(about.st_mode):
        raise PathRefused(f"{path} is a directory, not a file")
    if not stat.S_ISREG(about.st_mode):
        raise PathRefused(f"{path} is not a regular file")
    if about.st_nlink > 1:
        raise PathRefused(f"{path} is a hard link; the editor does not open hard links")


def _mode_for_replacing(parent: int, name: str, path: str) -> int:
    try:
        about = os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return 0o644
    _require_plain(about, path)
    return about.st_mode & 0o755 | 0o600


@contextlib.contextmanager
def _explained(path: str) -> Iterator[None]:
    """Raise an OSError as a PathRefused that names only the model's path."""
    try:
        yield
    except FileExistsError:
        raise
    except FileNotFoundError:
        raise PathRefused(f"{path} does not exist") from None
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise PathRefused(f"{path} is a link; links are not followed") from None
        raise PathRefused(f"{path}: {error.strerror or 'cannot be used'}") from None
