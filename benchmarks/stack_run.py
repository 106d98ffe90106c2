"""One run of the product, its executors traced.

python -m benchmarks.stack_run DIRECTORY PLAN TRACES EXECUTORS PROFILE

PLAN may be a path where nothing is: then the model plans.
"""

from __future__ import annotations

import sys
from pathlib import Path
from unittest.mock import patch

from benchmarks.stack_trace import TracedSettings, open_executor
from orchestrator import ParallelOrchestrator
from parallel_orchestrator.gateway.handle import GatewayProcess
from parallel_orchestrator.run import prepare, runner
from parallel_orchestrator.store.run_lock import RunLock
from parallel_orchestrator.workers.supervisor import Workforce
from parallel_orchestrator.workers.worker import WorkSource

plain_workforce = runner.workforce
preload = (*prepare.PRELOAD, "benchmarks.stack_trace")


def main(directory: str, plan: str, traces: str, executors: str, profile: str) -> None:
    """Build the plan in `directory`."""

    def traced(count: int, gateway: GatewayProcess, lock: RunLock) -> Workforce:
        force = plain_workforce(count, gateway, lock)
        source = WorkSource(open_executor, TracedSettings(force.work.settings, Path(traces)))
        return Workforce(force.executors, source, preload, force.run_lock)

    with (
        patch.object(prepare, "PRELOAD", preload),
        patch.object(runner, "PRELOAD", preload),
        patch.object(runner, "workforce", traced),
    ):
        ParallelOrchestrator(
            "Build parts that add up",
            directory,
            plan=plan if Path(plan).exists() else None,
            max_executors=int(executors),
            endpoint_profile="anthropic" if profile == "anthropic" else "compatible",
            yes=True,
            quiet=True,
        ).run()


if __name__ == "__main__":
    main(*sys.argv[1:])
