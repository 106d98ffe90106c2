"""Parallel Orchestrator: from a requirement to a tested, merged project, built by several agents at once.

    main                   the command line (parallel_orchestrator/cli/app.py); ParallelOrchestrator does the same
      execute              check all that can be checked before anything is paid for, own the directory (run/start.py)
        Runner.execute     build one run, or the runs of a batch (run/runner.py)
          serving          the gateway, the one process that calls the model (gateway/handle.py)
          prepare          repository, plan, packages, what a killed session left (run/prepare.py)
            plan_run       ask the planner (planner_agent.py), in a worker process
          supervise        keep M executor processes alive until all tasks are settled (workers/supervisor.py)
            execute        one task: a conversation, a submission (executor_agent.py), in each worker process
              submit       merge, test, land (trunk/submit.py)
          test_whole       test the whole; while it is red and rounds are left, plan a fix task (run/finish.py)
          finish           describe the whole, sum up (run/finish.py)

Everything between two steps is on disk: after a kill anywhere, the same command resumes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from parallel_orchestrator.system.invocation import require_packages

if __name__ == "__main__":
    require_packages()

from parallel_orchestrator.cli.app import make_app, run_app

if TYPE_CHECKING:
    from parallel_orchestrator.records.command import SandboxMode
    from parallel_orchestrator.records.scenario import Backend, ClaudeSettings, Profile
    from parallel_orchestrator.report.live.progress import Progress

__all__ = ("ParallelOrchestrator", "app", "main")

_NOT_IN_THE_SCENARIO = (
    "requirements",
    "output_dir",
    "max_executors",
    "replay",
    "plan",
    "fresh",
    "quiet",
    "on_progress",
)
"""Parameters that say how to start the run; all others are fields of its scenario."""


class ParallelOrchestrator:
    """Builds one requirement.

        ParallelOrchestrator("Build a contact form", "outputs/form", max_cost=5).run()

    Settings have the names of the command line's options, and the same defaults; None leaves a default as it is.
    The credential comes from the environment alone.

    requirements         what to build: a text, or the path of a text file
    output_dir           where the project goes [outputs/<words of the requirement>]
    max_executors        the most executors at once; the plan may need fewer
    replay               a recording, a file or the name of a shipped one: no model is asked
    plan                 start from this plan file instead of asking the planner
    fresh                begin again where output_dir holds a run; that one is moved aside, never deleted
    quiet                print nothing
    on_progress          is called with each event of the run, a `Progress`, in the thread of `run()`
    max_cost             USD for the whole run, which stops there and can be resumed
    task_max_cost        USD for one task, which fails there
    yes                  agree to a live run without `max_cost`
    model, backend       of planner and executors; planner_* and executor_* are for one of the two
    claude_settings      "none" or "host": whose settings Claude Code has
    max_turns            model answers per attempt at a task
    task_timeout         minutes of a task's own time
    repair_rounds        how often a change goes back to the conversation that wrote it
    fix_rounds           fix tasks that may correct a whole which is red when everything is merged
    endpoint_patience    how long the endpoint may send nothing until the run stops: seconds, or "90s", "10m", "8h"
    endpoint_profile     "anthropic" or "compatible" [by the endpoint's address]
    sandbox              "auto", "required" or "off": where agents' commands run
    speed                a replay's latencies are divided by this
    verify               shell commands that prove the whole, after those of the plan
    planner_instructions a text that adapts planning to a domain
    prices               a JSON file of prices that goes before the built-in table
    allow_install        let the plan's packages be installed for the run

    Raises UsageError for a value out of range, and UnknownSetting for an unknown name.
    """

    def __init__(
        self,
        requirements: str | Path,
        output_dir: str | Path | None = None,
        *,
        max_executors: int = 5,
        replay: str | Path | None = None,
        plan: str | Path | None = None,
        fresh: bool = False,
        quiet: bool = False,
        on_progress: Callable[[Progress], None] | None = None,
        max_cost: float | None = None,
        task_max_cost: float | None = None,
        yes: bool | None = None,
        model: str | None = None,
        planner_model: str | None = None,
        executor_model: str | None = None,
        backend: Backend | None = None,
        planner_backend: Backend | None = None,
        executor_backend: Backend | None = None,
        claude_settings: ClaudeSettings | None = None,
        max_turns: int | None = None,
        task_timeout: float | None = None,
        repair_rounds: int | None = None,
        fix_rounds: int | None = None,
        endpoint_patience: float | str | None = None,
        endpoint_profile: Profile | None = None,
        sandbox: SandboxMode | None = None,
        speed: float | None = None,
        verify: Sequence[str] | None = None,
        planner_instructions: str | None = None,
        prices: str | Path | None = None,
        allow_install: bool | None = None,
        **old_names: Any,
    ) -> None:
        given = {name: value for name, value in locals().items() if name not in ("self", "old_names")}
        from parallel_orchestrator.config import options, requirement, settings  # not above: --help would wait for it

        named = {name: value for name, value in given.items() if name not in _NOT_IN_THE_SCENARIO}
        named |= settings.renamed(old_names, given)
        self.requirements = (
            requirement.from_file(requirements)
            if isinstance(requirements, Path)
            else requirement.understood(requirements)
        )
        self.output_dir = None if output_dir is None else Path(output_dir)
        self.max_executors = max_executors
        """The most executors that may run at once; the plan may need fewer."""
        self.replay = None if replay is None else str(replay)
        self.plan = None if plan is None else Path(plan)
        self.fresh = fresh
        self.quiet = quiet
        self.on_progress = on_progress
        self.settings = settings.fields_of(named)
        """The scenario's other fields that were given, by their names in scenario.json."""
        any_run = {"requirements": "x", "run": "x", "endpoint": "x"}
        options.make_scenario({**any_run, **self._fields()})  # refuses bad values now

    def run(self) -> dict[str, Any]:
        """Run to the end, or resume an interrupted run; return the summary (docs/run-directory.md).

        Blocks until then. Failed tasks are in the summary. Raises OrchestratorError when the run cannot start or has
        to stop before its end; what is done by then is kept, and running again resumes.
        """
        from parallel_orchestrator.config.options import Options  # as in __init__
        from parallel_orchestrator.run import start

        options = Options(self.requirements, self.output_dir, self.plan, self.replay, self._fields(), fresh=self.fresh)
        return start.execute(start.make_run(options, quiet=self.quiet, on_progress=self.on_progress)).as_json()

    def _fields(self) -> dict[str, Any]:
        return {**self.settings, "max_executors": self.max_executors}


app = make_app()


def main() -> None:
    """The console script."""
    run_app(app)


if __name__ == "__main__":
    main()
