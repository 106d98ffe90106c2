"""The scheduler: which task an executor claims next, over the queues of the runs that are open.

A run outside a batch is the only one. In a batch, the batch's journal says which runs are open, and the next one is
opened when none of them has a ready task.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from parallel_orchestrator.records.graph import TaskGraph
from parallel_orchestrator.records.journals.evidence import MergeEvidence
from parallel_orchestrator.records.outcome import Outcome
from parallel_orchestrator.records.scenario import ExecutionEnv
from parallel_orchestrator.store.paths import RunDirectory
from parallel_orchestrator.store.queue.queue import TaskQueue
from parallel_orchestrator.store.queue.queue_state import Claim, QueueState


@dataclass(frozen=True)
class RunHandle:
    """One run, as its executors need to know it."""

    run: RunDirectory
    graph: TaskGraph
    env: ExecutionEnv
    limit: int | None = None
    """At most so many of its tasks are worked on at once."""


class RunSource(Protocol):
    """Which runs are open. Pickled into each worker process, which follows them by itself."""

    @property
    def log(self) -> Path:
        """Where its processes log."""

    def refresh(self) -> tuple[RunHandle, ...]:
        """The runs that are open now."""

    def open_next(self) -> bool:
        """Open one more run, for an executor that would be idle otherwise. False when none is waiting."""

    def exhausted(self) -> bool:
        """Whether no other run will be opened, and none whose tasks are settled gets another task."""

    def close(self) -> None:
        """Close its files."""


@dataclass(frozen=True)
class SingleRun:
    """The source of a run outside a batch: it alone, open from the beginning."""

    handle: RunHandle

    @property
    def log(self) -> Path:
        """The run's own."""
        return self.handle.run.log

    def refresh(self) -> tuple[RunHandle, ...]:
        """The run."""
        return (self.handle,)

    def open_next(self) -> bool:
        """Never."""
        return False

    def exhausted(self) -> bool:
        """Always."""
        return True

    def close(self) -> None:
        """It has no files."""


@dataclass(frozen=True)
class ClaimedTask:
    """A claim and the run that it is on."""

    handle: RunHandle
    claim: Claim

    @property
    def label(self) -> str:
        """What a log calls its task: in a batch with the folder of its run."""
        task = self.claim.task
        return task if self.handle.limit is None else f"{self.handle.run.root.name}/{task}"


class Scheduler:
    """One process's handle on the open runs. Not to be shared between threads, nor carried over a fork."""

    def __init__(self, source: RunSource) -> None:
        self.moves = 0
        """Queue records seen so far: as long as it stands still, nothing happened."""
        self._source = source
        self._open: dict[Path, RunHandle] = {}
        self._queues: dict[Path, TaskQueue] = {}

    def refresh(self) -> bool:
        """Take in what happened. Whether anything is left to do, now or later."""
        self._open = {handle.run.root: handle for handle in self._source.refresh()}
        for root in [root for root in self._queues if root not in self._open]:
            self._queues.pop(root).close()
        left = not self._source.exhausted()
        for root, handle in self._open.items():
            if root not in self._queues:
                self._queues[root] = TaskQueue(handle.run, handle.graph, handle.limit)
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
        self.refresh()
        left = sum(queue.queue_state.unsettled for queue in self._queues.values())
        return min(executors, left) if self._source.exhausted() else executors

    def is_open(self, handle: RunHandle) -> bool:
        """Whether its run is still open to executors, as far as the last refresh went."""
        return handle.run.root in self._open

    def queue_states(self) -> list[tuple[RunHandle, QueueState]]:
        """The open runs and how they stand, as of the last refresh."""
        return [(self._open[root], queue.queue_state) for root, queue in self._queues.items()]

    def queue_state(self, run: RunDirectory) -> QueueState:
        """How one open run stands."""
        return self._queues[run.root].queue_state

    def claim(self, executor: int) -> ClaimedTask | None:
        """Claim the most pressing ready task of the open runs; where there is none, open another run."""
        while True:
            self.refresh()
            ready = [(queue.queue_state.urgency(), root) for root, queue in self._queues.items()]
            for _, root in sorted((urgency, root) for urgency, root in ready if urgency is not None):
                claim = self._queues[root].claim(executor).claim
                if claim is not None:
                    return ClaimedTask(self._open[root], claim)
            if not self._source.open_next():
                return None

    def finish(self, claimed: ClaimedTask, outcome: Outcome, next_for: int | None) -> tuple[ClaimedTask | None, int]:
        """Record how a claim ended and claim the run's next task in the same hold of its lock, for `next_for`.

        That claim, and the number of tasks that became ready besides. Raises StaleClaim.
        """
        advance = self._queue(claimed).finish(claimed.claim, outcome, next_for=next_for)
        return ClaimedTask(claimed.handle, advance.claim) if advance.claim else None, advance.ready

    def check(self, claimed: ClaimedTask) -> None:
        """Raise StaleClaim unless the claim still stands."""
        self._queue(claimed).check(claimed.claim)

    def release(self, claimed: ClaimedTask, why: str) -> int:
        """Put a task back unfinished; the number of tasks that became ready. Raises StaleClaim."""
        return self._queue(claimed).release(claimed.claim, why).ready

    def holds_of(self, executor: int) -> list[ClaimedTask]:
        """The claims that an executor holds, in whichever run."""
        self.refresh()
        return [
            ClaimedTask(self._open[root], status.claim)
            for root, queue in self._queues.items()
            for status in queue.queue_state.tasks.values()
            if status.claim and status.claim.executor == executor
        ]

    def adopt(self, claimed: ClaimedTask, evidence: MergeEvidence) -> None:
        """Record a merge that is on the trunk but whose move was lost with its writer (`TaskQueue.adopt`)."""
        self._queue(claimed).adopt(claimed.claim.task, evidence)

    def take_back(self, executor: int, why: str, **details: Any) -> None:
        """Put back what a dead executor holds, in whichever run (`TaskQueue.take_back`)."""
        self.refresh()
        for queue in self._queues.values():
            if queue.queue_state.held:
                queue.take_back(executor, why, **details)

    def close(self) -> None:
        """Give the descriptors back."""
        for queue in self._queues.values():
            queue.close()
        self._source.close()

    def _queue(self, claimed: ClaimedTask) -> TaskQueue:
        """The queue of a claim; opened again when its run was closed to executors meanwhile."""
        handle = claimed.handle
        if handle.run.root not in self._queues:
            self._queues[handle.run.root] = TaskQueue(handle.run, handle.graph, handle.limit)
        return self._queues[handle.run.root]
