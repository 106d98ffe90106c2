"""Makespan of plans of several shapes, over that of the schedule that perfect knowledge makes."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.contestants import OWN, PEERS, ask
from benchmarks.plot import bars
from benchmarks.rounds import folder, interleaved, markdown, middle, spread
from benchmarks.shapes import Shape, shapes

NAME = "scheduling"
CHAIN, WIDE = "chain", "wide"


@dataclass(frozen=True)
class Contestant:
    """Who schedules, and what to call it in the table."""

    module: str
    title: str
    python: Path = OWN
    wide: bool = False
    """Whether it is asked for 64 executors, too: with 64 interpreters or servers two cores measure their start."""
    only: str = ""
    """The one shape that it is asked for; empty: all."""


OURS = {"exact": "ours, durations known", "coarse": "ours, low/medium/high known"}
OTHERS = (
    Contestant("gnu_make", "GNU make", wide=True),
    Contestant("process_pool", "ProcessPoolExecutor", wide=True),
    Contestant("ray_tasks", "Ray", PEERS),
    Contestant("dask_futures", "Dask, priorities known", PEERS),
    Contestant("doit_tasks", "doit", PEERS),
    Contestant("langgraph_nodes", "LangGraph", PEERS),
    Contestant("joblib_levels", "joblib, layer by layer", PEERS),
    Contestant("luigi_tasks", "Luigi, priorities known", PEERS),
    Contestant("prefect_flow", "Prefect", PEERS),
    Contestant("process_pool_ranked", "(our order on a ProcessPoolExecutor, durations known)", wide=True),
    Contestant("synced_naps", "(one process that sleeps, and syncs a line for each task)", only=CHAIN),
)


def run(quick: bool, repeat: int) -> dict[str, Any]:
    """Every contestant on every shape, once a round."""
    plans = shapes(0.1) if quick else shapes()
    contestants: dict[str, Callable[[], Any]] = {title: partial(_ours, kind, plans) for kind, title in OURS.items()}
    if not quick:
        contestants |= {other.title: partial(_other, other, plans) for other in OTHERS}
    limits = {plan.name: {"perfect": plan.perfect(), "bound": plan.bound(), "M": plan.executors} for plan in plans}
    return {"limits": limits, "samples": interleaved(contestants, repeat)}


def _ours(kind: str, plans: list[Shape]) -> Any:
    graphs = {plan.name: plan.exact() if kind == "exact" else plan.coarse() for plan in plans}
    weights = {name: {task: node.weight for task, node in graph.nodes.items()} for name, graph in graphs.items()}
    with folder() as place:
        job = {"folder": str(place), "shapes": [plan.as_json() for plan in plans], "weights": weights}
        return ask("ours", job)


def _other(other: Contestant, plans: list[Shape]) -> Any:
    asked = [plan.as_json() for plan in plans if _is_asked(other, plan.name)]
    with folder() as place:
        return ask(other.module, {"folder": str(place), "shapes": asked}, python=other.python)


def _is_asked(other: Contestant, shape: str) -> bool:
    return shape == other.only if other.only else other.wide or shape != WIDE


def table(results: dict[str, Any]) -> str:
    """Makespan over the perfect-knowledge schedule, the best in the mean first."""
    limits = results["limits"]
    titles = [f"{name} (M={limit['M']}, {limit['perfect']:.2f} s)" for name, limit in limits.items()]
    rows: list[tuple[float, list[str]]] = []
    for contestant, samples in results["samples"].items():
        if "not measured" in samples:
            rows.append((9e9, [contestant, *["-"] * len(limits), "-", f"not measured: {samples['not measured']}"]))
            continue
        ratios = _ratios(limits, samples)
        mean = _mean(ratios)
        start = middle([plan["start"] for sample in samples for plan in sample.values()])
        cells = [spread(found, ".3f") if found else "-" for found in ratios.values()]
        rows.append((mean or 0.0, [contestant, *cells, f"{mean:.3f}" if mean else "-", f"{start:.2f} s"]))
    head = ["", *titles, "geometric mean without wide", "start of the pool"]
    return markdown(head, [row for _, row in sorted(rows, key=lambda row: row[0])])


def plot(results: dict[str, Any]) -> str:
    """The mean over the shapes of everybody who was measured, the best first."""
    measured = {name: found for name, found in results["samples"].items() if "not measured" not in found}
    means = {name: _mean(_ratios(results["limits"], found)) for name, found in measured.items()}
    ordered = dict(sorted(((name, mean) for name, mean in means.items() if mean), key=lambda pair: pair[1]))
    return bars("Makespan over the perfect schedule, geometric mean of five shapes (less is better)", ordered, ".3f")


def _ratios(limits: dict[str, Any], samples: list[Any]) -> dict[str, list[float]]:
    """By shape, each round's makespan over the perfect schedule's."""
    return {
        name: [sample[name]["makespan"] / limit["perfect"] for sample in samples if name in sample]
        for name, limit in limits.items()
    }


def _mean(ratios: dict[str, list[float]]) -> float | None:
    """Over all shapes but the wide one; None for who was not asked for all of these."""
    found = [ratios[name] for name in ratios if name != WIDE]
    return statistics.geometric_mean(map(middle, found)) if all(found) else None
