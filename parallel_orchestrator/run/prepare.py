"""Preparing a run: all that executors need before they claim its first task.

prepare
  repository     made, or found; edits that were not committed are seen to
  plan           the one on disk, the one given, or the planner's
  agreement      of the person, where nothing limits the cost
  packages       that the plan needs, where they may be installed
  recover        a queue that agrees with the trunk, whatever a killed session left
"""

from __future__ import annotations

import shlex
from contextlib import closing
from dataclasses import dataclass, replace

from executor_agent import TEST_TIMEOUT_S
from parallel_orchestrator.agent.model_client import ModelClient
from parallel_orchestrator.gateway.endpoints.prices import PriceTable
from parallel_orchestrator.gateway.handle import GatewayProcess
from parallel_orchestrator.records.attempt_token import Caller, mint
from parallel_orchestrator.records.errors import Interrupted, UsageError
from parallel_orchestrator.records.graph import choose_executors
from parallel_orchestrator.records.lifecycle import TaskState
from parallel_orchestrator.records.plan import Plan
from parallel_orchestrator.records.scenario import ExecutionEnv
from parallel_orchestrator.report.facts.advice import advise
from parallel_orchestrator.report.facts.summary import may_be_red
from parallel_orchestrator.report.facts.trouble import LedgerTrouble
from parallel_orchestrator.report.live.view import waiting
from parallel_orchestrator.report.pages.summary_text import estimate_question, no_cap_note, reuse_note
from parallel_orchestrator.run.run import Run
from parallel_orchestrator.sandbox.packages import provide
from parallel_orchestrator.sandbox.runner import clear_up, runner_for
from parallel_orchestrator.store.plan_file import plan_digest, plan_of, plan_text
from parallel_orchestrator.store.queue.queue import TaskQueue
from parallel_orchestrator.store.run_directory import OwnedRun
from parallel_orchestrator.system.files import write_whole
from parallel_orchestrator.system.terminal_text import listed
from parallel_orchestrator.trunk import Trunk
from parallel_orchestrator.workers.call import call_apart
from planner_agent import MAX_ATTEMPTS, MAX_TOKENS, plan_run

PRELOAD = (
    "planner_agent",
    "executor_agent",
    "parallel_orchestrator.workers.call",
    "parallel_orchestrator.workers.worker",
    "parallel_orchestrator.agent.preload",
)
"""Modules that the fork server imports once for planner and executors. Importing the last one calls `gc.freeze()`."""


@dataclass(frozen=True)
class PreparedRun:
    """A run that executors can work on."""

    run: Run
    owned: OwnedRun
    trunk: Trunk
    plan: Plan
    env: ExecutionEnv
    executors: int
    """How many its plan can make use of."""


def prepare(run: Run, owned: OwnedRun, gateway: GatewayProcess) -> PreparedRun:
    """Make all that executors need: repository, plan, packages, and a queue that agrees with the trunk.

    Several runs may be prepared at once, in threads of one process.
    """
    env = run.env or run.check()
    trunk = _open_trunk(run, owned, env)
    uncapped = run.needs_agreement()
    plan = make_plan(run, owned, gateway)
    if uncapped:
        _agree(run, plan)
    if venv := provide(plan.packages, owned.run.venv, allowed=owned.scenario.allow_install, say=run.say):
        env = replace(env, venv=venv)
        trunk = _open_trunk(run, owned, env)
    return PreparedRun(run, owned, trunk, plan, env, _recover(run, owned, trunk, plan))


def _open_trunk(run: Run, owned: OwnedRun, env: ExecutionEnv) -> Trunk:
    """The output directory's repository, made now or found."""
    trunk = Trunk(owned.run, runner_for(env.sandbox, env.venv), TEST_TIMEOUT_S)
    _look_at_edits(run, owned, trunk)
    trunk.create()
    return trunk


def _look_at_edits(run: Run, owned: OwnedRun, trunk: Trunk) -> None:
    """Say what the person changed and did not commit. Raises UsageError where a tracked file changed."""
    edits, root = trunk.edits(), shlex.quote(str(owned.run.root))
    if edits.changed:
        raise UsageError(
            f"{owned.run.root} has uncommitted edits: {listed(edits.changed)}. What counts is what is committed, so "
            f"nothing was started. To keep them: git -C {root} commit -a; to drop them: git -C {root} stash"
        )
    if edits.missing:
        run.say(f"these files of the project were missing and are restored: {listed(edits.missing)}")
    if edits.new:
        run.say(f"not committed, so not tested and not in the result: {listed(edits.new)}")


def make_plan(run: Run, owned: OwnedRun, gateway: GatewayProcess) -> Plan:
    """The run's plan: the one on disk, the one given, or the planner's, which works where the SDK is imported."""
    plan = run.resolved.plan
    if owned.run.plan.exists() and (plan is None or owned.run.queue.exists()):
        return plan_of(owned.run)
    if plan is None and owned.scenario.plan_sha256:
        raise UsageError(
            "this run was to start from a plan file and stopped before it was taken over: "
            "run the requirement again in this directory, with --plan FILE"
        )
    if plan is None:
        if run.needs_agreement():
            run.say(_cost_before_planning(run))
        plan = _ask_planner(run, owned, gateway)
    write_whole(owned.run.plan, plan_text(plan))
    return plan


def _ask_planner(run: Run, owned: OwnedRun, gateway: GatewayProcess) -> Plan:
    run.say("planning …")
    token = mint(gateway.config.secret, Caller(owned.scenario.run, "plan", 1))
    arguments = (owned.scenario, owned.run, ModelClient(gateway.config.socket, token), run.env)
    trouble = LedgerTrouble(owned.run.ledger, run.view.say)
    with closing(trouble), waiting(run.view, "planning", trouble):
        plan: Plan = call_apart(plan_run, arguments, run.say, preload=PRELOAD, run_lock=owned.lock.descriptor)
    return plan


def _cost_before_planning(run: Run) -> str:
    """Returns the notice of a run without a cap, printed before the planner's first call."""
    scenario = run.scenario
    most = {"output_tokens": MAX_ATTEMPTS * MAX_TOKENS}
    cost = PriceTable.of(scenario).cost(scenario.planner_model, most) if scenario.planner_backend == "api" else None
    return no_cap_note(cost)


def _agree(run: Run, plan: Plan) -> None:
    """Show the estimate, and ask whether to build without a cap. Raises Interrupted when the person declines."""
    question = estimate_question(advise(plan, run.scenario.max_executors, run.price))
    if not (run.ask and run.ask(question)):
        raise Interrupted("nothing was built. The plan is kept; with --max-cost USD the run has a cap")


def _recover(run: Run, owned: OwnedRun, trunk: Trunk, plan: Plan) -> int:
    """Begin a session: adopt what is on the trunk, and free the claims of a dead orchestrator.

    Returns how many executors the plan can make use of.
    """
    clear_up()
    directory, graph = owned.run, plan.graph()
    choice = choose_executors(graph, owned.scenario.max_executors)
    run.say(f"plan: {plan.complexity.level}, {choice.reason}")
    with closing(TaskQueue(directory, graph)) as queue:
        again = [task for task in queue.to_retry(run.retry, red=may_be_red(directory)) if task in graph.nodes]
        fix_asked = run.retry is not None and not again
        directory.summary.unlink(missing_ok=True)  # from here on a killed run counts as unfinished
        queue.start_session(choice.executors, plan_digest(plan), fix_asked=fix_asked)
        for merge in trunk.recover():
            queue.adopt(merge.task, merge.evidence)
        queue.take_back(None, "its orchestrator ended")
        for task in again:
            if queue.refresh().tasks[task].state is TaskState.FAILED:  # not so when its merge was found
                queue.retry(task, "the person asked for another attempt")
        if owned.resumed:
            run.say(reuse_note(directory, queue.refresh()))
    return choice.executors
