"""Parallel Orchestrator: from a requirement to a tested, merged project, built by several agents at once.

    Run.go
      choose sandbox   and check what can be checked before anything is paid for
      own              the output directory, for this process family alone
      gateway          the one process that calls the model
      prepare          the repository, the plan (asked for once; found again on resume), what a killed run left
      build            M executor processes claim tasks until all are settled
      test_whole       test the whole; while it is red and rounds are left, plan a fix task and build that
      finish           describe the whole, sum up

Everything between two steps is on disk: after a kill anywhere, the same command resumes.
"""

from __future__ import annotations

import logging
import os
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from parallel_orchestrator.system.invocation import require_packages

if __name__ == "__main__":
    require_packages()

from parallel_orchestrator.cli.app import make_app, run_app
from parallel_orchestrator.python_api import ParallelOrchestrator
from parallel_orchestrator.records.errors import UsageError
from parallel_orchestrator.system.terminal_text import listed

if TYPE_CHECKING:
    from parallel_orchestrator.config.options import Options, Settled
    from parallel_orchestrator.gateway.config import RunConfig, StartConfig
    from parallel_orchestrator.gateway.handle import GatewayProcess
    from parallel_orchestrator.records.plan import Plan
    from parallel_orchestrator.records.scenario import ExecutionEnv
    from parallel_orchestrator.report.facts.summary import RunState
    from parallel_orchestrator.report.live.progress import Progress
    from parallel_orchestrator.report.live.view import View
    from parallel_orchestrator.run.cost import Budget
    from parallel_orchestrator.run.session import Given
    from parallel_orchestrator.store.paths import RunDirectory
    from parallel_orchestrator.store.run_directory import OwnedRun
    from parallel_orchestrator.store.run_lock import RunLock
    from parallel_orchestrator.trunk import Edits, FinalReport, Trunk
    from parallel_orchestrator.workers.supervisor import Supervisor, Workforce

__all__ = ("ParallelOrchestrator", "Run", "app", "main", "start", "start_batch", "workforce")

Ask = Callable[[str], bool]
"""Asks the person a question and returns whether the answer is yes."""

# Most modules are imported where they are used: --help, --version and completion must not wait for them.

log = logging.getLogger("parallel_orchestrator.orchestrator")

PRELOAD = (
    "planner_agent",
    "executor_agent",
    "parallel_orchestrator.workers.call",
    "parallel_orchestrator.workers.worker",
    "parallel_orchestrator.agent.preload",
)
"""Modules that the fork server imports once for planner and executors. The last one calls `gc.freeze()`."""

MOST_AHEAD = 16
"""Above this many executors, sandboxes are not prewarmed, to save their memory."""


def start(
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
    from parallel_orchestrator.config.options import settle
    from parallel_orchestrator.report.live.console import make_view
    from parallel_orchestrator.system import redact
    from parallel_orchestrator.system.environment import secret_values

    redact.know(*secret_values(os.environ))
    settled, view = settle(options, os.environ), make_view(quiet)
    if on_progress:
        from parallel_orchestrator.report.live.progress import ReportingView

        view = ReportingView(view, on_progress)
    return Run(settled, view, retry, ask=ask)


def start_batch(given: Given, *, quiet: bool = False) -> dict[str, Any]:
    """Build or resume all scenarios of a batch with one set of executors; return the batch's summary."""
    from parallel_orchestrator.config.options import settle
    from parallel_orchestrator.gateway.handle import serving
    from parallel_orchestrator.report.live.console import make_view
    from parallel_orchestrator.run.runner import Tools
    from parallel_orchestrator.run.session import run_batch
    from parallel_orchestrator.store.paths import BatchDirectory

    view = make_view(quiet)
    log_file = BatchDirectory(given.folder.absolute()).log
    tools = Tools(lambda config, lock_fd: serving(config, lock_fd, log_file, view.say), workforce)

    def make(name: str, options: Options, part: View, again: Sequence[str] | None) -> Run:
        return Run(settle(options, os.environ), part, again, name)

    return run_batch(given, make, tools, view)


@dataclass(frozen=True)
class Site:
    """A run that executors can work on."""

    owned: OwnedRun
    trunk: Trunk
    plan: Plan
    env: ExecutionEnv


def workforce(executors: int, gateway: GatewayProcess, lock: RunLock) -> Workforce:
    """What executor processes are made of."""
    from executor_agent import ExecutorSettings, open_executor
    from parallel_orchestrator.workers.supervisor import Workforce
    from parallel_orchestrator.workers.worker import WorkSource

    settings = ExecutorSettings(gateway.config.socket, gateway.config.secret, executors <= MOST_AHEAD)
    return Workforce(executors, WorkSource(open_executor, settings), PRELOAD, lock.descriptor)


@dataclass
class Run:
    """The story of one run."""

    settled: Settled
    view: View
    retry: Sequence[str] | None = None
    """Failed tasks to try again; empty: all of them; None: none."""
    name: str = ""
    """In a batch, of the scenario."""
    ask: Ask | None = None
    """Asks the person a question; None where no person can answer."""
    found_finished: bool = False
    """Whether `go` found the run finished, and so did nothing."""

    def go(self) -> dict[str, Any]:
        """All of it; the summary."""
        from parallel_orchestrator.config.options import require_agreement
        from parallel_orchestrator.report.facts.summary import finished_summary, succeeded
        from parallel_orchestrator.store.run_directory import set_aside

        try:
            env, described = self.check()
            if self.ask is None:
                require_agreement(self.settled)
            if self.settled.fresh:
                set_aside(self.settled.directory, self.say)
            with self._owned() as owned:
                if self.retry is None and (finished := finished_summary(owned.run)):
                    self._set_right(owned, finished)
                    failed = "" if succeeded(finished) else ", though not all of it succeeded"
                    self.found_finished = True
                    self.say(f"{owned.run.root} is finished{failed}; nothing to do")
                    return finished
                self.say(f"{self.who_pays()}. {described}")
                return self._to_its_end(owned, env)
        finally:
            self.view.close()

    def _to_its_end(self, owned: OwnedRun, env: ExecutionEnv) -> dict[str, Any]:
        """Prepare, build, finish; whatever stops that, the run's summary says how far it is."""
        from parallel_orchestrator.workers.forking import warm_up

        warm_up(PRELOAD)  # importing the SDK takes longest: the rest runs meanwhile
        site = None
        try:
            with self._gateway(owned, self.gateway_config()) as gateway:
                site = self.prepare(owned, gateway, env)
                final = None
                while final is None:
                    self._build(site, gateway)
                    final = self.test_whole(site)
            return self.finish(site, final)
        except BaseException:
            if site:
                self.stopped(site)  # by now the calls in flight have landed, and are counted
            raise

    def only_plan(self, budget: Budget | None = None) -> Plan:
        """Until there is a plan, which a later run in the same directory uses. `budget`: of the batch it is part of."""
        self.check_files()
        start = self.gateway_config()
        if budget:
            start = replace(start, max_cost_usd=budget.max_cost_usd, spent_before_usd=budget.spent_usd)
        # Only Claude Code needs a sandbox to plan.
        env = None if self.settled.scenario.planner_backend == "api" else self.check()[0]
        with self._owned() as owned:
            self.say(self.who_pays())
            with self._gateway(owned, start) as gateway:
                return self._plan(owned, gateway, env)

    def price(self, usage: Mapping[str, int]) -> float | None:
        """USD that such a usage costs at the executors' model; None when that is not known."""
        from parallel_orchestrator.gateway.endpoints.prices import PriceTable

        scenario = self.settled.scenario
        return PriceTable.of(scenario).cost(scenario.executor_model, dict(usage))

    def say(self, text: str) -> None:
        """Print the text for the person, and log it."""
        self._log(text)
        self.view.say(text)

    def check(self) -> tuple[ExecutionEnv, str]:
        """What can be found wrong before a directory is touched; where commands will run, and a line on it."""
        from parallel_orchestrator.claude_code.binary import acting
        from parallel_orchestrator.sandbox.runner import choose

        ours, scenario = self.check_files(), self.settled.scenario
        claude_code = acting(scenario)
        env, told = choose(scenario.sandbox, our_own_code=ours, key_at_stake=self.settled.credential is not None)
        return env, f"{told}. {claude_code}" if claude_code else told

    def check_files(self) -> bool:
        """Refuse prices and recordings that cannot be used. Returns whether a shipped recording is replayed."""
        from parallel_orchestrator.config.options import is_shipped
        from parallel_orchestrator.gateway.endpoints.prices import require_prices
        from parallel_orchestrator.gateway.endpoints.recording import require_recording
        from parallel_orchestrator.system.process import hide_memory

        hide_memory()  # credentials stay in this process's environment, which commands of the same user could read
        require_prices(self.settled.scenario)
        recording = self.settled.recording
        if recording is None or is_shipped(recording):
            return recording is not None
        require_recording(recording)
        return False

    def who_pays(self) -> str:
        """Which credential pays for which endpoint; a replay says that no model is asked."""
        from parallel_orchestrator.report.pages.summary_text import replay_note

        settled = self.settled
        if settled.recording:
            return replay_note(settled.recording, settled.scenario.speed, settled.scenario.requirements)
        paid_by, endpoint = settled.credential, settled.scenario.endpoint
        if paid_by is None:
            return f"no key is set, so {endpoint} is asked without one"
        return f"paid by {paid_by.describe()} at {endpoint}"

    @contextmanager
    def _owned(self) -> Iterator[OwnedRun]:
        """Lock the output directory until the end, with its log open."""
        from parallel_orchestrator.store.run_directory import occupied
        from parallel_orchestrator.trunk.git import git

        git.require()
        settled = self.settled
        with occupied(settled.directory, settled.scenario, self.view.say, resumed=settled.resumed) as owned:
            yield owned

    def prepare(self, owned: OwnedRun, gateway: GatewayProcess, env: ExecutionEnv) -> Site:
        """Make all that executors need: repository, plan, packages, and a queue that agrees with the trunk.

        Several runs may be prepared at once, in threads of one process.
        """
        from parallel_orchestrator.sandbox.packages import provide

        trunk = self._open_trunk(owned, env)
        uncapped = self._lacks_agreement()
        plan = self._plan(owned, gateway, env)
        if uncapped:
            self._agree(plan)
        if venv := provide(plan.packages, owned.run.venv, allowed=owned.scenario.allow_install, say=self.say):
            env = replace(env, venv=venv)
            trunk = self._open_trunk(owned, env)
        site = Site(owned, trunk, plan, env)
        self._recover(site)
        return site

    def _open_trunk(self, owned: OwnedRun, env: ExecutionEnv) -> Trunk:
        """The output directory's repository, made now or found."""
        from executor_agent import TEST_TIMEOUT_S
        from parallel_orchestrator.sandbox.runner import runner_for
        from parallel_orchestrator.trunk import Trunk

        trunk = Trunk(owned.run, runner_for(env.sandbox, env.venv), TEST_TIMEOUT_S)
        self._look_at_edits(owned.run, trunk.edits())
        trunk.create()
        return trunk

    def _look_at_edits(self, run: RunDirectory, found: Edits) -> None:
        """Say what the person changed and did not commit. Raises UsageError where a tracked file changed."""
        root = shlex.quote(str(run.root))
        if found.changed:
            raise UsageError(
                f"{run.root} has uncommitted edits: {listed(found.changed)}. What counts is what is committed, so "
                f"nothing was started. To keep them: git -C {root} commit -a; to drop them: git -C {root} stash"
            )
        if found.missing:
            self.say(f"these files of the project were missing and are restored: {listed(found.missing)}")
        if found.new:
            self.say(f"not committed, so not tested and not in the result: {listed(found.new)}")

    @contextmanager
    def _gateway(self, owned: OwnedRun, start: StartConfig) -> Iterator[GatewayProcess]:
        """The gateway, serving this run. At the end it lands the calls in flight."""
        from parallel_orchestrator.gateway.handle import serving

        with serving(start, owned.lock.descriptor, owned.run.log, self.say) as gateway:
            gateway.open_run(self.served(owned))
            yield gateway

    def gateway_config(self) -> StartConfig:
        """How a gateway for this run starts."""
        from parallel_orchestrator.gateway.config import StartConfig

        return StartConfig.of(self.settled.scenario, self.settled.credential)

    def served(self, owned: OwnedRun) -> RunConfig:
        """What the gateway needs to know of this run."""
        from parallel_orchestrator.gateway.config import RunConfig

        return RunConfig.of(owned.scenario, owned.run.ledger, self.settled.recording)

    def _plan(self, owned: OwnedRun, gateway: GatewayProcess, env: ExecutionEnv | None) -> Plan:
        """The run's plan: the one on disk, the one given, or the planner's, which works where the SDK is imported."""
        from parallel_orchestrator.agent.model_client import ModelClient
        from parallel_orchestrator.records.attempt_token import Caller, mint
        from parallel_orchestrator.report.facts.trouble import LedgerTrouble
        from parallel_orchestrator.report.live.view import waiting
        from parallel_orchestrator.store.plan_file import plan_of, plan_text
        from parallel_orchestrator.system.files import write_whole
        from parallel_orchestrator.workers.call import call_apart
        from planner_agent import plan_run

        plan = self.settled.plan
        if owned.run.plan.exists() and (plan is None or owned.run.queue.exists()):
            return plan_of(owned.run)
        if plan is None and owned.scenario.plan_sha256:
            raise UsageError(
                "this run was to start from a plan file and stopped before it was taken over: "
                "run the requirement again in this directory, with --plan FILE"
            )
        if plan is None:
            if self._lacks_agreement():
                self.say(self._before_planning())
            self.say("planning …")
            token = mint(gateway.config.secret, Caller(owned.scenario.run, "plan", 1))
            asked = (owned.scenario, owned.run, ModelClient(gateway.config.socket, token), env)
            trouble = LedgerTrouble(owned.run.ledger, self.view.say)
            with closing(trouble), waiting(self.view, "planning", trouble):
                plan = call_apart(plan_run, asked, self.say, preload=PRELOAD, run_lock=owned.lock.descriptor)
        write_whole(owned.run.plan, plan_text(plan))
        return plan

    def _lacks_agreement(self) -> bool:
        """Whether to ask the person before executors start, because nothing limits the cost."""
        from parallel_orchestrator.config.options import lacks_agreement

        return self.ask is not None and lacks_agreement(self.settled)

    def _before_planning(self) -> str:
        """Returns the notice of a run without a cap, printed before the planner's first call."""
        from parallel_orchestrator.gateway.endpoints.prices import PriceTable
        from parallel_orchestrator.report.pages.summary_text import no_cap_note
        from planner_agent import MAX_ATTEMPTS, MAX_TOKENS

        scenario = self.settled.scenario
        most = {"output_tokens": MAX_ATTEMPTS * MAX_TOKENS}
        cost = PriceTable.of(scenario).cost(scenario.planner_model, most) if scenario.planner_backend == "api" else None
        return no_cap_note(cost)

    def _agree(self, plan: Plan) -> None:
        """Show the estimate, and ask whether to build without a cap. Raises Interrupted when the person declines."""
        from parallel_orchestrator.records.errors import Interrupted
        from parallel_orchestrator.report.facts.advice import advise
        from parallel_orchestrator.report.pages.summary_text import estimate_question

        question = estimate_question(advise(plan, self.settled.scenario.max_executors, self.price))
        if not (self.ask and self.ask(question)):
            raise Interrupted("nothing was built. The plan is kept; with --max-cost USD the run has a cap")

    def _recover(self, site: Site) -> None:
        """Begin a session: adopt what is on the trunk, and free the claims of a dead orchestrator."""
        from parallel_orchestrator.records.graph import choose_executors
        from parallel_orchestrator.records.lifecycle import TaskState
        from parallel_orchestrator.report.facts.summary import may_be_red
        from parallel_orchestrator.report.pages.summary_text import reuse_note
        from parallel_orchestrator.sandbox.runner import clear_up
        from parallel_orchestrator.store.plan_file import plan_digest
        from parallel_orchestrator.store.queue.queue import TaskQueue

        clear_up()
        run, graph = site.owned.run, site.plan.graph()
        choice = choose_executors(graph, site.owned.scenario.max_executors)
        self.say(f"plan: {site.plan.complexity.level}, {choice.reason}")
        with closing(TaskQueue(run, graph)) as queue:
            again = [task for task in queue.to_retry(self.retry, red=may_be_red(run)) if task in graph.nodes]
            fix_asked = self.retry is not None and not again
            run.summary.unlink(missing_ok=True)  # from here on a killed run counts as unfinished
            queue.start_session(choice.executors, plan_digest(site.plan), fix_asked=fix_asked)
            for merge in site.trunk.recover():
                queue.adopt(merge.task, merge.evidence)
            queue.take_back(None, "its orchestrator ended")
            for task in again:
                if queue.refresh().tasks[task].state is TaskState.FAILED:  # not so when its merge was found
                    queue.retry(task, "the person asked for another attempt")
            if site.owned.resumed:
                self.say(reuse_note(run, queue.refresh()))

    def _build(self, site: Site, gateway: GatewayProcess) -> None:
        """Run executors until every task is settled."""
        from parallel_orchestrator.records.graph import choose_executors
        from parallel_orchestrator.report.live.follower import RunFollower
        from parallel_orchestrator.sandbox.runner import clear_up
        from parallel_orchestrator.store.queue.scheduler import Alone, Member
        from parallel_orchestrator.workers.supervisor import Supervisor

        owned, graph = site.owned, site.plan.graph()
        executors = choose_executors(graph, owned.scenario.max_executors).executors
        follower = RunFollower(self.view, owned.run, site.plan, owned.scenario.max_cost_usd)

        def tick(supervisor: Supervisor) -> None:
            follower.look(supervisor.slots.values(), gateway)

        member = Member(owned.run, graph, site.env)
        force = workforce(executors, gateway, owned.lock)
        supervisor = Supervisor(Alone(member), force, tick, landed=lambda _, task: site.trunk.landed(task))
        try:
            supervisor.supervise()
        finally:
            supervisor.board.close()
            clear_up()  # after executors that were killed and not replaced
            follower.close()

    def stopped(self, site: Site) -> dict[str, Any]:
        """Write the summary of a run that stops before its end, and return it."""
        from parallel_orchestrator.report.facts.summary import incomplete_summary, read_state

        run, scenario = site.owned.run, site.owned.scenario
        summary = incomplete_summary(run, scenario, site.plan)
        self._write_down(run, summary, lambda: read_state(run, scenario, site.plan))
        return summary

    def test_whole(self, site: Site) -> FinalReport | None:
        """Test the whole. None when it is red and a fix task is planned for it, or other tasks are left."""
        from parallel_orchestrator.report.live.view import waiting
        from parallel_orchestrator.sandbox.runner import clear_up
        from parallel_orchestrator.store.plan_file import plan_of, planned_verify
        from parallel_orchestrator.store.queue.queue import TaskQueue

        owned, plan = site.owned, plan_of(site.owned.run)
        with closing(TaskQueue(owned.run, plan.graph())) as queue:
            if queue.refresh().unsettled:
                return None
            clear_up()  # of executors that were killed in this session
            self.say("testing the whole …")
            planned = planned_verify(owned.run, plan)
            with waiting(self.view, "testing the whole"):
                final = site.trunk.final_checks([*planned, *owned.scenario.verify])
            if final.green:
                return final
            red = final.red(planned)
            fix = queue.plan_fix(red, owned.scenario.fix_rounds)
        for reason in red.reasons(output=True):
            self._log(f"the whole is red: {reason}")
        if fix:
            self.say(f"the whole is red: {'; '.join(red.reasons()[:3])}; {fix} begins, to correct it")
        return None if fix else final

    def finish(self, site: Site, final: FinalReport) -> dict[str, Any]:
        """Publish the project's README and write the summary; return the summary."""
        from parallel_orchestrator.report.facts.summary import read_state, summarize, summary_text
        from parallel_orchestrator.report.pages.readme import build_readme, read_documents
        from parallel_orchestrator.report.pages.summary_text import headline
        from parallel_orchestrator.store.plan_file import plan_of
        from parallel_orchestrator.store.queue.queue import TaskQueue

        owned, trunk, plan = site.owned, site.trunk, plan_of(site.owned.run)
        state = read_state(owned.run, owned.scenario, plan)
        summary = summarize(state, final.as_json())
        pages = {
            "README.md": build_readme(state, read_documents(owned.run.root)),
            "docs/execution_plan.json": owned.run.plan.read_text(encoding="utf-8"),
            "docs/execution_summary.json": summary_text(summary),
        }
        head = trunk.publish({path: text.encode() for path, text in pages.items()}, "Describe the project")
        for folder in sorted(owned.run.root.glob("edits-*")):
            self.say(f"edits that were not committed, and that the trunk's files replaced, are kept in {folder}")
        with closing(TaskQueue(owned.run, plan.graph())) as queue:
            queue.record_final(final.as_json(), head)
        self._write_down(owned.run, summary, lambda: state)
        self._log(headline(summary))
        return summary

    def _set_right(self, owned: OwnedRun, finished: dict[str, Any]) -> None:
        """Restore a finished run's summary, page and deleted files from its other files."""
        from parallel_orchestrator.records.errors import CannotGoOn
        from parallel_orchestrator.report.facts.summary import last_summary, read_state
        from parallel_orchestrator.store.plan_file import plan_of
        from parallel_orchestrator.system.invocation import command
        from parallel_orchestrator.trunk.git.repository import Repository

        run = owned.run
        if last_summary(run) != finished:
            self._write_down(run, finished, lambda: read_state(run, owned.scenario, plan_of(run)))
            self.say(f"{run.summary.name} did not say what the run's other files say; it was written again")
        try:
            missing, edited = Repository(run).restore_missing()
        except CannotGoOn as error:
            self.say(f"the trunk cannot be read: {error} To repair it: {command('repair', run.root)}")
            return
        if missing:
            self.say(f"brought back from the trunk: {_some(missing)}")
        if edited:
            self.say(f"not as on the trunk, and left as it is: {_some(edited)}; `check` names each")

    def _write_down(self, run: RunDirectory, summary: dict[str, Any], read: Callable[[], RunState]) -> None:
        """Write the page, then the summary, whose presence marks the run as finished."""
        from parallel_orchestrator.report.facts.summary import summary_text
        from parallel_orchestrator.report.pages.summary_page import summary_page, write_page
        from parallel_orchestrator.system.files import write_whole

        write_page(run.page, lambda: summary_page(read(), summary), in_batch=bool(self.name))
        write_whole(run.summary, summary_text(summary))

    def _log(self, text: str) -> None:
        log.info("%s%s", f"{self.name}: " if self.name else "", text)


def _some(paths: Sequence[str]) -> str:
    more = f" and {len(paths) - 5} more" if len(paths) > 5 else ""
    return ", ".join(paths[:5]) + more


app = make_app(start, start_batch)


def main() -> None:
    """The console script."""
    run_app(app)


if __name__ == "__main__":
    main()
