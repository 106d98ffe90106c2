"""Going on with a run: what may be tried again, and by which command a stopped one goes on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from parallel_orchestrator.records.errors import (
    BudgetReached,
    CannotGoOn,
    EndpointUnusable,
    Interrupted,
    KeyRefused,
    ModelUnknown,
)


def require_failed(directory: Path, tasks: Sequence[str]) -> None:
    """Refuse to try again what did not fail, before anything is changed.

    A run that somebody works on is not looked at: its lock refuses that later.
    """
    from parallel_orchestrator.report.facts.summary import may_be_red
    from parallel_orchestrator.store.paths import RunDirectory
    from parallel_orchestrator.store.plan_file import plan_of
    from parallel_orchestrator.store.queue.queue import TaskQueue
    from parallel_orchestrator.store.run_directory import require_scenario
    from parallel_orchestrator.store.run_lock import is_held

    run = RunDirectory(directory.absolute())
    require_scenario(run)
    if run.plan.exists() and not is_held(run.run_lock):
        with closing(TaskQueue(run, plan_of(run).graph())) as queue:
            queue.to_retry(tasks, red=may_be_red(run))


@contextmanager
def told_how_to_go_on(directory: Path) -> Iterator[None]:
    """Whatever stops the block and can be gone on with says by which command. Ctrl-C becomes an error like others."""
    try:
        yield
    except (CannotGoOn, EndpointUnusable, KeyRefused, ModelUnknown, Interrupted, KeyboardInterrupt) as error:
        from parallel_orchestrator.store.paths import BatchDirectory, RunDirectory
        from parallel_orchestrator.system.invocation import command

        stop = Interrupted("interrupted") if isinstance(error, KeyboardInterrupt) else error
        if RunDirectory(directory).scenario.exists() or BatchDirectory(directory).config.exists():
            more = f" --max-cost {_more(directory):g}" if isinstance(stop, BudgetReached) else ""
            more += " --model MODEL" * isinstance(stop, ModelUnknown)
            stop.add_note(f"to go on: {command('resume', directory)}{more}")
            if isinstance(stop, ModelUnknown):
                stop.add_note(f"for tasks that failed before: {command('retry', directory)}{more}")
        raise stop from error.__cause__


def next_in_batch(folder: Path, summary: Mapping[str, Any]) -> list[str]:
    """What to type after a batch that came to its end, where not all of it is done."""
    from parallel_orchestrator.system.invocation import command

    lines, whole = [], set()
    for one in summary["scenarios"]:
        if one["exit_code"] == BudgetReached.exit_code:  # its own cap, which the batch's options do not raise
            own = folder / one["folder"]
            lines.append(f"{command('resume', own)} --max-cost {_more(own):g}")
        elif one["exit_code"]:
            whole.add("retry" if one["status"] == "failed" else "resume")
    return lines + [command(name, folder) for name in sorted(whole)]


def _more(directory: Path) -> float:
    """USD that a run or a batch may go on with which has reached its cap: twice as much."""
    from parallel_orchestrator.run.manifest import recall
    from parallel_orchestrator.store.paths import BatchDirectory, RunDirectory
    from parallel_orchestrator.store.run_directory import require_scenario

    batch = BatchDirectory(directory)
    cap = (
        recall(batch).max_cost_usd if batch.config.exists() else require_scenario(RunDirectory(directory)).max_cost_usd
    )
    return 2 * (cap or 0.5)
