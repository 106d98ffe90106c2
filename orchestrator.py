"""Parallel Orchestrator: from a requirement to a tested, merged project, built by several agents at once.

    Run.go
      choose sandbox   and check what can be checked before anything is paid for
      own              the output directory, for this process family alone
      gateway          the one process that calls the model
      plan             asked for once; found again when the run is resumed
      build            M executor processes claim tasks until all are settled
      finish           test the whole, describe it, sum up

Everything between two steps is on disk: killed anywhere, the same command goes on.
"""

from __future__ import annotations

import logging
import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from parallel_orchestrator.cli.app import make_app, run_app
from parallel_orchestrator.records.errors import OrchestratorError, UsageError

if TYPE_CHECKING:
    from parallel_orchestrator.config.options import Options, Settled
    from parallel_orchestrator.gateway.process import GatewayProcess
    from parallel_orchestrator.records.plan import Plan
    from parallel_orchestrator.records.scenario import Surroundings
    from parallel_orchestrator.report.console import View
    from parallel_orchestrator.store.directory import OwnedRun
    from parallel_orchestrator.trunk import Trunk
    from parallel_orchestrator.workers.supervisor import Supervisor

# Most modules are imported where they are used: --help, --version and completion must not wait for them.

log = logging.getLogger("parallel_orchestrator.orchestrator")

PRELOAD = ("parallel_orchestrator.agent.preload", "executor_agent")
"""What the fork server imports once, so that every executor has it."""


class ParallelOrchestrator:
    """Builds one requirement.

        ParallelOrchestrator(requirements="Build a contact form", output_dir="outputs/form").run()

    `settings` are the scenario's other fields (records/scenario.py): executor_model, max_cost_usd, max_turns,
    task_timeout_min, sandbox, speed and so on. The credential comes from the environment alone.
    """

    def __init__(
        self,
        requirements: str,
        output_dir: str | Path | None = None,
        *,
        max_executors: int = 5,
        replay: str | Path | None = None,
        plan: str | Path | None = None,
        quiet: bool = False,
        **settings: Any,
    ) -> None:
        self.requirements = requirements
        self.output_dir = None if output_dir is None else Path(output_dir)
        self.max_executors = max_executors
        """The most executors that may run at once; the plan may need fewer."""
        self.replay = None if replay is None else str(replay)
        self.plan = None if plan is None else Path(plan)
        self.quiet = quiet
        self.settings = settings

    def run(self) -> dict[str, Any]:
        """Run to the end, or go on with a run that was interrupted; the summary (docs/run-directory.md).

        Failed tasks are in the summary. Raises OrchestratorError when the run cannot start or has to stop
        before its end; what is done by then is kept, and running again goes on.
        """
        from parallel_orchestrator.config.options import Options

        settings = {**self.settings, "max_executors": self.max_executors}
        options = Options(self.requirements, self.output_dir, self.plan, self.replay, settings)
        return start(options, quiet=self.quiet).go()


def start(options: Options, *, quiet: bool = False, retry: Sequence[str] | None = None) -> Run:
    """A run of these options, everything checked that can be checked without a directory."""
    from parallel_orchestrator.config.options import settle
    from parallel_orchestrator.report.console import make_view

    return Run(settle(options, os.environ), make_view(quiet), retry)


@dataclass
class Run:
    """The story of one run."""

    settled: Settled
    view: View
    retry: Sequence[str] | None = None
    """Failed tasks to try again; empty: all of them; None: none."""

    def go(self) -> dict[str, Any]:
        """All of it; the summary."""
        from parallel_orchestrator.report.summary import finished_summary
        from parallel_orchestrator.store.process import hide_memory

        try:
            if self.settled.credential:
                hide_memory()  # it stays in this process's environment, which commands of the same user could read
            self._check_prices()
            around, described = self._choose_sandbox()
            with self._owned() as owned:
                if self.retry is None and (finished := finished_summary(owned.run)):
                    self.say(f"{owned.run.root} is finished; nothing to do")
                    return finished
                self.say(f"{self._who_pays()}. {described}")
                trunk = self._open_trunk(owned, around)
                with self._gateway(owned) as gateway:
                    plan = self._plan(owned, gateway)
                    if venv := self._install(owned, plan):
                        around = replace(around, venv=venv)
                        trunk = self._open_trunk(owned, around)
                    self._build(owned, gateway, trunk, plan, around)
                return self._finish(owned, trunk, plan)
        finally:
            self.view.close()

    def only_plan(self) -> Plan:
        """Until there is a plan, which a later run in the same directory uses."""
        self._check_prices()
        with self._owned() as owned:
            self.say(self._who_pays())
            with self._gateway(owned) as gateway:
                return self._plan(owned, gateway)

    def say(self, text: str) -> None:
        """Tell the person, and the log."""
        log.info("%s", text)
        self.view.say(text)

    def _check_prices(self) -> None:
        """Refuse a budget that could not be kept, before anything is written."""
        from parallel_orchestrator.gateway.prices import PriceTable

        scenario = self.settled.scenario
        prices = PriceTable.load(Path(scenario.prices) if scenario.prices else None)
        capped = scenario.max_cost_usd is not None or scenario.task_max_cost_usd is not None
        if capped and self.settled.recording is None:
            prices.require([scenario.planner_model, scenario.executor_model])

    def _choose_sandbox(self) -> tuple[Surroundings, str]:
        """Where commands run, and a line on it. Shipped recordings go on where none works, their code being ours."""
        from parallel_orchestrator.agent.sandbox import detect
        from parallel_orchestrator.config.options import is_shipped
        from parallel_orchestrator.records.scenario import Surroundings

        mode, recording = self.settled.scenario.sandbox, self.settled.recording
        try:
            described = detect(mode).describe()
        except UsageError:
            if mode == "required" or recording is None or not is_shipped(recording):
                raise
            return Surroundings("off"), "Sandbox: OFF - none works here, and a shipped recording may run without"
        if mode == "off" and os.geteuid() == 0 and self.settled.credential:
            described += ", that is as root: they can read the credential from memory"
        return Surroundings("off" if mode == "off" else "required"), described

    def _who_pays(self) -> str:
        """Which credential pays for which endpoint; a replay says that no model is asked."""
        from parallel_orchestrator.report.account import replay_note

        settled = self.settled
        if settled.recording:
            return replay_note(settled.recording, settled.scenario.speed)
        return f"paid by {settled.credential.describe() if settled.credential else '?'} at {settled.scenario.endpoint}"

    @contextmanager
    def _owned(self) -> Iterator[OwnedRun]:
        """The output directory, ours until the end, with its log open."""
        from parallel_orchestrator.store.directory import own
        from parallel_orchestrator.store.logfile import log_to, stop_logging
        from parallel_orchestrator.trunk import git

        git.require()
        owned = own(self.settled.directory, self.settled.scenario, self.view.say)
        handler = log_to(owned.run.log)
        try:
            yield owned
        except OrchestratorError as error:
            log.error("%s", error)
            raise
        finally:
            stop_logging(handler)
            owned.lock.release()

    def _install(self, owned: OwnedRun, plan: Plan) -> Path | None:
        """The venv with those of the plan's packages that are not here; None when there are none."""
        from parallel_orchestrator.agent.packages import install, missing

        packages = missing(plan.packages)
        if not packages:
            return None
        if not owned.scenario.allow_install:
            raise UsageError(f"the plan needs {', '.join(packages)}: allow it with --allow-install, or plan without")
        self.say(f"installing {', '.join(packages)} …")
        return install(packages, owned.run.venv)

    def _open_trunk(self, owned: OwnedRun, around: Surroundings) -> Trunk:
        """The output directory's repository, made now or found."""
        from executor_agent import TEST_TIMEOUT_S
        from parallel_orchestrator.agent.sandbox import detect
        from parallel_orchestrator.trunk import Trunk

        trunk = Trunk(owned.run, detect(around.sandbox, around.venv), TEST_TIMEOUT_S)
        trunk.create()
        return trunk

    @contextmanager
    def _gateway(self, owned: OwnedRun) -> Iterator[GatewayProcess]:
        """The gateway, serving this run. At the end it lands the calls in flight."""
        from parallel_orchestrator.gateway.config import RunConfig, StartConfig
        from parallel_orchestrator.gateway.credential import Credential
        from parallel_orchestrator.gateway.process import GatewayProcess, new_socket_directory

        settled, scenario, paid_by = self.settled, owned.scenario, self.settled.credential
        begin = StartConfig(
            socket=new_socket_directory() / "gateway.sock",
            secret=secrets.token_hex(32),
            credential=Credential(paid_by.kind, paid_by.value) if paid_by else None,
            base_url=None if settled.recording else scenario.endpoint,
            prices=Path(scenario.prices) if scenario.prices else None,
            patience_s=scenario.endpoint_patience_s,
        )
        serve = RunConfig(
            run=scenario.run,
            ledger=owned.run.ledger,
            max_cost_usd=scenario.max_cost_usd,
            task_max_cost_usd=scenario.task_max_cost_usd,
            recording=settled.recording,
            speed=scenario.speed,
            models=(scenario.planner_model, scenario.executor_model),
        )
        with owned.run.log.open("ab") as gateway_log:
            gateway = GatewayProcess(begin, owned.lock.descriptor, stderr=gateway_log)
            try:
                gateway.start()
                gateway.open_run(serve)
                with gateway.kept_alive(lambda: self.say("the gateway had died and was started again")):
                    yield gateway
            except KeyboardInterrupt:
                self.say("stopping: calls in flight land in the ledger first; Ctrl-C again does not wait for them")
                raise
            finally:
                gateway.stop()

    def _plan(self, owned: OwnedRun, gateway: GatewayProcess) -> Plan:
        """The run's plan: the one on disk, the one given, or the planner's."""
        from parallel_orchestrator.agent.client import ModelClient
        from parallel_orchestrator.records.token import Caller, mint
        from parallel_orchestrator.store.files import write_whole
        from parallel_orchestrator.workers.forking import warm_up
        from planner_agent import PlannerAgent, plan_text, read_plan

        warm_up(PRELOAD)  # while the planner's model thinks
        plan = self.settled.plan
        if owned.run.plan.exists() and (plan is None or owned.run.queue.exists()):
            return read_plan(owned.run.plan)
        if plan is None and owned.scenario.plan_sha256:
            raise UsageError(
                "this run was to start from a plan file and stopped before it was taken over: "
                "run the requirement again in this directory, with --plan FILE"
            )
        if plan is None:
            self.say("planning …")
            token = mint(gateway.config.secret, Caller(owned.scenario.run, "plan", 1))
            planner = PlannerAgent(ModelClient(gateway.config.socket, token), owned.scenario, note=self.say)
            plan = planner.create_plan(owned.scenario.requirements)
        write_whole(owned.run.plan, plan_text(plan))
        return plan

    def _build(self, owned: OwnedRun, gateway: GatewayProcess, trunk: Trunk, plan: Plan, around: Surroundings) -> None:
        """Run executors until every task is settled."""
        from executor_agent import ExecutorSettings, open_executor
        from parallel_orchestrator.records.graph import choose_executors
        from parallel_orchestrator.report.summary import incomplete_summary, summary_text
        from parallel_orchestrator.report.watch import Watch
        from parallel_orchestrator.store.files import write_whole
        from parallel_orchestrator.workers.supervisor import Supervisor, Workforce
        from parallel_orchestrator.workers.worker import WorkSource

        choice = choose_executors(plan.graph(), owned.scenario.max_executors)
        self.say(f"plan: {plan.complexity.level}, {choice.reason}")
        settings = ExecutorSettings(
            owned.run, owned.scenario, plan, gateway.config.socket, gateway.config.secret, around
        )
        source = WorkSource(open_executor, settings)
        force = Workforce(choice.executors, source, PRELOAD, owned.lock.descriptor)
        watch = Watch(self.view, owned.run, plan, owned.scenario.max_cost_usd)

        def tick(supervisor: Supervisor) -> None:
            watch.look(supervisor.queue.refresh(), supervisor.slots.values())

        supervisor = Supervisor(owned.run, plan.graph(), force, tick)
        again = self._to_retry(supervisor)
        owned.run.summary.unlink(missing_ok=True)  # from here on the run is not finished, whoever kills it
        supervisor.queue.start_session(choice.executors)
        for merge in trunk.recover():
            supervisor.queue.adopt(merge.task, merge.evidence)
        supervisor.queue.take_back(None, "its orchestrator ended")
        for task in again:
            supervisor.queue.retry(task, "the person asked for another attempt")
        if owned.resumed:
            self.say(watch.reuse(supervisor.queue.refresh()))
        try:
            supervisor.supervise()
        except BaseException:
            write_whole(owned.run.summary, summary_text(incomplete_summary(owned.run, owned.scenario, plan)))
            raise
        finally:
            supervisor.queue.close()
            watch.close()

    def _to_retry(self, supervisor: Supervisor) -> list[str]:
        from parallel_orchestrator.records.lifecycle import TaskState

        tasks = supervisor.queue.refresh().tasks
        failed = [task for task, status in tasks.items() if status.state is TaskState.FAILED]
        wrong = [task for task in self.retry or () if task not in failed]
        if wrong:
            raise UsageError(f"{', '.join(wrong)} did not fail; failed tasks here: {', '.join(failed) or 'none'}")
        if self.retry is not None and not failed:
            raise UsageError("no task failed here, so there is nothing to retry")
        return [] if self.retry is None else list(self.retry) or failed

    def _finish(self, owned: OwnedRun, trunk: Trunk, plan: Plan) -> dict[str, Any]:
        """Test the whole, describe it, sum up. The summary comes last: it is what says that the run is finished."""
        from parallel_orchestrator.report.readme import build_readme, read_documents
        from parallel_orchestrator.report.summary import read_state, summarize, summary_text
        from parallel_orchestrator.store.files import write_whole

        self.say("testing the whole …")
        final = trunk.final_checks([*plan.verify, *owned.scenario.verify])
        state = read_state(owned.run, owned.scenario, plan)
        summary = summarize(state, final.as_json())
        pages = {
            "README.md": build_readme(state, read_documents(owned.run.root)),
            "docs/execution_plan.json": owned.run.plan.read_text(),
            "docs/execution_summary.json": summary_text(summary),
        }
        trunk.publish({path: text.encode() for path, text in pages.items()}, "Describe the project")
        write_whole(owned.run.summary, summary_text(summary))
        return summary


def export_recording(directory: Path, file: Path) -> int:
    """Write a run's answers as a recording; how many there are."""
    from parallel_orchestrator.config.options import resume_options
    from parallel_orchestrator.gateway.recording import dump, from_ledger
    from parallel_orchestrator.store.files import write_whole
    from parallel_orchestrator.store.paths import RunDirectory

    requirement = resume_options(directory, {}).requirements
    recording = from_ledger(RunDirectory(directory.absolute()).ledger, requirement, file.stem)
    write_whole(file, dump(recording, "The answers of a run, exported from its ledger."))
    return len(recording.answers)


app = make_app(start, export_recording)


def main() -> None:
    """The console script."""
    run_app(app)


if __name__ == "__main__":
    main()
