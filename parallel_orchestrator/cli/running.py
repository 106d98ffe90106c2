"""Commands that build: each turns its options into those of a run or a batch, starts it, and tells what came of it."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol

import typer

from parallel_orchestrator.cli import completion
from parallel_orchestrator.cli import parameters as p
from parallel_orchestrator.cli.answer import Answer
from parallel_orchestrator.cli.asking import on_terminal
from parallel_orchestrator.cli.going_on import next_in_batch, require_failed, told_how_to_go_on
from parallel_orchestrator.records.errors import OrchestratorError, UsageError

if TYPE_CHECKING:
    from parallel_orchestrator.batch.session import Given
    from parallel_orchestrator.batch.spent import Budget
    from parallel_orchestrator.config.options import Options, Settled
    from parallel_orchestrator.records.plan import Plan


class Story(Protocol):
    """A run that can be told; orchestrator.Run."""

    settled: Settled
    found_finished: bool
    """Whether `go` found the run finished, and so did nothing."""

    def go(self) -> dict[str, Any]:
        """Run it to its end; the summary."""

    def check_files(self) -> bool:
        """Refuse prices and recordings that cannot be used."""

    def only_plan(self, budget: Budget | None = None) -> Plan:
        """Run it until there is a plan."""

    def price(self, usage: Mapping[str, int]) -> float | None:
        """USD for such a usage at the executors' model."""


class Start(Protocol):
    """Makes a run of options; orchestrator.start."""

    def __call__(
        self, options: Options, *, retry: Sequence[str] | None = None, ask: Callable[[str], bool] | None = None
    ) -> Story:
        """The run, checked as far as that goes without a directory. `ask` puts a question to the person."""


StartBatch = Callable[["Given"], dict[str, Any]]
"""Runs a batch; its summary. orchestrator.start_batch."""


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
        options.settings |= _given(
            max_executors=max_executors,
            model=model,
            backend=backend,
            claude_settings=claude_settings,
            max_cost=max_cost,
            yes=yes,
            max_turns=max_turns,
            task_timeout=task_timeout,
            fix_rounds=fix_rounds,
            sandbox=sandbox,
            endpoint_profile=endpoint_profile,
            endpoint_patience=endpoint_patience,
            speed=speed,
            prices=prices,
            allow_install=allow_install,
        )
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
        from parallel_orchestrator.cli.planning import plan_one
        from parallel_orchestrator.config.options import Options

        settings = _given(
            max_executors=max_executors,
            model=model,
            backend=backend,
            claude_settings=claude_settings,
            max_cost=max_cost,
            endpoint_profile=endpoint_profile,
            endpoint_patience=endpoint_patience,
            speed=speed,
            prices=prices,
        )
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
        from parallel_orchestrator.batch.session import Given
        from parallel_orchestrator.config.scenarios import find_config, load_batch

        if more and not only:
            raise UsageError(
                f"a batch is of one file: what is {shlex.join(more)} after {config}? To build only some of its "
                "scenarios, name them after --only"
            )
        names = [name for words in [*(only or []), *(more or [])] for name in words.split(",") if name]
        options = load_batch(find_config(str(config)), names)
        for one in options.values():
            one.settings |= _given(
                model=model,
                backend=backend,
                claude_settings=claude_settings,
                yes=yes,
                max_turns=max_turns,
                task_timeout=task_timeout,
                fix_rounds=fix_rounds,
                sandbox=sandbox,
                endpoint_profile=endpoint_profile,
                endpoint_patience=endpoint_patience,
                speed=speed,
                prices=prices,
                allow_install=allow_install,
            )
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
        from parallel_orchestrator.config.options import resume_options
        from parallel_orchestrator.store.paths import BatchDirectory

        overrides = _given(
            model=model,
            endpoint_patience=endpoint_patience,
            max_cost=max_cost,
            yes=yes,
            max_executors=max_executors,
            max_turns=max_turns,
            task_timeout=task_timeout,
            fix_rounds=fix_rounds,
            sandbox=sandbox,
            speed=speed,
            prices=prices,
            allow_install=allow_install,
        )
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
        from parallel_orchestrator.config.options import resume_options
        from parallel_orchestrator.store.paths import BatchDirectory

        if failed and tasks:
            raise UsageError("--failed means all that failed: name tasks, or give --failed")
        overrides = _given(
            model=model,
            endpoint_patience=endpoint_patience,
            max_cost=max_cost,
            yes=yes,
            max_executors=max_executors,
            max_turns=max_turns,
            task_timeout=task_timeout,
            fix_rounds=fix_rounds,
            sandbox=sandbox,
            speed=speed,
            prices=prices,
        )
        wanted, batch = tasks or [], BatchDirectory(directory.absolute())
        if batch.config.exists():
            from parallel_orchestrator.batch.entries import retried

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
        """Go on with all scenarios of a batch, or with those that have tasks to try again (`Given.retry`)."""
        from parallel_orchestrator.batch.entries import recall
        from parallel_orchestrator.batch.session import Given
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
        """Run it. `again`: the same command with --fresh builds it once more, which is said of a finished run."""
        from parallel_orchestrator.report.account import closing_account
        from parallel_orchestrator.report.summary import succeeded
        from parallel_orchestrator.store.program import typed_again

        story = self._start(options, retry=retry, ask=on_terminal())
        directory = story.settled.directory
        with told_how_to_go_on(directory):
            summary = story.go()
        text = closing_account(summary, directory)
        if again and story.found_finished:
            text += f"\n  again:    {typed_again()}"
        result = {"directory": str(directory), "summary": summary}
        return Answer(text, result, 0 if succeeded(summary) else 1, text.partition("\n")[0])


def _batch_answer(folder: Path, summary: dict[str, Any], following: Sequence[str] = ()) -> Answer:
    from parallel_orchestrator.report.batch_summary import batch_account, totals

    lines = [batch_account(summary), f"more in {folder / 'batch_summary.md'}", *(f"next:  {one}" for one in following)]
    result = {"directory": str(folder.absolute()), "summary": summary, "next": list(following)}
    return Answer("\n".join(lines), result, summary["exit_code"], totals(summary))


def _requirement(typed: str | None, file: Path | None) -> str:
    """What to build, typed or in a file; of the two one is given. Raises UsageError."""
    from parallel_orchestrator.config.requirement import from_file, understood

    return from_file(file) if file else understood(str(typed))


def _given(*, allow_install: bool = False, yes: bool = False, **others: Any) -> dict[str, Any]:
    """The settings of a scenario that options give; absent ones must not overwrite what a file says."""
    from parallel_orchestrator.config.settings import fields_of

    return fields_of({**others, "allow_install": allow_install or None, "yes": yes or None})
