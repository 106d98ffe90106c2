"""Batches: how much of their executors' time is work, and whether the thousandth scenario costs what the hundredth did.

    python -m benchmarks.batch spread            20 scenarios of different widths on 8 executors
    python -m benchmarks.batch growth            1,000 scenarios of 5 tasks
    python -m benchmarks.batch --quick           both, small: does it run at all

Each scenario replays a recording that is written here: real conversations, tools, tests, git and sandbox; only the
model's answers are played. Latencies of `spread` are drawn from those of the shipped recordings, with a fixed seed.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml

from parallel_orchestrator.records.journals.queue import Move
from parallel_orchestrator.records.lifecycle import TaskState
from parallel_orchestrator.records.plan import Plan
from parallel_orchestrator.report.facts.timing import fold_timing
from parallel_orchestrator.store.journal import read_all
from parallel_orchestrator.store.record_parser import QUEUE

NAME = "batch"
ROOT = Path(__file__).resolve().parents[1]
SEED = 5
EXECUTORS = 8
SPEED = 2.5
"""Of `spread`: at this factor waiting for the model outweighs what two cores need for the tests of eight executors."""

SHAPES = [(1, 8), (1, 6), (2, 4), (3, 2), (4, 1), (1, 10), (2, 3), (2, 5), (1, 4), (3, 3)]
"""Layers and tasks in each: what `spread` builds, each twice."""

FORK_SERVER = b"multiprocessing.forkserver"
REAPER = b"reaper.py"
"""What starts each command of an agent's in its sandbox."""
_MARKS = (100, 200, 500, 1000)
_WINDOW = 50
Latency = Callable[[], float]


def run(quick: bool = False, repeat: int = 1) -> dict[str, Any]:
    """Both measurements. `quick`: small ones, whose figures say nothing."""
    return {"spread": [spread(quick) for _ in range(1 if quick else repeat)], "growth": [growth(30 if quick else 1000)]}


def table(results: dict[str, Any]) -> str:
    """The figures as Markdown."""
    return "\n\n".join([_spread_table(results.get("spread", [])), _growth_table(results.get("growth", []))]).strip()


def spread(quick: bool = False) -> dict[str, Any]:
    """A batch of scenarios of different widths: its makespan against the work that was in it."""
    latencies = _shipped_latencies()
    with tempfile.TemporaryDirectory(prefix="spread-") as folder:
        place, chance = Path(folder), random.Random(SEED)
        recordings = {}
        for number, (layers, width) in enumerate(SHAPES[:2] if quick else SHAPES * 2, start=1):
            name = f"s{number}-{layers}x{width}"
            recordings[name] = _layered(layers, width, lambda: chance.choice(latencies))
        batch = _write(place, recordings, speed=50 if quick else SPEED)
        _batch(batch, place, EXECUTORS, None, None, 0)
        return _spread_figures(place / "out", list(recordings))


def growth(scenarios: int, minutes: float | None = None) -> dict[str, Any]:
    """A batch of that many scenarios of five tasks without latencies: memory and seconds as they go by.

    They build documents alone and end as failed, having no test: all five tasks are merged nevertheless.
    `minutes`: stop after so long, with the figures until then.
    """
    with tempfile.TemporaryDirectory(prefix="growth-") as folder:
        place = Path(folder)
        recording = _documents()
        batch = _write(place, {f"s{number}": recording for number in range(1, scenarios + 1)}, shared=True)
        watch = _Watch(place / "out")
        _batch(batch, place, EXECUTORS, watch, minutes, 0, 1)
        return {"scenarios": scenarios, "executors": EXECUTORS, "marks": watch.figures(scenarios)}


def _spread_figures(out: Path, names: Sequence[str]) -> dict[str, Any]:
    summary = json.loads((out / "batch_summary.json").read_text())
    records = {name: read_all(out / name / "queue.jsonl", QUEUE) for name in names}
    moves = {name: [one for one in found if isinstance(one, Move)] for name, found in records.items()}
    work = sum(fold_timing(found).work for found in records.values())
    first = min(found[0].mono for found in moves.values())
    last = max(found[-1].mono for found in moves.values())
    idle = _idle([move for found in moves.values() for move in found], first, last)
    path = max(one["critical_path_s"] for one in summary["scenarios"])
    share = work / EXECUTORS
    return {
        "scenarios": len(names),
        "tasks": summary["completed"],
        "executors": EXECUTORS,
        "work_s": work,
        "work_by_executors_s": share,
        "longest_path_s": path,
        "makespan_s": last - first,
        "ratio": (last - first) / share,
        "idle_s": idle,
        "elapsed_s": summary["elapsed_s"],
        "elapsed_ratio": summary["elapsed_s"] / share,
    }


def _idle(moves: Sequence[Move], first: float, last: float) -> dict[str, float]:
    """Seconds for which an executor had nothing to do, in the mean: before its first task, after its last, between."""
    claims: dict[int, list[float]] = {}
    ends: dict[int, list[float]] = {}
    for move in sorted(moves, key=lambda move: move.mono):
        if move.state is TaskState.CLAIMED:
            claims.setdefault(move.executor, []).append(move.mono)
        elif move.executor:
            ends.setdefault(move.executor, []).append(move.mono)
    before = sum(at[0] - first for at in claims.values()) / EXECUTORS
    after = sum(last - at[-1] for at in ends.values()) / EXECUTORS
    between = sum(
        max(0.0, claim - end) for k in claims for claim, end in zip(claims[k][1:], ends.get(k, []), strict=False)
    )
    return {"before": round(before, 2), "after": round(after, 2), "between": round(between / EXECUTORS, 2)}


def _batch(
    config: Path, place: Path, executors: int, watch: _Watch | None = None, minutes: float | None = None, *codes: int
) -> None:
    command = [
        sys.executable,
        str(ROOT / "orchestrator.py"),
        "batch",
        "--yes",
        str(config),
        "--output-dir",
        str(place / "out"),
    ]
    with (place / "log").open("wb") as log:
        process = subprocess.Popen([*command, "--max-executors", str(executors)], stdout=log, stderr=log)
        if watch:
            watch.follow(process.pid)
        code = _ended(process, minutes)
        if watch:
            watch.close()
    if code not in codes and not (minutes and code == 130):
        raise RuntimeError(f"the batch ended with {code}:\n" + (place / "log").read_text()[-3000:])


def _ended(process: subprocess.Popen[bytes], minutes: float | None) -> int:
    try:
        return process.wait(None if minutes is None else 60 * minutes)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)
        return process.wait()


class _Watch:
    """Looks every half second how many scenarios are closed, and what the batch's processes take."""

    def __init__(self, out: Path) -> None:
        self._journal = out / "batch.jsonl"
        self._samples: list[tuple[int, float, float]] = []
        """Scenarios closed; seconds; MB of our own processes, shared pages by their share, agents' commands and tests
        left out."""
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def follow(self, root: int) -> None:
        """Begin."""
        self._thread = threading.Thread(target=self._look, args=(root, time.monotonic()), daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End."""
        self._over.set()
        if self._thread:
            self._thread.join()

    def _look(self, root: int, began: float) -> None:
        closed, position = 0, 0
        while not self._over.wait(0.5):
            if self._journal.exists():
                with self._journal.open("rb") as file:
                    file.seek(position)
                    new = file.read()
                whole = new.rpartition(b"\n")[0]
                position += len(whole) + bool(whole)
                closed += whole.count(b'"state":"closed"') + whole.count(b'"state": "closed"')
            self._samples.append((closed, time.monotonic() - began, sum(map(_memory_mb, _ours(root)))))

    def figures(self, scenarios: int) -> list[dict[str, float]]:
        """At some numbers of ended scenarios: peak memory until then, and what each of those before it took."""
        last = self._samples[-1][0]
        marks = [mark for mark in (*_MARKS, scenarios) if mark <= last] or [last]
        return [self._at(mark) for mark in sorted({*marks, last})]

    def _at(self, mark: int) -> dict[str, float]:
        until = [sample for sample in self._samples if sample[0] <= mark]
        # Over so many at least, as they end in bursts; the first ones wait for the executors' start.
        since = [sample for sample in until if sample[0] <= max(mark // 2, mark - _WINDOW)][-1]
        done = max(1, until[-1][0] - since[0])
        return {
            "ended": until[-1][0],
            "peak_mb": round(max(sample[2] for sample in until), 1),
            "seconds": round((until[-1][1] - since[1]) / done, 3),
        }


def _ours(root: int) -> list[int]:
    """The process and all that descend from it, without what runs agents' commands and tests."""
    processes: dict[int, tuple[int, bytes]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                head, _, rest = (entry / "stat").read_text().rpartition(")")
                command = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if head.partition("(")[2].startswith("python") and REAPER not in command:
                processes[int(entry.name)] = int(rest.split()[1]), command
    found = [root]
    for pid in found:
        found += [
            child for child, (parent, _) in processes.items() if parent == pid and not _starting(child, processes)
        ]
    return found


def _starting(pid: int, processes: dict[int, tuple[int, bytes]]) -> bool:
    """Whether it is about to become another program: until then it has its parent's memory, not one of its own.

    What the fork server forks has its command line, too, and stays what it is.
    """
    parent, command = processes[pid]
    before, its_command = processes.get(parent, (0, b""))
    is_server = processes.get(before, (0, b""))[1] != its_command
    return command == its_command and not (is_server and FORK_SERVER in command)


def _memory_mb(pid: int) -> float:
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:")) / 1024


def _shipped_latencies() -> list[float]:
    found = []
    for path in sorted((ROOT / "parallel_orchestrator" / "recordings").glob("*.yaml")):
        answers = yaml.load(path.read_text(), Loader=yaml.CSafeLoader).get("answers", [])
        found += [answer["latency_s"] for answer in answers if answer["task"] != "plan"]
    return found


def _write(place: Path, recordings: dict[str, dict[str, Any]], speed: float = 100, *, shared: bool = False) -> Path:
    """The recordings and the scenario file that replays them."""
    scenarios = []
    for name, recording in recordings.items():
        file = place / ("all.yaml" if shared else f"{name}.yaml")
        if not file.exists():
            file.write_text(yaml.safe_dump(recording, sort_keys=False))
        scenarios.append({"name": name, "requirements": f"Build the parts of {name}", "replay": file.name})
    batch = place / "batch.yaml"
    batch.write_text(yaml.safe_dump({"defaults": {"speed": speed}, "scenarios": scenarios}, sort_keys=False))
    return batch


def _layered(layers: int, width: int, latency: Latency) -> dict[str, Any]:
    """Layers of so many tasks; each waits for two of the layer before, and builds a module with its test."""
    tasks, answers = [], []
    for number in range(1, layers * width + 1):
        layer, place = divmod(number - 1, width)
        before = sorted({(layer - 1) * width + p + 1 for p in (place, (place + 1) % width)}) if layer else []
        tasks.append(_task(number, before, code=True))
        answers += _work(number, latency, code=True)
    return _recording(tasks, answers, latency())


def _documents() -> dict[str, Any]:
    """Four documents, and one that waits for them. No test is in it, so that pytest's time hides none of ours."""
    tasks = [_task(number, [] if number < 5 else [1, 2, 3, 4], code=False) for number in range(1, 6)]
    answers = [answer for number in range(1, 6) for answer in _work(number, float, code=False)]
    return _recording(tasks, answers, 0.0)


def _task(number: int, before: list[int], *, code: bool) -> dict[str, Any]:
    files = [f"src/part_{number}.py", f"tests/test_part_{number}.py"] if code else [f"docs/part_{number}.md"]
    return {
        "id": f"task_{number}",
        "name": f"Part {number}",
        "description": f"Build part {number}.",
        "priority": 1,
        "estimated_effort": "medium",
        "dependencies": [f"task_{one}" for one in before],
        "files": files,
        "acceptance": ["it is there"],
        "integration_notes": "",
    }


def _work(number: int, latency: Latency, *, code: bool) -> list[dict[str, Any]]:
    """Two turns: the files, and the report."""
    module = f'"""Part {number}."""\n\n\ndef value() -> int:\n    """Its value."""\n    return {number}\n'
    test = f"import part_{number}\n\n\ndef test_value():\n    assert part_{number}.value() == {number}\n"
    files = {f"src/part_{number}.py": module, f"tests/test_part_{number}.py": test}
    files = files if code else {f"docs/part_{number}.md": f"# Part {number}\n"}
    calls = [
        {
            "type": "tool_use",
            "id": f"toolu_{number}_{place}",
            "name": "str_replace_based_edit_tool",
            "input": {"command": "create", "path": path, "file_text": text},
        }
        for place, (path, text) in enumerate(files.items())
    ]
    return [
        _answer(f"task_{number}", 1, calls, latency(), "tool_use"),
        _answer(f"task_{number}", 2, [{"type": "text", "text": "It is built."}], latency()),
    ]


def _answer(
    task: str, turn: int, content: list[dict[str, Any]], latency_s: float, stop: str = "end_turn"
) -> dict[str, Any]:
    usage = {"input_tokens": 1000, "output_tokens": 300}
    fields = {"task": task, "phase": "work", "turn": turn, "latency_s": latency_s, "stop_reason": stop}
    return {**fields, "usage": usage, "content": content}


def _recording(tasks: list[dict[str, Any]], answers: list[dict[str, Any]], latency_s: float) -> dict[str, Any]:
    complexity = {"level": "medium", "reasoning": "Parts.", "key_features": ["parts"]}
    plan = {
        "complexity": {**complexity, "technical_components": ["Python"]},
        "contract": "part_N.value() returns N.",
        "integration_notes": "",
        "packages": [],
        "verify": [],
        "tasks": tasks,
    }
    text = json.dumps(Plan.model_validate(plan).model_dump())
    answers = [_answer("plan", 1, [{"type": "text", "text": text}], latency_s), *answers]
    head = {"recording": 1, "name": "parts", "origin": "written", "requirement": "Build the parts"}
    return {**head, "model": "claude-opus-5-5", "answers": answers}


def _spread_table(runs: Sequence[dict[str, Any]]) -> str:
    if not runs:
        return ""
    head = (
        "| scenarios | tasks | executors | work | work / executors | longest critical path | makespan | ratio | "
        "whole session | ratio |\n|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|"
    )
    rows = [
        f"| {r['scenarios']} | {r['tasks']} | {r['executors']} | {r['work_s']:.0f} s "
        f"| {r['work_by_executors_s']:.1f} s | {r['longest_path_s']:.1f} s "
        f"| {r['makespan_s']:.1f} s | {r['ratio']:.3f} | {r['elapsed_s']:.1f} s | {r['elapsed_ratio']:.3f} |"
        for r in runs
    ]
    return "\n".join([head, *rows])


def _growth_table(runs: Sequence[dict[str, Any]]) -> str:
    if not runs:
        return ""
    lines = [
        "| scenarios ended | peak memory so far | seconds a scenario |",
        "|--:|--:|--:|",
    ]
    lines += [
        f"| {at['ended']} | {at['peak_mb']:.0f} MB | {at['seconds']:.2f} |" for run_ in runs for at in run_["marks"]
    ]
    return "\n".join(lines)


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=("spread", "growth", "both"), default="both")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--scenarios", type=int, default=1000)
    parser.add_argument("--minutes", type=float, help="stop `growth` after so long, with the figures until then")
    given = parser.parse_args()
    results: dict[str, Any] = {}
    if given.what in ("spread", "both"):
        results["spread"] = [spread(given.quick)]
    if given.what in ("growth", "both"):
        results["growth"] = [growth(30 if given.quick else given.scenarios, given.minutes)]
    print(table(results))


if __name__ == "__main__":
    main()
