"""Claims and completions a second, beside a bare lock, the least that is a queue, and queues that can be installed."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.contestants import OWN, PEERS, ask
from benchmarks.plot import bars
from benchmarks.rounds import folder, interleaved, markdown, middle, spread

NAME = "queue"
BYTES = 275
"""Of our two records of a pair."""
CAP_S = 10.0
"""A measurement stops after that; its rate is over what was done by then."""

OURS = "ours"
BARE = "bare lock and append"
LEAST = "minimal journal"
OWN_QUEUES = {OURS: "our_queue", BARE: "bare_lock", LEAST: "minimal_journal"}
PEER_QUEUES = {
    "persist_queue": "persist-queue SQLiteAckQueue",
    "litequeue": "litequeue",
    "huey_sqlite": "huey, SQLite (no acknowledgement)",
    "huey_file": "huey, files (no acknowledgement)",
    "diskcache": "diskcache.Deque (no acknowledgement)",
}
PROCESSES = (2, 8)
SIZES = {True: (1_000, 10_000), False: (1_000, 10_000, 100_000)}
"""With syncs and without."""


def run(quick: bool, repeat: int) -> dict[str, Any]:
    """Every queue at every size, once a round; and how soon a half-done run goes on."""
    contestants: dict[str, Callable[[], Any]] = {}
    for processes in PROCESSES:
        for sync, sizes in SIZES.items():
            for tasks in (20,) if quick else sizes:
                for name, module in OWN_QUEUES.items():
                    job = {"processes": processes, "sync": sync, "tasks": tasks, "sparse": False}
                    contestants[_key(name, processes, tasks, sync)] = partial(_race, module, job)
        for tasks in () if quick else SIZES[True]:
            for peer, title in PEER_QUEUES.items():
                asked = {"processes": processes, "tasks": tasks, "peer": peer}
                contestants[_key(title, processes, tasks)] = partial(_race, "disk_queues", asked, PEERS)
    for tasks in (20,) if quick else SIZES[False]:
        job = {"processes": 8, "sync": False, "tasks": tasks, "sparse": True}
        contestants[_key(f"{OURS}, dependencies", 8, tasks, sync=False)] = partial(_race, "our_queue", job)
    for executors in PROCESSES:
        half_done = partial(_resume, 100 if quick else 10_000, executors)
        contestants[f"half-done run, M={executors}"] = half_done
    return {"samples": interleaved(contestants, repeat)}


def _key(name: str, processes: int, tasks: int, sync: bool | None = None) -> str:
    how = "" if sync is None else ", synced" if sync else ", not synced"
    return f"{name}{how}, M={processes}, {tasks}"


def _race(module: str, job: dict[str, Any], python: Path = OWN) -> Any:
    with folder() as place:
        return ask(module, {"folder": str(place), "bytes": BYTES, "seconds": CAP_S, **job}, python=python)


def _resume(tasks: int, executors: int) -> Any:
    with folder() as place:
        return ask("our_resume", {"folder": str(place), "tasks": tasks, "executors": executors})


def table(results: dict[str, Any]) -> str:
    """Rates, ratios to the bare lock, growth, fairness, and the half-done run."""
    samples = results["samples"]
    parts = [_rates(samples), _growth(samples), _waits(samples), _half_done(samples)]
    return "\n\n".join(part for part in parts if part)


def plot(results: dict[str, Any]) -> str:
    """Pairs a second with 1,000 tasks and eight processes; the bare lock not synced would dwarf all others."""
    tail = ", M=8, 1000"
    keys = [key for key in results["samples"] if key.endswith(tail)]
    rates = {key.removesuffix(tail): _rate(results["samples"], key) for key in keys}
    shown = {name: middle(found) for name, found in rates.items() if found and name != f"{BARE}, not synced"}
    ordered = dict(sorted(shown.items(), key=lambda pair: -pair[1]))
    return bars("Claims and completions a second, 1,000 tasks, 8 processes (more is better)", ordered, ",.0f")


def _rate(samples: dict[str, Any], key: str) -> list[float]:
    """Pairs a second, by round."""
    found = samples.get(key, [])
    return [] if "not measured" in found else [sample["pairs"] / sample["seconds"] for sample in found]


def _sizes(samples: dict[str, Any]) -> list[int]:
    return sorted({int(key.rpartition(", ")[2]) for key in samples if key.startswith(f"{BARE}, ")})


def _rates(samples: dict[str, Any]) -> str:
    sizes = _sizes(samples)
    rows = []
    for how in (", synced", ", not synced"):
        rows += [_row(samples, name, how, sizes, bare=BARE) for name in OWN_QUEUES]
        rows.append(_row(samples, f"{OURS}, dependencies", how, sizes, bare=BARE))
    rows += [_row(samples, title, "", sizes, bare=None) for title in PEER_QUEUES.values()]
    head = ["pairs a second", *(f"M={m}, {size:,}" for m in PROCESSES for size in sizes)]
    told = "In brackets: over the bare lock in the same round."
    return markdown(head, [row for row in rows if any(cell != "-" for cell in row[1:])]) + f"\n\n{told}"


def _row(samples: dict[str, Any], name: str, how: str, sizes: list[int], bare: str | None) -> list[str]:
    cells = [f"{name}{how}"]
    for processes in PROCESSES:
        for size in sizes:
            tail = f"{how}, M={processes}, {size}"
            rates = _rate(samples, f"{name}{tail}")
            limits = _rate(samples, f"{bare}{tail}") if bare not in (None, name) else []
            ratios = [rate / limit for rate, limit in zip(rates, limits, strict=False)]
            ratio = f" ({middle(ratios):.2f})" if ratios else ""
            cells.append(f"{middle(rates):,.0f}{ratio}" if rates else "-")
    return cells


def _growth(samples: dict[str, Any]) -> str:
    sizes = _sizes(samples)
    rows = []
    for name, how, processes in (
        *((OURS, how, processes) for how in (", not synced", ", synced") for processes in PROCESSES),
        (f"{OURS}, dependencies", ", not synced", 8),
        *((title, "", 8) for title in PEER_QUEUES.values()),
    ):
        rates = {size: _rate(samples, f"{name}{how}, M={processes}, {size}") for size in sizes}
        if not rates[sizes[0]]:
            continue
        first = rates[sizes[0]]
        cells = [f"{1e6 / middle(found):,.0f} µs" if found else "-" for found in rates.values()]
        growth = [[a / b for a, b in zip(first, found, strict=False)] for found in rates.values() if found]
        rows.append([f"{name}{how}, M={processes}", *cells, spread(growth[-1])])
    head = ["cost of a pair", *(f"{size:,} tasks" for size in sizes), "largest over smallest"]
    return markdown(head, rows)


def _waits(samples: dict[str, Any]) -> str:
    size = _sizes(samples)[min(1, len(_sizes(samples)) - 1)]
    rows = []
    for name in OWN_QUEUES:
        for how in (", synced", ", not synced"):
            for processes in PROCESSES:
                found = samples[f"{name}{how}, M={processes}, {size}"]
                if "not measured" in found:
                    continue
                waits = [f"{middle([s['waits'][part] for s in found]) * 1000:.2f}" for part in ("p50", "p99", "max")]
                shares = middle([s["shares"][0] / (s["pairs"] / processes) for s in found])
                rows.append([f"{name}{how}, M={processes}", *waits, f"{shares:.2f}"])
    head = [f"{size:,} tasks", "wait for the lock, p50 ms", "p99 ms", "longest ms", "least share over fair share"]
    return markdown(head, rows)


def _half_done(samples: dict[str, Any]) -> str:
    rows = []
    for key, found in samples.items():
        if key.startswith("half-done") and "not measured" not in found:
            cells = [spread([sample[part] for sample in found], ".3f") for part in ("after_up", "after_start")]
            rows.append([f"{key}, {found[0]['tasks']:,} tasks", *cells])
    return markdown(["first new task, s", "after the first worker is up", "after the supervisor's start"], rows)
