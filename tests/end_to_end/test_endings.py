"""However a conversation ends, code judges what it wrote: over the live path, each way to end has its task."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from parallel_orchestrator.agent.turns import MAX_ERROR_TURNS, MAX_REPEATS, MAX_RETRIES
from tests.end_to_end import harness, scripted
from tests.end_to_end.scripted import EDITOR, build_part, task_of
from tests.fake_api import Answer, Block, Body, FakeApi, Fault, Request, Wrong, body_hash, text, tool_use

THINKING: Block = {"type": "thinking", "thinking": "hm", "signature": "s"}
FULL = "model_context_window_exceeded"
TOO_LONG = Wrong(Fault.BAD_REQUEST, message="prompt is too long: 208310 tokens > 200000 maximum")
REFUSED = Wrong(Fault.BAD_REQUEST, message="messages.3: this cannot be processed")
AGAIN = "An earlier conversation worked on this task"
MERGED = "merged"
ROOM = "no longer fits into the model's context window"

Said = Answer | list[Block] | Wrong
Script = Callable[[int, int], list[Said]]
"""Answers for a task by its number and that of the conversation, from 1; a Wrong is what its request meets."""


def _work(number: int) -> list[Block]:
    """All of a part, green."""
    body = {"messages": [{"role": "user", "content": f"# Your task: task_{number}"}]}
    return [*build_part(body, 1), *build_part(body, 2)]


def _create(path: str, content: str) -> list[Block]:
    return [tool_use(f"toolu_{re.sub('[^a-z0-9]', '_', path)}", EDITOR, command="create", path=path, file_text=content)]


def _broken(number: int) -> list[Block]:
    """All of a part, with a module that its test fails on."""
    return [*_work(number), *_create(f"src/part_{number}.py", "def value():\n    return 0\n")]


def _mended(number: int) -> list[Block]:
    return _create(f"src/part_{number}.py", f'"""Part."""\n\n\ndef value():\n    return {number}\n')


def _looping(times: int) -> list[Said]:
    return [[tool_use(f"toolu_loop_{n}", "bash", command="ls /proc/version")] for n in range(times)]


def _wrong(times: int) -> list[Said]:
    return [[tool_use(f"toolu_out_{n}", EDITOR, command="view", path=f"../{n}")] for n in range(times)]


def _green_then(*ending: Said) -> Script:
    return lambda number, _: [_work(number), *ending]


def _red_then(*ending: Said) -> Script:
    """Broken work and a bad end; the new conversation mends it."""

    def answers(number: int, conversation: int) -> list[Said]:
        return [_broken(number), *ending] if conversation == 1 else [_mended(number), [text("Mended.")]]

    return answers


def _red_twice(*ending: Said) -> Script:
    return lambda number, _: [_broken(number), *ending]


@dataclass(frozen=True)
class Case:
    """One task: what its model says, how it ends, and why, where its conversation ended early."""

    what: str
    answers: Script
    end: str = MERGED
    early: str = ""
    conversations: int = 1
    also: str = field(default="")
    """What a failed task's reason says besides."""


_NO_ROOM = Answer([text("and")], FULL)
CASES = [
    Case("empty end", _green_then([])),
    Case("only thinking at the end", _green_then([THINKING])),
    Case("empty stop sequence", _green_then(Answer([], "stop_sequence"))),
    Case("empty first", lambda n, _: [[], [THINKING], _work(n), []]),
    Case("empty call", lambda n, _: [_work(n), Answer([], "tool_use"), []]),
    Case("empty pause", lambda n, _: [_work(n), Answer([THINKING], "pause_turn"), [text("Done.")]]),
    Case("empty always", lambda n, _: [[]] * 9, "failed", f"{MAX_RETRIES + 1} answers in a row said nothing"),
    Case("full, green", _green_then(_NO_ROOM), early=ROOM),
    Case("too long, green", _green_then(TOO_LONG), early="prompt is too long"),
    Case("full, red", _red_then(_NO_ROOM), conversations=2),
    Case("too long, red", _red_then(TOO_LONG), conversations=2),
    Case("full, red, twice", _red_twice(_NO_ROOM), "failed", ROOM, 2, "the merged tests fail"),
    Case("full, nothing", lambda n, _: [_NO_ROOM], "failed", ROOM),
    Case("full, incomplete", lambda n, _: [_mended(n), _NO_ROOM], "failed", ROOM, 2, "is missing. Your task owns it"),
    Case("loop, green", _green_then(*_looping(MAX_REPEATS)), early="loops on one call"),
    Case("loop, red", _red_twice(*_looping(MAX_REPEATS)), "failed", "loops on one call", also="the merged tests fail"),
    Case("loop, incomplete", lambda n, _: [_mended(n), *_looping(MAX_REPEATS)], "failed", "loops on one call"),
    Case("errors, green", _green_then(*_wrong(MAX_ERROR_TURNS)), early="tool calls of 5 turns in a row failed"),
    Case("cut, green", _green_then(*3 * [Answer([*_create("x", "")], "max_tokens")]), early="output too long"),
    Case("refusal, green", _green_then(Answer([text("I will not")], "refusal")), early="refused: I will not"),
    Case("a 400, green", _green_then(REFUSED), early="this cannot be processed"),
    Case("a 400, nothing", lambda n, _: [REFUSED], "failed", "this cannot be processed"),
]


class Model:
    """Says what the cases say, counting the answers of each conversation of each task."""

    def __init__(self, scripts: list[Script]) -> None:
        self._scripts = scripts
        self._said: dict[tuple[str, int], int] = {}
        self._next: dict[int, Said] = {}
        self.requests: list[Request] = []
        planned = scripted.plan([scripted.task(n, []) for n in range(1, len(scripts) + 1)], verify=[])
        self.api = FakeApi(scripted.model(planned, self._build), faults=self._fault, task_of=task_of)

    def _fault(self, number: int) -> Wrong | None:
        body = self.api.requests[number].body
        if task_of(body) == "plan":
            return None
        self._next[number] = said = self._answer(body)
        return said if isinstance(said, Wrong) else None

    def _answer(self, body: Body) -> Said:
        name, conversation = task_of(body), 2 if AGAIN in json.dumps(body["messages"][0]) else 1
        number = int(name.removeprefix("task_"))
        turn = self._said.get((name, conversation), 0)
        self._said[name, conversation] = turn + 1
        answers = self._scripts[number - 1](number, conversation)
        return answers[min(turn, len(answers) - 1)]

    def _build(self, body: Body) -> Answer | list[Block]:
        number = next(r.number for r in self.api.requests if r.body is body)
        said = self._next[number]
        assert not isinstance(said, Wrong)
        return said


@dataclass
class Played:
    """A run, over."""

    out: Path
    output: str
    requests: list[Request]

    def task(self, number: int) -> dict[str, Any]:
        found: dict[str, Any] = harness.summary(self.out)["tasks"][number - 1]
        return found

    def asked(self, number: int) -> list[Body]:
        return [request.body for request in self.requests if request.task == f"task_{number}"]


def _play(out: Path, scripts: list[Script], *options: str, code: int) -> Played:
    with Model(scripts).api as api:
        arguments = (*(options or ("Build parts",)), "--output-dir", str(out), "--max-executors", "3")
        return Played(out, harness.run(*arguments, api=api, code=code), api.requests)


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Played]:
    out = tmp_path_factory.mktemp("endings") / "out"
    yield _play(out, [case.answers for case in CASES], code=1)
    assert harness.recount(out) == []
    found = harness.summary(out)
    assert found["bought_again"] == found["changed_bodies"] == 0
    assert "clean" in harness.run("check", str(out))


@pytest.mark.parametrize(("number", "case"), list(enumerate(CASES, 1)), ids=[case.what for case in CASES])
def test_what_is_there_is_judged(number: int, case: Case, played: Played) -> None:
    task = played.task(number)
    assert task["state"] == case.end, task["reason"]
    if case.end == MERGED:
        assert case.early in task["evidence"].get("ended_early", "")
        assert bool(case.early) == ("ended_early" in task["evidence"])
    else:
        assert case.early in task["reason"]
        assert case.also in task["reason"]
    if case.end == MERGED and case.early:
        assert re.search(rf"merged: +task_{number} Part {number}, whose conversation ended early: .*", played.output)


@pytest.mark.parametrize(("number", "case"), list(enumerate(CASES, 1)), ids=[case.what for case in CASES])
def test_nothing_is_asked_with_the_same_bytes(number: int, case: Case, played: Played) -> None:
    asked = played.asked(number)
    assert len({body_hash(body) for body in asked}) == len(asked)
    openings = {json.dumps(body["messages"][0]["content"]) for body in asked if AGAIN in json.dumps(body)}
    assert len(openings) == case.conversations - 1
    if case.what in ("empty end", "only thinking at the end", "empty stop sequence"):
        assert len(asked) == 2


def test_a_new_conversation_has_the_task_and_the_facts(played: Played) -> None:
    number = next(n for n, case in enumerate(CASES, 1) if case.what == "full, red")
    first, *_, mending, _ = played.asked(number)
    opening = mending["messages"][0]["content"]
    assert opening[: len(first["messages"][0]["content"])] == first["messages"][0]["content"]
    facts = opening[-1]["text"]
    assert ROOM in facts
    assert f"tests/test_part_{number}.py" in facts
    assert (mending["system"], mending["tools"]) == (first["system"], first["tools"])
    page = harness.quiet("logs", str(played.out), f"task_{number}", "--tail", "0")
    assert "a new conversation in the same workspace" in page
    assert ROOM in page


def test_the_turn_limit_is_one_conversations(tmp_path: Path) -> None:
    more: list[Said] = [[tool_use(f"toolu_more_{n}", "bash", command=f"echo {n}")] for n in range(5)]

    def red(number: int, conversation: int) -> list[Said]:
        return [_broken(number), *more] if conversation == 1 else [*more[:1], _mended(number), [text("Mended.")]]

    scripts: list[Script] = [lambda n, _: [_work(n), *more], red, lambda n, _: [_broken(n), *more]]
    played = _play(tmp_path / "out", scripts, "Build parts", "--max-turns", "3", code=1)
    green, mended, failed = (played.task(number) for number in (1, 2, 3))
    assert (green["state"], green["evidence"]["ended_early"]) == (MERGED, "reached its limit of 3 turns")
    assert (mended["state"], "ended_early" in mended["evidence"], mended["model_calls"]) == (MERGED, False, 6)
    assert (failed["state"], failed["model_calls"]) == ("failed", 6)
    assert failed["reason"].startswith("reached its limit of 3 turns; its work was submitted and not merged: ")
    assert "--max-turns 6" in played.output


def test_a_task_at_its_cost_cap_is_submitted(tmp_path: Path) -> None:
    dear = {"input_tokens": 1000, "output_tokens": 400_000}

    def answers(number: int, _: int) -> list[Said]:
        return [Answer(_work(number), usage=dear), [text("never bought")]]

    scenario = tmp_path / "capped.yaml"
    scenario.write_text("scenarios:\n  - {name: capped, requirements: Build parts, limits: {task_cost: 5}}\n")
    played = _play(tmp_path / "out", [answers], "run", "--config", str(scenario), "--only", "capped", code=0)
    task = played.task(1)
    assert (task["state"], task["model_calls"]) == (MERGED, 1)
    assert "$" in task["evidence"]["ended_early"]
