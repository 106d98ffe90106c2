"""A damaged transcript put together again, from what is left of it and from the answers in the ledger.

The ledger has every answer word for word. What it does not have, tool results and facts that were sent back, is
replaced by a sentence that says so: the conversation then goes on where it was, and its next turn is a new one,
so that no answer is bought a second time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from parallel_orchestrator.agent.answers import kept_of
from parallel_orchestrator.agent.transcript import Conversation
from parallel_orchestrator.messages_api import sse
from parallel_orchestrator.store.journal import Record

LOST_RESULT = "(The result of call {} was lost with a damaged file. Look again if you need it.)"
LOST_FACTS = "Your work is not merged yet. (Why was lost with a damaged file: run the tests, mend what fails, finish.)"


class NotProvable(Exception):
    """Something is missing that neither transcript nor ledger holds."""


@dataclass
class Mending:
    """The conversation as it is put together."""

    answers: Mapping[int, Record]
    """The attempt's answers in the ledger, by turn."""
    base_under: Callable[[str | None], str]
    """The commit that a workspace's tree was made from; None: the workspace as it is now."""
    conversation: Conversation = field(default_factory=Conversation)
    records: list[Record] = field(default_factory=list)
    steps: list[str] = field(default_factory=list)
    _left: list[Record] = field(default_factory=list)

    def take(self, left: Iterable[Record], start: Record | None) -> None:
        """Put all together. `start`: the first record made anew, for when it is lost. Raises NotProvable."""
        self._left = list(left)
        for record in self._left:
            if not self.conversation.start and record["kind"] != "start":
                self._begin(start)
            try:
                self._take(record)
            except NotProvable as error:
                self.steps.append(f"record {record['seq']} and what follows it are left out: {error}")
                return
        if not self.conversation.start:
            self._begin(start)
        self._fill(max(self.answers, default=0))

    def _begin(self, start: Record | None) -> None:
        if start is None:
            raise NotProvable("its beginning is lost")
        self.steps.append("its beginning is rebuilt from the plan; the ledger confirms it")
        self._add(start)

    def _take(self, record: Record) -> None:
        match record["kind"]:
            case "answer":
                self._fill(record["turn"] - 1)
                self._make_way(record["phase"])
            case "tree" | "results":
                self._fill(record["turn"])
                if self.conversation.turns != record["turn"] or not self.conversation.calls:
                    return
            case "repair" | "restart":
                self._fill(self._first_of(f"{record['kind']} {record['round']}") - 1)
            case "start":
                pass
            case _:
                self._fill(self._last_of(self.conversation.phase))
        self._add(record)

    def _first_of(self, phase: str) -> int:
        """The first turn of that phase by the ledger; where it has none, the turn after the last one."""
        later = max(self.answers, default=0) + 1
        return min((turn for turn, answer in self.answers.items() if answer["phase"] == phase), default=later)

    def _last_of(self, phase: str) -> int:
        """The last turn of that phase by the ledger."""
        return max((turn for turn, answer in self.answers.items() if answer["phase"] == phase), default=0)

    def _fill(self, turn: int) -> None:
        """Bring back every answer up to `turn`."""
        while self.conversation.turns < turn:
            answer = self.answers.get(self.conversation.turns + 1)
            if answer is None:
                raise NotProvable(f"the answer of turn {self.conversation.turns + 1} is in no file")
            self._make_way(answer["phase"])
            message = sse.assemble(sse.parse(answer["events"]))
            kept = kept_of(message["content"], answer["stop_reason"], self.conversation)
            copied = {name: answer[name] for name in ("turn", "phase", "phase_turn", "stop_reason", "usage")}
            more = {"content": kept.content, "endpoint_s": answer["endpoint_s"], "discarded": kept.discarded}
            more |= {"faults": kept.faults} if kept.faults else {}
            self.steps.append(f"the answer of turn {answer['turn']} comes from the ledger")
            self._add({"kind": "answer", **copied, **more})

    def _make_way(self, phase: str) -> None:
        """Before another answer: results for the calls of the last one, and facts where a new phase begins."""
        now = self.conversation
        if now.calls:
            self.steps.append(f"the tool results of turn {now.turns} are lost, which the model is shown")
            # Each names its call: results that are all the same would be taken for a lack of progress.
            lost = {call.id: LOST_RESULT.format(call.id) for call in now.calls}
            results = [{"tool_use_id": call, "content": text, "is_error": False} for call, text in lost.items()]
            self._add({"kind": "results", "turn": now.turns, "results": results, "seconds": 0.0})
        if phase != now.phase:
            kind, number = phase.split()
            self.steps.append(f"the facts of {phase} are lost, which the model is shown")
            base = self.base_under(self._next_tree())
            # Without a tree: the workspace stays as it is, and is what this round left.
            self._add({"kind": kind, "round": int(number), "text": LOST_FACTS, "base": base, "tree": None})

    def _next_tree(self) -> str | None:
        """The first tree that the transcript still holds of later turns."""
        later = (r for r in self._left if r["kind"] == "tree" and r["turn"] > self.conversation.turns)
        return next((record["tree"] for record in later), None)

    def _add(self, record: Record) -> None:
        self.conversation.apply(record)
        self.records.append(record)
