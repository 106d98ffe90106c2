"""The trunk's history put together again where some of its objects are lost. No readable file of it is left out.

A lost commit is first made again from what the queue and the plan say of it: an object is named by its content, so
that a right guess proves itself. Where none is right, the commits from there on are made again on what is left, with
the same files, texts and times. A file whose content is nowhere any more gives way to the nearest version of it.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from parallel_orchestrator.maintenance.guesses import DESCRIBED, Guesses, KnownCommit
from parallel_orchestrator.store.branch import branch_head
from parallel_orchestrator.store.paths import RunDirectory
from parallel_orchestrator.system.files import write_whole
from parallel_orchestrator.trunk.changes.folder import CACHES
from parallel_orchestrator.trunk.git.git import AUTHOR, GitFailed
from parallel_orchestrator.trunk.git.objects import FILE, FOLDER, PROGRAM, Entry, Tree
from parallel_orchestrator.trunk.git.repository import BRANCH, PROJECT_FILE, PROJECT_TEXT, Repository

REPAIRED = "Put together again by repair"
_ID = re.compile("[0-9a-f]{40}")
_ANY_CODE = tuple(range(256))
_PROJECT = ("src", "tests", "docs", "README.md", PROJECT_FILE)


@dataclass
class Link:
    """One commit of the trunk as it has to be."""

    name: str
    tree: str | None = None
    """None when the commit is lost."""
    parents: tuple[str, ...] = ()
    text: bytes = b""
    """All that stands behind the parents."""
    files: Tree | None = None
    """None when its tree cannot be read."""
    changed: bool = False
    """Whether other files take the place of some that are lost."""


@dataclass
class History:
    """The trunk's commits, and what is done about those that cannot be read."""

    run: RunDirectory
    repository: Repository
    known: Sequence[KnownCommit]
    """Oldest first."""
    keep: Callable[[Path], None]
    """Backs a file up before it changes."""
    renamed: dict[str, str] = field(default_factory=dict)
    """Commits that were made again under another name, old to new."""
    _there: set[str] = field(default_factory=set)
    """Objects that can be read."""
    _rebuilt: set[str] = field(default_factory=set)

    def mend(self) -> Iterator[str]:
        """Make the branch name a commit that is whole with all before it; each step as a sentence."""
        self._there = {row.split()[1] for row in self._listed}
        tip = self._tip()
        links = [] if tip is None else self._links(tip)
        yield from (f"commit {link.name} was made again, byte for byte" for link in links if link.name in self._rebuilt)
        if not links:
            yield "no commit of the trunk is left or known; restore .git from a backup"
            return
        yield from self._substitute(links)
        head = self._write(links)
        remade = [old for old, new in self.renamed.items() if old != new]
        if remade:
            yield f"{len(remade)} commits were made again on what is left of the history, with the files they had"
        if head != branch_head(self.run.git):
            branch = self.run.git / BRANCH
            self.keep(branch)
            branch.unlink(missing_ok=True)
            branch.parent.mkdir(parents=True, exist_ok=True)
            write_whole(branch, head + "\n")
            yield f"the branch now names {head}"

    # Which commits there have to be

    def _tip(self) -> str | None:
        """The commit that the branch has to name: what it names, or the newest that the queue knows."""
        order = self._order()
        head = branch_head(self.run.git)
        if _ID.fullmatch(head) and not (order and self._is_behind(head, order)):
            return head
        return order[-1] if order else self._deepest()

    def _is_behind(self, head: str, order: Sequence[str]) -> bool:
        """Whether `head` is an older commit of the trunk than the newest that is known."""
        link = self._read(head)
        return head in order[:-1] or bool(link.tree and not link.parents)

    def _order(self) -> list[str]:
        """The known commits, and those that describe the project on top of one of them."""
        described = {
            link.parents[0]: link.name
            for link in map(self._read, self._of_kind("commit"))
            if link.tree and link.parents and link.text.partition(b"\n\n")[2].startswith(DESCRIBED.encode())
        }
        order: list[str] = []
        for one in self.known:
            order += [name for name in (one.id, described.get(one.id)) if name and name not in order]
        return order

    def _deepest(self) -> str | None:
        depth = {name: self._depth(name) for name in self._of_kind("commit")}
        return max(depth, key=lambda name: depth[name], default=None)

    def _depth(self, name: str) -> int:
        depth = 0
        while name:
            link, depth = self._read(name), depth + 1
            name = link.parents[0] if link.parents else ""
        return depth

    def _links(self, tip: str) -> list[Link]:
        """The trunk from its newest commit to its first."""
        links: list[Link] = []
        name = tip
        while name and name not in {link.name for link in links}:
            link = self._read(name)
            if link.tree is None and self._rebuild(name, newest=not links):
                link = self._read(name)
                self._rebuilt.add(name)
            link.files = self._files(link)
            links.append(link)
            name = (link.parents or ("",))[0] if link.tree else self._before(links)
        return links

    def _before(self, links: Sequence[Link]) -> str:
        """What the last link, a lost commit, most likely stood on."""
        places = [place for place, one in enumerate(self.known) if self._is_among(one, links)]
        place = min(places, default=len(self.known)) - 1
        if place >= 0:
            return self.known[place].id
        roots = [link.name for link in map(self._read, self._of_kind("commit")) if link.tree and not link.parents]
        return next((root for root in roots if root not in {link.name for link in links}), "")

    @staticmethod
    def _is_among(known: KnownCommit, links: Iterable[Link]) -> bool:
        task = f"\nTask: {known.trailers['Task']}\n".encode() if "Task" in known.trailers else None
        return any(link.name == known.id or (task and task in link.text) for link in links)

    def _rebuild(self, name: str, *, newest: bool) -> bool:
        """Store a lost commit again, if its content can be guessed."""
        trees = self._of_kind("tree")
        zones = re.findall(r"^committer .* ([+-]\d{4})$", "\n".join(self._texts()), re.MULTILINE)
        guesses = Guesses(self.run, self.repository, self.known, zones, trees, self._of_kind("commit"))
        if not guesses.right(name, newest=newest):
            return False
        self._there.add(name)
        return True

    def _texts(self) -> Iterator[str]:
        for name in self._of_kind("commit"):
            yield self._read(name).text.decode(errors="replace")

    # What stands in for what is lost

    def _substitute(self, links: list[Link]) -> Iterator[str]:
        """Give each link files that are there; links are dropped of which nothing is known but the name."""
        for place, link in enumerate(links):
            newer = links[place - 1].files if place else None
            older = next((self._whole_files(other) for other in links[place + 1 :] if other.tree), None) or {}
            if link.files is None:
                if place and not link.tree and not any(one.id == link.name for one in self.known):
                    link.files = newer  # it is left out of the history
                    continue
                link.files = newer if newer is not None else self._from_output(older)
                what = "files" if link.tree else "commit"
                link.changed = True
                yield f"the {what} of {link.name} cannot be read; the nearest version takes their place"
            lost = {path for path, entry in link.files.items() if not self._is_there(entry)}
            link.changed |= bool(lost)
            for path in sorted(lost):
                stand_in = self._stand_in(path, newer, older)
                link.files = {name: entry for name, entry in link.files.items() if name != path}
                if stand_in:
                    link.files[path] = stand_in
                    yield f"{path} of commit {link.name} is lost; the nearest version of it takes its place"
                else:
                    yield f"{path} of commit {link.name} is lost, and nothing takes its place"

    def _whole_files(self, link: Link) -> Tree:
        return {path: entry for path, entry in (link.files or {}).items() if self._is_there(entry)}

    def _is_there(self, entry: Entry) -> bool:
        return entry.mode == FOLDER or entry.id in self._there

    def _stand_in(self, path: str, newer: Tree | None, older: Tree) -> Entry | None:
        if newer is not None:
            return newer.get(path) or older.get(path)
        return self._file(path) or older.get(path)

    def _from_output(self, older: Tree) -> Tree:
        """What the output directory holds of the project, by git's index where it can be read."""
        try:
            rows = self.repository.git("ls-files", "--stage", "-z").decode(errors="surrogateescape").split("\0")[:-1]
        except GitFailed:
            rows = []
        listed = {row.partition("\t")[2]: row.split(" ") for row in rows}
        found: Tree = {}
        for path, (mode, name, *_) in listed.items():
            entry = Entry(int(mode, 8), name)
            if here := (entry if self._is_there(entry) else self._file(path)):
                found[path] = here
        for path in () if listed else self._paths():
            if here := self._file(path):
                found[path] = here
        return found or dict(older)

    def _paths(self) -> Iterator[str]:
        for top in map(self.run.root.joinpath, _PROJECT):
            for path in [top, *top.rglob("*")] if top.is_dir() else [top]:
                if path.is_file() and not CACHES & set(path.parts) and path.suffix != ".pyc":
                    yield path.relative_to(self.run.root).as_posix()

    def _file(self, path: str) -> Entry | None:
        place = self.run.root / path
        if not place.is_file() or place.is_symlink():
            return None
        return self._blob(place.read_bytes(), PROGRAM if place.stat().st_mode & 0o100 else FILE)

    def _blob(self, data: bytes, mode: int = FILE) -> Entry:
        name = self.repository.objects.write("blob", data, durable=True)
        self._there.add(name)
        return Entry(mode, name)

    # Writing it

    def _write(self, links: Sequence[Link]) -> str:
        """Store what differs from before; the newest commit's name."""
        parent = ""
        for link in reversed(links):
            known = next((one for one in self.known if one.id == link.name), None)
            if not parent and not (link.tree and not link.parents):
                parent = self._first()
            if link.tree is None and known is None and link is not links[0]:
                self.renamed[link.name] = parent  # nothing is known of it but its name
                continue
            parent = self._write_link(link, known, parent)
            if parent != link.name:
                self.renamed[link.name] = parent
        return parent

    def _first(self) -> str:
        """A new commit for all to stand on, as `Repository.create` makes it."""
        tree = self.repository.objects.write_tree({PROJECT_FILE: self._blob(PROJECT_TEXT)}, durable=True)
        stamp = f"{AUTHOR} {int(time.time())} {time.strftime('%z')}"
        about = f"tree {tree}\nauthor {stamp}\ncommitter {stamp}\n\nBegin\n"
        return self.repository.objects.write("commit", about.encode(), durable=True)

    def _write_link(self, link: Link, known: KnownCommit | None, parent: str) -> str:
        if link.tree and not link.changed and parent == (link.parents or ("",))[0]:
            return link.name
        tree = self.repository.objects.write_tree(link.files or {}, durable=True)
        if link.tree:
            others = [other for other in link.parents[1:] if other in self._there]
            heads = "".join(f"parent {name}\n" for name in ([parent] if parent else []) + others)
            about = f"tree {tree}\n{heads}".encode() + link.text
            return self.repository.objects.write("commit", about, durable=True)
        passed = self.repository.about(parent).number("Tests-Passed") if parent else 0
        content = known or KnownCommit(link.name, REPAIRED, {"Tests-Passed": passed}, 0.0)
        return self.repository.commit(tree, parent, content.subject, content.trailers, durable=True)

    # Reading what is there

    def _read(self, name: str) -> Link:
        kind, data = self.repository.objects.loose(name) or self._of_git(name)
        if kind != "commit":
            return Link(name)
        heads, _, rest = data.partition(b"\nauthor ")
        rows = heads.decode(errors="replace").split("\n")
        parents = tuple(row.removeprefix("parent ") for row in rows if row.startswith("parent "))
        return Link(name, rows[0].removeprefix("tree "), parents, b"author " + rest)

    def _files(self, link: Link) -> Tree | None:
        try:
            return self.repository.tree(link.tree) if link.tree else None
        except GitFailed:
            return None

    def _of_git(self, name: str) -> tuple[str, bytes]:
        if name not in self._there:
            return "", b""
        try:
            kind = self.repository.git.text("cat-file", "-t", name)
            return kind, self.repository.git("cat-file", kind, name)
        except GitFailed:
            return "", b""

    def _of_kind(self, kind: str) -> list[str]:
        return [row.split()[1] for row in self._listed if row.startswith(f"{kind} ")]

    @cached_property
    def _listed(self) -> list[str]:
        """Kind and name of each object. Those that cannot be read make git's exit code 1 and are left out."""
        _, listed = self.repository.git.outcome(
            "cat-file", "--batch-all-objects", "--batch-check=%(objecttype) %(objectname)", accept=_ANY_CODE
        )
        return [row for row in listed.decode().splitlines() if len(row.split()) == 2]
