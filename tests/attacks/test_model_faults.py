"""Models that answer badly, all in one run: each has its task, and each task its own end."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from parallel_orchestrator.agent.prompt import MAX_TOKENS
from parallel_orchestrator.agent.transcript import GO_ON
from parallel_orchestrator.agent.turns import MAX_ERROR_TURNS, MAX_REPEATS
from tests.attacks.stage import Seen, Stage, bash, create, seen_by_model
from tests.end_to_end import scripted
from tests.fake_api import Answer, Block, Body, FakeApi, Request, text, tool_use

THINKING: Block = {"type": "thinking", "thinking": "hm", "signature": "s"}
HALF = create("docs/half.md", "half a file")
Events = list[Block]


def _garbled(events: Events) -> Events:
    """The arguments of a tool call end in mid-air."""
    return [
        {**event, "delta": {**event["delta"], "partial_json": "}{"}} if "partial_json" in str(event) else event
        for event in events
    ]


def _no_last_usage(events: Events) -> Events:
    return [{name: value for name, value in event.items() if name != "usage"} for event in events]


def _null_usage(events: Events) -> Events:
    started = {**events[0], "message": {**events[0]["message"], "usage": None}}
    return [started, *({**event, "usage": None} if "usage" in event else event for event in events[1:])]


NAMELESS: list[Block] = [
    {"type": "tool_use", "name": "bash", "input": {"command": "echo no id"}},
    {"type": "tool_use", "id": None, "name": "bash", "input": None},
    {"type": "tool_use", "id": "toolu_nameless", "input": {"command": "ls"}},
    {"type": "tool_use", "id": "toolu_bad_name", "name": "my tool!", "input": [1]},
]
TWICE = "toolu_twice"
TOOLS = [
    [tool_use("toolu_no_tool", "launch_rocket", where="moon")],
    [tool_use("toolu_types", "bash", command=["ls"]), tool_use("toolu_types_2", scripted.EDITOR, command=7)],
    [bash("false"), bash("echo fine")],
    [bash("echo " + "x" * 200_000), create("docs/huge.md", "x" * 3_000_000), bash("ls")],
    [
        tool_use(TWICE, "bash", command="echo one"),
        tool_use(TWICE, "bash", command="echo two"),
        tool_use(f"{TWICE}_2", "bash", command="echo three"),
    ],
    [create("../outside.md"), bash("echo inside")],
]
TOLD = [
    (True, "there is no tool 'launch_rocket'"),
    (True, "the argument command is missing"),
    (True, "the argument command must be a string, not int"),
    (False, "[exit code 1]"),
    (False, "fine"),
    (True, "at most 100,000 bytes"),
    (True, "the editor writes up to 1,000,000"),
    (False, "pyproject.toml"),
    (False, "one"),
    (False, "two"),
    (False, "three"),
    (True, "'../outside.md' is refused"),
    (False, "inside"),
]

Said = Answer | list[Block]
MERGED = "merged"


@dataclass(frozen=True)
class Case:
    """A task whose model first says `first`, then does honest work; and how the task ends: merged, or why not."""

    what: str
    first: tuple[Said, ...]
    end: str = MERGED
    honest: bool = True
    usage: Answer | None = None
    """Every honest answer is like this one in all but its content."""


def _odd(what: str, **fields: Any) -> Case:
    return Case(what, (), usage=Answer([], **fields))


CASES = [
    Case("cut text", (Answer([text("first half")], "max_tokens"),)),
    Case("cut call", (Answer([text("so"), HALF], "max_tokens"), Answer([THINKING], "max_tokens"))),
    Case("cut for ever", 3 * (Answer([HALF], "max_tokens"),), "output too long: 3 answers in a row were cut off"),
    Case("refusal", (Answer([text("I will not"), HALF], "refusal"),), "refused: I will not"),
    Case("refusal without a word", (Answer([], "refusal"),), "refused: the model gave no reason"),
    Case("nothing, then work", (Answer([], "end_turn"), [text(" \n")])),
    Case("only thinking", 3 * ([THINKING],), "3 answers in a row said nothing"),
    Case("garbled call, then work", (Answer([HALF], tamper=_garbled),)),
    Case("no object, then work", ([{"type": "tool_use", "id": "toolu_text", "name": "bash", "input": "ls"}],)),
    Case("garbled calls", 3 * (Answer([HALF], tamper=_garbled),)),
    Case("no id, no name", tuple([block] for block in NAMELESS)),
    Case("unknown stop reason", (), usage=Answer([], "brand_new")),
    Case("unknown block", (Answer([text("see"), {"type": "hologram", "data": "?"}], "pause_turn"),)),
    Case("pause", (Answer([text("a moment")], "pause_turn"),)),
    Case("full context", (Answer([text("and"), HALF], "model_context_window_exceeded"),), "no longer fits into"),
    Case("tools", tuple(TOOLS)),
    Case(
        "error turns",
        tuple([create(f"../{n}.md")] for n in range(MAX_ERROR_TURNS)),
        f"all tool calls of {MAX_ERROR_TURNS} turns in a row failed",
    ),
    Case("one call again and again", MAX_REPEATS * ([bash("ls /proc/version")],), "loops on one call"),
    Case("done without files", 3 * ([text("All is done and tested.")],), "(after 2 repair rounds)", honest=False),
    _odd("usage missing", usage={}),
    _odd("usage zero", usage={"input_tokens": 0, "output_tokens": 0}),
    _odd("usage absurd", usage={"input_tokens": -5_000_000, "output_tokens": "many", "cache_read_input_tokens": [1]}),
    _odd("usage without its end", tamper=_no_last_usage),
    _odd("usage null", tamper=_null_usage),
    _odd("another model", model="brand-new-1"),
]
UNPRICED = ("usage missing", "usage zero", "usage absurd", "usage without its end", "usage null")


def _number(what: str) -> int:
    return next(n for n, case in enumerate(CASES, start=1) if case.what == what)


def _build(body: Body) -> Said:
    number = int(scripted.task_of(body).removeprefix("task_"))
    case = CASES[number - 1]
    turn = TURNS[number] = TURNS.get(number, 0) + 1
    if turn <= len(case.first):
        return case.first[turn - 1]
    step = turn - len(case.first)
    work = [*scripted.build_part(body, 1), *scripted.build_part(body, 2)]
    content = work if step == 1 and case.honest else scripted.build_part(body, 4)
    odd = case.usage
    return Answer(content, odd.stop_reason, odd.usage, None, odd.model, odd.tamper) if odd else content


TURNS: dict[int, int] = {}
"""Answers given to each task: a discarded one is in no later request, so the script counts for itself."""


@dataclass
class Played:
    """The run, over."""

    stage: Stage
    requests: list[Request]
    results: dict[str, list[Seen]]

    def task(self, what: str) -> dict[str, Any]:
        found: dict[str, Any] = self.stage.summary()["tasks"][_number(what) - 1]
        return found

    def asked(self, what: str) -> list[Body]:
        return [request.body for request in self.requests if request.task == f"task_{_number(what)}"]


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Played]:
    stage = Stage(tmp_path_factory.mktemp("model"))
    TURNS.clear()
    numbers = range(1, len(CASES) + 1)
    planned = scripted.plan([scripted.task(n, [], name=CASES[n - 1].what) for n in numbers], verify=[])
    with FakeApi(scripted.model(planned, _build), task_of=scripted.task_of) as api:
        stage.run(api, "--max-executors", "4", code=1)
        results = {case.what: seen_by_model(api, f"task_{_number(case.what)}") for case in CASES}
    yield Played(stage, api.requests, results)
    stage.assert_nothing_happened()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.what)
def test_each_task_has_its_own_end(case: Case, played: Played) -> None:
    task = played.task(case.what)
    if case.end == MERGED:
        assert (task["state"], task["verified"]) == ("merged", True), task["reason"]
    else:
        assert task["state"] == "failed"
        assert case.end in task["reason"]
        assert f"failed: {task['id']} {case.what}: {task['reason']}" in played.stage.output


def test_no_call_of_a_bad_answer_was_carried_out(played: Played) -> None:
    assert list(played.stage.out.rglob("half.md")) == []


def test_cut_text_is_gone_on_with_and_a_cut_call_asked_again_with_more_room(played: Played) -> None:
    _, second, *_ = played.asked("cut text")
    assert [message["content"] for message in second["messages"][-2:]] == [[text("first half")], [text(GO_ON)]]
    first, again, third, after = played.asked("cut call")
    assert first["messages"] == again["messages"] == third["messages"]
    assert [body["max_tokens"] for body in (first, again, third, after)] == [
        *(MAX_TOKENS, 2 * MAX_TOKENS, 4 * MAX_TOKENS, MAX_TOKENS)
    ]


def test_what_was_paused_or_not_known_is_sent_back_as_it_came(played: Played) -> None:
    for what in ("pause", "unknown block"):
        answer = CASES[_number(what) - 1].first[0]
        assert isinstance(answer, Answer)
        assert played.asked(what)[1]["messages"][-1] == {"role": "assistant", "content": answer.content}
    log = (played.stage.out / "orchestrator.log").read_text()
    assert "the model stopped for an unknown reason, 'brand_new'; taken as the end of its work" in log


def test_each_call_has_its_result_in_order_errors_marked(played: Played) -> None:
    found = played.results["tools"][: len(TOLD)]
    assert [seen.is_error for seen in found] == [is_error for is_error, _ in TOLD]
    for seen, (_, told) in zip(found, TOLD, strict=True):
        assert told in seen.content


def test_a_call_that_cannot_be_carried_out_is_told_what_to_send(played: Played) -> None:
    wanted = {
        "garbled call, then work": ["have to be a JSON object", "near '}{", '{"command": "create"'],
        "no object, then work": ["have to be a JSON object", "near 'ls'", '{"command": "ls"}'],
        "no id, no name": ["the call names no tool; the tools are str_replace_based_edit_tool, bash", "'my tool!'"],
    }
    for what, words in wanted.items():
        said = " ".join(seen.content for seen in played.results[what] if seen.is_error)
        assert all(word in said for word in words), said
    assert played.results["no id, no name"][0].content == "no id"


def test_a_cost_that_nobody_knows_is_no_zero_and_no_guess(played: Played) -> None:
    for what in UNPRICED:
        task = played.task(what)
        assert task["unpriced_calls"] == task["model_calls"] == 2
        assert task["cost_usd"] == 0
        assert task["uncertain_cost_usd"] > 0
    substituted = played.task("another model")
    assert (substituted["unpriced_calls"], substituted["cost_usd"] > 0) == (0, True)
    summary = played.stage.summary()
    assert summary["unpriced_calls"] == 2 * len(UNPRICED)
    assert (
        f"cost:     ≥ ${summary['cost_usd']:.2f} ({2 * len(UNPRICED)} turns unpriced), up to $" in played.stage.output
    )
    assert all(count >= 0 for count in summary["tokens"].values())


def test_nothing_is_bought_twice_and_every_answer_counts(played: Played) -> None:
    summary = played.stage.summary()
    assert summary["bought_again"] == summary["changed_bodies"] == summary["retries"] == 0
    assert summary["model_calls"] == len(played.requests)
    assert json.dumps(summary)
