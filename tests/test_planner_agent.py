"""The planner over a real gateway and a fake API: what it accepts, what it asks again and how, when it stops."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from parallel_orchestrator.agent.model_client import ModelClient
from parallel_orchestrator.records.errors import DamagedState, PlanRefused
from parallel_orchestrator.records.plan import MAX_FAULTS_TOLD
from parallel_orchestrator.records.scenario import Scenario
from parallel_orchestrator.store.plan_file import plan_text, read_plan
from planner_agent import PROMPT, PlannerAgent, json_part
from tests.end_to_end.scripted import plan, task
from tests.fake_api import Answer, Block, Body, FakeApi, Request, text
from tests.gateway.support import Setup, gateway
from tests.journals import Record

REQUIREMENT = "Build a project of two parts"
GOOD = plan([task(1, []), task(2, [1])])


class Bench:
    """One gateway for all tests; each has a run of its own."""

    def __init__(self, api: FakeApi, setup: Setup) -> None:
        self._api, self._setup = api, setup
        self._clients: list[ModelClient] = []
        self._runs = 0
        self._before = 0
        self.notes: list[str] = []

    def answers(self, *answers: str | Answer) -> None:
        """What the model says, one after the other; the last one again and again."""
        self._before = len(self._api.requests)

        def script(body: Body) -> Answer | list[Block]:
            turn = sum(message["role"] == "assistant" for message in body["messages"])
            answer = answers[min(turn, len(answers) - 1)]
            return answer if isinstance(answer, Answer) else [text(answer)]

        self._api.script = script
        self.notes = []
        self._runs += 1
        self._setup.open(run=f"run{self._runs}")

    def planner(self, **fields: Any) -> PlannerAgent:
        """A planner of this test's run, with no memory of another's answers."""
        token = self._setup.token("plan", run=f"run{self._runs}")
        self._clients.append(ModelClient(self._setup.process.config.socket, token))
        defaults = {"run": f"run{self._runs}", "requirements": REQUIREMENT, "endpoint": self._api.url}
        return PlannerAgent(self._clients[-1], Scenario(**{**defaults, **fields}), note=self.notes.append)

    @property
    def requests(self) -> list[Request]:
        """This test's."""
        return self._api.requests[self._before :]

    def answered(self) -> list[Record]:
        """The answers in this test's ledger."""
        return self._setup.records("answer", run=f"run{self._runs}")

    def close(self) -> None:
        for client in self._clients:
            client.close()


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with FakeApi() as api, gateway(tmp_path_factory.mktemp("planner"), api) as setup:
        made = Bench(api, setup)
        yield made
        made.close()


def _last_words(request: Request) -> str:
    message = request.body["messages"][-1]
    assert message["role"] == "user"
    content = message["content"]
    return content if isinstance(content, str) else "".join(block["text"] for block in content)


def test_complexity_and_plan_together_cost_one_call(bench: Bench) -> None:
    bench.answers(json.dumps(GOOD))
    planner = bench.planner()
    assert planner.analyze_complexity(REQUIREMENT).level == "complex"
    found = planner.create_plan(REQUIREMENT)
    assert found.model_dump() == GOOD
    assert planner.create_plan(REQUIREMENT) is found
    (request,) = bench.requests
    assert request.body["system"] == PROMPT
    assert _last_words(request) == f"<requirement>\n{REQUIREMENT}\n</requirement>"
    assert bench.notes == []


def test_a_planner_that_begins_again_parses_the_answers_it_has(bench: Bench) -> None:
    bench.answers("not yet", json.dumps(GOOD))
    first = bench.planner().create_plan(REQUIREMENT)
    assert len(bench.requests) == 2
    assert bench.planner().create_plan(REQUIREMENT) == first
    assert len(bench.requests) == 2


def test_an_endpoint_without_structured_output_is_not_asked_for_it(bench: Bench) -> None:
    bench.answers(json.dumps(GOOD))
    bench.planner(endpoint_profile="compatible", planner_model="another").create_plan(REQUIREMENT)
    assert "output_config" not in bench.requests[0].body
    assert bench.requests[0].body["model"] == "another"


def test_instructions_are_part_of_the_question_and_the_shape_is_asked_of_the_api(bench: Bench) -> None:
    bench.answers(json.dumps(GOOD))
    bench.planner(planner_instructions="Use no classes.").create_plan(REQUIREMENT)
    assert _last_words(bench.requests[0]).endswith("<instructions>\nUse no classes.\n</instructions>")
    shape = bench.requests[0].body["output_config"]["format"]
    assert shape["type"] == "json_schema"
    assert set(shape["schema"]["required"]) == set(GOOD)


@pytest.mark.parametrize(
    "wrapped",
    [
        "```json\n{}\n```",
        "```\n{}```",
        "Here is the plan:\n\n```json\n{}\n```\nI hope it helps.",
        "Here it is: {}",
        "{}\n\nThat is all {{really}}.",
        "\n\n  {}  \n",
    ],
)
def test_words_and_fences_around_a_plan_do_no_harm(wrapped: str, bench: Bench) -> None:
    bench.answers(wrapped.format(json.dumps(GOOD, indent=1)))
    assert bench.planner().create_plan(REQUIREMENT).model_dump() == GOOD
    assert len(bench.requests) == 1


def test_braces_and_fences_within_a_plan_do_no_harm() -> None:
    told = json.dumps(plan([task(1, [])], contract='def f() -> dict: "{}}"\n```python\n{}\n```'))
    for wrapped in (told, f"{told}\n}} and more", f"```json\n{told}\n```"):
        assert json.loads(json_part(wrapped)) == json.loads(told)


@pytest.mark.parametrize("hopeless", ["", "no plan", "}{", "{", "{" * 100_000, "[" * 100_000, '{"a":' * 50_000])
def test_what_is_no_plan_is_no_trouble_either(hopeless: str) -> None:
    assert isinstance(json_part(hopeless), str)


def _without(field: str) -> dict[str, Any]:
    return {name: value for name, value in GOOD.items() if name != field}


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        ("I would rather not say.", "answer: Invalid JSON"),
        (json.dumps(GOOD)[:-30], "answer: Invalid JSON"),
        ("", "answer: Invalid JSON"),
        (json.dumps(_without("contract")), "contract: is missing"),
        (json.dumps(plan([task(1, [], priority=0)])), "task_1.priority: has to be greater than or equal to 1"),
        (json.dumps(plan([task(1, [], surprise=1)])), "task_1.surprise: no such field"),
        (json.dumps(plan([])), "the plan has no tasks"),
        (json.dumps(plan([task(1, [2]), task(2, [1])])), "the dependencies form a cycle: task_1 -> task_2 -> task_1"),
        (json.dumps(plan([task(1, [7])])), "task_1 depends on 'task_7', which is not in the plan"),
        (
            json.dumps(plan([task(1, []), task(2, [], files=["src/part_1.py"])])),
            "task_1 and task_2 may run at once and both own src/part_1.py",
        ),
        (json.dumps(plan([task(1, [], files=["/etc/passwd"])])), "task_1 owns '/etc/passwd': not a file under src/"),
        (
            json.dumps(plan([task(1, [])], packages=["no-such-distribution-0"])),
            "package 'no-such-distribution-0' is not installed here: use the standard library",
        ),
    ],
)
def test_a_faulty_answer_is_asked_again_with_its_exact_faults(answer: str, fault: str, bench: Bench) -> None:
    bench.answers(answer, json.dumps(GOOD))
    assert bench.planner().create_plan(REQUIREMENT).model_dump() == GOOD
    first, second = bench.requests
    assert second.body["messages"][0] == first.body["messages"][0]
    assert [message["role"] for message in second.body["messages"]] == ["user", "assistant", "user"]
    told = _last_words(second)
    assert told.startswith(f"This plan cannot be used:\n- {fault}")
    assert told.endswith("\nAnswer with the whole corrected plan.")
    assert len(bench.notes) == 1
    assert bench.notes[0].startswith(f"plan 1 of at most 3 is not usable: {fault}")


def test_a_package_that_is_not_there_may_be_installed_when_that_is_allowed(bench: Bench) -> None:
    bench.answers(json.dumps(plan([task(1, [])], packages=["no-such-distribution-0"])))
    assert bench.planner(allow_install=True).create_plan(REQUIREMENT).packages == ["no-such-distribution-0"]
    assert len(bench.requests) == 1
    bench.answers(json.dumps(plan([task(1, [])], packages=["pytest>=8"])))  # it is here
    assert bench.planner().create_plan(REQUIREMENT).packages == ["pytest>=8"]


def test_three_bad_answers_are_the_end_and_the_last_faults_are_told(bench: Bench) -> None:
    bench.answers(
        json.dumps(plan([])), json.dumps(plan([task(1, [1])])), json.dumps(plan([task(1, [8]), task(2, [9])]))
    )
    with pytest.raises(PlanRefused) as caught:
        bench.planner().create_plan(REQUIREMENT)
    told = str(caught.value)
    assert caught.value.exit_code == 1
    assert "no usable plan after 3 answers" in told
    assert "  task_1 depends on 'task_8', which is not in the plan\n  task_2 depends on 'task_9'" in told
    assert "--plan" in told
    assert "no tasks" not in told
    assert [len(request.body["messages"]) for request in bench.requests] == [1, 3, 5]
    keys = [(record["turn"], record["phase"], record["phase_turn"]) for record in bench.answered()]
    assert keys == [(1, "work", 1), (2, "work", 2), (3, "work", 3)]
    assert [note[:21] for note in bench.notes] == [
        "plan 1 of at most 3 i",
        "plan 2 of at most 3 i",
        "plan 3 of at most 3 i",
    ]


def test_of_very_many_faults_the_first_are_told_and_the_others_counted(bench: Bench) -> None:
    many = [task(n, [], files=["/x"]) for n in range(1, MAX_FAULTS_TOLD + 6)]
    bench.answers(json.dumps(plan(many)))
    with pytest.raises(PlanRefused) as caught:
        bench.planner().create_plan(REQUIREMENT)
    assert _last_words(bench.requests[1]).count("\n- ") == MAX_FAULTS_TOLD + 1
    assert "\n- … and " in _last_words(bench.requests[1])
    assert str(caught.value).count("\n  ") == MAX_FAULTS_TOLD + 1
    assert all(note.count("; ") == MAX_FAULTS_TOLD for note in bench.notes)


def test_an_answer_cut_off_is_asked_again_shorter(bench: Bench) -> None:
    bench.answers(Answer([text(json.dumps(GOOD))], stop_reason="max_tokens"), json.dumps(GOOD))
    bench.planner().create_plan(REQUIREMENT)
    assert "- the answer was cut off at 32000 tokens: plan shorter\n" in _last_words(bench.requests[1])


def test_a_refusal_is_not_asked_again(bench: Bench) -> None:
    bench.answers(Answer([text("I do not help with that.")], stop_reason="refusal"))
    with pytest.raises(PlanRefused, match="refuses to plan this requirement: I do not help with that"):
        bench.planner().create_plan(REQUIREMENT)
    bench.answers(Answer([], stop_reason="refusal"))
    with pytest.raises(PlanRefused, match="no reason given"):
        bench.planner().create_plan(REQUIREMENT)
    assert len(bench.requests) == 1


def test_blocks_that_are_no_text_are_no_part_of_the_plan(bench: Bench) -> None:
    thought: Block = {"type": "thinking", "thinking": "{", "signature": "s"}
    half = len(json.dumps(GOOD)) // 2
    blocks = [thought, text(json.dumps(GOOD)[:half]), text(json.dumps(GOOD)[half:])]
    bench.answers(Answer(blocks))
    assert bench.planner().create_plan(REQUIREMENT).model_dump() == GOOD


Damage = Callable[[str], str]


def test_a_written_plan_is_read_as_it_was(tmp_path: Path, bench: Bench) -> None:
    bench.answers(json.dumps(GOOD))
    made = bench.planner().create_plan(REQUIREMENT)
    (tmp_path / "plan.json").write_text(plan_text(made))
    assert read_plan(tmp_path / "plan.json") == made


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda good: good[:-3], "is no plan any more"),
        (lambda good: good.replace("task_2", "task_1"), "cannot be run any more: task id 'task_1' is used twice"),
    ],
)
def test_a_written_plan_that_was_changed_into_none_is_told(damage: Damage, told: str, tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text(damage(json.dumps(GOOD)))
    with pytest.raises(DamagedState, match=told):
        read_plan(tmp_path / "plan.json")
