"""Git objects without a git process: the bytes that are read are exactly the bytes that are hashed.

Each turn of each executor begins with a snapshot, so this has to be quick. No filter, attribute or link can affect it,
because nothing reads them. Objects are written loose, under their SHA-1, by rename. Loose objects are read without a
git process, too. Packed and damaged ones are read by git.

Paths are strings here. pathlib interns each part of a path, and the names of objects are all different. Interning them
would fill the table of strings that executors share with the fork server, and each would get its own copy.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import subprocess
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, cast

from parallel_orchestrator.system.files import disk_error, sync_all, write_all
from parallel_orchestrator.trunk.git.git import Git, GitFailed

FILE, PROGRAM, LINK, FOLDER = 0o100644, 0o100755, 0o120000, 0o040000
"""The modes of a tree's entries."""

EMPTY_TREE = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"

_CHUNK = 2**20
_LARGEST_LOOSE = 8 * 2**20
"""Bytes of an object that is read at once; git reads larger ones in pieces."""
_QUICK = 1  # zlib level: snapshots are written often and seldom read


class Unsteady(Exception):
    """A file changed while it was read: a process still writes to it."""


@dataclass(frozen=True)
class TreeEntry:
    """An entry of a tree. A FOLDER entry is an empty folder; other folders follow from their files."""

    mode: int
    id: str


Tree = dict[str, TreeEntry]
"""Path (forward slashes, undecodable bytes as surrogates) to entry."""

_Node = dict[str, "TreeEntry | _Node"]


class Objects:
    """Reads and writes blobs and trees of one repository."""

    def __init__(self, git: Git) -> None:
        self._git = git
        self._folder = str(git.repository / "objects")
        self.stored = 0
        """Bytes that this process has added to the repository's folder."""

    def write(self, kind: str, data: bytes, *, durable: bool = False) -> str:
        """Store an object and return its id. With `durable`, wait until it is on disk."""
        # Two processes may write one object at once. Both write the same bytes under their own temporary names, and
        # the later rename replaces a file by an equal one.
        content = b"%s %d\0" % (kind.encode(), len(data)) + data
        name = hashlib.sha1(content, usedforsecurity=False).hexdigest()
        target = self._target(name)
        if not os.path.exists(target):
            self._settle(self._temporary([zlib.compress(content, _QUICK)]), target)
        if durable:
            self.sync([name])
        return name

    def sync(self, ids: Iterable[str]) -> None:
        """Wait until these objects are on disk. Snapshots need not wait; the trunk's commits must."""
        there = list(filter(os.path.exists, map(self._target, ids)))  # git packed the others and synced them
        sync_all({*there, *map(os.path.dirname, there)})

    def loose(self, name: str) -> tuple[str, bytes] | None:
        """Return kind and content of a loose object; None when git has to read it: packed, large or damaged."""
        try:
            with open(self._target(name), "rb", buffering=0) as file:
                squeezed = file.read(_CHUNK)
            content = zlib.decompressobj().decompress(squeezed, _LARGEST_LOOSE)
        except (OSError, ValueError, zlib.error):
            return None
        # The name is the content's digest: a flipped bit, a truncated file or a cut at the limit is noticed here.
        if hashlib.sha1(content, usedforsecurity=False).hexdigest() != name:
            return None
        header, _, data = content.partition(b"\0")
        return header.partition(b" ")[0].decode(), data

    def write_file(self, descriptor: int, size: int) -> str:
        """Store an open file of `size` bytes as a blob. Large files are never in memory as a whole."""
        if size <= _CHUNK:
            return self.write("blob", b"".join(_chunks(descriptor)))
        # The header holds the size, so it is fixed before the file is read. A process that still writes can shrink the
        # file meanwhile (Unsteady), or let it grow: what is beyond `size` waits for the next snapshot.
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

    def write_tree(self, entries: Mapping[str, TreeEntry], *, durable: bool = False) -> str:
        """Store a tree with its subtrees and return its id. `durable` does not include blobs."""
        root: _Node = {}
        for path, entry in entries.items():
            *folders, name = path.split("/")
            node = root
            for folder in folders:
                below = node.setdefault(folder, {})
                if isinstance(below, TreeEntry):
                    raise ValueError(f"{path} lies in {folder}, which is a file")
                node = below
            node[name] = entry
        written: list[str] = []
        name = self._write_node(root, written)
        if durable:
            self.sync(written)
        return name

    def read_tree(self, tree: str) -> Tree:
        """Return all entries of a tree or commit, empty folders included."""
        entries: Tree = {}
        if self._read_loose_tree(tree, "", entries):
            return entries
        entries.clear()  # of what was read before the first packed object
        for line in self._git("ls-tree", "-r", "-t", "-z", "--full-tree", tree).split(b"\0")[:-1]:
            about, _, path = line.partition(b"\t")
            mode, kind, name = about.decode().split(" ")
            if kind != "tree" or name == EMPTY_TREE:
                entries[os.fsdecode(path)] = TreeEntry(int(mode, 8), name)
        # Nothing listed is right for the empty tree only; a broken git would otherwise empty the workspace.
        if not entries and self._git.text("rev-parse", f"{tree}^{{tree}}") != EMPTY_TREE:
            raise GitFailed(f"git ls-tree ended with 0 and printed nothing of {tree}. Look at the `git` on PATH.")
        return entries

    def blobs(self, ids: Iterable[str]) -> Iterator[bytes]:
        """Yield the content of each blob, in order."""
        with self.reader() as reader:
            for name in ids:
                yield b"".join(reader.chunks(name))

    @contextlib.contextmanager
    def reader(self) -> Iterator[BlobReader]:
        """Yield a reader for any number of blobs. It starts a git process at the first one that is not loose."""
        with contextlib.ExitStack() as ending:
            yield BlobReader(self, lambda: ending.enter_context(self._git.conversation("cat-file", "--batch")))

    def _read_loose_tree(self, name: str, prefix: str, entries: Tree) -> bool:
        """Add everything below a tree or commit to `entries`. Returns whether all objects were loose."""
        kind, data = self.loose(name) or ("", b"")
        if kind == "commit":
            return self._read_loose_tree(data[5:45].decode(errors="replace"), prefix, entries)
        if kind != "tree":
            return False
        while data:
            about, _, rest = data.partition(b"\0")
            mode, _, raw = about.partition(b" ")
            entry, path = TreeEntry(int(mode, 8), rest[:20].hex()), prefix + os.fsdecode(raw)
            if entry.mode != FOLDER or entry.id == EMPTY_TREE:
                entries[path] = entry
            elif not self._read_loose_tree(entry.id, f"{path}/", entries):
                return False
            data = rest[20:]
        return True

    def _write_node(self, node: _Node, written: list[str]) -> str:
        """Store a folder with its subfolders. Returns its id and adds the ids of all trees to `written`."""
        rows = []
        for name, below in node.items():
            entry = below if isinstance(below, TreeEntry) else TreeEntry(FOLDER, self._write_node(below, written))
            if entry == TreeEntry(FOLDER, EMPTY_TREE):
                written.append(self.write("tree", b""))
            raw = os.fsencode(name)
            order = raw + b"/" if entry.mode == FOLDER else raw  # git sorts a folder as if its name ended in /
            rows.append((order, b"%o %s\0" % (entry.mode, raw) + bytes.fromhex(entry.id)))
        written.append(self.write("tree", b"".join(row for _, row in sorted(rows))))
        return written[-1]

    def _target(self, name: str) -> str:
        return f"{self._folder}/{name[:2]}/{name[2:]}"

    def _temporary(self, parts: Iterable[bytes]) -> str:
        path = ""
        try:
            descriptor, path = tempfile.mkstemp(prefix="tmp_obj_", dir=self._folder)
            with os.fdopen(descriptor, "wb", buffering=0):
                for part in parts:
                    write_all(descriptor, part)
                os.fchmod(descriptor, 0o444)
        except (OSError, Unsteady) as error:
            if path:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)
            if isinstance(error, Unsteady):
                raise
            raise disk_error(Path(self._folder), error) from error
        return path

    def _settle(self, temporary: str, target: str) -> None:
        try:
            with contextlib.suppress(FileExistsError):
                os.mkdir(os.path.dirname(target))
            # Counted once, for the limit on a workspace's snapshots: an object that exists takes no more space.
            self.stored += 0 if os.path.exists(target) else os.stat(temporary).st_size
            os.replace(temporary, target)
        except OSError as error:
            raise disk_error(Path(target), error) from error


class BlobReader:
    """Reads one blob at a time: loose ones from their files, others from `git cat-file --batch`, started by `ask`."""

    def __init__(self, objects: Objects, ask: Callable[[], subprocess.Popen[bytes]]) -> None:
        self._objects = objects
        self._ask = ask

    def chunks(self, name: str) -> Iterator[bytes]:
        """Yield the content of one blob in pieces. Take all of them before the next blob."""
        if (loose := self._objects.loose(name)) and loose[0] == "blob":
            yield loose[1]
        else:
            yield from self._chunks_of_git(name)

    def _chunks_of_git(self, name: str) -> Iterator[bytes]:
        questions, answers = self._pipes
        questions.write(f"{name}\n".encode())
        questions.flush()
        header = answers.readline().split()
        if len(header) != 3:
            raise GitFailed(f"object {name} is missing from the trunk: {header!r}. The repository is damaged.")
        left = int(header[2])
        while left:
            chunk = answers.read(min(_CHUNK, left))
            if not chunk:
                raise GitFailed(f"git stopped in the middle of object {name}.")
            left -= len(chunk)
            yield chunk
        answers.read(1)

    @cached_property
    def _pipes(self) -> tuple[IO[bytes], IO[bytes]]:
        process = self._ask()
        return cast(IO[bytes], process.stdin), cast(IO[bytes], process.stdout)


def _chunks(descriptor: int) -> Iterator[bytes]:
    while chunk := os.read(descriptor, _CHUNK):
        yield chunk
