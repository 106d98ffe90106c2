"""What executors may claim from: the queues of the runs that are open.

A run alone is a board of one. In a batch the board follows the batch's own journal: which runs are open, and where
the next one can be opened when none of them has a task that is ready.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from parallel_orchestrator.records.graph import TaskGraph
from parallel_orchestrator.records.outcome import Outcome
from parallel_orchestrator.records.scenario import ExecutionEnv
from parallel_orchestrator.store.paths import RunDirectory
from parallel_orchestrator.store.queue.queue import TaskQueue
from parallel_orchestrator.store.queue.queue_state import Claim, Replica


@dataclass(frozen=True)
class Member:
    """One run, as its executors need to know it."""

    run: RunDirectory
    graph: TaskGraph
    env: ExecutionEnv
    limit: int | None = None
    """At most so many of its tasks are worked on at once."""


class Members(Protocol):
    """Which runs are open. One process's view."""

    def look(self) -> tuple[Member, ...]:
        """Those that are open now."""

    def widen(self) -> bool:
        """Open one more, for an executor that would be idle otherwise. False when none is waiting."""

    def over(self) -> bool:
        """Whether nothing more will come: no other run, and no further task of one whose tasks are settled."""

    def close(self) -> None:
        """Give descriptors back."""


class Source(Protocol):
    """Where work comes from; crosses into a worker process."""

    @property
    def log(self) -> Path:
        """Where its processes write what happened."""

    def members(self) -> Members:
        """A new view, for one process."""


@dataclass(frozen=True)
class Alone:
    """A run that is no part of a batch: always open, and the only one."""

    member: Member

    @property
    def log(self) -> Path:
        """The run's own."""
        return self.member.run.log

    def members(self) -> Alone:
        """Itself: there is nothing to follow."""
        return self

    def look(self) -> tuple[Member, ...]:
        """The run."""
        return (self.member,)

    def widen(self) -> bool:
        """Never."""
        return False

    def over(self) -> bool:
        """Always."""
        return True

    def close(self) -> None:
        """Nothing to give back."""


@dataclass(frozen=True)
class Hold:
    """A claim and the run that it is on."""

    member: Member
    claim: Claim

    @property
    def label(self) -> str:
        """What a log calls its task: in a batch with the folder of its run."""
        task = self.claim.task
        return task if self.member.limit is None else f"{self.member.run.root.name}/{task}"


class Board:
    """One process's handle on the open runs. Not to be shared between threads, nor carried over a fork."""

    def __init__(self, source: Source) -> None:
        self.moves = 0
        """Queue records seen so far: as long as it stands still, nothing happened."""
        self._members = source.members()
        self._open: dict[Path, Member] = {}
        self._queues: dict[Path, TaskQueue] = {}

    def look(self) -> bool:
        """Take in what happened. Whether anything is left to do, now or later."""
        self._open = {member.run.root: member for member in self._members.look()}
        for root in [root for root in self._queues if root not in self._open]:
            self._queues.pop(root).close()
        left = not self._members.over()
        for root, member in self._open.items():
            if root not in self._queues:
                self._queues[root] = TaskQueue(member.run, member.graph, member.limit)
            left = self._refresh(self._queues[root]) or left
        return left

    def _refresh(self, queue: TaskQueue) -> bool:
        """Read what is new in one queue; whether any of its tasks is left. The files of a settled one are closed.

        A settled one is read as well: a fix task may be planned for it.
        """
        before = queue.last_seq
        unsettled = queue.refresh().unsettled
        self.moves += queue.last_seq - before
        if not unsettled:
            queue.close()
        return bool(unsettled)

    def room_for(self, executors: int) -> int:
        """How many of `executors` may find work; once no more runs open, at most one for each unsettled task."""
        self.look()
        left = sum(queue.replica.unsettled for queue in self._queues.values())
        return min(executors, left) if self._members.over() else executors

    def is_open(self, member: Member) -> bool:
        """Whether its run is still open to executors, as far as the last look went."""
        return member.run.root in self._open

    def replicas(self) -> list[tuple[Member, Replica]]:
        """The open runs and how they stand, as of the last look."""
        return [(self._open[root], queue.replica) for root, queue in self._queues.items()]

    def replica(self, run: RunDirectory) -> Replica:
        """How one open run stands."""
        return self._queues[run.root].replica

    def claim(self, executor: int) -> Hold | None:
        """Claim the most pressing ready task of the open runs; where there is none, open another run."""
        while True:
            self.look()
            ready = [(queue.replica.urgency(), root) for root, queue in self._queues.items()]
            for _, root in sorted((urgency, root) for urgency, root in ready if urgency is not None):
                claim = self._queues[root].claim(executor).claim
                if claim is not None:
                    return Hold(self._open[root], claim)
            if not self._members.widen():
                return None

    def finish(self, hold: Hold, outcome: Outcome, next_for: int | None) -> tuple[Hold | None, int]:
        """Record how a claim ended and claim the run's next task in the same hold of its lock, for `next_for`.

        That claim, and the number of tasks that became ready besides. Raises StaleClaim.
        """
        advance = self._queue(hold).finish(hold.claim, outcome, next_for=next_for)
        return Hold(hold.member, advance.claim) if advance.claim else None, advance.ready

    def check(self, hold: Hold) -> None:
        """Raise StaleClaim unless the claim still stands."""
        self._queue(hold).check(hold.claim)

    def release(self, hold: Hold, why: str) -> int:
        """Put a task back unfinished; the number of tasks that became ready. Raises StaleClaim."""
        return self._queue(hold).release(hold.claim, why).ready

    def holds_of(self, executor: int) -> list[Hold]:
        """The claims that an executor holds, in whichever run."""
        self.look()
        return [
            Hold(self._open[root], status.claim)
            for root, queue in self._queues.items()
            for status in queue.replica.tasks.values()
            if status.claim and status.claim.executor == executor
        ]

    def adopt(self, hold: Hold, evidence: dict[str, Any]) -> None:
        """Record a merge that is on the trunk but whose move was lost with its writer (`TaskQueue.adopt`)."""
        self._queue(hold).adopt(hold.claim.task, evidence)

    def take_back(self, executor: int, why: str, **details: Any) -> None:
        """Put back what a dead executor holds, in whichever run (`TaskQueue.take_back`)."""
        self.look()
        for queue in self._queues.values():
            if queue.replica.held:
                queue.take_back(executor, why, **details)

    def close(self) -> None:
        """Give the descriptors back."""
        for queue in self._queues.values():
            queue.close()
        self._members.close()

    def _queue(self, hold: Hold) -> TaskQueue:
        """The queue of a claim; opened again when its run was closed to executors meanwhile."""
        member = hold.member
        if member.run.root not in self._queues:
            self._queues[member.run.root] = TaskQueue(member.run, member.graph, member.limit)
        return self._queues[member.run.root]
