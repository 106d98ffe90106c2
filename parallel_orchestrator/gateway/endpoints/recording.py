"""Recordings: model answers in a YAML file, replayed instead of calling an endpoint.

    recording: 1
    name: medium
    origin: written                  # or exported
    requirement: Build a todo list ...
    model: claude-opus-5-5           # whose latencies and token counts these are
    answers:
      - task: plan                   # the planner, or task_1, task_2, …, or fix_1, fix_2, …
        phase: work                  # work, repair 1, repair 2, restart 1, …
        turn: 1                      # from 1, within the phase
        latency_s: 8.4
        stop_reason: end_turn
        usage: {input_tokens: 1480, output_tokens: 2210}
        content: [{type: text, text: ...}]

A replay need not use every answer. A missing answer is an error that names its key.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from parallel_orchestrator.messages_api import sse
from parallel_orchestrator.records.errors import UsageError
from parallel_orchestrator.records.journals.ledger import AnswerRecord
from parallel_orchestrator.store.journal import read_each
from parallel_orchestrator.store.record_parser import LEDGER
from parallel_orchestrator.system.user_file import LONGEST_RECORDING, Unusable, read_user_file
from parallel_orchestrator.system.yaml_document import Bounds, Document, read_yaml

AnswerKey = tuple[str, str, int]
"""Task, phase, and turn in the phase."""

_FORM = "docs/recordings.md has the form; `export --recording FILE` writes one of a run"
_BOUNDS = Bounds(values=100_000, levels=100, aliases=False)
"""Enough for some thousand answers, which take about a second to read."""
_Base: Any = yaml.CSafeDumper if yaml.__with_libyaml__ else yaml.SafeDumper


class _RecordingPart(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class RecordedAnswer(_RecordingPart):
    """One answer of the model."""

    task: Annotated[str, Field(pattern=r"^(plan|(task|fix)_[1-9][0-9]{0,3})$")]
    phase: Annotated[str, Field(pattern=r"^(work|(repair|restart) [1-9][0-9]*)$")]
    turn: Annotated[int, Field(ge=1)]
    latency_s: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    stop_reason: str
    usage: dict[str, JsonValue]
    content: list[dict[str, JsonValue]]

    @property
    def key(self) -> AnswerKey:
        """The key by which a replay finds the answer."""
        return self.task, self.phase, self.turn


class Recording(_RecordingPart):
    """A whole recording, checked."""

    recording: Literal[1] = 1
    name: str
    origin: Literal["written", "exported"]
    requirement: str
    model: str
    answers: list[RecordedAnswer]


def load(path: Path) -> Recording:
    """Reads and checks a recording. Raises UsageError, which names the file, the answer and the fault."""
    try:
        document = read_yaml(read_user_file(path, LONGEST_RECORDING), _BOUNDS)
        if document.faults:
            first = min(document.faults, key=lambda fault: fault.place)
            raise Unusable(f"line {first.place.line}: {first.message}")
    except Unusable as error:
        raise UsageError(f"cannot read the recording {path}: {error}. {_FORM}") from error
    try:
        recording = Recording.model_validate(document.value)
    except ValidationError as error:
        fault = _first_fault(error, document)
    else:
        fault = next(_faults(recording.answers, written=recording.origin == "written"), "")
        if not fault:
            return recording
    raise UsageError(f"{path} is not a recording that can be replayed: {fault}. {_FORM}")


def require_recording(path: Path) -> None:
    """Raise UsageError as `load` does. Reads each file once, however many scenarios replay it."""
    if fault := _fault_of(path):
        raise UsageError(fault)


@cache
def _fault_of(path: Path) -> str:
    try:
        load(path)
    except UsageError as error:
        return str(error)
    return ""


def dump(recording: Recording, comment: str = "") -> str:
    """Returns the YAML text of a recording: fields in the documented order, code as literal blocks."""
    header = "".join(f"# {line}\n" for line in comment.splitlines())
    fields = recording.model_dump(mode="json")
    # No line reaches this width, so the dumper wraps none.
    return header + str(yaml.dump(fields, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=10**9))


class _Dumper(_Base):  # type: ignore[misc]
    """Writes texts of several lines as literal blocks."""


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _represent_text)


def from_ledger(ledger: Path, requirement: str, name: str) -> Recording:
    """Returns a recording of a run's answers: each task's last attempt, and each turn's last answer.

    Raises UsageError when the ledger holds no answers, and DamagedState when it is damaged.
    """
    last_attempt: dict[str, int] = {}
    model = ""
    for record in _answers_in(ledger):
        last_attempt[record.task] = max(record.attempt, last_attempt.get(record.task, 0))
        model = record.model
    if not last_attempt:
        raise UsageError(f"{ledger} holds no answers to export; resume the run first")
    # A second pass over the file: only now is each task's last attempt known, and memory holds one record at a time.
    answers: dict[AnswerKey, RecordedAnswer] = {}
    for record in _answers_in(ledger):
        if record.attempt == last_attempt[record.task]:
            answer = _exported(record)
            answers[answer.key] = answer
    return Recording(
        name=name,
        origin="exported",
        requirement=requirement,
        model=model,
        answers=list(answers.values()),
    )


def _answers_in(ledger: Path) -> Iterator[AnswerRecord]:
    return (record for record in read_each(ledger, LEDGER) if isinstance(record, AnswerRecord))


def _exported(record: AnswerRecord) -> RecordedAnswer:
    usage = record.usage if isinstance(record.usage, dict) else {}
    return RecordedAnswer(
        task=record.task,
        phase=record.phase,
        turn=record.phase_turn,
        latency_s=record.endpoint_s,
        stop_reason=record.stop_reason,
        usage={figure: value for figure, value in usage.items() if value is not None},
        content=sse.assemble(sse.parse(record.events))["content"],
    )


def _faults(answers: list[RecordedAnswer], *, written: bool) -> Iterator[str]:
    """Yields the faults. In an exported recording a tool call may be as broken as the model made it."""
    seen: dict[AnswerKey, int] = {}
    for index, answer in enumerate(answers):
        if answer.key in seen:
            yield f"answers[{index}] is for {_named(answer.key)}, and so is answers[{seen[answer.key]}]"
        seen[answer.key] = index
        for place, block in enumerate(answer.content):
            if (written or block.get("type") != "tool_use") and (problem := _block_problem(block)):
                yield f"answers[{index}].content[{place}]: {problem}"


def _block_problem(block: dict[str, Any]) -> str | None:
    needed: dict[str, dict[str, type]] = {
        "text": {"text": str},
        "tool_use": {"id": str, "name": str, "input": dict},
        "thinking": {"thinking": str},
        "redacted_thinking": {"data": str},
    }
    fields = needed.get(str(block.get("type")))
    if fields is None:
        return f"type {block.get('type')!r} is not one of {', '.join(needed)}"
    wrong = [name for name, kind in fields.items() if not isinstance(block.get(name), kind)]
    return f"{block['type']} needs {', '.join(wrong)}" if wrong else None


def _named(key: AnswerKey) -> str:
    return f"{key[0]}, phase {key[1]}, turn {key[2]}"


def _first_fault(error: ValidationError, document: Document) -> str:
    """Returns the first fault, with the line of the innermost value that contains it."""
    fault = error.errors(include_url=False, include_context=False)[0]
    where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in fault["loc"]).lstrip(".")
    return f"line {document.place(fault['loc']).line}: {where or 'the file'}: {fault['msg']}"
