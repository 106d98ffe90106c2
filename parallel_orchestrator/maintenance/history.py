"""Rebuilds the trunk's history where some of its objects are lost. No readable file of it is left out.

A lost commit is rebuilt byte for byte where that can be done (`lost_commit`). Otherwise the commits from there on are
written again on what is left, with the same files, texts and times. A lost file is replaced by its nearest version.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from parallel_orchestrator.maintenance.lost_commit import DESCRIBED, KnownCommit, description, rebuild_commit
from parallel_orchestrator.records.errors import CannotGoOn, TaskLimit
from parallel_orchestrator.records.plan import PROJECT_ROOTS
from parallel_orchestrator.store.branch import branch_head
from parallel_orchestrator.store.paths import RunDirectory
from parallel_orchestrator.system.files import write_whole
from parallel_orchestrator.trunk.changes.folder import read_folder, read_plain
from parallel_orchestrator.trunk.git.git import AUTHOR, GitFailed
from parallel_orchestrator.trunk.git.objects import FILE, FOLDER, Objects, Tree, TreeEntry
from parallel_orchestrator.trunk.git.repository import BRANCH, PROJECT_FILE, PROJECT_TEXT, Repository

REPAIRED = "Put together again by repair"
_ID = re.compile("[0-9a-f]{40}")
_ANY_CODE = tuple(range(256))
_OWN_FILES = (PROJECT_FILE, "README.md")
"""Files outside the project's folders that a commit of the trunk may hold."""
_LARGEST = 64_000_000


@dataclass
class CommitDraft:
    """One commit of the trunk as it has to be."""

    name: str
    tree: str | None = None
    """None when the commit is lost."""
    parent: str = ""
    """The first one; empty for the first commit, and for a lost one."""
    text: bytes = b""
    """Everything after the parents."""
    files: Tree | None = None
    """None when its tree cannot be read."""
    changed: bool = False
    """Whether other files replace lost ones."""

    @property
    def is_first(self) -> bool:
        """Whether it can be read and has no parent."""
        return bool(self.tree and not self.parent)


def project_tree(objects: Objects, folder: Path) -> Tree:
    """Store the project's files that are in a run's or attempt's folder. Returns them; caches are left out."""
    entries: Tree = {}
    for root in PROJECT_ROOTS:
        with contextlib.suppress(CannotGoOn, TaskLimit):
            below = read_folder(objects, folder / root).entries
            entries |= {f"{root}/{path}": entry for path, entry in below.items()}
    for name in _OWN_FILES:
        content = read_plain(folder / name, _LARGEST)
        if content is not None:
            entries[name] = TreeEntry(FILE, objects.write("blob", content))
    return entries


@dataclass
class History:
    """The trunk's commits, and what is done about those that cannot be read."""

    run: RunDirectory
    repository: Repository
    known: Sequence[KnownCommit]
    """Oldest first."""
    keep: Callable[[Path], None]
    """Copies a file into the backup before it changes."""
    renamed: dict[str, str] = field(default_factory=dict)
    """Commits that were written again under another name, old to new."""
    _there: set[str] = field(default_factory=set)
    """Objects that can be read."""

    def repair(self) -> Iterator[str]:
        """Make the branch name a commit that is whole with all before it; yields each step as a sentence."""
        self._there = {row.split()[1] for row in self._listed}
        tip = self._tip()
        drafts: list[CommitDraft] = []
        if tip:
            yield from self._collect(tip, drafts)
        if not drafts:
            yield "no commit of the trunk is left or known; restore .git from a backup"
            return
        yield from self._replace_lost_files(drafts)
        head = self._write(drafts)
        if self.renamed:
            yield f"{len(self.renamed)} commits were written again on what is left of the history, with the same files"
        if head != branch_head(self.run.git):
            branch = self.run.git / BRANCH
            self.keep(branch)
            branch.parent.mkdir(parents=True, exist_ok=True)
            write_whole(branch, head + "\n")
            yield f"the branch now names {head}"

    # Which commits there have to be

    def _tip(self) -> str | None:
        """Returns the commit that the branch has to name: the one it names, or the newest that the queue knows."""
        order = self._order()
        head = branch_head(self.run.git)
        is_behind = head in order[:-1] or (order and self._read(head).is_first)
        if _ID.fullmatch(head) and not is_behind:
            return head
        return order[-1] if order else max(self._commits, key=self._depth, default=None)

    def _order(self) -> list[str]:
        """Returns the known commits, and those that describe the project on top of one of them."""
        described = {
            draft.parent: draft.name
            for draft in map(self._read, self._commits)
            if draft.parent and draft.text.partition(b"\n\n")[2].startswith(DESCRIBED.encode())
        }
        names = [name for one in self.known for name in (one.id, described.get(one.id)) if name]
        return list(dict.fromkeys(names))

    def _depth(self, name: str) -> int:
        depth = 0
        while name:
            name, depth = self._read(name).parent, depth + 1
        return depth

    def _collect(self, tip: str, drafts: list[CommitDraft]) -> Iterator[str]:
        """Add the trunk's commits to `drafts`, from `tip` to the first."""
        name = tip
        while name and name not in {draft.name for draft in drafts}:
            draft = self._read(name)
            if draft.tree is None and self._rebuild(name, newest=not drafts):
                draft = self._read(name)
                yield f"commit {name} was rebuilt byte for byte"
            if draft.tree:
                with contextlib.suppress(GitFailed):
                    draft.files = self.repository.tree(draft.tree)
            drafts.append(draft)
            name = draft.parent if draft.tree else self._before(drafts)

    def _before(self, drafts: Sequence[CommitDraft]) -> str:
        """Returns the most likely parent of the last draft, a lost commit."""
        places = [place for place, one in enumerate(self.known) if _is_among(one, drafts)]
        place = min(places, default=len(self.known)) - 1
        if place >= 0:
            return self.known[place].id
        return next((name for name in self._commits if self._read(name).is_first), "")

    def _rebuild(self, name: str, *, newest: bool) -> bool:
        """Store a lost commit again, if its content can be guessed."""
        commits = self._commits
        known = next((one for one in self.known if one.id == name), None)
        if known:
            parents = [one.id for one in reversed(self.known[: self.known.index(known)])] + commits
        elif newest and self.known:
            known = description(name, self.known, _written_at(self.run.git / BRANCH))
            parents = [self.known[-1].id]
        else:
            known = KnownCommit(name, "Begin", {}, _written_at(self.run.git / "description"))
            parents = [""]
        texts = "\n".join(self._read(commit).text.decode(errors="replace") for commit in commits)
        zones = [*re.findall(r"^committer .* ([+-]\d{4})$", texts, re.MULTILINE), time.strftime("%z"), "+0000"]
        if rebuild_commit(self.repository.objects, known, parents, self._project_trees(), dict.fromkeys(zones)):
            self._there.add(name)
            return True
        return False

    def _project_trees(self) -> Iterator[str]:
        """Yields the trees that hold a project's settings, as every commit's does."""
        for name in [*self._of_kind("tree"), self._first_tree()]:
            kind, data = self.repository.objects.loose(name) or ("", b"")
            if kind == "tree" and b"100644 %s\0" % PROJECT_FILE.encode() in data:
                yield name

    # What replaces lost files

    def _replace_lost_files(self, drafts: list[CommitDraft]) -> Iterator[str]:
        """Give each draft files that are there. A dropped commit's do not matter."""
        nearest: Tree = {}
        for place, draft in enumerate(drafts):
            files = self._readable_files(draft)
            older = next((self._readable_files(other) for other in drafts[place + 1 :] if other.tree), {})
            draft.changed = draft.files is None or len(files) < len(draft.files)
            if draft.changed and not place:
                nearest = self._checked_out()
            if draft.files is None:
                files = dict(nearest or older)
                what = f"the files of commit {draft.name}" if draft.tree else f"commit {draft.name}"
                yield f"{what} cannot be read; the nearest version takes their place"
            for path in sorted((draft.files or {}).keys() - files.keys()):
                if stand_in := nearest.get(path) or older.get(path):
                    files[path] = stand_in
                result = "the nearest version of it" if stand_in else "nothing"
                yield f"{path} of commit {draft.name} is lost, and {result} takes its place"
            nearest = draft.files = files

    def _checked_out(self) -> Tree:
        """Stores and returns the project's files in the output directory."""
        objects = self.repository.objects
        files = project_tree(objects, self.run.root)
        ids = {entry.id for entry in files.values()}
        objects.sync(ids)
        self._there |= ids
        return files

    def _readable_files(self, draft: CommitDraft) -> Tree:
        files = (draft.files or {}).items()
        return {path: entry for path, entry in files if entry.mode == FOLDER or entry.id in self._there}

    # Writing it

    def _write(self, drafts: Sequence[CommitDraft]) -> str:
        """Store the commits that differ from before. Returns the newest commit's name."""
        parent = ""
        for draft in reversed(drafts):
            known = next((one for one in self.known if one.id == draft.name), None)
            if not parent and not draft.is_first:
                parent = self._first_commit()
            if draft.tree is None and known is None and draft is not drafts[0]:
                self.renamed[draft.name] = parent  # only its name is known
                continue
            parent = self._write_draft(draft, known, parent)
            if parent != draft.name:
                self.renamed[draft.name] = parent
        return parent

    def _first_commit(self) -> str:
        """Store a new first commit, like that of `Repository.create`."""
        stamp = f"{AUTHOR} {int(time.time())} {time.strftime('%z')}"
        content = f"tree {self._first_tree()}\nauthor {stamp}\ncommitter {stamp}\n\nBegin\n"
        return self.repository.objects.write("commit", content.encode(), durable=True)

    def _first_tree(self) -> str:
        blob = self.repository.objects.write("blob", PROJECT_TEXT, durable=True)
        self._there.add(blob)
        return self.repository.objects.write_tree({PROJECT_FILE: TreeEntry(FILE, blob)}, durable=True)

    def _write_draft(self, draft: CommitDraft, known: KnownCommit | None, parent: str) -> str:
        if draft.tree and not draft.changed and parent == draft.parent:
            return draft.name
        objects = self.repository.objects
        tree = objects.write_tree(draft.files or {}, durable=True)
        if draft.tree:
            head = f"tree {tree}\nparent {parent}\n" if parent else f"tree {tree}\n"
            return objects.write("commit", head.encode() + draft.text, durable=True)
        passed = self.repository.about(parent).number("Tests-Passed") if parent else 0
        content = known or KnownCommit(draft.name, REPAIRED, {"Tests-Passed": passed}, 0.0)
        return self.repository.commit(tree, parent, content.subject, content.trailers, durable=True)

    # Reading what is there

    def _read(self, name: str) -> CommitDraft:
        kind, data = self.repository.objects.loose(name) or ("", b"")
        if not kind and name in self._there:
            with contextlib.suppress(GitFailed):
                data = self.repository.git("cat-file", "commit", name)
                kind = "commit"
        if kind != "commit":
            return CommitDraft(name)
        heads, _, rest = data.partition(b"\nauthor ")
        tree, *parents = (row.partition(" ")[2] for row in heads.decode(errors="replace").split("\n"))
        return CommitDraft(name, tree, next(iter(parents), ""), b"author " + rest)

    @property
    def _commits(self) -> list[str]:
        return self._of_kind("commit")

    def _of_kind(self, kind: str) -> list[str]:
        return [row.split()[1] for row in self._listed if row.startswith(f"{kind} ")]

    @cached_property
    def _listed(self) -> list[str]:
        """Kind and name of each object. Git leaves out those that cannot be read, and exits with 1."""
        _, listed = self.repository.git.outcome(
            "cat-file", "--batch-all-objects", "--batch-check=%(objecttype) %(objectname)", accept=_ANY_CODE
        )
        return [row for row in listed.decode().splitlines() if len(row.split()) == 2]


def _is_among(known: KnownCommit, drafts: Iterable[CommitDraft]) -> bool:
    task = f"\nTask: {known.trailers['Task']}\n".encode() if "Task" in known.trailers else None
    return any(draft.name == known.id or (task and task in draft.text) for draft in drafts)


def _written_at(path: Path) -> float:
    return path.stat().st_mtime if path.exists() else 0.0
