"""Starting: executors and their memory, the way from the command to the first model request, --help and completion."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.contestants import PEERS, ROOT, NotMeasured, ask
from benchmarks.plot import bars
from benchmarks.rounds import folder, interleaved, markdown, middle, spread

NAME = "processes"

EXECUTORS = (1, 10, 50, 200)
SPAWNED = (1, 10)
OURS = (
    sys.executable,
    "-c",
    "import sys, orchestrator; sys.argv[0] = 'parallel-orchestrator'; orchestrator.main()",
)
"""As the console script does it, and from this checkout: what is installed may be an older copy of the top files."""
BARE = "a bare typer app, without rich"
HELP = "ours"
COMMANDS: Mapping[str, Sequence[str]] = {
    HELP: (*OURS, "--help"),
    BARE: (sys.executable, "-m", "benchmarks.contestants.bare_typer", "plain", "--help"),
    "a bare typer app, as typer makes it": (sys.executable, "-m", "benchmarks.contestants.bare_typer", "--help"),
    "python -c print()": (sys.executable, "-c", "print()"),
    "GNU make": ("make", "--help"),
    "doit": (str(PEERS.parent / "doit"), "help"),
    "Luigi": (str(PEERS.parent / "luigi"), "--help"),
    "Dask": (str(PEERS.parent / "dask"), "--help"),
    "Ray": (str(PEERS.parent / "ray"), "--help"),
    "Prefect": (str(PEERS.parent / "prefect"), "--help"),
}
OTHERS: Mapping[str, Sequence[str]] = {
    "status of a finished run": (*OURS, "status", "{run}"),
    "doctor": (*OURS, "doctor", "--output-dir", "{run}"),
}
COMPLETION: Mapping[str, tuple[Sequence[str], str, str]] = {
    "completion": (OURS, "_PARALLEL_ORCHESTRATOR_COMPLETE", "parallel-orchestrator st"),
    "completion of a bare typer app": (COMMANDS[BARE][:-1], "_BARE_TYPER_COMPLETE", "bare-typer --c"),
}
"""The program, the variable by which the shell asks it, and the words that were typed."""


def run(quick: bool, repeat: int) -> dict[str, Any]:
    """Everything once a round."""
    contestants: dict[str, Callable[[], Any]] = {
        f"start {count}": partial(_start, "our_start", count) for count in ((2,) if quick else EXECUTORS)
    }
    if not quick:
        contestants |= {f"spawn {count}": partial(_start, "spawned", count) for count in SPAWNED}
    with folder() as place:
        finished = place / "finished"
        made = (*OURS, "run", "Build a hello world", "--replay", "simple", "--output-dir", str(finished))
        subprocess.run((*made, "--speed", "1000"), cwd=ROOT, check=True, capture_output=True)
        wanted = [HELP, BARE] if quick else list(COMMANDS)
        contestants |= {f"help {name}": partial(_command, COMMANDS[name], {}) for name in wanted}
        for name, words in OTHERS.items():
            contestants[f"help {name}"] = partial(_command, [word.format(run=finished) for word in words], {})
        for name, (program, variable, typed) in COMPLETION.items():
            asked = {variable: "complete_bash", "COMP_WORDS": typed, "COMP_CWORD": "1"}
            contestants[f"help {name}"] = partial(_command, program, asked)
        contestants["first request"] = _first_request
        return {"samples": interleaved(contestants, repeat)}


def _start(module: str, count: int) -> Any:
    with folder() as place:
        return ask(module, {"folder": str(place), "executors": count})


def _command(command: Sequence[str], variables: Mapping[str, str]) -> dict[str, float]:
    """Seconds on the clock and of processor time."""
    if not (Path(command[0]).exists() or command[0] == "make"):
        raise NotMeasured("not installed: `make bench` installs it")
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    environment = {**os.environ, **variables}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, check=False, timeout=120)
    wall, after = time.monotonic() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
    if not done.stdout:
        raise NotMeasured(f"it said nothing: {done.stderr.decode(errors='replace').strip()[-200:]}")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"wall": wall, "cpu": cpu, "code": done.returncode}


def _first_request() -> dict[str, float]:
    """From the command to the planner's request as a model's endpoint on loopback sees it."""
    from tests.fake_api import KEY, FakeApi, text

    asked: list[float] = []

    def script(_body: Any) -> list[Any]:
        asked.append(time.monotonic())
        return [text("no plan")]

    with folder() as place, FakeApi(script) as api:
        environment = {**os.environ, "ANTHROPIC_BASE_URL": api.url, "ANTHROPIC_API_KEY": KEY}
        command = [*OURS, "run", "--yes", "Build a hello world", "--sandbox", "off", "--output-dir", str(place / "run")]
        begun = time.monotonic()
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            while not asked and process.poll() is None:
                time.sleep(0.002)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait()
        if not asked:
            raise NotMeasured(f"it asked nothing and ended with {process.returncode}")
        return {"wall": asked[0] - begun}


def table(results: dict[str, Any]) -> str:
    """Three tables: executors, commands, and the first request."""
    samples = {name: found for name, found in results["samples"].items() if "not measured" not in found}
    return "\n\n".join((_executors(samples), _commands(samples, results["samples"]), _asked(samples)))


def plot(results: dict[str, Any]) -> str:
    """What `--help` takes."""
    samples = {
        name.removeprefix("help "): found
        for name, found in results["samples"].items()
        if name.removeprefix("help ") in COMMANDS and "not measured" not in found
    }
    times = {name: middle([one["wall"] for one in found]) for name, found in samples.items()}
    ordered = dict(sorted(times.items(), key=lambda pair: pair[1]))
    return bars("Seconds that --help takes (less is better)", ordered, ".3f")


def _executors(samples: dict[str, Any]) -> str:
    rows = []
    for name, found in samples.items():
        kind, _, count = name.partition(" ")
        if kind in ("start", "spawn"):
            who = "ours" if kind == "start" else "(multiprocessing's spawn)"
            times = [spread([sample[part] for sample in found]) for part in ("first", "last")]
            memory = [f"{middle([sample[part] for sample in found]):.1f}" for part in ("pss_mib", "most")]
            rows.append([f"{who}, {count}", *times, *memory])
    return markdown(["executors, from a cold start", "first up, s", "all up, s", "PSS each, MiB", "most"], rows)


def _commands(samples: dict[str, Any], everything: dict[str, Any]) -> str:
    rows = []
    bare = samples.get(f"help {BARE}", [])
    for key, found in samples.items():
        if not key.startswith("help "):
            continue
        ratios = [a["wall"] / b["wall"] for a, b in zip(found, bare, strict=False)]
        processor = [a["cpu"] / b["cpu"] for a, b in zip(found, bare, strict=False)]
        name = key.removeprefix("help ")
        cells = [spread([sample[part] for sample in found], ".3f") for part in ("wall", "cpu")]
        shown = f"{name} --help" if name in COMMANDS and " -c " not in name else name
        rows.append([shown, *cells, f"{middle(ratios):.2f}", f"{middle(processor):.2f}"])
    missing = [key.removeprefix("help ") for key in everything if key.startswith("help ") and key not in samples]
    head = ["command", "seconds", "processor seconds", "over the bare app", "processor time over it"]
    return markdown(head, rows) + (f"\n\nNot measured: {', '.join(missing)}." if missing else "")


def _asked(samples: dict[str, Any]) -> str:
    times = [sample["wall"] for sample in samples.get("first request", [])]
    return f"From the command to the first request at the model's endpoint: {spread(times)} s." if times else ""
