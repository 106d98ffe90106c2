"""The conversation of one attempt, as a journal (`records.journals.transcript`), and what follows from it.

Every record is written before the next step, so a kill loses none. Results, repairs, restarts and the ending
cannot be rebuilt: they are on disk, with all before them, before the next step. A power failure may take the others:
the answer is in the ledger, the tree was as volatile, and the end follows from the rest. The requests and every
decision are computed from the records alone, so a conversation that was killed resumes with the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from msgspec import structs

from parallel_orchestrator.agent.model_client import Answer
from parallel_orchestrator.messages_api.tool_calls import ToolCall, ToolResult, calls_in
from parallel_orchestrator.records.errors import DamagedState
from parallel_orchestrator.records.journals import transcript as kinds
from parallel_orchestrator.records.journals.transcript import ConversationStart, TranscriptRecord
from parallel_orchestrator.store.journal import Journal, misfit, read_each
from parallel_orchestrator.store.paths import repair_hint
from parallel_orchestrator.store.record_parser import TRANSCRIPT

WORK = "work"
"""The phase before any other; then come `repair 1`, `repair 2`, … and, for a new conversation, `restart 1`."""

GO_ON = "Your answer was cut off at the output limit. Go on exactly where it stopped."

SAID_NOTHING = (
    "Your answer held neither text nor a tool call. If the task is not complete, continue it now by calling a tool "
    "({tools}). If it is complete, answer with your closing report."
)

NEVER_ACTED_ON = frozenset({"refusal", "model_context_window_exceeded"})
"""Stop reasons of answers whose tool calls are not run."""

_ANNOUNCES_MORE = frozenset({"tool_use", "pause_turn"})
"""Stop reasons with which an empty answer is not the end of the work."""

_HAD_AGAIN = (ConversationStart, kinds.ModelAnswer, kinds.TreeSaved)
"""Records that are not synced: the next record that is synced puts them on disk, too."""

_NUMBER = re.compile(r"\d+(?:[.:]\d+)*")
"""Times, durations and counters: a result that differs only in these is not new."""

Message = dict[str, Any]


@dataclass
class Conversation:
    """Where a conversation stands: the fold of its records."""

    begun: ConversationStart | None = None
    model: str = ""
    """The model that is asked."""
    model_wanted: str = ""
    """The same by the name that the person gave it."""
    messages: list[Message] = field(default_factory=list)
    """As the Messages API takes them, byte for byte the same after every fold."""
    calls: tuple[ToolCall, ...] = ()
    """Tool calls of the last answer that have no results yet."""
    tree: str | None = None
    """What the workspace has to be, on a fresh start, before anything else happens."""
    stop_reason: str | None = None
    """How the last answer ended; None when something was said to the model since."""
    text: str = ""
    """The last answer's text."""
    turns: int = 0
    """Answers so far, discarded ones and those of an earlier conversation too."""
    earlier_turns: int = 0
    """Those of the attempt's earlier conversation."""
    phase: str = WORK
    phase_turn: int = 1
    """The number of the next answer in its phase."""
    repair_rounds: int = 0
    restarts: int = 0
    """New conversations that the attempt has begun."""
    base: str = ""
    """The commit that the work is based on."""
    seconds: float = 0.0
    """The task's own time: at the endpoint and in tools."""
    cuts: int = 0
    """Answers in a row that were cut off at the output limit."""
    discarded_cuts: int = 0
    """Those of them that could not be used at all, in a row."""
    empties: int = 0
    """Answers in a row that said nothing."""
    acted: bool = False
    """Whether tools have run since the conversation, or its last repair, began."""
    error_turns: int = 0
    """Turns in a row whose tool calls all failed."""
    repeats: int = 0
    """How often the last call was made in a row with the same result."""
    stale_turns: int = 0
    """Turns in a row that gave no result and left no workspace that was not there before, in this phase."""
    said_last: str = ""
    """What was sent back into the conversation last; empty in its first phase."""
    stopped: kinds.ConversationStopped | None = None
    """The refusal or cap that ended the conversation."""
    outcome: kinds.ConversationEnded | None = None
    _last_call: str = ""
    _seen: set[bytes] = field(default_factory=set)
    """What there was before: digests of results and of workspaces."""

    @property
    def start(self) -> ConversationStart:
        """What it starts with. Raises ValueError when it has not begun."""
        if self.begun is None:
            raise ValueError("a conversation begins with its start record")
        return self.begun

    @property
    def is_restarted(self) -> bool:
        """Whether a new conversation has begun, and the model has not answered in it yet."""
        return self.phase.startswith("restart") and self.phase_turn == 1

    def apply(self, record: TranscriptRecord) -> None:
        """Fold the next record. Raises ValueError or KeyError when it does not fit those before it."""
        match record:
            case kinds.ModelAnswer():
                self._answered(record)
            case kinds.TreeSaved():
                self._tree_kept(record)
            case kinds.ToolsRan():
                self._tools_ran(record)
            case ConversationStart():
                self._started(record)
            case kinds.ModelChanged():
                self.model = self.model_wanted = record.model
            case kinds.SentBack():
                self.repair_rounds = record.round
                self._begin_phase("repair", record)
            case kinds.Restarted():
                self._restarted(record)
            case kinds.ConversationStopped():
                self.stopped = record
            case kinds.ConversationEnded():
                self.outcome = record

    def _started(self, record: ConversationStart) -> None:
        self.begun = record
        self.model, self.model_wanted = record.model, record.model_wanted or record.model
        self.base = record.base
        self._say(record.task)

    def _answered(self, record: kinds.ModelAnswer) -> None:
        content, discarded = record.content, record.discarded
        self.turns, self.phase_turn = record.turn, record.phase_turn + 1
        self.seconds += record.endpoint_s
        self.stop_reason, self.tree, self.outcome = record.stop_reason, None, None
        cut = self.stop_reason == "max_tokens"
        self.cuts = self.cuts + 1 if cut else 0
        self.discarded_cuts = self.discarded_cuts + 1 if cut and discarded else 0
        self.empties = self.empties + 1 if discarded and not cut else 0
        self.text = "\n".join(block["text"] for block in content if block["type"] == "text")
        if discarded:
            self._said_nothing(cut=cut)
            return
        if self.stop_reason not in NEVER_ACTED_ON:
            self.calls = calls_in(content, record.faults)
        if content:
            self.messages.append({"role": "assistant", "content": content})
        if cut and not self.calls:
            self._say([{"type": "text", "text": GO_ON}])

    def _said_nothing(self, *, cut: bool) -> None:
        """Ask for an answer, unless the silence is the end of the work or more room is all that is needed."""
        if cut or (self.acted and self.stop_reason not in _ANNOUNCES_MORE):
            return
        names = ", ".join(tool["name"] for tool in self.start.tools)
        self.stop_reason = None
        self._say([{"type": "text", "text": SAID_NOTHING.format(tools=names)}])

    def _tree_kept(self, record: kinds.TreeSaved) -> None:
        self.tree = record.tree
        if self._is_new(record.tree):
            self.stale_turns = 0  # the turn before changed files, which its results need not tell

    def _tools_ran(self, record: kinds.ToolsRan) -> None:
        results = record.results
        for call, result in zip(self.calls, results, strict=True):
            call_and_result = json.dumps([call.name, call.arguments, result.content], sort_keys=True)
            self.repeats = self.repeats + 1 if call_and_result == self._last_call else 1
            self._last_call = call_and_result
        # Each is looked at: one that is new must not keep the others from being remembered.
        fresh = [self._is_new(_NUMBER.sub("0", result.content)) for result in results]
        self.stale_turns = 0 if any(fresh) else self.stale_turns + 1
        self.error_turns = self.error_turns + 1 if all(result.is_error for result in results) else 0
        self.seconds += record.seconds
        self.calls, self.tree, self.stop_reason, self.acted = (), None, None, True
        self._say([{"type": "tool_result", **structs.asdict(result)} for result in results])

    def _restarted(self, record: kinds.Restarted) -> None:
        self.restarts, self.earlier_turns = record.round, self.turns
        self.messages, self.calls = [], ()
        self._say(self.start.task)
        self._begin_phase("restart", record)

    def _begin_phase(self, kind: str, record: kinds.SentBack | kinds.Restarted) -> None:
        """Give the model the record's facts, and start the phase's counts."""
        self.phase, self.phase_turn = f"{kind} {record.round}", 1
        self.base, self.tree = record.base, record.tree
        self.stop_reason = self.stopped = self.outcome = None
        self.cuts = self.discarded_cuts = self.empties = self.error_turns = self.repeats = 0
        self._last_call, self.stale_turns, self._seen, self.acted = "", 0, set(), False
        self.said_last = record.text
        self._say([{"type": "text", "text": record.text}])

    def _is_new(self, text: str) -> bool:
        """Whether it was not seen before; from now on it was."""
        digest = hashlib.sha256(text.encode(errors="surrogatepass")).digest()
        before = len(self._seen)
        self._seen.add(digest)
        return len(self._seen) > before

    def _say(self, blocks: Sequence[Mapping[str, Any]]) -> None:
        """Add to what the user says; two user messages in a row are one."""
        if self.messages and self.messages[-1]["role"] == "user":
            self.messages[-1]["content"] += list(blocks)
        else:
            self.messages.append({"role": "user", "content": list(blocks)})


def fold(records: Iterable[TranscriptRecord]) -> Conversation:
    """Where the conversation of these records stands."""
    conversation = Conversation()
    for record in records:
        conversation.apply(record)
    return conversation


def read(path: Path) -> Conversation:
    """Where the conversation in `path` stands, without changing the file."""
    return _checked_fold(read_each(path, TRANSCRIPT), path)


def _checked_fold(records: Iterable[TranscriptRecord], path: Path) -> Conversation:
    """Folds the records. Raises DamagedState, with the line, where they do not make a conversation."""
    conversation = Conversation()
    for record in records:
        try:
            conversation.apply(record)
        except (KeyError, ValueError, TypeError) as error:
            raise misfit(path, record, f"{type(error).__name__}: {error}", "the conversation before it") from error
    return conversation


def _begun_well(records: Iterable[TranscriptRecord], path: Path) -> Iterator[TranscriptRecord]:
    """Yields the same records. Raises DamagedState unless the first is a start."""
    for place, record in enumerate(records):
        if not place and not isinstance(record, ConversationStart):
            raise DamagedState(f"{path} does not begin with a start record. {repair_hint(path)}")
        yield record


class Transcript:
    """The conversation in `path`, open for writing. Only the process that holds the task's claim may write."""

    def __init__(self, path: Path) -> None:
        self._journal = Journal(path, TRANSCRIPT)
        self.conversation = _checked_fold(_begun_well(self._journal.each_new(), path), path)
        self.torn_bytes = self._journal.repair_tail()
        """Bytes of a torn tail that were cut off when it was opened."""

    @property
    def is_new(self) -> bool:
        """Whether nothing was said yet: `begin` comes first."""
        return not self.conversation.messages

    def begin(self, opening: kinds.Opening, *, base: str, run: str, task_id: str, attempt: int) -> None:
        """Record what the conversation starts with; `opening` as `prompt.opening` makes it."""
        self._add(ConversationStart(**structs.asdict(opening), base=base, run=run, task_id=task_id, attempt=attempt))

    def ask_of(self, model: str) -> None:
        """Record that another model is asked from now on: none has answered yet."""
        self._add(kinds.ModelChanged(model=model))

    def answer(
        self,
        answer: Answer,
        content: list[dict[str, Any]],
        *,
        discarded: bool,
        faults: Mapping[str, str] | None = None,
    ) -> None:
        """Record the next answer, `content` being what is kept of it. Do this before any of its tools runs.

        `faults`: why some of its calls cannot be carried out, by id.
        """
        now = self.conversation
        record = kinds.ModelAnswer(
            turn=now.turns + 1,
            phase=now.phase,
            phase_turn=now.phase_turn,
            content=content,
            stop_reason=answer.stop_reason,
            usage=answer.usage,
            endpoint_s=answer.endpoint_s,
            discarded=discarded,
            faults=dict(faults or {}),
        )
        self._add(record)

    def tree(self, tree: str) -> None:
        """Record what the workspace is before the last answer's tools run."""
        self._add(kinds.TreeSaved(turn=self.conversation.turns, tree=tree))

    def results(self, results: Sequence[ToolResult], seconds: float) -> None:
        """Record what the last answer's tool calls gave, in their order."""
        of_calls = [
            kinds.CallResult(call.id, result.content, result.is_error)
            for call, result in zip(self.conversation.calls, results, strict=True)
        ]
        self._add(kinds.ToolsRan(turn=self.conversation.turns, results=of_calls, seconds=seconds))

    def repair(self, text: str, *, base: str, tree: str) -> None:
        """Send facts back into the conversation. It goes on from `tree`, made of commit `base`."""
        self._add(kinds.SentBack(round=self.conversation.repair_rounds + 1, text=text, base=base, tree=tree))

    def stopped(self, reason: str, *, restartable: bool) -> None:
        """Record that a refusal or a cap ended the conversation, so that it is not met a second time."""
        self._add(kinds.ConversationStopped(reason=reason, restartable=restartable))

    def restart(self, text: str, *, base: str, tree: str) -> None:
        """Begin a new conversation with the same task and these facts. It works in `tree`, made of commit `base`."""
        self._add(kinds.Restarted(round=self.conversation.restarts + 1, text=text, base=base, tree=tree))

    def outcome(self, kind: str, reason: str = "") -> None:
        """Record how it ended, for whoever reads the transcript later. `kind` is none of the other records' kinds."""
        if kind in kinds.KINDS:
            raise ValueError(f"{kind} is not an outcome")
        # The trunk tells again that work was handed in, or the facts that come back do. A failure stands here alone.
        self._add(kinds.ConversationEnded(kind=kind, reason=reason), durable=kind != "submitted")

    def close(self) -> None:
        """Give the descriptor back."""
        self._journal.close()

    def _add(self, record: TranscriptRecord, *, durable: bool | None = None) -> None:
        durable = not isinstance(record, _HAD_AGAIN) if durable is None else durable
        self.conversation.apply(self._journal.append(record, durable=durable))
