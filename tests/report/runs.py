"""Run directories as the store, the queue and the gateway write them, for the tests of this room."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec

from parallel_orchestrator.gateway.calls.ledger import Intent, Ledger
from parallel_orchestrator.gateway.calls.messages import Answered, CallFault, ModelRequest, TurnKey
from parallel_orchestrator.records.journals.evidence import MergedFiles, MergeEvidence, PathList
from parallel_orchestrator.records.journals.transcript import ConversationEnded
from parallel_orchestrator.records.lifecycle import TaskState
from parallel_orchestrator.records.outcome import Outcome
from parallel_orchestrator.records.plan import Plan
from parallel_orchestrator.records.scenario import Scenario
from parallel_orchestrator.records.usage import Spending
from parallel_orchestrator.report.facts.documents import Summary
from parallel_orchestrator.report.facts.summary import RunState, read_state
from parallel_orchestrator.store.journal import Journal
from parallel_orchestrator.store.paths import RunDirectory
from parallel_orchestrator.store.queue.queue import TaskQueue
from parallel_orchestrator.store.record_parser import TRANSCRIPT

NASTY = "a\x1b[2J\x1b]0;title\x07\r\nb\u202e"
ESCAPED = "a\\x1b[2J\\x1b]0;title\\x07\\r\\nb\\u202e"
"""The same as it is shown."""
CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
"""What may steer a terminal, but for line ends."""

USAGE = {"input_tokens": 10, "output_tokens": 5, "cache_read_input_tokens": 100, "cache_creation_input_tokens": None}


class Calls:
    """Writes a ledger with the gateway's own hand."""

    def __init__(self, path: Path) -> None:
        self.ledger = Ledger(path)

    def begin(self, task: str, turn: int, attempt: int = 1, bound: float | None = 3.0, body: str = "a") -> Intent:
        request = ModelRequest(TurnKey(task, attempt, turn), "work", turn, "m", 100, b"{}", f"{body}{turn}")
        return self.ledger.write_intent(self.ledger.new_call(), request, 1, bound)

    def again(self, intent: Intent, number: int) -> Intent:
        """The next try of the same call."""
        return self.ledger.write_intent(intent.call, intent.request, number, intent.bound_usd)

    def answered(
        self, intent: Intent, usd: float | None = 0.5, recorded: float | None = None, usage: Any = USAGE
    ) -> None:
        answer = Answered("event: ping\n\n", {}, "m", "end_turn", usage, "req", 2.0)
        self.ledger.write_answer(intent, answer, usd, recorded, 0.25)

    def failed(self, intent: Intent, *, ambiguous: bool, kind: str = "reset") -> None:
        self.ledger.write_fault(intent, CallFault(kind, ambiguous, "gone"))

    def buy(self, task: str, *turns: int, **options: Any) -> None:
        for turn in turns:
            self.answered(self.begin(task, turn, **options))

    def reopen(self) -> None:
        """Another gateway takes over."""
        path = self.ledger._journal.path
        self.ledger.close()
        self.ledger = Ledger(path)


def evidence(created: int, tested: str = "merged and tested") -> MergeEvidence:
    """Evidence of a merge that brought so many files."""
    none = PathList(0, [])
    return MergeEvidence(files=MergedFiles(PathList(created, []), none, none), tested=tested)


def summary_with(**fields: Any) -> Summary:
    """A summary with these fields, and nothing in the others."""
    empty = {
        **dict.fromkeys(Summary.__struct_fields__, 0),
        "run": "r1",
        "requirements": "Build it.",
        "status": "done",
        "utilisation": {},
        "tasks": [],
        "planning": {**Spending().as_json(), "tokens": {}, "complexity": "simple", "endpoint_s": 0},
        "tokens": {},
    }
    optional = ("version", "green", "commit", "lines_of_code", "tests", "verify", "fixes", "corrections")
    kept = {name: value for name, value in empty.items() if name not in optional}
    return msgspec.convert({**kept, **fields}, Summary)


class Story:
    """A run, told move by move."""

    def __init__(self, folder: Path, plan: Plan, **fields: Any) -> None:
        self.run, self.plan = RunDirectory(folder), plan
        self.scenario = Scenario(**{"run": "r1", "requirements": "Build it.", "endpoint": "http://x", **fields})
        self.queue = TaskQueue(self.run, plan.graph())
        self.calls = Calls(self.run.ledger)

    def merge(self, executor: int = 1, found: MergeEvidence | None = None) -> str:
        """The next task is claimed, handed in and merged."""
        claim = self.queue.claim(executor).claim
        assert claim
        self._submitted(claim.folder, claim.task, claim.attempt)
        self.queue.finish(claim, Outcome(TaskState.MERGED, evidence=found or evidence(3)))
        return claim.task

    def fail(self, why: str, executor: int = 1) -> str:
        """The next task is claimed and fails."""
        claim = self.queue.claim(executor).claim
        assert claim
        self.queue.finish(claim, Outcome(TaskState.FAILED, why))
        return claim.task

    def _submitted(self, folder: int, task: str, attempt: int) -> None:
        self.run.folder(folder).mkdir(exist_ok=True)
        transcript = Journal(self.run.transcript(folder, task, attempt), TRANSCRIPT)
        transcript.append(ConversationEnded(kind="submitted", reason="done"), durable=False)
        transcript.close()

    def state(self) -> RunState:
        return read_state(self.run, self.scenario, self.plan)

    def close(self) -> None:
        self.queue.close()
        self.calls.ledger.close()
