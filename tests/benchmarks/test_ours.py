"""Each of our own measurements at a tiny size, so that benchmarks cannot rot. Figures are not looked at."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from benchmarks import hand_over, processes, queue, queue_parts, scheduling
from benchmarks.__main__ import benchmarks
from benchmarks.contestants import NotMeasured
from benchmarks.rounds import interleaved, markdown
from benchmarks.shapes import Shape, Task, shapes
from parallel_orchestrator.records.graph import TaskGraph


def test_scheduling_measures_each_shape_and_says_so() -> None:
    tiny = Shape("tiny", 2, tuple(Task(f"task_{n}", ("task_1",) if n > 2 else (), 0.01) for n in range(1, 5)))
    samples = {title: [scheduling._ours(kind, [tiny])] for kind, title in scheduling.OURS.items()}
    for sample in samples.values():
        assert sample[0]["tiny"]["makespan"] >= tiny.perfect()
    limits = {"tiny": {"perfect": tiny.perfect(), "bound": tiny.bound(), "M": 2}}
    found = scheduling.table({"limits": limits, "samples": samples})
    assert "| ours, durations known |" in found
    assert "| ours, low/medium/high known |" in found


@pytest.mark.parametrize("module", [*queue.OWN_QUEUES.values()])
def test_every_pair_is_done_once(module: str) -> None:
    job = {"processes": 2, "sync": True, "tasks": 20, "sparse": False}
    sample = queue._race(module, job)
    assert sample["pairs"] == sum(sample["shares"]) == 20
    assert sample["waits"]["p50"] <= sample["waits"]["max"]


def test_tasks_with_dependencies_are_all_done() -> None:
    sample = queue._race("our_queue", {"processes": 2, "sync": False, "tasks": 30, "sparse": True})
    assert sample["pairs"] == 30


def test_a_half_done_run_goes_on() -> None:
    sample = queue._resume(20, 2)
    assert 0 < sample["after_up"] < sample["after_start"]


def test_executors_start_and_have_memory_of_their_own() -> None:
    sample = processes._start("our_start", 2)
    assert 0 < sample["first"] <= sample["last"]
    assert 1 < sample["pss_mib"] <= sample["most"]


def test_a_command_and_the_first_request() -> None:
    taken = {f"help {name}": [processes._command(processes.COMMANDS[name], {})] for name in ("ours", processes.BARE)}
    samples = {**taken, "first request": [processes._first_request()]}
    assert all(found[0]["wall"] > 0 for found in samples.values())
    assert "| ours --help |" in processes.table({"samples": samples})


def test_each_contestant_is_measured_once_a_round_in_changing_order() -> None:
    order: list[str] = []
    samples = interleaved({name: partial(order.append, name) for name in "abcd"}, repeat=6)
    assert samples == {name: [None] * 6 for name in "abcd"}
    rounds = ["".join(order[start : start + 4]) for start in range(0, 24, 4)]
    assert {"".join(sorted(taken)) for taken in rounds} == {"abcd"}
    assert len(set(rounds)) > 1


def test_who_cannot_be_measured_is_told_with_the_reason() -> None:
    def fails() -> Any:
        raise NotMeasured("it is not installed")

    found = interleaved({"a": fails, "b": lambda: 1}, repeat=2)
    assert found == {"a": {"not measured": "it is not installed"}, "b": [1, 1]}


@pytest.mark.parametrize("shape", shapes(), ids=lambda shape: shape.name)
def test_no_schedule_beats_the_bound(shape: Shape) -> None:
    assert shape.bound() <= shape.perfect() + 1e-9
    assert len(shape.exact().order) == len(shape.tasks)
    assert {node.weight for node in shape.coarse().nodes.values()} <= {1.0, 2.0, 4.0}
    fewer: TaskGraph = shape.exact()
    assert fewer.makespan(1) == pytest.approx(sum(task.seconds for task in shape.tasks))


def test_every_benchmark_is_found_and_has_its_parts() -> None:
    found = benchmarks()
    assert {"scheduling", "queue", "processes"} <= found.keys()
    assert all(callable(module.run) and callable(module.table) for module in found.values())


def test_a_table_is_markdown() -> None:
    assert markdown(["", "M=2"], [["ours", "1"]]) == "|  | M=2 |\n| --- | ---: |\n| ours | 1 |"


def test_the_parts_of_a_pair_are_measured(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(queue_parts, "TASKS", 50)
    queue_parts.main()
    *parts, whole = capsys.readouterr().out.splitlines()[2:]
    assert len(parts) == 12
    assert whole.startswith("| an own pair | 1 | ")


def test_the_parts_of_a_hand_over_are_measured(capsys: pytest.CaptureFixture[str]) -> None:
    hand_over.main(scale=0.01)
    cells = [row.split("|") for row in capsys.readouterr().out.splitlines()[4:]]
    rows = {title.strip(): float(chain.replace(",", "")) for _, title, chain, *_ in cells}
    *parts, whole = rows.values()
    assert len(parts) == 10
    assert sum(parts) == pytest.approx(whole, abs=len(parts))
    assert min(parts[:-1]) >= 0  # the rest of two tasks is less than what comes after the last merge
    assert rows["the sync"] > 0
