"""The whole stack: real executors against a fake server with latencies, beside what the model alone would take.

Each run is the product's own: SDK, gateway over HTTP to `tests.fake_api`, workspaces, sandboxed commands and tests,
merges. The bound is the makespan of a schedule in which a task takes only what its model takes and what its model's
own commands take, each measured alone and without a sandbox. The makespan is taken from the queue: from the session's
start, when there is a plan, to the last merge. Start-up, planning and the final checks are told apart, in `whole_s`.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks import stack_model
from benchmarks.plot import bars
from benchmarks.stack_model import TURNS, VARIABLE, Shape
from parallel_orchestrator.records.journals.ledger import AnswerRecord
from parallel_orchestrator.records.journals.queue import Move
from parallel_orchestrator.records.lifecycle import TaskState
from parallel_orchestrator.store.journal import read_all
from parallel_orchestrator.store.record_parser import LEDGER, QUEUE
from parallel_orchestrator.system.environment import clean_environment
from tests.fake_api import KEY

NAME = "stack"
ROOT = Path(__file__).resolve().parents[1]
PR_SET_CHILD_SUBREAPER = 36
ALONE = 5
"""Times that a command is measured alone; the median counts."""

Json = dict[str, Any]

_SAMPLES = ("makespan_s", "ratio", "order_s", "whole_s", "cpu_s", "load", "lowest_s")


def run(quick: bool, repeat: int) -> Json:
    """Every shape `repeat` times, in turn."""
    shapes = [stack_model.layered(2, 2, executors=2, mean_s=0.1)] if quick else _shapes()
    rounds = [_one(shape) for _ in range(repeat) for shape in shapes]
    return {shape.name: _summed_up(shape, [r for r in rounds if r["shape"] == shape.name]) for shape in shapes}


def table(results: Json) -> str:
    """Makespans beside their bounds, and where the rest goes."""
    names = list(results)
    head = [
        "| | " + " | ".join(names) + " |",
        "|---|" + "---|" * len(names),
    ]
    rows: dict[str, Callable[[Json], str]] = {
        "tasks, executors": lambda r: f"{r['tasks']}, {r['executors']}",
        "bound, s": lambda r: f"{r['bound_s']:.2f}",
        "makespan, s: median (range)": lambda r: _range(r["makespan_s"], 2),
        "**makespan / bound**": lambda r: f"**{_range(r['ratio'], 3)}**",
        "makespan / the same for a schedule that knows the graph alone": lambda r: _range(
            [made / order for made, order in zip(r["makespan_s"], r["order_s"], strict=True)], 3
        ),
        "whole command, s": lambda r: _range(r["whole_s"], 2),
        "command of the model alone, s": lambda r: f"{r['command_alone_s']:.2f}",
        "CPU seconds a task, all processes, the model's commands too": lambda r: _range(r["cpu_s"], 2),
    }
    parts = sorted({part for r in results.values() for part in r["parts_ms"]})
    body = [f"| {name} | " + " | ".join(cell(results[n]) for n in names) + " |" for name, cell in rows.items()]
    body += [f"| ms a task: {part} | " + " | ".join(_ms(results[n], part) for n in names) + " |" for part in parts]
    return "\n".join([*head, *body])


def plot(results: Json) -> str:
    """Makespan over bound for each shape."""
    ratios = {f"ours, {name}": statistics.median(found["ratio"]) for name, found in results.items()}
    return bars("Makespan over the bound that the model sets (1 is the limit)", ratios, ".3f")


def _shapes() -> list[Shape]:
    return [
        stack_model.layered(4, 6, executors=4, mean_s=1.0),
        stack_model.chain(20, executors=4, mean_s=1.0),
        stack_model.map_reduce(18, executors=4, mean_s=1.0),
    ]


def _one(shape: Shape) -> Json:
    """One run of one shape, and its bound, the model's command measured before and after it."""
    with folder_on_disk() as folder:
        out, traces = folder / "run", folder / "traces"
        alone = _command_alone(shape, folder)
        with fake_server("benchmarks.stack_model:answer", {VARIABLE: shape.to_json()}) as url:
            began, cpu = time.monotonic(), _cpu_of_children()
            with _orphans_are_ours():
                build(folder, shape, url)
                whole = time.monotonic() - began
            cpu = _cpu_of_children() - cpu
        command = statistics.median([*alone, *_command_alone(shape, folder)])
        durations = [
            sum(shape.latency(number, turn) for turn in range(1, TURNS + 1)) + command
            for number in range(1, shape.tasks + 1)
        ]
        schedule, lowest = stack_model.bound(durations, shape)
        makespan = _makespan(out)
        return {
            "shape": shape.name,
            "bound_s": schedule,
            "lowest_s": lowest,
            "order_s": stack_model.bound_of_our_order(durations, shape),
            "command_alone_s": command,
            "makespan_s": makespan,
            "ratio": makespan / schedule,
            "whole_s": whole,
            "cpu_s": cpu / shape.tasks,
            "load": os.getloadavg()[0],
            "parts_ms": _parts(shape, out, traces),
        }


def _summed_up(shape: Shape, rounds: list[Json]) -> Json:
    parts = rounds[0]["parts_ms"]
    return {
        "tasks": shape.tasks,
        "executors": shape.executors,
        "turns": TURNS,
        "mean_s": shape.mean_s,
        "bound_s": statistics.median(r["bound_s"] for r in rounds),
        **{name: [r[name] for r in rounds] for name in _SAMPLES},
        "command_alone_s": statistics.median(r["command_alone_s"] for r in rounds),
        "parts_ms": {name: statistics.median(r["parts_ms"].get(name, 0.0) for r in rounds) for name in parts},
    }


def _makespan(out: Path) -> float:
    """Seconds from the session's start to the last merge."""
    records = read_all(out / "queue.jsonl", QUEUE)
    merged = [record.at for record in records if isinstance(record, Move) and record.state is TaskState.MERGED]
    began = next(record.at for record in records if not isinstance(record, Move))
    return max(merged) - began


def _parts(shape: Shape, out: Path, traces: Path) -> dict[str, float]:
    """Milliseconds a task by what they went for; the model's own latency is told apart from what comes on top."""
    seconds: defaultdict[str, float] = defaultdict(float)
    for trace in traces.iterdir():
        for name, value in json.loads(trace.read_text()).items():
            seconds[name] += value
    records = read_all(out / "ledger.jsonl", LEDGER)
    answers = [record for record in records if isinstance(record, AnswerRecord) and record.task != "plan"]
    latency = sum(shape.latency(n, t) for n in range(1, shape.tasks + 1) for t in range(1, TURNS + 1))
    endpoint = sum(record.endpoint_s for record in answers)
    seconds["fake server and HTTP to it"] = endpoint - latency
    seconds["SDK and gateway"] = seconds.pop("SDK and gateway, with the model") - endpoint
    return {name: 1000 * value / shape.tasks for name, value in sorted(seconds.items())}


def _command_alone(shape: Shape, folder: Path) -> list[float]:
    """Seconds that the model's own command takes by itself, without a sandbox, in a folder with a part like any."""
    place = Path(tempfile.mkdtemp(dir=folder))
    last = max(range(1, shape.tasks + 1), key=lambda number: len(shape.after[number - 1]))
    for number in range(1, shape.tasks + 1):
        for path, content in stack_model.files_of(shape, number).items():
            (place / path).parent.mkdir(exist_ok=True)
            (place / path).write_text(content)
    (place / "pyproject.toml").write_text('[tool.pytest.ini_options]\npythonpath = ["src"]\ntestpaths = ["tests"]\n')
    variables = {"PYTHONDONTWRITEBYTECODE": "1", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "HOME": str(place)}
    path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    took = []
    for _ in range(ALONE):
        began = time.monotonic()
        subprocess.run(
            ["bash", "-c", stack_model.command_of(last)],
            cwd=place,
            env={**variables, "PATH": path},
            check=True,
            stdout=subprocess.DEVNULL,
        )
        took.append(time.monotonic() - began)
    return took


def build(folder: Path, shape: Shape, url: str, profile: str = "compatible") -> None:
    """Build into `folder`/run, with the times of its executors in `folder`/traces: `folder`/plan.json, where there is
    one, else what the model plans."""
    (folder / "traces").mkdir()
    places = [str(folder / name) for name in ("run", "plan.json", "traces")]
    subprocess.run(
        [sys.executable, "-m", "benchmarks.stack_run", *places, str(shape.executors), profile],
        cwd=ROOT,
        env={**clean_environment(os.environ), "ANTHROPIC_BASE_URL": url, "ANTHROPIC_API_KEY": KEY},
        check=True,
        stdout=subprocess.DEVNULL,
    )


@contextmanager
def _orphans_are_ours() -> Iterator[None]:
    """What processes leave behind when they end becomes this process's, so that its time is counted here, too."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    yield
    for _ in range(20):
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                continue
        time.sleep(0.05)
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


@contextmanager
def fake_server(script: str, variables: Mapping[str, str]) -> Iterator[str]:
    """A fake API in a process of its own; its URL."""
    command = [sys.executable, "-m", "tests.fake_api", "--script", script]
    environment = {**os.environ, **variables}
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        try:
            yield (server.stdout.readline() if server.stdout else "").strip()
        finally:
            server.kill()


@contextmanager
def folder_on_disk() -> Iterator[Path]:
    """On the disk that runs are on: /tmp may be none."""
    folder = Path(tempfile.mkdtemp(prefix="benchmark-", dir=ROOT / "outputs"))
    try:
        yield folder
    finally:
        if not os.environ.get("BENCHMARK_KEEP"):
            shutil.rmtree(folder, ignore_errors=True)


def _cpu_of_children() -> float:
    """Of all that has ended below this process; what a process leaves behind when it ends is taken in first."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _range(values: list[float], digits: int) -> str:
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f}-{max(values):.{digits}f})"


def _ms(result: Json, part: str) -> str:
    return f"{result['parts_ms'].get(part, 0.0):.0f}"


if __name__ == "__main__":
    # A shape's name, or several: one round of it alone.
    measured = {shape.name: _summed_up(shape, [_one(shape)]) for shape in _shapes() if shape.name in sys.argv[1:]}
    print(table(measured), json.dumps(measured), sep="\n")
