"""The gateway's own cost: calls through it beside the same calls straight to the server, in one interleaved run.

The server answers after a set time, as a model would; that time is chosen so that the machine is not saturated (the
calls a second are in the table). What is measured is the time on top of it. Direct and through the gateway alternate
call by call, in the same callers. The gateway is the product's process as a run starts it: every intent and every
answer goes to a ledger on the disk that runs are on.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.gateway_parts import Calls
from benchmarks.plot import bars
from parallel_orchestrator.gateway.config import RunConfig, StartConfig, new_socket_directory
from parallel_orchestrator.gateway.handle import GatewayProcess
from parallel_orchestrator.records.attempt_token import Caller, mint
from parallel_orchestrator.records.credential import Credential
from tests.fake_api import KEY

NAME = "gateway"
ROOT = Path(__file__).resolve().parents[1]
RUN, SECRET = "benchmark", "a secret of the benchmark alone"
_TICKS = os.sysconf("SC_CLK_TCK")

Json = dict[str, Any]


def run(quick: bool, repeat: int) -> Json:
    """Every number of callers with every size of body, `repeat` times in turn."""
    cells = [(2, 4_000, 0.05, 4)] if quick else _cells()
    samples: dict[str, list[Json]] = {f"{callers} x {size}": [] for callers, size, *_ in cells}
    for _ in range(repeat):
        for callers, size, latency, each in cells:
            samples[f"{callers} x {size}"].append(_measured(callers, size, latency, each))
    return samples


def table(results: Json) -> str:
    """One row for each cell: medians over the rounds, the range of the main figure."""
    head = [
        *("calls at once", "body", "calls/s", "**added, p50 ms**", "added, p99 ms"),
        *("direct, p50 ms", "direct, p99 ms", "errors", "CPU ms a call"),
        *("gateway's memory, MB (peak)", "ledger, kB a call"),
    ]
    rows = [_row(name, rounds) for name, rounds in results.items()]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [head, ["---:"] * len(head), *rows])


def plot(results: Json) -> str:
    """What the gateway adds in the median, for each cell."""
    named = {name: f"ours, {name.replace(' x ', ' calls of ')} bytes" for name in results}
    added = {named[name]: statistics.median(_added(rounds)) for name, rounds in results.items()}
    return bars("Milliseconds that the gateway adds to a call, p50 (less is better)", added, ".1f")


def _cells() -> list[tuple[int, int, float, int]]:
    """Callers, bytes, the server's seconds, calls of each caller."""
    return [
        *((1, size, 0.2, 40) for size in (4_000, 100_000, 1_000_000)),
        *((50, size, seconds, 8) for size, seconds in ((4_000, 2.0), (100_000, 2.0), (1_000_000, 10.0))),
        *((200, size, seconds, 4) for size, seconds in ((4_000, 8.0), (100_000, 8.0), (1_000_000, 20.0))),
    ]


def _measured(callers: int, size: int, latency: float, each: int) -> Json:
    with ExitStack() as around:
        place = Path(around.enter_context(tempfile.TemporaryDirectory(dir=ROOT / "outputs", prefix="benchmark-")))
        port = around.enter_context(_server())
        gateway = around.enter_context(_gateway(place, port))
        tokens = tuple(mint(SECRET, Caller(RUN, f"task_{n}", 1)) for n in range(callers))
        socket = str(gateway.config.socket)
        # The limit of calls in flight starts at 16 and doubles with each round of successes.
        warm = tuple(mint(SECRET, Caller(RUN, f"warm_{n}", 1)) for n in range(callers))
        _called(Calls(callers, 12, 0.05, 1_000, port, socket, warm))
        before, size_before, began = _cpu_s(gateway), _ledger_size(place), time.monotonic()
        samples = _called(Calls(callers, each, latency, size, port, socket, tokens))
        seconds, cpu = time.monotonic() - began, _cpu_s(gateway) - before
        through = sum(sample["way"] == "gateway" for sample in samples)
        return {
            "direct_ms": [round(1000 * s["s"], 3) for s in samples if s["way"] == "direct"],
            "gateway_ms": [round(1000 * s["s"], 3) for s in samples if s["way"] == "gateway"],
            "errors": sum(sample["status"] != 200 for sample in samples),
            "calls_per_s": len(samples) / seconds,
            "cpu_ms": 1000 * cpu / through,
            "peak_mb": _peak_mb(gateway),
            "ledger_kb": (_ledger_size(place) - size_before) / through / 1000,
        }


def _called(calls: Calls) -> list[Json]:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.gateway_parts", "callers"],
        cwd=ROOT,
        input=json.dumps(asdict(calls)),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    samples: list[Json] = json.loads(done.stdout)
    return samples


@contextmanager
def _server() -> Iterator[int]:
    command = [sys.executable, "-m", "benchmarks.gateway_parts", "server"]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        try:
            yield int(server.stdout.readline()) if server.stdout else 0
        finally:
            server.kill()


@contextmanager
def _gateway(place: Path, port: int) -> Iterator[GatewayProcess]:
    start = StartConfig(
        socket=new_socket_directory() / "gateway.sock",
        secret=SECRET,
        credential=Credential("api_key", KEY),
        base_url=f"http://127.0.0.1:{port}",
    )
    with (place / "gateway.log").open("wb") as log:
        gateway = GatewayProcess(start, stderr=log).start()
        try:
            gateway.open_run(RunConfig(RUN, place / "ledger.jsonl", models=("claude-sonnet-5",)))
            yield gateway
        finally:
            gateway.stop(60)


def _ledger_size(place: Path) -> int:
    return (place / "ledger.jsonl").stat().st_size


def _cpu_s(gateway: GatewayProcess) -> float:
    fields = Path(f"/proc/{gateway.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _peak_mb(gateway: GatewayProcess) -> float:
    status = Path(f"/proc/{gateway.pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1000


def _row(name: str, rounds: Sequence[Json]) -> list[str]:
    callers, _, size = name.partition(" x ")
    added = _added(rounds)
    slowest = [_p99(r["gateway_ms"]) - _p99(r["direct_ms"]) for r in rounds]
    middle = statistics.median
    return [
        callers,
        f"{int(size) // 1000} kB",
        f"{middle(r['calls_per_s'] for r in rounds):.0f}",
        f"**{middle(added):.1f}** [{min(added):.1f}-{max(added):.1f}]",
        f"{middle(slowest):.1f}",
        f"{middle(middle(r['direct_ms']) for r in rounds):.1f}",
        f"{middle(_p99(r['direct_ms']) for r in rounds):.1f}",
        str(sum(r["errors"] for r in rounds)),
        f"{middle(r['cpu_ms'] for r in rounds):.1f}",
        f"{middle(r['peak_mb'] for r in rounds):.0f}",
        f"{middle(r['ledger_kb'] for r in rounds):.1f}",
    ]


def _added(rounds: Sequence[Json]) -> list[float]:
    """Milliseconds, p50, by round."""
    return [statistics.median(r["gateway_ms"]) - statistics.median(r["direct_ms"]) for r in rounds]


def _p99(values: Sequence[float]) -> float:
    return sorted(values)[int(0.99 * (len(values) - 1))]


if __name__ == "__main__":
    # "50 x 100000", say: one round of it alone.
    for callers, size, latency, each in _cells():
        if f"{callers} x {size}" in sys.argv[1:]:
            print(table({f"{callers} x {size}": [_measured(callers, size, latency, each)]}))
