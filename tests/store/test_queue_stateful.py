"""The queue as a state machine: several handles, every operation, in any order, with kills and torn tails between."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from parallel_orchestrator.records.errors import StaleClaim
from parallel_orchestrator.records.graph import TaskGraph
from parallel_orchestrator.records.journals.evidence import MergeEvidence
from parallel_orchestrator.records.lifecycle import SETTLED, TaskState
from parallel_orchestrator.records.outcome import Outcome
from parallel_orchestrator.store.journal import encode
from parallel_orchestrator.store.paths import RunDirectory
from parallel_orchestrator.store.queue import queue as queue_module
from parallel_orchestrator.store.queue.queue import TaskQueue
from parallel_orchestrator.store.queue.queue_state import MAX_DEATHS, Claim, QueueState
from parallel_orchestrator.store.record_parser import QUEUE
from tests.journals import read_all
from tests.records.test_graph import graphs

executors = st.integers(1, 3)
DAY = 86400.0


class Clock:
    """What modules take for `time`: which task is claimed next depends on how long others took."""

    def __init__(self) -> None:
        self.wall, self.mono = 1e9, 5e6

    def time(self) -> float:
        return self.wall

    def monotonic(self) -> float:
        return self.mono


class QueueMachine(RuleBasedStateMachine):
    """Executors 1 to 3 with a handle each. `held` and `merged` are kept by hand, apart from the queue's own fold."""

    timed: tuple[ModuleType, ...] = (queue_module,)
    """The modules whose `time` is the clock."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        for module in self.timed:
            setattr(module, "time", self.clock)  # noqa: B010 - it is no export
        self.folder = tempfile.TemporaryDirectory()
        self.run = RunDirectory(Path(self.folder.name))
        self.handles: dict[int, TaskQueue] = {}
        self.held: dict[int, Claim] = {}
        self.stale: list[Claim] = []
        self.merged: list[str] = []
        self.torn = False

    @initialize(graph=graphs(7))
    def begin(self, graph: TaskGraph) -> None:
        self.graph = graph
        self.handles = {number: TaskQueue(self.run, graph) for number in (1, 2, 3)}
        self.watcher = TaskQueue(self.run, graph)

    def _got(self, executor: int, claim: Claim | None) -> None:
        if claim is None:
            return
        assert claim.executor == executor
        assert claim.task not in self.merged
        assert all(other.task != claim.task for other in self.held.values())
        assert all(other.number < claim.number for other in [*self.held.values(), *self.stale])
        assert set(self.graph.nodes[claim.task].dependencies) <= set(self.merged)
        self.held[executor] = claim
        self.torn = False

    @rule(seconds=st.floats(0, 5000), jump=st.sampled_from([0.0, 0.0, DAY, -DAY]))
    def time_passes(self, seconds: float, jump: float) -> None:
        """Wall clocks jump, the monotonic one does not."""
        self.clock.mono += seconds
        self.clock.wall += seconds + jump

    @rule(executor=executors)
    def claim(self, executor: int) -> None:
        if executor in self.held:
            return
        waiting = [task for task, status in self.watcher.refresh().tasks.items() if self._ready(task, status.state)]
        claim = self.handles[executor].claim(executor).claim
        assert (claim is not None) == bool(waiting)
        self._got(executor, claim)

    def _ready(self, task: str, state: TaskState) -> bool:
        waits = state in (TaskState.QUEUED, TaskState.REPAIR)
        return waits and set(self.graph.nodes[task].dependencies) <= set(self.merged)

    @rule(executor=executors, state=st.sampled_from(["merged", "merged", "failed", "repair"]), go_on=st.booleans())
    def finish(self, executor: int, state: str, go_on: bool) -> None:
        claim = self.held.pop(executor, None)
        if claim is None:
            return
        advance = self.handles[executor].finish(
            claim, Outcome(TaskState(state), "why"), next_for=executor if go_on else None
        )
        self.torn = False
        self.stale.append(claim)
        if state == "merged":
            self.merged.append(claim.task)
        self._got(executor, advance.claim)

    @rule(executor=executors)
    def release(self, executor: int) -> None:
        claim = self.held.pop(executor, None)
        if claim:
            self.handles[executor].release(claim, "asked to stop")
            self.stale.append(claim)
            self.torn = False

    @rule(executor=executors)
    def die(self, executor: int) -> None:
        """Its handle is lost with all that it knew; another process takes back what it held."""
        self.handles[executor].close()
        self.handles[executor] = TaskQueue(self.run, self.graph)
        self.watcher.take_back(executor, "killed")
        if executor in self.held:
            self.stale.append(self.held.pop(executor))
            self.torn = False

    @rule()
    def end_the_run(self) -> None:
        """Everybody dies and an orchestrator comes back."""
        for handle in [*self.handles.values(), self.watcher]:
            handle.close()
        self.begin(self.graph)
        self.watcher.start_session(3)
        self.watcher.take_back(None, "its orchestrator ended")
        self.stale += self.held.values()
        self.held.clear()
        self.torn = False

    @precondition(lambda self: self.stale)
    @rule(executor=executors, data=st.data())
    def act_on_a_stale_claim(self, executor: int, data: st.DataObject) -> None:
        held = {claim.task for claim in self.held.values()}
        others = [claim for claim in self.stale if claim.task in held]  # somebody else has the task by now
        claim, before = data.draw(st.sampled_from(others or self.stale)), read_all(self.run.queue)
        for state in (TaskState.MERGED, TaskState.FAILED):
            with pytest.raises(StaleClaim):
                self.handles[executor].finish(claim, Outcome(state), next_for=executor)
        assert read_all(self.run.queue) == before

    @rule(data=st.data())
    def adopt(self, data: st.DataObject) -> None:
        """Its commit is on the trunk, its move was lost: that can only be a task whose dependencies are merged."""
        tasks = self.watcher.refresh().tasks
        lost = [t for t, s in tasks.items() if s.state is TaskState.CLAIMED or self._ready(t, s.state)]
        if lost:
            task = data.draw(st.sampled_from(lost))
            self.watcher.adopt(task, MergeEvidence())
            self.merged.append(task)
            self.torn = False
            for executor, claim in list(self.held.items()):
                if claim.task == task:
                    self.stale.append(self.held.pop(executor))

    @rule(data=st.data())
    def retry(self, data: st.DataObject) -> None:
        tasks = self.watcher.refresh().tasks
        failed = [task for task, status in tasks.items() if status.state is TaskState.FAILED]
        if failed:
            task = data.draw(st.sampled_from(failed))
            attempt = tasks[task].attempt
            self.watcher.retry(task, "asked")
            assert (tasks[task].attempt, tasks[task].folder, tasks[task].deaths) == (attempt + 1, 0, 0)
            self.torn = False

    @rule(kept=st.integers(1, 40), zeros=st.sampled_from([0, 0, 3, 5000]))
    def tear(self, kept: int, zeros: int) -> None:
        """A writer is killed within its write; what it wrote may not all have reached the disk."""
        if not self.torn:
            line = encode(self.watcher.last_seq + 1, {"task": "task_1", "state": "claimed"})
            with self.run.queue.open("ab") as file:
                file.write(line[:kept] + b"\0" * zeros)
            self.torn = True

    @invariant()
    def all_agree_with_a_fold_of_the_file(self) -> None:
        if not self.handles:
            return
        fold = QueueState(self.graph)
        for record in read_all(self.run.queue):
            fold.apply(QUEUE.of(record))
        for handle in [*self.handles.values(), self.watcher]:
            assert handle.refresh().tasks == fold.tasks
        states = {task: status.state for task, status in fold.tasks.items()}
        assert {task for task, state in states.items() if state is TaskState.MERGED} == set(self.merged)
        assert len(self.merged) == len(set(self.merged))
        assert {t: s.claim for t, s in fold.tasks.items() if s.claim} == {c.task: c for c in self.held.values()}
        assert fold.unsettled == sum(state not in SETTLED for state in states.values())
        assert all(status.deaths <= MAX_DEATHS for status in fold.tasks.values())
        failed = {task for task, state in states.items() if state is TaskState.FAILED}
        behind_failed = {later for task in failed for later in fold.dependents(task)}
        assert {task for task, state in states.items() if state is TaskState.BLOCKED} == behind_failed - failed

    def teardown(self) -> None:
        """Whatever happened, the rest can be done: no task is lost."""
        try:
            if self.handles:
                self._finish_all()
        finally:
            self.folder.cleanup()
            for module in self.timed:
                setattr(module, "time", time)  # noqa: B010

    def _finish_all(self) -> None:
        for executor, claim in self.held.items():
            self.handles[executor].finish(claim, Outcome(TaskState.MERGED))
        while claim_ := self.watcher.claim(1).claim:
            self.watcher.finish(claim_, Outcome(TaskState.MERGED))
        assert self.watcher.refresh().unsettled == 0
        for handle in [*self.handles.values(), self.watcher]:
            handle.close()


TestQueueMachine = QueueMachine.TestCase
TestQueueMachine.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
