"""Temporary folders that name their maker, so that what a killed one has left can be told from all else and removed."""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from parallel_orchestrator.records.errors import CannotGoOn
from parallel_orchestrator.system.files import disk_error
from parallel_orchestrator.system.folders import empty_folder
from parallel_orchestrator.system.process import process_birth

_PREFIXES = "claude|command|devices|merge|po|probe"
_MARKED = re.compile(rf"(?:{_PREFIXES})-([0-9a-f]+)\.([0-9a-f]+)\.([0-9a-f]+)-\w+")


def marked(prefix: str) -> str:
    """`prefix` with this process's number and birth and the namespace in which they count; bare where not known."""
    pid, namespace = os.getpid(), _namespace()
    birth = process_birth(pid)
    return f"{prefix}{pid:x}.{birth:x}.{namespace:x}-" if namespace and birth and birth > 0 else prefix


@contextlib.contextmanager
def scratch_folder(prefix: str) -> Iterator[Path]:
    """A new folder for this user alone, gone afterwards with all that was put there. Raises CannotGoOn."""
    folder = new_folder(prefix)
    try:
        yield folder
    finally:
        remove_folder(folder)


def new_folder(prefix: str, base: str | None = None) -> Path:
    """A new folder for this user alone, in `base` or where temporary files go. Raises CannotGoOn."""
    try:
        return Path(tempfile.mkdtemp(prefix=marked(prefix), dir=base))
    except FileNotFoundError as error:
        where = base or tempfile.gettempdir()
        raise CannotGoOn(
            f"no temporary folder can be made: {where} is not there any more. Nothing is lost: "
            "make it again, or set TMPDIR to a folder that is there, then resume"
        ) from error
    except OSError as error:
        raise disk_error(Path(base or tempfile.gettempdir()) / prefix, error) from error


def places() -> list[str]:
    """Where temporary folders lie, short paths first."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    return [*([runtime] if runtime else []), tempfile.gettempdir(), "/tmp"]  # noqa: S108 - mkdtemp is safe there


def remove_folder(folder: Path) -> None:
    """Remove a folder with all that is in it, as far as that can be done."""
    with contextlib.suppress(OSError):
        empty_folder(folder)
        folder.rmdir()


def remove_orphans(base: str | Path, remove: Callable[[Path], None] = remove_folder, *, foreign: bool = False) -> int:
    """Remove this user's marked folders in `base` whose makers are proven dead; how many there were.

    `foreign`: also those of other pid namespaces; only `remove` can see whether they are in use.
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
    return foreign if namespace != _namespace() else process_birth(pid) != birth


def is_foreign(name: str) -> bool:
    """Whether a marked name is of a maker in another pid namespace."""
    mark = _MARKED.fullmatch(name)
    return mark is not None and int(mark.group(3), 16) != _namespace()


def _namespace() -> int:
    """The pid namespace, by its number; 0 where the system tells of none."""
    try:
        return Path("/proc/self/ns/pid").stat().st_ino
    except OSError:
        return 0
