"""What an attempt changed in the project since the commit that it started from."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

from parallel_orchestrator.records.plan import PROJECT_ROOTS
from parallel_orchestrator.trunk.changes.folder import Contents, read_folder
from parallel_orchestrator.trunk.git.objects import FOLDER, LINK, Tree, TreeEntry
from parallel_orchestrator.trunk.git.repository import Repository
from parallel_orchestrator.trunk.results import Submission


def in_project(path: str) -> bool:
    """Whether a path is a project root or lies below one."""
    return path.partition("/")[0] in PROJECT_ROOTS


def shown(path: str) -> str:
    """Return a path for people, JSON and models, with undecodable bytes and control characters escaped."""
    text = os.fsencode(path).decode(errors="backslashreplace")
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


@dataclass(frozen=True)
class Change:
    """A workspace compared with its base. All trees are flat: path to entry."""

    base: Tree
    """Everything on the trunk at the base commit."""
    project: Tree
    """The workspace's files under src/, tests/ and docs/."""
    others: Tree
    """The workspace's other files, which stay out of the project."""
    sizes: Mapping[str, int]
    unsupported: Mapping[str, str]
    """Paths that no tree can hold, in the project or outside, and why."""
    content: Mapping[str, bytes] = field(default_factory=dict)
    """Content of the created and changed files, except links and large files."""

    @cached_property
    def created(self) -> list[str]:
        """Paths that the base does not have."""
        return sorted(self.project.keys() - self.base.keys())

    @cached_property
    def changed(self) -> list[str]:
        """Paths whose content or mode differs from the base's."""
        return sorted(p for p in self.project.keys() & self.base.keys() if self.project[p] != self.base[p])

    @cached_property
    def deleted(self) -> list[str]:
        """Project paths of the base that are gone."""
        return sorted(path for path in self.base.keys() - self.project.keys() if in_project(path))

    @property
    def written(self) -> list[str]:
        """Created and changed paths."""
        return sorted([*self.created, *self.changed])

    @property
    def left_out(self) -> list[str]:
        """Paths outside the project that differ from the trunk's."""
        differing = [path for path, entry in self.others.items() if self.base.get(path) != entry]
        return sorted([*differing, *(path for path in self.unsupported if not in_project(path))])

    @property
    def tree(self) -> Tree:
        """The base with the workspace's project files."""
        kept = {path: entry for path, entry in self.base.items() if not in_project(path)}
        return kept | self.project


def collect(repository: Repository, submission: Submission, largest: int) -> Change:
    """Read the workspace into a Change. It lacks the content of files above `largest` bytes."""
    contents = read_folder(repository.objects, submission.folder)
    base = repository.tree(submission.base)
    project = {p: e for p, e in contents.entries.items() if in_project(p) and e.mode != FOLDER}
    others = {p: e for p, e in contents.entries.items() if not in_project(p)}
    change = Change(base, project, others, contents.sizes, contents.unsupported)
    readable = [path for path in change.written if _readable(project[path], contents, path, largest)]
    blobs = repository.objects.blobs(project[path].id for path in readable)
    return replace(change, content=dict(zip(readable, blobs, strict=True)))


def _readable(entry: TreeEntry, contents: Contents, path: str, largest: int) -> bool:
    return entry.mode != LINK and contents.sizes[path] <= largest
