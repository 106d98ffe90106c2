"""Lost commits of the trunk made again, byte for byte, from what the run's other files say of them.

A commit is named by its content, so that a right guess proves itself. Most of it is known; its tree is one of those
that are there, and its time lies shortly before the queue says that it landed.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from parallel_orchestrator.records.plan import Plan
from parallel_orchestrator.store.journal import Record
from parallel_orchestrator.store.paths import RunDirectory
from parallel_orchestrator.trunk.git.git import AUTHOR
from parallel_orchestrator.trunk.git.objects import FILE, Entry
from parallel_orchestrator.trunk.git.repository import BRANCH, PROJECT_FILE, PROJECT_TEXT, Repository, one_line

DESCRIBED = "Describe the project"
_BEFORE_S, _AFTER_S = 180, 3
"""Most seconds between a commit and the queue's record that it landed."""
_FIRST_BEFORE_S = 3600
_NEAR_S = 5
"""Around the time of a file that was written with the commit."""
_MOST = 5_000_000


@dataclass(frozen=True)
class KnownCommit:
    """What the run's other files say of a commit of the trunk."""

    id: str
    subject: str
    trailers: Mapping[str, object]
    at: float
    """When it was recorded, by the wall clock."""

    @property
    def message(self) -> str:
        """Its text as `Repository.commit` writes it."""
        lines = "".join(f"{name}: {value}\n" for name, value in self.trailers.items())
        return f"{self.subject}\n\n{lines}"


def known_commits(queue: Iterable[Record], plan: Plan | None) -> list[KnownCommit]:
    """What queue and plan say of the trunk's commits, oldest first."""
    names = {task.id: task.name for task in plan.tasks} if plan else {}
    known: list[KnownCommit] = []
    for record in queue:
        evidence, at = record.get("evidence") or {}, record.get("at", 0.0)
        if evidence.get("commit"):
            task, passed = record["task"], evidence.get("tests", {}).get("passed", 0)
            trailers = {"Task": task, "Attempt": record["attempt"], "Claim": record.get("claim", 0)}
            subject = f"{task}: {one_line(names.get(task, ''))}"
            known.append(KnownCommit(evidence["commit"], subject, {**trailers, "Tests-Passed": passed}, at))
        elif record.get("final") and record["final"]["head"] not in {one.id for one in known}:
            trailers = {"Tests-Passed": known[-1].trailers["Tests-Passed"] if known else 0}
            known.append(KnownCommit(record["final"]["head"], DESCRIBED, trailers, at))
    return known


@dataclass(frozen=True)
class Guesses:
    """What a lost commit may have been."""

    run: RunDirectory
    repository: Repository
    known: Sequence[KnownCommit]
    """Oldest first."""
    zones: Sequence[str]
    """Time zones that other commits were made in."""
    trees: Sequence[str]
    commits: Sequence[str]
    """Those that can be read."""

    def right(self, name: str, *, newest: bool) -> bool:
        """Store the commit of that name, if one of the guesses is right. `newest`: nothing is known to stand on it."""
        known = next((one for one in self.known if one.id == name), None)
        if known is None:
            return self._first(name) or (newest and self._description(name))
        parents = [one.id for one in reversed(self.known[: self.known.index(known)])] + list(self.commits)
        return self._any(known, parents, range(int(known.at) + _AFTER_S, int(known.at) - _BEFORE_S, -1))

    def _description(self, name: str) -> bool:
        if not self.known:
            return False
        last = self.known[-1]
        guess = KnownCommit(name, DESCRIBED, {"Tests-Passed": last.trailers.get("Tests-Passed", 0)}, last.at)
        written = [self.run.git / BRANCH, self.run.summary, self.run.page, self.run.git / "index"]
        around = range(-_NEAR_S, _NEAR_S + 1)
        times = {int(path.stat().st_mtime) + near for path in written if path.exists() for near in around}
        return self._any(guess, [last.id], sorted(times, reverse=True))

    def _first(self, name: str) -> bool:
        blob = self.repository.objects.write("blob", PROJECT_TEXT, durable=True)
        tree = self.repository.objects.write_tree({PROJECT_FILE: Entry(FILE, blob)}, durable=True)
        description = self.run.git / "description"
        starts = [one.at for one in self.known[:1]]
        starts += [description.stat().st_mtime + _AFTER_S] if description.exists() else []
        times = {int(start) - before for start in starts for before in range(_FIRST_BEFORE_S)}
        return self._with(name, f"tree {tree}\n", sorted(times, reverse=True), "Begin\n")

    def _any(self, known: KnownCommit, parents: Sequence[str], times: Sequence[int]) -> bool:
        projects = [tree for tree in self.trees if self._is_projects(tree)]
        left = _MOST
        for parent in dict.fromkeys(parents):
            for tree in projects:
                left -= len(times) * len(self._zones())
                if left < 0:
                    return False
                if self._with(known.id, f"tree {tree}\nparent {parent}\n", times, known.message):
                    return True
        return False

    def _is_projects(self, tree: str) -> bool:
        """Whether it holds a project's settings, as every commit's does."""
        kind, data = self.repository.objects.loose(tree) or ("", b"")
        return kind == "tree" and b"100644 %s\0" % PROJECT_FILE.encode() in data

    def _with(self, name: str, head: str, times: Sequence[int], message: str) -> bool:
        """Store the commit with this head and message, if it was made at one of these times."""
        for zone in self._zones():
            for second in times:
                stamp = f"{AUTHOR} {second} {zone}"
                about = f"{head}author {stamp}\ncommitter {stamp}\n\n{message}".encode()
                content = b"commit %d\0" % len(about) + about
                if hashlib.sha1(content, usedforsecurity=False).hexdigest() == name:
                    self.repository.objects.write("commit", about, durable=True)
                    return True
        return False

    def _zones(self) -> list[str]:
        return list(dict.fromkeys([*self.zones, time.strftime("%z"), "+0000"]))
