from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from parallel_orchestrator.agent.model_client import Answer
from parallel_orchestrator.agent.prompt import MAX_TOKENS, opening
from parallel_orchestrator.agent.tools.toolbox import ToolBox
from parallel_orchestrator.agent.transcript import GO_ON, Transcript, read
from parallel_orchestrator.agent.turns import (
    MAX_ERROR_TURNS,
    MAX_REPEATS,
    AgentContext,
    Limits,
    StopKind,
    StopResult,
    take_turns,
)
from parallel_orchestrator.records.errors import BudgetReached, ContextFull, RequestRefused, TaskLimit
from parallel_orchestrator.records.plan import Plan
from parallel_orchestrator.sandbox.runner import PlainRunner
from tests.agent.conftest import Trees, files_below
from tests.fake_api_rules import refusal

Block = dict[str, Any]
LIMITS = Limits(turns=50, seconds=3600)


def text(words: str) -> Block:
    return {"type": "text", "text": words}


def bash(tool_id: str, command: str) -> Block:
    return {"type": "tool_use", "id": tool_id, "name": "bash", "input": {"command": command}}


def create(tool_id: str, path: str, content: str) -> Block:
    arguments = {"command": "create", "path": path, "file_text": content}
    return {"type": "tool_use", "id": tool_id, "name": "str_replace_based_edit_tool", "input": arguments}


THINKING: Block = {"type": "thinking", "thinking": "hm", "signature": "s"}
DONE = ([text("all done")], "end_turn")


class Script:
    """Answers in order; refuses a request as the API would."""

    def __init__(self, *answers: tuple[list[Block], str | None] | Exception) -> None:
        self.answers: Iterator[tuple[list[Block], str | None] | Exception] = iter(answers)
        self.requests: list[dict[str, Any]] = []
        self.keys: list[tuple[int, str, int]] = []

    def ask(self, request: dict[str, Any], /, *, turn: int, phase: str, phase_turn: int) -> Answer:
        assert refusal(request, None) is None
        self.requests.append(copy.deepcopy(request))
        self.keys.append((turn, phase, phase_turn))
        answer = next(self.answers)
        if isinstance(answer, Exception):
            raise answer
        return Answer(answer[0], answer[1], {"output_tokens": 1}, "m", 1.0, 50.0)


class Setting:
    """One attempt with real files, tools and transcript."""

    def __init__(self, folder: Path, tmp_path: Path, plan: Plan) -> None:
        self.folder, self.path, self.plan = folder, tmp_path / "task_1.jsonl", plan
        self.trees = Trees(folder, tmp_path / "trees")
        self.told: list[str] = []

    def run(self, script: Script, limits: Limits = LIMITS) -> StopResult:
        transcript = self.open()
        context = AgentContext(
            ask=script.ask,
            tools=ToolBox(self.folder, PlainRunner()),
            snapshot=self.trees.snapshot,
            restore=self.trees.restore,
            progress=self.told.append,
        )
        try:
            return take_turns(transcript, context, limits)
        finally:
            transcript.close()

    def open(self) -> Transcript:
        transcript = Transcript(self.path)
        if transcript.is_new:
            task = self.plan.task("task_1")
            start = opening(requirement="Build it", plan=self.plan, task=task, model="m", profile="anthropic")
            transcript.begin(start, base="base0", run="r1", task_id="task_1", attempt=1)
        return transcript


@pytest.fixture
def setting(folder: Path, tmp_path: Path, plan: Plan) -> Setting:
    return Setting(folder, tmp_path, plan)


def test_works_until_the_report(setting: Setting) -> None:
    script = Script(
        ([text("I write."), create("a", "src/x.py", "print(6 * 7)\n"), bash("b", "python src/x.py")], "tool_use"), DONE
    )
    assert setting.run(script) == StopResult(StopKind.FINISHED, text="all done")
    assert files_below(setting.folder) == {"src/x.py": b"print(6 * 7)\n"}
    results = script.requests[1]["messages"][-1]["content"]
    assert [(r["tool_use_id"], r["content"]) for r in results] == [("a", "Wrote src/x.py (1 line)."), ("b", "42")]
    assert script.keys == [(1, "work", 1), (2, "work", 2)]
    assert setting.told == [
        "asking the model (turn 1)",
        "create src/x.py",
        "bash python src/x.py",
        "asking the model (turn 2)",
    ]


def test_an_ended_conversation_is_not_asked_again(setting: Setting) -> None:
    setting.run(Script(DONE))
    assert setting.run(Script()) == StopResult(StopKind.FINISHED, text="all done")


def test_one_failing_call_of_two_gets_its_result_in_order(setting: Setting) -> None:
    script = Script(([bash("a", "false"), {**bash("b", ""), "name": "nothing"}], "tool_use"), DONE)
    setting.run(script)
    results = script.requests[1]["messages"][-1]["content"]
    assert [(r["tool_use_id"], r["is_error"]) for r in results] == [("a", False), ("b", True)]


def test_duplicate_ids_are_made_different(setting: Setting) -> None:
    script = Script(([bash("a", "echo 1"), bash("a", "echo 2"), bash("a_2", "echo 3")], "tool_use"), DONE)
    assert setting.run(script).kind is StopKind.FINISHED
    results = script.requests[1]["messages"][-1]["content"]
    assert [r["content"] for r in results] == ["1", "2", "3"]


def test_repair_goes_on_in_the_same_conversation(setting: Setting) -> None:
    setting.run(Script(([create("a", "x", "1")], "tool_use"), DONE))
    tree = setting.trees.snapshot()
    (setting.folder / "x").write_text("something else")
    transcript = setting.open()
    transcript.repair("the tests are red", base="base1", tree=tree)
    transcript.close()
    script = Script(([bash("b", "cat x")], "tool_use"), DONE)
    assert setting.run(script).kind is StopKind.FINISHED
    assert script.keys == [(3, "repair 1", 1), (4, "repair 1", 2)]
    assert script.requests[0]["messages"][-1]["content"] == [text("the tests are red")]
    assert script.requests[1]["messages"][-1]["content"][0]["content"] == "1"


# Stop reasons


@pytest.mark.parametrize("stop", ["end_turn", "stop_sequence", "tool_use"])
def test_ends(setting: Setting, stop: str) -> None:
    assert setting.run(Script(([THINKING, text("report")], stop))) == StopResult(StopKind.FINISHED, text="report")


def test_unknown_stop_reason_is_an_end_with_a_warning(setting: Setting, caplog: pytest.LogCaptureFixture) -> None:
    ended = setting.run(Script(([text("report")], "brand_new")))
    assert (ended.kind, ended.text) == (StopKind.FINISHED, "report")
    assert "brand_new" in ended.reason
    assert "brand_new" in caplog.text


def test_tool_calls_run_whatever_the_stop_reason_says(setting: Setting) -> None:
    assert setting.run(Script(([bash("a", "touch x")], "end_turn"), DONE)).kind is StopKind.FINISHED
    assert (setting.folder / "x").exists()


def test_a_truncated_call_is_never_run_and_asked_again_with_more_room(setting: Setting) -> None:
    script = Script(
        ([text("so"), bash("a", "touch half")], "max_tokens"),
        ([THINKING], "max_tokens"),
        ([bash("b", "touch whole")], "tool_use"),
        DONE,
    )
    assert setting.run(script).kind is StopKind.FINISHED
    assert set(files_below(setting.folder)) == {"whole"}
    assert [r["max_tokens"] for r in script.requests] == [MAX_TOKENS, 2 * MAX_TOKENS, 4 * MAX_TOKENS, MAX_TOKENS]
    assert script.requests[0]["messages"] == script.requests[2]["messages"]
    assert [key[0] for key in script.keys] == [1, 2, 3, 4]


def test_output_too_long(setting: Setting) -> None:
    ended = setting.run(Script(*3 * [([bash("a", "x")], "max_tokens")]))
    assert ended.kind is StopKind.STOPPED
    assert ended.reason.startswith("output too long")


def test_cut_text_is_continued(setting: Setting) -> None:
    script = Script(([text("first half")], "max_tokens"), ([text("second half")], "end_turn"))
    assert setting.run(script).text == "second half"
    assert script.requests[1]["messages"][-2:] == [
        {"role": "assistant", "content": [text("first half")]},
        {"role": "user", "content": [text(GO_ON)]},
    ]


def test_refusal_fails_and_runs_nothing(setting: Setting) -> None:
    ended = setting.run(Script(([text("I will not"), bash("a", "touch x")], "refusal")))
    assert ended == StopResult(StopKind.STOPPED, reason="refused: I will not")
    assert files_below(setting.folder) == {}
    assert setting.run(Script()) == ended


def test_refusal_without_a_word(setting: Setting) -> None:
    assert setting.run(Script(([], "refusal"))).reason == "refused: the model gave no reason"


def test_pause_is_gone_on_with(setting: Setting) -> None:
    script = Script(([text("I pause")], "pause_turn"), DONE)
    assert setting.run(script).kind is StopKind.FINISHED
    assert script.requests[1]["messages"][-1] == {"role": "assistant", "content": [text("I pause")]}


def test_full_context_fails(setting: Setting) -> None:
    ended = setting.run(Script(([text("and")], "model_context_window_exceeded")))
    assert ended.kind is StopKind.STOPPED
    assert ended.restartable
    assert "context window" in ended.reason


@pytest.mark.parametrize("stop", ["end_turn", "stop_sequence", "brand_new"])
@pytest.mark.parametrize("empty", [[], [THINKING], [text(" \n")]])
def test_an_empty_answer_after_tool_results_is_the_end(setting: Setting, empty: list[Block], stop: str) -> None:
    script = Script(([bash("a", "echo 1")], "tool_use"), (empty, stop))
    assert setting.run(script).kind is StopKind.FINISHED
    assert setting.run(Script()).kind is StopKind.FINISHED


@pytest.mark.parametrize("stop", ["end_turn", "tool_use", "pause_turn"])
@pytest.mark.parametrize("empty", [[], [THINKING], [text(" \n")]])
def test_an_empty_answer_before_any_work_is_answered(setting: Setting, empty: list[Block], stop: str) -> None:
    script = Script((empty, stop), (empty, stop), DONE)
    assert setting.run(script).kind is StopKind.FINISHED
    assert script.keys[2] == (3, "work", 3)
    first, second, third = (request["messages"][-1]["content"] for request in script.requests)
    assert [len(first), len(second), len(third)] == [1, 2, 3]
    assert "str_replace_based_edit_tool, bash" in third[-1]["text"]


@pytest.mark.parametrize("stop", ["tool_use", "pause_turn"])
def test_an_empty_answer_that_announces_more_is_no_end(setting: Setting, stop: str) -> None:
    script = Script(([bash("a", "echo 1")], "tool_use"), ([], stop), DONE)
    assert setting.run(script) == StopResult(StopKind.FINISHED, text="all done")
    assert "neither text nor a tool call" in script.requests[2]["messages"][-1]["content"][-1]["text"]


def test_an_empty_answer_to_a_repair_is_answered(setting: Setting) -> None:
    setting.run(Script(([bash("a", "echo 1")], "tool_use"), ([], "end_turn")))
    transcript = setting.open()
    transcript.repair("the tests are red", base="base1", tree=setting.trees.snapshot())
    transcript.close()
    script = Script(([], "end_turn"), DONE)
    assert setting.run(script).kind is StopKind.FINISHED
    assert script.requests[0] != script.requests[1]


def test_cut_text_that_nothing_follows_is_the_end(setting: Setting) -> None:
    script = Script(([bash("a", "echo 1")], "tool_use"), ([text("It wo")], "max_tokens"), ([], "end_turn"))
    assert setting.run(script).kind is StopKind.FINISHED


@pytest.mark.parametrize("stop", ["end_turn", "tool_use"])
def test_saying_nothing_for_ever_fails(setting: Setting, stop: str) -> None:
    assert setting.run(Script(*3 * [([], stop)])).reason == "3 answers in a row said nothing"


# Limits


def test_turn_limit(setting: Setting) -> None:
    ended = setting.run(Script(*[([bash(f"t{n}", f"echo {n}")], "tool_use") for n in range(3)]), Limits(3, 3600))
    assert ended == StopResult(StopKind.STOPPED, reason="reached its limit of 3 turns", restartable=True)


def test_a_report_in_the_last_turn_counts(setting: Setting) -> None:
    assert setting.run(Script(([bash("a", "echo")], "tool_use"), DONE), Limits(2, 3600)).kind is StopKind.FINISHED


def test_raised_limit_goes_on(setting: Setting) -> None:
    setting.run(Script(([bash("a", "echo")], "tool_use")), Limits(1, 3600))
    assert setting.run(Script(DONE), Limits(2, 3600)).kind is StopKind.FINISHED


def test_time_is_that_at_the_endpoint_and_in_tools(setting: Setting) -> None:
    ended = setting.run(Script(*[([bash(f"t{n}", f"echo {n}")], "tool_use") for n in range(9)]), Limits(50, 3.0))
    assert ended.reason == "reached its limit of 0.05 minutes"
    assert read(setting.path).turns in (2, 3)


def test_only_errors_in_a_row_fail(setting: Setting) -> None:
    wrong = [([create(f"t{n}", f"../{n}", "")], "tool_use") for n in range(MAX_ERROR_TURNS)]
    fine = [([bash("ok", "echo fine")], "tool_use")]
    assert setting.run(Script(*wrong[:-1], *fine, *wrong)).reason == "all tool calls of 5 turns in a row failed"
    assert read(setting.path).turns == 2 * MAX_ERROR_TURNS


def test_the_same_call_with_the_same_result_fails(setting: Setting) -> None:
    same = [([bash(f"t{n}", "echo same")], "tool_use") for n in range(MAX_REPEATS)]
    ended = setting.run(Script(*same))
    assert ended.reason.startswith("loops on one call")


def test_the_same_call_with_another_result_is_no_loop(setting: Setting) -> None:
    growing = [([bash(f"t{n}", "echo x >> log; wc -l < log")], "tool_use") for n in range(2 * MAX_REPEATS)]
    assert setting.run(Script(*growing, DONE)).kind is StopKind.FINISHED


def test_what_stops_the_run_passes_through_and_is_gone_on_with(setting: Setting) -> None:
    with pytest.raises(BudgetReached):
        setting.run(Script(([bash("a", "echo x >> log")], "tool_use"), BudgetReached("cap")))
    script = Script(DONE)
    assert setting.run(script).kind is StopKind.FINISHED
    assert script.keys == [(2, "work", 2)]
    assert (setting.folder / "log").read_text() == "x\n"


@pytest.mark.parametrize(
    ("error", "restartable"), [(ContextFull("too long"), True), (RequestRefused("no"), False), (TaskLimit("$5"), False)]
)
def test_a_refusal_or_a_cap_is_met_once(setting: Setting, error: Exception, restartable: bool) -> None:
    ended = setting.run(Script(([bash("a", "touch x")], "tool_use"), error))
    assert ended == StopResult(StopKind.STOPPED, str(error), restartable=restartable)
    assert setting.run(Script()) == ended


def test_a_new_conversation_begins_with_the_task_and_the_facts(setting: Setting) -> None:
    first = Script(([bash("a", "touch x")], "tool_use"), ContextFull("too long"))
    setting.run(first)
    transcript = setting.open()
    transcript.restart("it was too long", base="base1", tree=setting.trees.snapshot())
    transcript.close()
    (setting.folder / "x").unlink()
    script = Script(*[([bash(f"t{n}", f"echo {n}")], "tool_use") for n in range(3)])
    ended = setting.run(script, Limits(3, 3600))
    assert script.requests[0]["messages"] == [
        {"role": "user", "content": [*first.requests[0]["messages"][0]["content"], text("it was too long")]}
    ]
    assert script.keys == [(2, "restart 1", 1), (3, "restart 1", 2), (4, "restart 1", 3)]
    assert ended.reason == "reached its limit of 3 turns"
    assert set(files_below(setting.folder)) == {"x"}
