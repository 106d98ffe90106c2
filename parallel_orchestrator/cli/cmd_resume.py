"""resume and retry: continue a run or a batch; retry begins another attempt at failed tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any

import typer

from parallel_orchestrator.cli import completion
from parallel_orchestrator.cli import parameters as p
from parallel_orchestrator.cli.building import build_batch, build_run, explicit
from parallel_orchestrator.cli.output import CliResult
from parallel_orchestrator.config.options import resume_options
from parallel_orchestrator.records.errors import UsageError
from parallel_orchestrator.report.facts.summary import may_be_red
from parallel_orchestrator.run import manifest
from parallel_orchestrator.run.start import BatchRequest
from parallel_orchestrator.store.paths import BatchDirectory, RunDirectory
from parallel_orchestrator.store.plan_file import plan_of
from parallel_orchestrator.store.queue.queue import TaskQueue
from parallel_orchestrator.store.run_directory import require_scenario
from parallel_orchestrator.store.run_lock import is_held


def resume(
    directory: p.RunOrBatch,
    *,
    model: p.ModelOnResume = None,
    max_cost: p.MaxCost = None,
    yes: p.Yes = False,
    max_executors: p.MaxExecutors = None,
    max_turns: p.MaxTurns = None,
    task_timeout: p.TaskTimeout = None,
    fix_rounds: p.FixRounds = None,
    sandbox: p.Sandbox = None,
    endpoint_patience: p.EndpointPatience = None,
    speed: p.Speed = None,
    prices: p.Prices = None,
    allow_install: p.AllowInstall = False,
) -> CliResult:
    """Go on with an interrupted run or batch.

    What is finished is not run again, no answer is bought twice.
    """
    overrides = explicit(locals())
    if BatchDirectory(directory).config.exists():
        return _resume_batch(directory, overrides)
    return build_run(resume_options(directory, overrides))


def retry(
    directory: p.RunOrBatch,
    tasks: Annotated[
        list[str] | None,
        typer.Argument(
            help="Failed tasks to try again, in a batch as SCENARIO/TASK. [all]",
            metavar="TASK",
            autocompletion=completion.tasks,
        ),
    ] = None,
    *,
    failed: Annotated[bool, typer.Option("--failed", help="All that failed; the same as naming none.")] = False,
    model: p.ModelOnResume = None,
    max_cost: p.MaxCost = None,
    yes: p.Yes = False,
    max_executors: p.MaxExecutors = None,
    max_turns: p.MaxTurns = None,
    task_timeout: p.TaskTimeout = None,
    fix_rounds: p.FixRounds = None,
    sandbox: p.Sandbox = None,
    endpoint_patience: p.EndpointPatience = None,
    speed: p.Speed = None,
    prices: p.Prices = None,
) -> CliResult:
    """Begin another attempt at failed tasks.

    Those that they blocked wait for them again. `resume` never does this. Scenarios of a batch without such tasks
    are left as they are.
    """
    overrides = explicit(locals())
    if failed and tasks:
        raise UsageError("--failed means all that failed: name tasks, or give --failed")
    wanted, batch = tasks or [], BatchDirectory(directory.absolute())
    if batch.config.exists():
        again = manifest.failed_tasks(batch, wanted)
        for task in wanted:
            folder, _, name = task.rpartition("/")
            _require_failed(batch.root / folder, [name])
        return _resume_batch(directory, overrides, again)
    _require_failed(directory, wanted)
    return build_run(resume_options(directory, overrides), retry=wanted)


def _resume_batch(
    directory: Path, overrides: dict[str, Any], retry: Mapping[str, Sequence[str]] | None = None
) -> CliResult:
    """Resume all scenarios of a batch, or only those with tasks to try again (`BatchRequest.retry`)."""
    old = manifest.load(BatchDirectory(directory.absolute()))
    executors = overrides.pop("max_executors", old.max_executors)
    cap = overrides.pop("max_cost_usd", old.max_cost_usd)
    for one in old.options.values():
        if old.max_cost_usd is None:
            one.settings["yes"] = True  # it was begun without a cap
        one.settings |= overrides
        one.resumed = True
    options = {name: one for name, one in old.options.items() if retry is None or name in retry}
    return build_batch(BatchRequest(options, directory, executors, cap, retry or {}, among_others=retry is not None))


def _require_failed(directory: Path, tasks: Sequence[str]) -> None:
    """Refuse to retry what did not fail, before anything is changed.

    A run that another process works on is not looked at: its lock refuses that later.
    """
    run = RunDirectory(directory.absolute())
    require_scenario(run)
    if run.plan.exists() and not is_held(run.run_lock):
        with closing(TaskQueue(run, plan_of(run).graph())) as queue:
            queue.to_retry(tasks, red=may_be_red(run))
