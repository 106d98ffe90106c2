"""Commands that build: each turns its options into those of a run or a batch, starts it, and returns the result."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from parallel_orchestrator.cli import completion
from parallel_orchestrator.cli import parameters as p
from parallel_orchestrator.cli.answer import Answer
from parallel_orchestrator.cli.asking import on_terminal
from parallel_orchestrator.cli.going_on import next_in_batch, require_failed, told_how_to_go_on
from parallel_orchestrator.cli.starts import Start, StartBatch
from parallel_orchestrator.records.errors import OrchestratorError, UsageError

if TYPE_CHECKING:
    from parallel_orchestrator.config.options import Options
    from parallel_orchestrator.run.session import Given


_SETTINGS = (
    *("max_executors", "model", "backend", "claude_settings", "max_cost", "yes", "max_turns", "task_timeout"),
    *("fix_rounds", "sandbox", "endpoint_profile", "endpoint_patience", "speed", "prices", "allow_install"),
)
"""Parameters that set a field of the scenario; all others say which run to start."""


class Running:
    """One method a command; its docstring is its help."""

    def __init__(self, start: Start, start_batch: StartBatch) -> None:
        self._start = start
        self._start_batch = start_batch

    def run(
        self,
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
    ) -> Answer:
        """Build a requirement.

        In the same directory it goes on with the run that is there.
        """
        settings = _given(locals())
        from parallel_orchestrator.config.options import Options
        from parallel_orchestrator.config.scenarios import find_config, load_options

        if sum(one is not None for one in (requirement, requirements_file, config)) != 1:
            raise UsageError(
                "give either a requirement or --config FILE; a requirement may be in --requirements-file FILE"
            )
        if only is not None and config is None:
            raise UsageError("--only names a scenario of a file: give the file, too, with --config FILE")
        if config:
            options = load_options(find_config(str(config)), only)
        else:
            options = Options(_requirement(requirement, requirements_file))
        options.settings |= settings
        options.output_dir = output_dir or options.output_dir
        options.replay = replay or options.replay
        options.plan = plan
        options.fresh = fresh
        return self._run(options, again=True)

    def plan(
        self,
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
    ) -> Answer:
        """Plan a requirement and show the plan; build nothing."""
        settings = _given(locals())
        from parallel_orchestrator.cli.planning import plan_one
        from parallel_orchestrator.config.options import Options

        if (requirement is None) == (requirements_file is None):
            raise UsageError("give either a requirement or --requirements-file FILE")
        what = _requirement(requirement, requirements_file)
        return plan_one(self._start, Options(what, output_dir, None, replay, settings))

    def batch(
        self,
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
    ) -> Answer:
        """Build all scenarios of a file at once.

        In the same folder it goes on with the batch that is there. Options go before what the file says, for each of
        its scenarios.
        """
        settings = _given(locals(), but=("max_executors", "max_cost"))  # those are the batch's own
        from parallel_orchestrator.config.scenarios import find_config, load_batch
        from parallel_orchestrator.run.session import Given

        names = _chosen(config, only or [], more or [])
        options = load_batch(find_config(str(config)), names)
        for one in options.values():
            one.settings |= settings
        executors = max_executors or max(one.settings.get("max_executors", 5) for one in options.values())
        folder = output_dir or Path("outputs") / config.stem
        if plan_only:
            from parallel_orchestrator.cli.planning import plan_all

            for one in options.values():
                one.settings.setdefault("max_executors", executors)
            return plan_all(self._start, options, folder, executors, max_cost)
        return self._batch(Given(options, folder, executors, max_cost, among_others=bool(names)))

    def resume(
        self,
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
    ) -> Answer:
        """Go on with an interrupted run or batch.

        What is finished is not run again, no answer is bought twice.
        """
        overrides = _given(locals())
        from parallel_orchestrator.config.options import resume_options
        from parallel_orchestrator.store.paths import BatchDirectory

        if BatchDirectory(directory).config.exists():
            return self._resume_batch(directory, overrides)
        return self._run(resume_options(directory, overrides))

    def retry(
        self,
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
    ) -> Answer:
        """Begin another attempt at failed tasks.

        Those that they blocked wait for them again. `resume` never does this. Scenarios of a batch without such tasks
        are left as they are.
        """
        overrides = _given(locals())
        from parallel_orchestrator.config.options import resume_options
        from parallel_orchestrator.store.paths import BatchDirectory

        if failed and tasks:
            raise UsageError("--failed means all that failed: name tasks, or give --failed")
        wanted, batch = tasks or [], BatchDirectory(directory.absolute())
        if batch.config.exists():
            from parallel_orchestrator.run.manifest import retried

            again = retried(batch, wanted)
            for task in wanted:
                folder, _, name = task.rpartition("/")
                require_failed(batch.root / folder, [name])
            return self._resume_batch(directory, overrides, again)
        require_failed(directory, wanted)
        return self._run(resume_options(directory, overrides), retry=wanted)

    def _resume_batch(
        self, directory: Path, overrides: dict[str, Any], retry: Mapping[str, Sequence[str]] | None = None
    ) -> Answer:
        """Resume all scenarios of a batch, or only those with tasks to try again (`Given.retry`)."""
        from parallel_orchestrator.run.manifest import recall
        from parallel_orchestrator.run.session import Given
        from parallel_orchestrator.store.paths import BatchDirectory

        old = recall(BatchDirectory(directory.absolute()))
        executors = overrides.pop("max_executors", old.max_executors)
        cap = overrides.pop("max_cost_usd", old.max_cost_usd)
        for one in old.options.values():
            if old.max_cost_usd is None:
                one.settings["yes"] = True  # it was begun without a cap
            one.settings |= overrides
            one.resumed = True
        options = {name: one for name, one in old.options.items() if retry is None or name in retry}
        return self._batch(Given(options, directory, executors, cap, retry or {}, among_others=retry is not None))

    def _batch(self, given: Given) -> Answer:
        try:
            with told_how_to_go_on(given.folder):
                summary = self._start_batch(given)
            return _batch_answer(given.folder, summary, next_in_batch(given.folder, summary))
        except OrchestratorError as error:
            if error.summary is None:
                raise
            return replace(_batch_answer(given.folder, error.summary), error=error)

    def _run(self, options: Options, retry: Sequence[str] | None = None, *, again: bool = False) -> Answer:
        """Run it. `again`: say of a finished run that the same command with --fresh builds it once more."""
        from parallel_orchestrator.report.facts.summary import succeeded
        from parallel_orchestrator.report.pages.summary_text import closing_account
        from parallel_orchestrator.system.invocation import command_with

        story = self._start(options, retry=retry, ask=on_terminal())
        directory = story.settled.directory
        with told_how_to_go_on(directory):
            summary = story.go()
        text = closing_account(summary, directory)
        if again and story.found_finished:
            text += f"\n  again:    {command_with()}"
        result = {"directory": str(directory), "summary": summary}
        return Answer(text, result, 0 if succeeded(summary) else 1, text.partition("\n")[0])


def _batch_answer(folder: Path, summary: dict[str, Any], following: Sequence[str] = ()) -> Answer:
    from parallel_orchestrator.report.facts.batch_summary import batch_account, totals

    lines = [batch_account(summary), f"more in {folder / 'batch_summary.md'}", *(f"next:  {one}" for one in following)]
    result = {"directory": str(folder.absolute()), "summary": summary, "next": list(following)}
    return Answer("\n".join(lines), result, summary["exit_code"], totals(summary))


def _chosen(config: Path, only: Sequence[str], more: Sequence[str]) -> list[str]:
    """The scenarios that --only names, with the words after it. Raises UsageError for words without --only."""
    if more and not only:
        raise UsageError(
            f"a batch is of one file: what is {shlex.join(more)} after {config}? To build only some of its "
            "scenarios, name them after --only"
        )
    return [name for words in [*only, *more] for name in words.split(",") if name]


def _requirement(typed: str | None, file: Path | None) -> str:
    """What to build, typed or in a file; of the two one is given. Raises UsageError."""
    from parallel_orchestrator.config.requirement import from_file, understood

    return from_file(file) if file else understood(str(typed))


def _given(parameters: Mapping[str, Any], *, but: Sequence[str] = ()) -> dict[str, Any]:
    """The scenario's fields that a command's parameters set. Options left out must not overwrite what a file says."""
    from parallel_orchestrator.config.settings import fields_of

    names = (name for name in _SETTINGS if name in parameters and name not in but)
    return fields_of({name: None if parameters[name] is False else parameters[name] for name in names})
