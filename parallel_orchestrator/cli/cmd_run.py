"""run: build a requirement."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from parallel_orchestrator.cli import completion
from parallel_orchestrator.cli import parameters as p
from parallel_orchestrator.cli.building import build_run, explicit, requirement_of
from parallel_orchestrator.cli.output import CliResult
from parallel_orchestrator.config.options import Options
from parallel_orchestrator.config.scenarios import find_config, load_options
from parallel_orchestrator.records.errors import UsageError


def run(
    requirement: p.Requirement = None,
    *,
    requirements_file: p.RequirementsFile = None,
    config: Annotated[Path | None, typer.Option(help="Run a scenario of this YAML file instead.")] = None,
    only: Annotated[
        str | None, typer.Option(help="With --config: the scenario's name.", autocompletion=completion.scenarios)
    ] = None,
    max_executors: p.MaxExecutors = None,
    output_dir: p.OutputDir = None,
    fresh: p.Fresh = False,
    model: p.Model = None,
    backend: p.Backend = None,
    claude_settings: p.ClaudeSettings = None,
    max_cost: p.MaxCost = None,
    yes: p.Yes = False,
    max_turns: p.MaxTurns = None,
    task_timeout: p.TaskTimeout = None,
    fix_rounds: p.FixRounds = None,
    sandbox: p.Sandbox = None,
    endpoint_profile: p.EndpointProfile = None,
    endpoint_patience: p.EndpointPatience = None,
    replay: p.Replay = None,
    speed: p.Speed = None,
    plan: p.PlanFile = None,
    prices: p.Prices = None,
    allow_install: p.AllowInstall = False,
) -> CliResult:
    """Build a requirement.

    In the same directory it goes on with the run that is there.
    """
    settings = explicit(locals())
    if sum(one is not None for one in (requirement, requirements_file, config)) != 1:
        raise UsageError("give either a requirement or --config FILE; a requirement may be in --requirements-file FILE")
    if only is not None and config is None:
        raise UsageError("--only names a scenario of a file: give the file, too, with --config FILE")
    if config:
        options = load_options(find_config(str(config)), only)
    else:
        options = Options(requirement_of(requirement, requirements_file))
    options.settings |= settings
    options.output_dir = output_dir or options.output_dir
    options.replay = replay or options.replay
    options.plan = plan
    options.fresh = fresh
    return build_run(options, again=True)
