"""Starting: a run, a batch, or a plan alone. All that can be checked is checked before anything is begun.

execute          one run: own its directory, have the runner build it
execute_batch    many: own the batch's folder, have the runner build those that are not finished, sum up all
plan_only        a plan, which a later run in the same directory uses
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from parallel_orchestrator.config.options import NO_CAP, Options, lacks_agreement, require_agreement, resolve
from parallel_orchestrator.gateway.endpoints.prices import require_prices
from parallel_orchestrator.gateway.handle import serving
from parallel_orchestrator.records.errors import Interrupted, OrchestratorError, UsageError
from parallel_orchestrator.records.plan import Plan
from parallel_orchestrator.report.facts.batch_summary import BatchSummary, ScenarioEnding, batch_summary, worst
from parallel_orchestrator.report.facts.documents import Summary
from parallel_orchestrator.report.facts.summary import finished_summary
from parallel_orchestrator.report.live.console import make_view
from parallel_orchestrator.report.live.progress import Progress, ReportingView
from parallel_orchestrator.report.live.view import ScenarioView, View
from parallel_orchestrator.report.pages.batch_page import batch_page
from parallel_orchestrator.report.pages.summary_page import write_page
from parallel_orchestrator.run import manifest
from parallel_orchestrator.run.cost import Budget
from parallel_orchestrator.run.finish import restore_finished
from parallel_orchestrator.run.prepare import make_plan
from parallel_orchestrator.run.run import Ask, Run
from parallel_orchestrator.run.runner import Runner
from parallel_orchestrator.store.paths import BatchDirectory
from parallel_orchestrator.store.run_directory import OwnedRun, occupied, set_aside
from parallel_orchestrator.store.run_lock import RunLock
from parallel_orchestrator.system import redact
from parallel_orchestrator.system.environment import secret_values
from parallel_orchestrator.system.files import write_whole
from parallel_orchestrator.system.logfile import log_to, stop_logging
from parallel_orchestrator.system.terminal_text import counted, listed
from parallel_orchestrator.trunk.git import git


def make_run(
    options: Options,
    *,
    quiet: bool = False,
    retry: Sequence[str] | None = None,
    ask: Ask | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> Run:
    """A run of these options, everything checked that can be checked without a directory.

    `ask` puts a question to the person, where one can be asked. `on_progress` is called with each event.
    """
    redact.know(*secret_values(os.environ))
    resolved, view = resolve(options, os.environ), make_view(quiet)
    return Run(resolved, ReportingView(view, on_progress) if on_progress else view, retry, ask=ask)


def execute(run: Run) -> Summary:
    """Run to the end, or resume; return the summary. Raises OrchestratorError when it has to stop before."""
    try:
        run.check()
        if run.ask is None:
            require_agreement(run.resolved)
        if run.resolved.fresh:
            set_aside(run.directory.root, run.say)
        with _owned(run) as owned:
            if run.retry is None and (finished := finished_summary(owned.run)):
                restore_finished(run, owned, finished)
                run.found_finished = True
                failed = "" if finished.succeeded() else ", though not all of it succeeded"
                run.say(f"{owned.run.root} is finished{failed}; nothing to do")
                return finished
            run.say(f"{run.billing_notice()}. {run.env_notice}")
            run.owned = owned
            runner = Runner([run], run.scenario.max_executors, owned.lock, owned.run, run.view)
            runner.execute()
            return runner.ended_summary()
    finally:
        run.view.close()


def plan_only(run: Run, budget: Budget | None = None) -> Plan:
    """Plan, and build nothing. `budget`: of the batch that the run is part of."""
    run.check_files()
    start = run.gateway_config()
    if budget:
        start = replace(start, max_cost_usd=budget.max_cost_usd, spent_before_usd=budget.spent_usd)
    if run.scenario.planner_backend != "api":  # only Claude Code needs a sandbox to plan
        run.check()
    with _owned(run) as owned:
        run.say(run.billing_notice())
        with serving(start, owned.lock.descriptor, owned.run.log, run.say) as gateway:
            gateway.open_run(run.run_config(owned))
            return make_plan(run, owned, gateway)


def _owned(run: Run) -> AbstractContextManager[OwnedRun]:
    """Lock the run's directory until the block's end, with its log open."""
    git.require()
    return occupied(run.directory.root, run.scenario, run.view.say, resumed=run.resolved.resumed)


@dataclass(frozen=True)
class BatchRequest:
    """What a batch is asked to do."""

    options: Mapping[str, Options]
    """By scenario."""
    folder: Path
    executors: int
    max_cost_usd: float | None
    """Cap over all scenarios together."""
    retry: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """By scenario, the failed tasks to try again; empty: all of them."""
    among_others: bool = False
    """These are some of the scenarios. The others that the folder has stay in the batch as they are."""


def execute_batch(request: BatchRequest, *, quiet: bool = False) -> BatchSummary:
    """Build every scenario, or resume those that are not finished, with one set of executors; return the summary.

    Raises OrchestratorError when nothing can continue; what is done by then is kept, and a resume continues.
    """
    started, view = time.monotonic(), make_view(quiet)
    batch = BatchDirectory(request.folder.absolute())
    manifest.require_place(batch)
    runs = _checked_runs(request, batch, view)
    _make(batch)
    lock = RunLock.acquire(batch.run_lock, say=view.say)
    try:
        finished = {run.name: ending for run in runs if (ending := manifest.finished_ending(run))}
        todo = [run for run in runs if run.name not in finished]
        options = {**_remembered(batch, request), **request.options}
        manifest.save(batch, request.executors, request.max_cost_usd, options)
        _say_what_is_not_used(request.options, view)
        _say_what_is_ahead(todo, finished, view)
        runner = Runner(todo, request.executors, lock, batch, view, max_cost_usd=request.max_cost_usd)

        def sum_up(stop: OrchestratorError | None) -> BatchSummary:
            """The summary of all scenarios, written down. Its exit code is this session's."""
            known = {**finished, **runner.endings}
            here = {run.name: known.get(run.name) or manifest.unfinished_ending(run) for run in runs}
            all_ = {**here, **manifest.untouched(batch, [name for name in options if name not in here])}
            code = stop.exit_code if stop else worst(ending.exit_code for ending in here.values())
            endings, elapsed_s = [all_[name] for name in options], time.monotonic() - started
            summary = batch_summary(endings, request.executors, elapsed_s, code, str(stop or ""))
            write_whole(batch.summary, summary.text())
            write_page(batch.page, lambda: batch_page(summary))
            return summary

        with _summed_up(sum_up), ExitStack() as at_end:
            if todo:
                at_end.callback(stop_logging, log_to(batch.log))
                runner.execute()
        return sum_up(None)
    finally:
        lock.release()


@contextmanager
def _summed_up(sum_up: Callable[[OrchestratorError | None], BatchSummary]) -> Iterator[None]:
    """Sum up when something stops the block. The error that is raised then carries the summary."""
    try:
        yield
    except KeyboardInterrupt as error:
        stop = Interrupted("interrupted")
        stop.summary = sum_up(stop)
        raise stop from error
    except OrchestratorError as error:
        error.summary = sum_up(error)
        raise
    except BaseException as error:
        sum_up(OrchestratorError(f"unexpected {type(error).__name__}: {error}"))
        raise


def _remembered(batch: BatchDirectory, request: BatchRequest) -> Mapping[str, Options]:
    """The scenarios that the folder has and that stay in the batch."""
    return manifest.load(batch).options if request.among_others and batch.config.exists() else {}


def _checked_runs(request: BatchRequest, batch: BatchDirectory, view: View) -> list[Run]:
    """The runs of all scenarios. Raises UsageError with every fault that can be found before anything is begun."""
    runs, faults, uncapped = list[Run](), list[str](), list[str]()
    for name, options in request.options.items():
        try:
            run = _run_in_batch(request, batch, name, options, view)
            run.check()
            if request.max_cost_usd is None and lacks_agreement(run.resolved):
                uncapped.append(name)
            require_prices(run.scenario, capped=request.max_cost_usd is not None)
            runs.append(run)
        except UsageError as error:
            faults.append(f"{name}: {error}")
    if uncapped:
        faults.append(f"{listed(uncapped)}: {NO_CAP}")
    if faults:
        raise UsageError(faults[0] if len(faults) == 1 else "\n".join(["nothing was begun:", *dict.fromkeys(faults)]))
    _require_one_way_to_ask(runs)
    return runs


def _run_in_batch(request: BatchRequest, batch: BatchDirectory, name: str, options: Options, view: View) -> Run:
    """A scenario's run. One whose scenario names no `max_executors` may have all that the batch has."""
    options = replace(options, settings={"max_executors": request.executors, **options.settings})
    resolved = manifest.located(batch, name, resolve(options, os.environ))
    return Run(resolved, ScenarioView(view, name), request.retry.get(name), name)


def _require_one_way_to_ask(runs: Sequence[Run]) -> None:
    """Refuse scenarios whose calls one gateway cannot make: it has one key, one endpoint, one table of prices."""
    ways: dict[tuple[str, str | None, str | None], list[str]] = {}
    for run in runs:
        if not run.scenario.replay:
            credential = run.resolved.credential
            way = (run.billing_notice(), credential.value if credential else None, run.scenario.prices)
            ways.setdefault(way, []).append(run.name)
    if len(ways) > 1:
        lines = [
            f"  {', '.join(names)}: {paying}" + (f", prices of {prices}" if prices else "")
            for (paying, _, prices), names in ways.items()
        ]
        raise UsageError(
            "the scenarios of a batch share one key, one endpoint and one price file, and these differ:\n"
            + "\n".join(lines)
            + "\nnothing was begun; choose those of one kind with --only, or give them a file of their own"
        )


def _make(batch: BatchDirectory) -> None:
    try:
        batch.root.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot make {batch.root}: {error.strerror}") from error


def _say_what_is_not_used(options: Mapping[str, Options], view: View) -> None:
    """Which scenarios name a folder of their own: in a batch all lie in its own."""
    named = [name for name, one in options.items() if one.output_dir not in (None, Path("outputs") / name)]
    if named:
        where = "they lie in the batch's folder"
        view.say(f"output_dir is for `run --config` alone: of {listed(named)} it is not used, {where}")


def _say_what_is_ahead(todo: Sequence[Run], finished: Mapping[str, ScenarioEnding], view: View) -> None:
    """Who pays, once for all of the same, and which scenarios have a folder of their present text."""
    if not todo:
        failed = any(ending.status != "done" for ending in finished.values())
        view.say(f"every scenario is finished{', though not all succeeded' if failed else ''}; nothing to do")
        return
    notices = sorted({run.billing_notice() for run in todo if not run.scenario.replay})
    replays = sum(bool(run.scenario.replay) for run in todo)
    if replays:
        notices.append(f"{counted(replays, 'replay')}, without a model and at no cost")
    sandbox = sorted({run.env_notice for run in todo})
    reused = f", {len(finished)} more finished and not touched" if finished else ""
    view.say(f"{counted(len(todo), 'scenario')} to do{reused}. {'; '.join(notices)}. {'; '.join(sandbox)}")
    for run in todo:
        if run.folder != run.name:
            how = "goes on" if run.directory.scenario.exists() else "runs anew,"
            view.say(f"{run.name} differs from what was run before: it {how} in {run.folder}")
