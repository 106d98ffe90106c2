"""What a plan is expected to take: the figures are those of the shipped recordings, the advice follows from them."""

from __future__ import annotations

import json
from collections import Counter
from importlib.resources import files

import pytest
import yaml

from parallel_orchestrator.records.plan import EFFORT_WEIGHT
from parallel_orchestrator.report.facts.advice import SECONDS_PER_EFFORT, USAGE_PER_EFFORT, advise
from parallel_orchestrator.report.pages.advice_page import advice_lines
from tests.records.plans import plan, task


def test_the_figures_are_those_of_the_shipped_recordings() -> None:
    units, seconds, usage = 0.0, 0.0, Counter[str]()
    for file in files("parallel_orchestrator.recordings").iterdir():
        if not file.name.endswith(".yaml"):
            continue
        answers = yaml.load(file.read_text(), yaml.CSafeLoader)["answers"]
        planned = next(one for one in answers if one["task"] == "plan")["content"][0]["text"]
        tasks = json.loads(planned[planned.index("{") : planned.rindex("}") + 1])["tasks"]
        units += sum(EFFORT_WEIGHT[one["estimated_effort"]] for one in tasks)
        for answer in answers:
            if answer["task"] != "plan":
                seconds += answer["latency_s"]
                usage.update(answer["usage"])
    assert pytest.approx(seconds / units, rel=0.02) == SECONDS_PER_EFFORT
    assert {kind: usage[kind] / units for kind in USAGE_PER_EFFORT} == pytest.approx(USAGE_PER_EFFORT, rel=0.02)


def test_more_executors_are_advised_where_they_help() -> None:
    wide = plan(*(task(n) for n in range(1, 9)))
    advice = advise(wide, 5, lambda usage: usage["output_tokens"] / 1e4)
    assert [one.executors for one in advice.choices] == [1, 2, 3, 4, 5, 8]
    assert advice.recommended == 4
    assert advice.reason == "run it with 4 executors: more of the 5 that are allowed would end less than 5 % sooner"
    assert advise(wide, 2).reason == "run it with 2 executors: no more are allowed; --max-executors changes that"
    assert advise(wide, 9).reason == "run it with 8 executors: no more tasks than that can ever run at once"
    assert [one.speedup for one in advice.choices] == pytest.approx([1, 2, 8 / 3, 4, 4, 8])
    assert [one.executors for one in advise(wide, 64).choices] == [1, 2, 3, 5, 8, 64]
    assert advice.cost_usd == (1.11, 3.55)
    lines = advice_lines(advice, spends=True)
    assert [line for line in lines if "recommended" in line] == ["        4  0:46-2:03         4.00  <- recommended"]
    assert any(line.startswith("cost: $1.11-$3.55 (about 273.3k tokens)") for line in lines)
    assert any("estimates" in line for line in lines)
    assert "a replay" in "\n".join(advice_lines(advice, spends=False))


@pytest.mark.parametrize(
    ("tasks", "why"),
    [(1, "it is one task"), (4, "each task waits for the one before it")],
)
def test_a_plan_without_breadth_is_to_be_run_sequentially(tasks: int, why: str) -> None:
    advice = advise(plan(*(task(n, (n - 1,) if n > 1 else ()) for n in range(1, tasks + 1))), 5)
    assert (advice.recommended, advice.reason) == (1, f"run this sequentially: {why}")
    assert advice.cost_usd is None
