"""LangGraph: a node a task, an edge a dependency, run in its threads; a step of it waits for all of the step before."""

from __future__ import annotations

import operator
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, TypedDict

from langgraph.graph import END, START, StateGraph

from benchmarks.contestants.sleeping import Run, Tasks, schedule


class State(TypedDict):
    """What nodes hand on: who is done."""

    done: Annotated[list[str], operator.add]


def _node(name: str, seconds: float) -> Callable[[State], dict[str, Any]]:
    def node(_state: State) -> dict[str, Any]:
        time.sleep(seconds)
        return {"done": [name]}

    return node


@contextmanager
def opened(executors: int) -> Iterator[Run]:
    """Nothing has to be started."""

    def run(tasks: Tasks, _folder: Path) -> None:
        graph = StateGraph(State)
        needed = {dependency for _, before, *_ in tasks for dependency in before}
        for name, before, seconds, _ in tasks:
            graph.add_node(name, _node(name, seconds))
            graph.add_edge(before if len(before) > 1 else before[0] if before else START, name)
            if name not in needed:
                graph.add_edge(name, END)
        limits = {"max_concurrency": executors, "recursion_limit": 2 * len(tasks) + 10}
        done = graph.compile().invoke({"done": []}, limits)
        if len(done["done"]) != len(tasks):
            raise SystemExit(f"{len(done['done'])} of {len(tasks)} tasks ran")

    yield run


if __name__ == "__main__":
    schedule(opened)
