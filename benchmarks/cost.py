"""What the prompt cache saves: the product's own calls, counted as the API counts, beside the same calls uncached.

The plan is that of the recorded project `complex` (12 tasks): 4 and 8 tasks are its first ones; 24 are all of it
twice, its contract too, as a plan for two such shops would be. In two turns of each task the model says as many
characters as the recorded one said for that task; then it runs the tests, and reports. Nothing is padded for the sake
of the cache: prompts are what the product sends. Money is counted at the price of the model that is the default.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Sequence
from typing import Any

from benchmarks import stack, stack_model
from benchmarks.cost_meter import ADDED, BARE, METER, MINIMA, SAID
from benchmarks.plot import bars
from benchmarks.stack_model import VARIABLE, Shape
from parallel_orchestrator.gateway.endpoints.prices import PriceTable
from parallel_orchestrator.gateway.endpoints.recording import RecordedAnswer, Recording, load
from parallel_orchestrator.records.scenario import DEFAULT_MODEL

NAME = "cost"
EXECUTORS = 8
RECORDING = stack.ROOT / "parallel_orchestrator" / "recordings" / "complex.yaml"

Json = dict[str, Any]


def run(quick: bool, repeat: int) -> Json:
    """One run of the product for each number of tasks, `repeat` times."""
    recording = load(RECORDING)
    return {str(tasks): [_one(recording, tasks) for _ in range(repeat)] for tasks in ((2,) if quick else (4, 8, 24))}


def table(results: Json) -> str:
    """For each number of tasks and each smallest prefix: what is read from the cache, and what that saves."""
    head = (
        "tasks|smallest prefix that is cached|shared prefix, tokens|bought|input read from the cache|"
        "cost over uncached|the same, input alone|cost over uncached, without what the API adds"
    )
    rows = [_row(tasks, minimum, rounds) for tasks, rounds in results.items() for minimum in map(str, MINIMA)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [head.split("|"), ["---:"] * 8, *rows])


def plot(results: Json) -> str:
    """Cost over uncached for each number of tasks, with the smallest prefix that models cache."""
    ratios = {}
    for tasks, rounds in results.items():
        found = [one["by_minimum"][str(MINIMA[0])] for one in rounds]
        ratios[f"ours, {tasks} tasks"] = _ratio(found)
    return bars("Cost over that of the same calls without a cache (less is better)", ratios, ".3f")


def _one(recording: Recording, tasks: int) -> Json:
    plan, said = _project(recording, tasks)
    shape = Shape("cost", EXECUTORS, 0.4, tuple(() for _ in range(tasks)))
    with stack.folder_on_disk() as folder:
        meter = folder / "meter.jsonl"
        variables = {VARIABLE: shape.to_json(), METER: str(meter), SAID: json.dumps(said)}
        with stack.fake_server("benchmarks.cost_meter:answer", variables) as url:
            (folder / "plan.json").write_text(json.dumps(plan))
            stack.build(folder, shape, url, profile="anthropic")
        counted = [json.loads(line) for line in meter.read_text().splitlines()]
    return {
        "calls": len(counted),
        "shared": counted[0]["shared"],
        "output": sum(call["output"] for call in counted),
        "by_minimum": {str(minimum): _summed(counted, str(minimum), ADDED) for minimum in MINIMA},
        BARE: {str(minimum): _summed(counted, f"{minimum} {BARE}", 0) for minimum in MINIMA},
    }


def _summed(counted: Sequence[Json], name: str, added: int) -> Json:
    """Usage of all calls by the counts of that name, their cost in USD, and that of the same tokens without a cache."""
    table = PriceTable.load(None)
    usages = [{**call["counts"][name], "output_tokens": call["output"]} for call in counted]
    plain = [{"input_tokens": _input(usage), "output_tokens": usage["output_tokens"]} for usage in usages]
    first_turns = [u for u, call in zip(usages, counted, strict=True) if call["turn"] == 1]
    shared = counted[0]["shared"] - ADDED + added
    bought = sum(usage["cache_read_input_tokens"] < shared for usage in usages)
    return {
        "read": sum(usage["cache_read_input_tokens"] for usage in usages),
        "input": sum(map(_input, usages)),
        "bought": bought,
        "first_turns_that_read": sum(usage["cache_read_input_tokens"] > 0 for usage in first_turns),
        "usd": sum(table.cost(DEFAULT_MODEL, usage) or 0.0 for usage in usages),
        "uncached_usd": sum(table.cost(DEFAULT_MODEL, usage) or 0.0 for usage in plain),
        "output_usd": sum(
            table.cost(DEFAULT_MODEL, {"input_tokens": 0, "output_tokens": u["output_tokens"]}) or 0.0 for u in usages
        ),
    }


def _input(usage: Json) -> int:
    return int(
        usage["input_tokens"] + usage["cache_read_input_tokens"] + usage["cache_creation_input_tokens"],
    )


def _project(recording: Recording, tasks: int) -> tuple[Json, list[list[int]]]:
    """A plan of so many tasks, and the characters that the model says in the first two turns of each."""
    planned = json.loads("".join(str(block["text"]) for block in _answers(recording, "plan")[0].content))
    times = -(-tasks // len(planned["tasks"]))
    sources = (planned["tasks"] * times)[:tasks]
    plain = stack_model.plan(Shape("cost", EXECUTORS, 0.4, tuple(() for _ in range(tasks))))
    for task, source in zip(plain["tasks"], sources, strict=True):
        told = {name: source[name] for name in ("name", "description", "acceptance", "integration_notes")}
        task.update(told)
    notes = {name: "\n\n".join([planned[name]] * times) for name in ("contract", "integration_notes")}
    return {**plain, **notes}, [_said(recording, source["id"]) for source in sources]


def _said(recording: Recording, task: str) -> list[int]:
    """All that the recorded model said for a task, its longest answer first, the rest of it in the second turn."""
    lengths = [len(json.dumps(answer.content)) for answer in _answers(recording, task)]
    return [max(lengths), sum(lengths) - max(lengths)]


def _answers(recording: Recording, task: str) -> list[RecordedAnswer]:
    return [answer for answer in recording.answers if answer.key[0] == task]


def _ratio(found: Sequence[Json]) -> float:
    """Cost over that of the same calls uncached, in the median."""
    return float(statistics.median(one["usd"] / one["uncached_usd"] for one in found))


def _row(tasks: str, minimum: str, rounds: Sequence[Json]) -> list[str]:
    found = [r["by_minimum"][minimum] for r in rounds]
    middle = statistics.median
    ratio, bare = _ratio(found), _ratio([r[BARE][minimum] for r in rounds])
    return [
        tasks,
        minimum,
        str(rounds[0]["shared"]),
        f"{middle(f['bought'] for f in found):.0f} times",
        f"{middle(100 * f['read'] / f['input'] for f in found):.0f} %",
        f"**{ratio:.3f}**" if tasks == "24" else f"{ratio:.3f}",
        f"{middle((f['usd'] - f['output_usd']) / (f['uncached_usd'] - f['output_usd']) for f in found):.2f}",
        f"{bare:.3f}",
    ]


if __name__ == "__main__":
    wanted = [int(word) for word in sys.argv[1:]]
    print(table(measured := {str(tasks): [_one(load(RECORDING), tasks)] for tasks in wanted}))
    print(json.dumps(measured))
