"""Rebuilds a lost commit of the trunk byte for byte from what the run's other files say about it.

A commit is named by its content, so a right guess proves itself. Most of it is known; its tree is one of those that are
there, and its time is shortly before the queue recorded the merge.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, product

from parallel_orchestrator.records.journals.queue import FinalTests, Move, QueueRecord
from parallel_orchestrator.records.plan import Plan
from parallel_orchestrator.trunk.git.git import AUTHOR
from parallel_orchestrator.trunk.git.objects import Objects
from parallel_orchestrator.trunk.git.repository import commit_subject

DESCRIBED = "Describe the project"
_BEFORE_S, _AFTER_S = 180, 3
"""Most seconds between a commit and the record or file that was written with it."""
_MOST_GUESSES = 5_000_000


@dataclass(frozen=True)
class KnownCommit:
    """What the run's other files say about a commit of the trunk."""

    id: str
    subject: str
    trailers: Mapping[str, object]
    at: float
    """The wall clock shortly after it was made."""

    @property
    def message(self) -> str:
        """Returns the message as `Repository.commit` writes it."""
        lines = "".join(f"{name}: {value}\n" for name, value in self.trailers.items())
        return f"{self.subject}\n\n{lines}" if lines else f"{self.subject}\n"


def known_commits(queue: Iterable[QueueRecord], plan: Plan | None) -> list[KnownCommit]:
    """Returns what queue and plan say about the trunk's commits, oldest first."""
    names = {task.id: task.name for task in plan.tasks} if plan else {}
    known: list[KnownCommit] = []
    for record in queue:
        if isinstance(record, Move) and record.evidence and record.evidence.commit:
            passed = record.evidence.tests.passed if record.evidence.tests else 0
            trailers = {"Task": record.task, "Attempt": record.attempt, "Claim": record.claim, "Tests-Passed": passed}
            subject = f"{record.task}: {commit_subject(names.get(record.task, ''))}"
            known.append(KnownCommit(record.evidence.commit, subject, trailers, record.at))
        elif isinstance(record, FinalTests) and record.head not in {one.id for one in known}:
            known.append(description(record.head, known, record.at))
    return known


def description(name: str, known: Sequence[KnownCommit], at: float) -> KnownCommit:
    """Returns the commit that describes the project on top of the known ones."""
    return KnownCommit(name, DESCRIBED, {"Tests-Passed": known[-1].trailers["Tests-Passed"] if known else 0}, at)


def rebuild_commit(
    objects: Objects, wanted: KnownCommit, parents: Iterable[str], trees: Iterable[str], zones: Iterable[str]
) -> bool:
    """Store the wanted commit if it has one of these parents, trees and time zones. Returns whether it has.

    An empty parent means none.
    """
    seconds = range(int(wanted.at) + _AFTER_S, int(wanted.at) - _BEFORE_S, -1)
    stamps = [f"{AUTHOR} {second} {zone}" for zone in zones for second in seconds]
    for parent, tree in islice(product(parents, trees), _MOST_GUESSES // len(stamps)):
        head = f"tree {tree}\nparent {parent}\n" if parent else f"tree {tree}\n"
        for stamp in stamps:
            content = f"{head}author {stamp}\ncommitter {stamp}\n\n{wanted.message}".encode()
            digest = hashlib.sha1(b"commit %d\0" % len(content) + content, usedforsecurity=False)
            if digest.hexdigest() == wanted.id:
                objects.write("commit", content, durable=True)
                return True
    return False
