"""Plain folders: read without following a link, write, compare with a tree.

An executor may have left anything in its workspace. Folders are opened one below the other by descriptor, never by
path. So a folder that an agent's process swaps for a link between stat and open leads nowhere.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path

from parallel_orchestrator.records.errors import CannotGoOn, TaskLimit
from parallel_orchestrator.system.files import opened, refusals_of, write_all
from parallel_orchestrator.system.folders import empty_folder, open_folder
from parallel_orchestrator.trunk.git.objects import (
    EMPTY_TREE,
    FILE,
    FOLDER,
    LINK,
    PROGRAM,
    Objects,
    Tree,
    TreeEntry,
    Unsteady,
)

CACHES = frozenset({"__pycache__", ".pytest_cache", ".mypy_cache", ".ruff_cache"})
"""Names that are never part of the work, in any folder."""

DEEPEST = 64
"""Folders below this depth are not read."""

MOST_MEMBERS = 50_000
"""Files, links and folders of one workspace."""
MOST_BYTES = 2 * 2**30
"""Of all its files together. A snapshot reads all of them before each turn."""
MOST_STORED = 4 * 2**30
"""Of all its snapshots together, as stored. Each stores what changed since the one before."""

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_REGULAR = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass
class Contents:
    """What a folder holds. The objects of `entries` are stored already."""

    entries: Tree = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    """Bytes of each regular file."""
    unsupported: dict[str, str] = field(default_factory=dict)
    """Path to reason, for entries that no tree can or may hold."""


def read_folder(objects: Objects, folder: Path) -> Contents:
    """Return everything in `folder` but caches. Raises TaskLimit when there is too much."""
    contents = Contents()
    # Opened once, without following a link; everything below is opened relative to this descriptor.
    try:
        descriptor = open_folder(folder)
    except OSError as error:
        raise CannotGoOn(
            f"cannot read the workspace {folder}: {error.strerror}. Bring it back, then resume."
        ) from error
    try:
        _Reader(objects, contents).folder(descriptor, "", 0)
    finally:
        os.close(descriptor)
    return contents


def write_folder(objects: Objects, folder: Path, entries: Tree) -> None:
    """Make `folder` hold exactly `entries`. The folder itself is kept: a sandbox may have it mounted."""
    with refusals_of(folder):
        folder.mkdir(parents=True, exist_ok=True)
        empty_folder(folder)
    add_to_folder(objects, folder, entries)


def add_to_folder(objects: Objects, folder: Path, entries: Tree) -> None:
    """Write `entries` into `folder`, which must hold none of them."""
    with refusals_of(folder), objects.reader() as reader:
        for path, entry in entries.items():
            _write_entry(folder / path, entry, partial(reader.chunks, entry.id))


def read_plain(path: Path, limit: int) -> bytes | None:
    """Return the content of a regular file of at most `limit` bytes, or None. Opens neither links nor pipes."""
    # O_NONBLOCK: an agent can leave a pipe under this name, and opening it would wait for a writer.
    try:
        descriptor = os.open(path, _REGULAR)
    except OSError:
        return None
    try:
        about = os.fstat(descriptor)
        if not stat.S_ISREG(about.st_mode) or about.st_size > limit:
            return None
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            return file.read(limit)
    finally:
        os.close(descriptor)


class _Reader:
    """Walks a folder and fills a Contents."""

    def __init__(self, objects: Objects, contents: Contents) -> None:
        self._objects = objects
        self._contents = contents
        self._members = 0
        self._bytes = 0

    def folder(self, descriptor: int, prefix: str, depth: int) -> None:
        """Read an open folder. `prefix` is its path with a slash at the end, empty for the outermost."""
        # Bounded before sorting: an agent can make millions of names, and this process must not hold them all.
        names = sorted(islice((entry.name for entry in os.scandir(descriptor)), MOST_MEMBERS + 1))
        if not names and prefix:
            self._contents.entries[prefix[:-1]] = TreeEntry(FOLDER, EMPTY_TREE)
        self._count(members=len(names))
        for name in names:
            if name not in CACHES and not name.endswith(".pyc"):
                try:
                    self._member(descriptor, name, prefix + name, depth)
                except FileNotFoundError:
                    continue  # gone since the listing
                except Unsteady:
                    self._contents.unsupported[prefix + name] = "still being written"
                except OSError:
                    self._contents.unsupported[prefix + name] = "not readable"

    def _count(self, members: int = 0, size: int = 0) -> None:
        self._members += members
        self._bytes += size
        if self._members > MOST_MEMBERS:
            raise TaskLimit(f"its workspace holds more than {MOST_MEMBERS} files and folders")
        if self._bytes > MOST_BYTES:
            raise TaskLimit(f"the files of its workspace are larger than {MOST_BYTES // 2**20} MiB together")

    def _member(self, parent: int, name: str, path: str, depth: int) -> None:
        # The kind decides how to open; O_NOFOLLOW and fstat check again what was opened, so a swap in between fails.
        mode = os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode
        if name.casefold() == ".git":
            self._contents.unsupported[path] = "a git repository of its own"
        elif stat.S_ISLNK(mode):
            target = os.fsencode(os.readlink(name, dir_fd=parent))
            self._contents.entries[path] = TreeEntry(LINK, self._objects.write("blob", target))
        elif stat.S_ISDIR(mode):
            self._below(parent, name, path, depth)
        elif stat.S_ISREG(mode):
            self._file(parent, name, path)
        else:
            self._contents.unsupported[path] = "neither a file nor a folder"

    def _below(self, parent: int, name: str, path: str, depth: int) -> None:
        if depth >= DEEPEST:
            self._contents.unsupported[path] = f"nested deeper than {DEEPEST} folders"
            return
        with opened(name, _DIRECTORY, parent=parent) as descriptor:
            self.folder(descriptor, path + "/", depth + 1)

    def _file(self, parent: int, name: str, path: str) -> None:
        with opened(name, _REGULAR, parent=parent) as descriptor:
            about = os.fstat(descriptor)
            self._count(size=about.st_size)
            mode = PROGRAM if about.st_mode & stat.S_IXUSR else FILE
            self._contents.sizes[path] = about.st_size
            self._contents.entries[path] = TreeEntry(mode, self._objects.write_file(descriptor, about.st_size))


def _write_entry(path: Path, entry: TreeEntry, content: Callable[[], Iterator[bytes]]) -> None:
    if entry.mode == FOLDER:
        path.mkdir(parents=True, exist_ok=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    if entry.mode == LINK:
        path.symlink_to(os.fsdecode(b"".join(content())))
        return
    # O_EXCL and O_NOFOLLOW: the path must be new, and must not be a link that leads out of the folder.
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with opened(path, flags, 0o777 if entry.mode == PROGRAM else 0o666) as descriptor:
        for chunk in content():
            write_all(descriptor, chunk)


@dataclass(frozen=True)
class Difference:
    """A path where the output directory differs from the trunk."""

    path: str
    missing: bool
    """Nothing is at the path; otherwise something different is."""


def differences(root: Path, tree: Tree) -> Iterator[Difference]:
    """Yield each file of `tree` that is missing below `root` or differs, by path. Ignores other files.

    It reads the files itself. A git that does nothing reports success, and a git that trusts size and time does not
    see what a bad disk changed.
    """
    for path, entry in sorted(tree.items()):
        if entry.mode != FOLDER and not _is_there(root / path, entry):
            yield Difference(path, missing=not os.path.lexists(root / path))


def _is_there(path: Path, entry: TreeEntry) -> bool:
    try:
        if entry.mode == LINK:
            return blob_id(os.fsencode(path.readlink())) == entry.id
        with opened(path, _REGULAR) as descriptor:
            about = os.fstat(descriptor)
            program = bool(about.st_mode & stat.S_IXUSR)
            if not stat.S_ISREG(about.st_mode) or program != (entry.mode == PROGRAM):
                return False
            digest = _blob_digest(about.st_size)
            with os.fdopen(descriptor, "rb", closefd=False) as file:
                return hashlib.file_digest(file, lambda: digest).hexdigest() == entry.id
    except OSError:
        return False


def blob_id(content: bytes) -> str:
    """Return the id under which git stores a file of that content."""
    digest = _blob_digest(len(content))
    digest.update(content)
    return digest.hexdigest()


def _blob_digest(size: int) -> hashlib._Hash:
    return hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
