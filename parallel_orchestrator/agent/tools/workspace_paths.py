"""Path confinement: a model's paths never leave its workspace.

A path is never checked as text and then used as text. It is split, each name is
judged, and directories are opened relative to the workspace, none through a link:
by openat2 in one step, and wherever that gives none (no such kernel, a missing
directory, a link) by opening name after name, which makes what is missing and says
which name is to blame. What was opened is what is used, so a directory that is
swapped for a link between "check" and "use" is found to be a link, or is still the
directory that was opened.

Not covered: a process that may change the workspace can rename a directory
elsewhere while it is open. In the sandbox everything it can reach is the workspace.
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
"""Its number, the same on every Linux that has it."""
_BENEATH = 0x08 | 0x04 | 0x02
"""RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, RESOLVE_NO_MAGICLINKS."""
_DEVICE_NAME = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)


class PathRefused(ToolFault):
    """A path that may not be used, and why."""


def split(path: str) -> tuple[str, ...]:
    """The names of `path` below the workspace; none for the workspace itself. Raises PathRefused."""
    shown = path if len(path) <= 80 else path[:77] + "..."
    if not path:
        raise PathRefused("the path is empty")
    if len(path) > MAX_PATH:
        raise PathRefused(f"the path is longer than {MAX_PATH} characters")
    if path == MOUNT or path.startswith(MOUNT + "/"):
        path = path[len(MOUNT) + 1 :] or "."
    if path.startswith("/"):
        raise PathRefused(f"{shown!r} is outside {MOUNT}: use a path relative to the project root")
    names = tuple(name for name in path.split("/") if name not in ("", "."))
    for name in names:
        problem = _name_problem(name)
        if problem:
            raise PathRefused(f"{shown!r} is refused: {problem}")
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
    """The folder of one attempt, held by a descriptor. All paths are relative to it, as the model writes them."""

    def __init__(self, root: Path, *, in_one_step: bool = sys.platform == "linux") -> None:
        self._root = open_folder(root)
        self._in_one_step = in_one_step

    def close(self) -> None:
        """Give the descriptor back."""
        os.close(self._root)

    @contextlib.contextmanager
    def directory(self, names: tuple[str, ...], *, create: bool = False) -> Iterator[int]:
        """A descriptor of the directory; with `create`, missing ones are made."""
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
        """The bytes of a regular file, refused when there are more than `limit`."""
        names = _file_names(path)
        with self.directory(names[:-1]) as parent, _explained(path):
            descriptor = os.open(names[-1], _READ, dir_fd=parent)
        try:
            # What was opened counts, not what the name stood for before.
            _require_plain(os.fstat(descriptor), path)
            with os.fdopen(descriptor, "rb", closefd=False) as file:
                data = file.read(limit + 1)
        finally:
            os.close(descriptor)
        if len(data) > limit:
            raise PathRefused(f"{path} is larger than {limit:,} bytes; read parts of it with bash")
        return data

    def write(self, path: str, data: bytes) -> None:
        """Replace or create a regular file as a whole. Missing directories are made; its mode is kept.

        Never writes into a file that is there: a new one takes its name, so a reader sees old or new.
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
    """A descriptor of the directory `names` below `root`, or None where openat2 gives none."""
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
        # Which kind it is only shapes the message; the open above has already refused it.
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


def _require_plain(found: os.stat_result, path: str) -> None:
    if stat.S_ISLNK(found.st_mode):
        raise PathRefused(f"{path} is a link; links are not followed")
    if stat.S_ISDIR(found.st_mode):
        raise PathRefused(f"{path} is a directory, not a file")
    if not stat.S_ISREG(found.st_mode):
        raise PathRefused(f"{path} is not a regular file")
    if found.st_nlink > 1:
        raise PathRefused(f"{path} is a hard link; the editor does not open hard links")


def _mode_for_replacing(parent: int, name: str, path: str) -> int:
    try:
        found = os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return 0o644
    _require_plain(found, path)
    return found.st_mode & 0o755 | 0o600


@contextlib.contextmanager
def _explained(path: str) -> Iterator[None]:
    """Tell a refusal of the system in words that name only the model's path."""
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
