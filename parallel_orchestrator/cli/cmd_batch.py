"""batch: build all scenarios of a file at once."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from parallel_orchestrator.cli import completion
from parallel_orchestrator.cli import parameters as p
from parallel_orchestrator.cli.building import build_batch, explicit
from parallel_orchestrator.cli.cmd_plan import plan_all
from parallel_orchestrator.cli.output import CliResult
from parallel_orchestrator.config.scenarios import find_config, load_batch
from parallel_orchestrator.records.errors import UsageError
from parallel_orchestrator.run.start import BatchRequest


def batch(
    config: Annotated[Path, typer.Argument(help="A YAML file of scenarios.", metavar="FILE")],
    more: Annotated[list[str] | None, typer.Argument(hidden=True, metavar="--only NAME")] = None,
    *,
    max_executors: p.MaxExecutors = None,
    only: Annotated[
        list[str] | None,
        typer.Option(
            help="Only these: NAME NAME …, or NAME,NAME,…; may be repeated.", autocompletion=completion.scenarios
        ),
    ] = None,
    output_dir: Annotated[
        Path | None,
        typer.Option(
            help="The batch's folder, a run in it for each scenario. [outputs/<FILE's name>]",
            rich_help_panel=p.OUTPUT,
        ),
    ] = None,
    max_cost: Annotated[
        float | None, typer.Option(min=0, help="USD for all scenarios together.", rich_help_panel=p.LIMITS)
    ] = None,
    yes: p.Yes = False,
    model: p.Model = None,
    backend: p.Backend = None,
    claude_settings: p.ClaudeSettings = None,
    max_turns: p.MaxTurns = None,
    task_timeout: p.TaskTimeout = None,
    fix_rounds: p.FixRounds = None,
    sandbox: p.Sandbox = None,
    endpoint_profile: p.EndpointProfile = None,
    endpoint_patience: p.EndpointPatience = None,
    speed: p.Speed = None,
    prices: p.Prices = None,
    allow_install: p.AllowInstall = False,
    plan_only: Annotated[bool, typer.Option("--plan-only", help="Plan each scenario; build nothing.")] = False,
) -> CliResult:
    """Build all scenarios of a file at once.

    In the same folder it goes on with the batch that is there. Options go before what the file says, for each of
    its scenarios.
    """
    settings = explicit(locals(), but=("max_executors", "max_cost"))  # those are the batch's own
    names = _chosen(config, only or [], more or [])
    options = load_batch(find_config(str(config)), names)
    for one in options.values():
        one.settings |= settings
    executors = max_executors or max(one.settings.get("max_executors", 5) for one in options.values())
    folder = output_dir or Path("outputs") / config.stem
    if plan_only:
        for one in options.values():
            one.settings.setdefault("max_executors", executors)
        return plan_all(options, folder, executors, max_cost)
    return build_batch(BatchRequest(options, folder, executors, max_cost, among_others=bool(names)))


def _chosen(config: Path, only: Sequence[str], more: Sequence[str]) -> list[str]:
    """The scenarios that --only names, with the words after it. Raises UsageError for words without --only."""
    if more and not only:
        raise UsageError(
            f"a batch is of one file: what is {shlex.join(more)} after {config}? To build only some of its "
            "scenarios, name them after --only"
        )
    return [name for words in [*only, *more] for name in words.split(",") if name]
