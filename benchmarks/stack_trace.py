"""An executor that notes where its time goes, for the whole-stack benchmark: the product's own, its doors wrapped.

Each wrapped call counts the time that no wrapped call inside it took, so the parts add up to the whole.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any

import executor_agent
from executor_agent import ExecutorAgent, ExecutorSettings, Job
from parallel_orchestrator.agent.model_client import ModelClient
from parallel_orchestrator.agent.tools.toolbox import ToolBox
from parallel_orchestrator.agent.transcript import Transcript
from parallel_orchestrator.records.outcome import Outcome
from parallel_orchestrator.store.queue.scheduler import Scheduler
from parallel_orchestrator.trunk import Trunk
from parallel_orchestrator.trunk.submit import MergeQueue
from parallel_orchestrator.trunk.testing.testbench import TestBench


@dataclass(frozen=True)
class TracedSettings:
    """An executor's settings, and where its times go."""

    settings: ExecutorSettings
    folder: Path


class Clock:
    """Exclusive seconds by name, one process's."""

    def __init__(self, path: Path) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._path = path
        self._inner = [0.0]

    def wrapped(self, function: Callable[..., Any], name: Callable[..., str] | str) -> Callable[..., Any]:
        """`function`, its own time counted under a name that may depend on the arguments."""

        @wraps(function)
        def timed(*args: Any, **options: Any) -> Any:
            self._inner.append(0.0)
            began = time.monotonic()
            try:
                return function(*args, **options)
            finally:
                took = time.monotonic() - began
                self.seconds[name if isinstance(name, str) else name(*args)] += took - self._inner.pop()
                self._inner[-1] += took

        return timed

    def wrap(self, owner: Any, attribute: str, name: Callable[..., str] | str) -> None:
        """Put the wrapped function in its place."""
        setattr(owner, attribute, self.wrapped(getattr(owner, attribute), name))

    def write(self) -> None:
        """Keep what was counted so far."""
        self._path.write_text(json.dumps(self.seconds))


def open_executor(traced: TracedSettings) -> Callable[[Job], Outcome]:
    """An executor's work that keeps its times in a file of its own."""
    clock = Clock(traced.folder / f"{os.getpid()}.json")
    _wrap_all(clock)
    work = executor_agent.open_executor(traced.settings)
    timed = clock.wrapped(work, "rest of the executor")

    def do(job: Job) -> Outcome:
        try:
            outcome: Outcome = timed(job)
            return outcome
        finally:
            clock.write()

    return do


def _wrap_all(clock: Clock) -> None:
    clock.wrap(ExecutorAgent, "_begin", "workspace")
    clock.wrap(ModelClient, "ask", "SDK and gateway, with the model")
    clock.wrap(ToolBox, "run", lambda box, name, arguments: "bash" if name == "bash" else "editor")
    clock.wrap(Trunk, "snapshot", "snapshots")
    for name in ("begin", "answer", "tree", "results", "repair", "outcome"):
        clock.wrap(Transcript, name, "transcript")
    clock.wrap(MergeQueue, "submit", "merge")
    clock.wrap(TestBench, "test", "tests of the merged tree")
    clock.wrap(fcntl, "flock", "waiting for merge.lock")
    clock.wrap(Scheduler, "finish", "claim")
    clock.wrap(Scheduler, "claim", "claim")
