"""plan: plan a requirement, or each scenario of a batch, and say what building it will take."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from parallel_orchestrator.cli import parameters as p
from parallel_orchestrator.cli.building import explicit, requirement_of, with_resume_hint
from parallel_orchestrator.cli.output import CliResult
from parallel_orchestrator.config.options import Options
from parallel_orchestrator.records.errors import OrchestratorError, UsageError
from parallel_orchestrator.report.facts.advice import advise
from parallel_orchestrator.report.facts.batch_summary import worst
from parallel_orchestrator.report.pages.summary_text import plan_text
from parallel_orchestrator.run import start
from parallel_orchestrator.run.cost import Budget
from parallel_orchestrator.run.manifest import folder_of, require_place
from parallel_orchestrator.run.run import Run
from parallel_orchestrator.run.runner import STOPS_EVERYTHING
from parallel_orchestrator.store.paths import BatchDirectory, RunDirectory


def plan(
    requirement: p.Requirement = None,
    *,
    requirements_file: p.RequirementsFile = None,
    output_dir: p.OutputDir = None,
    model: p.Model = None,
    backend: p.Backend = None,
    claude_settings: p.ClaudeSettings = None,
    max_cost: p.MaxCost = None,
    endpoint_profile: p.EndpointProfile = None,
    endpoint_patience: p.EndpointPatience = None,
    replay: p.Replay = None,
    speed: p.Speed = None,
    max_executors: p.MaxExecutors = None,
    prices: p.Prices = None,
) -> CliResult:
    """Plan a requirement and show the plan; build nothing."""
    settings = explicit(locals())
    if (requirement is None) == (requirements_file is None):
        raise UsageError("give either a requirement or --requirements-file FILE")
    what = requirement_of(requirement, requirements_file)
    return _plan_one(Options(what, output_dir, None, replay, settings))


def _plan_one(options: Options) -> CliResult:
    """Plan one requirement, and say what to expect of the plan."""
    run = start.make_run(options)
    with with_resume_hint(run.directory.root):
        return _planned(run, run.scenario.max_executors)


def plan_all(options: Mapping[str, Options], folder: Path, executors: int, max_cost: float | None) -> CliResult:
    """Plan every scenario where the batch will find its plan, one after the other; what stops one stops no other.

    `executors`: of the batch. `max_cost` holds for all of them together.
    """
    batch = BatchDirectory(folder.absolute())
    require_place(batch)
    runs = {name: start.make_run(one) for name, one in options.items()}
    for run in runs.values():
        run.check_files()
    folders = {name: batch.root / folder_of(batch, name, run.scenario) for name, run in runs.items()}
    budget = Budget.of(batch, max_cost)
    budget.require_prices(run.scenario for run in runs.values())
    planned: dict[str, CliResult] = {}
    for name, one in options.items():
        one.output_dir = folders[name]
        try:
            planned[name] = _planned(start.make_run(one), executors, budget)
        except OrchestratorError as error:
            planned[name] = _not_planned(folders[name], error)
            if isinstance(error, STOPS_EVERYTHING):
                break
        budget.count(RunDirectory(folders[name]))
    return _together(planned)


def _planned(run: Run, executors: int, budget: Budget | None = None) -> CliResult:
    """Plan it, for at most so many executors. `budget`: of the batch that it is part of."""
    plan, directory = start.plan_only(run, budget), run.directory.root
    advice = advise(plan, min(executors, run.scenario.max_executors), run.price)
    text = plan_text(plan, directory, advice, spends=run.resolved.recording is None)
    result = {"directory": str(directory), "plan": plan.model_dump(), "advice": advice.as_json()}
    return CliResult(text, result)


def _not_planned(directory: Path, error: OrchestratorError) -> CliResult:
    result = {"directory": str(directory), "why": str(error)}
    return CliResult(f"  not planned: {error}", result, error.exit_code, error=error)


def _together(planned: Mapping[str, CliResult]) -> CliResult:
    """What is said of all scenarios. What stopped everything was met by the last of them."""
    last = list(planned.values())[-1].error
    stop = last if isinstance(last, STOPS_EVERYTHING) else None
    code = stop.exit_code if stop else worst(one.exit_code for one in planned.values())
    failure = f"not planned: {', '.join(name for name, one in planned.items() if one.error)}"
    text = "\n\n".join(f"{name}\n{one.text}" for name, one in planned.items())
    return CliResult(text, {"scenarios": {name: one.result for name, one in planned.items()}}, code, failure, stop)
