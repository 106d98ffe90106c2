"""A seeded simulation of queue, lifecycle, journal and ledger, with a clock of its own and a disk that damages files.

To the moves of `tests/store/test_queue_stateful.py` (claim, finish, die, end of the run, stale claims, adopt, retry,
torn tails) come: clocks that jump and boots that set them back, money spent, damaged journals and their repair, edits
of the plan. What must hold after every step: no task lost, none merged twice, dependencies first, spending never falls,
no negative time. A failure prints the steps that lead to it.
"""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition, rule

from parallel_orchestrator.gateway.calls.ledger import Ledger
from parallel_orchestrator.gateway.calls.messages import Answered, ModelRequest, TurnKey
from parallel_orchestrator.maintenance import queue as rebuilding
from parallel_orchestrator.maintenance.cuts import fitted, misfits
from parallel_orchestrator.maintenance.queue import LastAttempt, MergedTask, QueueRebuilder
from parallel_orchestrator.records.errors import DamagedState
from parallel_orchestrator.records.graph import TaskGraph
from parallel_orchestrator.records.journals.evidence import MergeEvidence
from parallel_orchestrator.records.lifecycle import TaskState
from parallel_orchestrator.report.facts.timing import fold_timing
from parallel_orchestrator.store.journal import read_each
from parallel_orchestrator.store.queue import queue as queue_module
from parallel_orchestrator.store.queue.queue import TaskQueue
from parallel_orchestrator.store.queue.queue_state import QueueState
from parallel_orchestrator.store.record_parser import QUEUE
from parallel_orchestrator.store.salvage import rewrite_journal, salvage
from tests.journals import read_all
from tests.reliability.runs import flipped, lines
from tests.store.test_queue_stateful import QueueMachine


class Simulation(QueueMachine):
    """`begun` is kept by hand: the transcripts there would be, with their last record."""

    timed = (queue_module, rebuilding)

    def __init__(self) -> None:
        super().__init__()
        self.ledger = Ledger(self.run.ledger)
        self.spent = 0.0
        self.turn = 0

    def _begun(self) -> dict[str, LastAttempt]:
        """Each task that was claimed, as its transcript would show it."""
        found: dict[str, LastAttempt] = {}
        for record in read_all(self.run.queue):
            task, state = record.get("task"), record.get("state")
            kind = {"claimed": "answer", "failed": "failed", "repair": "repair"}.get(str(state))
            if task and kind and "executor" in record:
                folder = found[task].executor if self._same(found, record) else record["executor"]
                found[task] = LastAttempt(task, record["attempt"], folder, {"kind": kind, "reason": "why"})
        return found

    def _same(self, found: dict[str, LastAttempt], record: dict[str, object]) -> bool:
        task = str(record["task"])
        return task in found and found[task].attempt == record["attempt"]

    @rule(up=st.floats(0, 1e7))
    def boot(self, up: float) -> None:
        """The machine went down with all that ran on it; its monotonic clock begins anew."""
        self.clock.mono = up
        self.end_the_run()

    @rule(usd=st.sampled_from([0.25, 1.0]), answered=st.booleans())
    def buy(self, usd: float, answered: bool) -> None:
        """A call; the gateway may die with it."""
        self.turn += 1
        request = ModelRequest(TurnKey("task_1", 1, self.turn), "work", self.turn, "m", 10, b"{}", f"h{self.turn}")
        intent = self.ledger.write_intent(self.ledger.new_call(), request, 1, 2.0)
        if answered:
            self.ledger.write_answer(intent, Answered("", {}, "m", "end_turn", {}, None, 1.0), usd, None, 0.0)
        else:
            self._reopen()

    def _reopen(self) -> None:
        self.ledger.close()
        self.ledger = Ledger(self.run.ledger)

    @precondition(lambda self: self.turn > 1)
    @rule(data=st.data())
    def damage_the_ledger(self, data: st.DataObject) -> None:
        """An answer is lost. What was announced for it still counts."""
        whole = lines(self.run.ledger)
        answers = [n for n, line in enumerate(whole) if b'"kind":"answer"' in line]
        if not answers:
            return
        lost = data.draw(st.sampled_from(answers))
        self.ledger.close()
        self.run.ledger.write_bytes(b"".join(flipped(line) if n == lost else line for n, line in enumerate(whole)))
        with pytest.raises(DamagedState):
            Ledger(self.run.ledger)
        rewrite_journal(self.run.ledger, fitted(salvage(self.run.ledger).records))
        assert list(misfits(read_all(self.run.ledger))) == []
        self.ledger = Ledger(self.run.ledger)

    @rule(data=st.data())
    def damage_the_queue_and_repair_it(self, data: st.DataObject) -> None:
        """All are dead, a record is garbled, and the queue is made anew from trunk and transcripts."""
        self.watcher.start_session(3)  # also cuts a torn tail off
        self.torn = False
        begun, whole = self._begun(), lines(self.run.queue)
        lost = data.draw(st.integers(0, len(whole) - 1))
        for handle in [*self.handles.values(), self.watcher]:
            handle.close()
        self.run.queue.write_bytes(b"".join(flipped(line) if n == lost else line for n, line in enumerate(whole)))
        with pytest.raises(DamagedState):
            TaskQueue(self.run, self.graph).refresh()
        self._rebuild(begun)
        self.held.clear()
        self.stale.clear()  # nobody lives who could hold one
        self.begin(self.graph)
        self.watcher.start_session(3)
        states = {task: status.state for task, status in self.watcher.refresh().tasks.items()}
        for task, last in begun.items():
            if task not in self.merged and last.last["kind"] == "failed":
                assert states[task] is TaskState.FAILED
            assert self.watcher.queue_state.tasks[task].attempt >= (last.attempt if task not in self.merged else 1)

    def _rebuild(self, begun: dict[str, LastAttempt]) -> None:
        found = salvage(self.run.queue)
        rebuilder = QueueRebuilder(self.graph)
        rebuilder.keep(found.unbroken, set(self.merged), {})
        attempts = {task: begun[task].attempt if task in begun else 1 for task in self.merged}
        rebuilder.complete([MergedTask(task, attempts[task], MergeEvidence()) for task in self.merged], begun)
        rewrite_journal(self.run.queue, rebuilder.records)

    @rule()
    def edit_the_plan(self) -> None:
        """A task is taken out of the plan by hand: refused if the queue knows it, and nothing changes."""
        gone = next((r["task"] for r in read_all(self.run.queue) if "task" in r), None)
        if gone is None:
            return
        out = {gone, *QueueState(self.graph).dependents(gone)}
        before = self.run.queue.read_bytes()
        reader = TaskQueue(self.run, TaskGraph(node for node in self.graph.nodes.values() if node.id not in out))
        with pytest.raises(DamagedState, match="is not in the plan"):
            reader.refresh()
        reader.close()
        assert self.run.queue.read_bytes() == before

    @invariant()
    def spending_never_falls(self) -> None:
        now = self.ledger.fold.settled.most_usd
        assert now >= self.spent
        self.spent = now

    @invariant()
    def no_time_is_negative(self) -> None:
        if self.handles:
            timing = fold_timing(read_each(self.run.queue, QUEUE))
            assert all(hold.seconds >= 0 for hold in timing.holds)
            assert timing.makespan >= 0
            assert all(status.busy >= 0 for status in self.watcher.refresh().tasks.values())

    def teardown(self) -> None:
        """Whatever happened, the rest can be done."""
        try:
            self.ledger.close()
        finally:
            super().teardown()


class LongSimulation(Simulation):
    """10^5 steps."""


TestSimulation = Simulation.TestCase
TestSimulation.settings = settings(max_examples=25, stateful_step_count=30, deadline=None)
TestLongSimulation = pytest.mark.thorough(pytest.mark.timeout(3600)(LongSimulation.TestCase))
TestLongSimulation.settings = settings(
    max_examples=2500, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
