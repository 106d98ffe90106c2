"""Folders that an agent can write to, cleared whatever it left in them; and temporary folders that name their maker.

An agent can nest folders deeper than a path may be long, deeper than this process may hold descriptors, and deeper
than Python may recurse. It can also remove every permission. `shutil.rmtree`, `TemporaryDirectory` and `os.walk` fail
then; the second also changes the permissions of a link's target (CVE-2023-6597, before Python 3.11.8 and 3.12.1).

The name of a temporary folder holds its maker's pid, birth and pid namespace. So `remove_orphans` finds what killed
processes left, and nothing else.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from parallel_orchestrator.records.errors import CannotGoOn
from parallel_orchestrator.system.files import disk_error, opened
from parallel_orchestrator.system.process import process_birth

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_PREFIXES = "claude|command|devices|merge|po|probe"
_MARKED = re.compile(rf"(?:{_PREFIXES})-([0-9a-f]+)\.([0-9a-f]+)\.([0-9a-f]+)-\w+")


def empty_folder(folder: Path) -> None:
    """Remove everything in `folder`, which must not be a link. Raises OSError."""
    top = open_folder(folder)
    try:
        while names := _names(top):
            for name in names:
                _remove(top, name)
    finally:
        os.close(top)


def _remove(top: int, name: str) -> None:
    """Remove one entry. Folders in it move up to the top and are removed there, so that none is ever deep."""
    if not _opened_up(top, name):
        os.unlink(name, dir_fd=top)
        return
    with opened(name, _DIRECTORY, parent=top) as inner:
        for below in _names(inner):
            if _opened_up(inner, below):
                os.rename(below, secrets.token_hex(16), src_dir_fd=inner, dst_dir_fd=top)
            else:
                os.unlink(below, dir_fd=inner)
    os.rmdir(name, dir_fd=top)


def _names(descriptor: int) -> list[str]:
    with os.scandir(descriptor) as entries:
        return [entry.name for entry in entries]


def _opened_up(parent: int, name: str) -> bool:
    """Whether it is a folder. A folder's owner can read, empty and move it afterwards."""
    mode = os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode
    if stat.S_ISDIR(mode) and mode & stat.S_IRWXU != stat.S_IRWXU:
        os.chmod(name, 0o700, dir_fd=parent)
    return stat.S_ISDIR(mode)


def open_folder(folder: Path) -> int:
    """Return a descriptor of a folder that is not a link, with its owner's permissions restored. Raises OSError."""
    open_up(folder)
    return os.open(folder, _DIRECTORY)


def open_up(folder: Path) -> None:
    """Restore the owner's permissions on a folder, which an agent may have removed. Ignores other files."""
    with contextlib.suppress(OSError):
        mode = folder.lstat().st_mode
        if stat.S_ISDIR(mode) and mode & stat.S_IRWXU != stat.S_IRWXU:
            folder.chmod(stat.S_IMODE(mode) | stat.S_IRWXU)


def files_below(folder: Path) -> Iterator[Path]:
    """Yield every regular file below `folder`. Follows no link and skips what it cannot read."""
    waiting = [str(folder)]
    while waiting:
        with contextlib.suppress(OSError), os.scandir(waiting.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
                elif entry.is_file(follow_symlinks=False):
                    yield Path(entry.path)


def marked(prefix: str) -> str:
    """Return `prefix` with this process's pid, birth and pid namespace; the bare prefix where they are unknown."""
    pid, namespace = os.getpid(), _namespace()
    birth = process_birth(pid)
    return f"{prefix}{pid:x}.{birth:x}.{namespace:x}-" if namespace and birth and birth > 0 else prefix


@contextlib.contextmanager
def scratch_folder(prefix: str) -> Iterator[Path]:
    """Make a folder for this user alone, and remove it with all its content afterwards. Raises CannotGoOn."""
    folder = new_folder(prefix)
    try:
        yield folder
    finally:
        remove_folder(folder)


def new_folder(prefix: str, base: str | None = None) -> Path:
    """Make a folder for this user alone, in `base` or among the temporary files. Raises CannotGoOn."""
    try:
        return Path(tempfile.mkdtemp(prefix=marked(prefix), dir=base))
    except FileNotFoundError as error:
        where = base or tempfile.gettempdir()
        raise CannotGoOn(
            f"cannot make a temporary folder: {where} does not exist any more. Nothing is lost. "
            "Create it, or set TMPDIR to an existing folder, then resume"
        ) from error
    except OSError as error:
        raise disk_error(Path(base or tempfile.gettempdir()) / prefix, error) from error


def places() -> list[str]:
    """Return where temporary folders lie, short paths first."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    return [*([runtime] if runtime else []), tempfile.gettempdir(), "/tmp"]  # noqa: S108 - mkdtemp is safe there


def remove_folder(folder: Path) -> None:
    """Remove a folder with all its content, as far as possible."""
    with contextlib.suppress(OSError):
        empty_folder(folder)
        folder.rmdir()


def remove_orphans(base: str | Path, remove: Callable[[Path], None] = remove_folder, *, foreign: bool = False) -> int:
    """Remove this user's marked folders in `base` whose makers are proven dead. Returns how many there were.

    With `foreign`, also those of other pid namespaces; then `remove` has to check that they are not in use.
    """
    orphans = []
    with contextlib.suppress(OSError), os.scandir(base) as entries:
        for entry in entries:
            with contextlib.suppress(OSError):
                if _is_orphan(entry.name, foreign=foreign) and entry.stat(follow_symlinks=False).st_uid == os.geteuid():
                    orphans.append(Path(entry.path))
    for orphan in orphans:
        remove(orphan)
    return len(orphans)


def _is_orphan(name: str, *, foreign: bool) -> bool:
    mark = _MARKED.fullmatch(name)
    if not mark:
        return False
    pid, birth, namespace = (int(part, 16) for part in mark.groups())
    # A pid means a process only in its own namespace. Another process with that pid has another birth.
    return foreign if namespace != _namespace() else process_birth(pid) != birth


def is_foreign(name: str) -> bool:
    """Whether the maker of a marked name runs in another pid namespace."""
    mark = _MARKED.fullmatch(name)
    return mark is not None and int(mark.group(3), 16) != _namespace()


def _namespace() -> int:
    """Return the number of this process's pid namespace; 0 when the system does not tell."""
    try:
        return Path("/proc/self/ns/pid").stat().st_ino
    except OSError:
        return 0
