"""Git objects without a git process: what is hashed is exactly the bytes that were read.

A snapshot is taken before each turn of each executor, so it has to be quick; and no
filter, attribute or link can have a say in it, because there is nothing that asks them.
Objects are written loose, under their SHA-1, by rename.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

from parallel_orchestrator.store.files import disk_error, write_all
from parallel_orchestrator.trunk.git import Git, GitFailed

FILE, PROGRAM, LINK, FOLDER = 0o100644, 0o100755, 0o120000, 0o040000
"""The modes of a tree's entries."""

EMPTY_TREE = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"

_CHUNK = 2**20
_QUICK = 1  # zlib level: snapshots are written often and read seldom


class Unsteady(Exception):
    """A file changed while it was read: something of its writer is still running."""


@dataclass(frozen=True)
class Entry:
    """What stands under one path of a tree. A FOLDER entry is an empty folder; others are implied by their files."""

    mode: int
    id: str


Tree = dict[str, Entry]
"""Path (forward slashes, undecodable bytes as surrogates) to entry."""

_Node = dict[str, "Entry | _Node"]


class Objects:
    """Reads and writes blobs and trees of one repository."""

    def __init__(self, git: Git) -> None:
        self._git = git
        self._folder = git.repository / "objects"
        self.stored = 0
        """Bytes that this process has added to the repository's folder."""

    def write(self, kind: str, data: bytes, *, durable: bool = False) -> str:
        """Store an object and return its id. With `durable`, it is on disk when this returns."""
        content = b"%s %d\0" % (kind.encode(), len(data)) + data
        name = hashlib.sha1(content, usedforsecurity=False).hexdigest()
        target = self._target(name)
        if not target.exists():
            self._store(target, [zlib.compress(content, _QUICK)])
        if durable:
            self._sync(target)
        return name

    def sync(self, ids: Iterable[str]) -> None:
        """Wait until these objects are on disk. Snapshots do not wait; what the trunk stands on must."""
        for name in ids:
            if self._target(name).exists():  # else git has packed it, and waited
                self._sync(self._target(name))

    def write_file(self, descriptor: int, size: int) -> str:
        """Store an open file of `size` bytes as a blob; a large one is never held in memory as a whole."""
        if size <= _CHUNK:
            return self.write("blob", b"".join(_chunks(descriptor)))
        digest = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
        squeeze = zlib.compressobj(_QUICK)

        def squeezed() -> Iterator[bytes]:
            yield squeeze.compress(b"blob %d\0" % size)
            left = size
            while left and (chunk := os.read(descriptor, min(_CHUNK, left))):
                left -= len(chunk)
                digest.update(chunk)
                yield squeeze.compress(chunk)
            if left:
                raise Unsteady("the file shrank while it was read")
            yield squeeze.flush()

        temporary = self._temporary(squeezed())
        name = digest.hexdigest()
        self._settle(temporary, self._target(name))
        return name

    def write_tree(self, entries: Mapping[str, Entry], *, durable: bool = False) -> str:
        """Store a whole tree and return its id."""
        root: _Node = {}
        for path, entry in entries.items():
            *folders, name = path.split("/")
            node = root
            for folder in folders:
                below = node.setdefault(folder, {})
                if isinstance(below, Entry):
                    raise ValueError(f"{path} lies in {folder}, which is a file")
                node = below
            node[name] = entry
        return self._write_node(root, durable)

    def read_tree(self, tree: str) -> Tree:
        """All entries of a tree or commit, empty folders included."""
        entries: Tree = {}
        for line in self._git("ls-tree", "-r", "-t", "-z", "--full-tree", tree).split(b"\0")[:-1]:
            about, _, path = line.partition(b"\t")
            mode, kind, name = about.decode().split(" ")
            if kind != "tree" or name == EMPTY_TREE:
                entries[os.fsdecode(path)] = Entry(int(mode, 8), name)
        return entries

    def blobs(self, ids: Iterable[str]) -> Iterator[bytes]:
        """The content of each blob, in the order asked."""
        with self.reader() as reader:
            for name in ids:
                yield b"".join(reader.chunks(name))

    @contextlib.contextmanager
    def reader(self) -> Iterator[BlobReader]:
        """One git process that any number of blobs are asked of."""
        with self._git.conversation("cat-file", "--batch") as process:
            yield BlobReader(cast(IO[bytes], process.stdin), cast(IO[bytes], process.stdout))

    def _write_node(self, node: _Node, durable: bool) -> str:
        rows = []
        for name, below in node.items():
            entry = below if isinstance(below, Entry) else Entry(FOLDER, self._write_node(below, durable))
            if entry == Entry(FOLDER, EMPTY_TREE):
                self.write("tree", b"", durable=durable)
            raw = os.fsencode(name)
            order = raw + b"/" if entry.mode == FOLDER else raw  # git sorts a folder as if its name ended in /
            rows.append((order, b"%o %s\0" % (entry.mode, raw) + bytes.fromhex(entry.id)))
        return self.write("tree", b"".join(row for _, row in sorted(rows)), durable=durable)

    def _target(self, name: str) -> Path:
        return self._folder / name[:2] / name[2:]

    def _store(self, target: Path, parts: Iterable[bytes]) -> None:
        self._settle(self._temporary(parts), target)

    def _temporary(self, parts: Iterable[bytes]) -> Path:
        path = ""
        try:
            descriptor, path = tempfile.mkstemp(prefix="tmp_obj_", dir=self._folder)
            with os.fdopen(descriptor, "wb", buffering=0):
                for part in parts:
                    write_all(descriptor, part)
                os.fchmod(descriptor, 0o444)
        except (OSError, Unsteady) as error:
            if path:
                Path(path).unlink(missing_ok=True)
            if isinstance(error, Unsteady):
                raise
            raise disk_error(self._folder, error) from error
        return Path(path)

    def _settle(self, temporary: Path, target: Path) -> None:
        try:
            target.parent.mkdir(exist_ok=True)
            self.stored += 0 if target.exists() else temporary.stat().st_size
            os.replace(temporary, target)
        except OSError as error:
            raise disk_error(target, error) from error

    def _sync(self, target: Path) -> None:
        for path in (target, target.parent):
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(descriptor)
            except OSError as error:
                raise disk_error(path, error) from error
            finally:
                os.close(descriptor)


class BlobReader:
    """Asks `git cat-file --batch` for one blob at a time."""

    def __init__(self, questions: IO[bytes], answers: IO[bytes]) -> None:
        self._questions = questions
        self._answers = answers

    def chunks(self, name: str) -> Iterator[bytes]:
        """The content of one blob, piece by piece; take all of it before asking for the next."""
        self._questions.write(f"{name}\n".encode())
        self._questions.flush()
        header = self._answers.readline().split()
        if len(header) != 3:
            raise GitFailed(f"object {name} is missing from the trunk: {header!r}. The repository is damaged.")
        left = int(header[2])
        while left:
            chunk = self._answers.read(min(_CHUNK, left))
            if not chunk:
                raise GitFailed(f"git stopped in the middle of object {name}.")
            left -= len(chunk)
            yield chunk
        self._answers.read(1)


def _chunks(descriptor: int) -> Iterator[bytes]:
    while chunk := os.read(descriptor, _CHUNK):
        yield chunk
