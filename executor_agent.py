"""The executor: one claimed task in, one outcome out.

    execute
      open           a workspace from the trunk as it is now, or the one that a killed executor left
      take turns     the model acts until it says that it has finished
      submit         code checks what it wrote; merge, test, land
      send back      a conflict, red tests or a broken rule return to the same conversation as facts

A conversation that is stopped (no room, a limit, a loop, a refusal) is submitted as well: code judges
what is in the workspace. Where that is not merged, the task fails; but once in an attempt, when context
or turns ran out, a new conversation continues in the same workspace.

Nothing is kept in memory between these steps: transcript and ledger say how far an attempt is, so
any executor can continue any attempt.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

from parallel_orchestrator.agent.model_client import Answer, ModelClient
from parallel_orchestrator.agent.prompt import (
    Rejection,
    claude_code_texts,
    opening,
    restart_text,
    send_back_text,
)
from parallel_orchestrator.agent.tools.toolbox import ToolBox
from parallel_orchestrator.agent.transcript import Transcript
from parallel_orchestrator.agent.turns import AgentContext, Limits, StopKind, StopResult, take_turns
from parallel_orchestrator.claude_code.binary import find
from parallel_orchestrator.claude_code.session import START_S, ClaudeCodeSession, Runner, SessionSettings, session_id
from parallel_orchestrator.claude_code.tool_runner import CALL_S, TOOLS, ClaudeCodeTools
from parallel_orchestrator.records.attempt_token import Caller, mint
from parallel_orchestrator.records.errors import ModelUnknown, RecordingExhausted, TaskLimit
from parallel_orchestrator.records.fix import FixTask
from parallel_orchestrator.records.journals.evidence import MergeEvidence
from parallel_orchestrator.records.lifecycle import TaskState
from parallel_orchestrator.records.outcome import Outcome
from parallel_orchestrator.records.plan import Task
from parallel_orchestrator.records.scenario import ExecutionEnv
from parallel_orchestrator.sandbox.runner import BubblewrapRunner, clear_up, runner_for
from parallel_orchestrator.store.paths import RunDirectory
from parallel_orchestrator.store.plan_file import plan_of, planned_verify, task_of
from parallel_orchestrator.store.queue.queue_state import Claim
from parallel_orchestrator.store.queue.scheduler import RunHandle
from parallel_orchestrator.store.run_directory import require_scenario
from parallel_orchestrator.system.files import disk_faults_in
from parallel_orchestrator.system.memory import ROOM
from parallel_orchestrator.trunk import Conflict, Merged, Rejected, Submission, TestsFailed, Trunk

MAX_RESTARTS = 1
"""New conversations in one attempt, after context or turns ran out."""
BASH_TIMEOUT_S = 120.0
TEST_TIMEOUT_S = 300.0
LONGEST_RUN_S = 4 * TEST_TIMEOUT_S
"""Commands or tests that had to wait for memory, until the next report."""


class Job(Protocol):
    """The claimed task: the part of the worker's `Job` that an executor uses."""

    @property
    def claim(self) -> Claim:
        """Which task, which attempt, in whose folder."""

    @property
    def handle(self) -> RunHandle:
        """The run that the task is of, and its surroundings."""

    def check(self) -> None:
        """Raise StaleClaim unless the claim still stands."""

    def record_merge_and_claim_next(self, evidence: MergeEvidence) -> None:
        """Record that the work is on the trunk."""

    def report(self, doing: str, within_s: float | None = None) -> None:
        """Say what is being done, and by when the next report comes. Raises Interrupted when the run is to stop."""


@dataclass(frozen=True)
class ExecutorSettings:
    """What an executor needs besides its jobs; sent to the worker process."""

    socket: Path
    """The gateway's."""
    secret: str = field(repr=False)
    """Signs the attempts' tokens."""
    prewarm: bool = True
    """Whether a shell and a pytest are prewarmed in sandboxes for each task: faster, for about 25 MB an
    executor."""


def open_executor(settings: ExecutorSettings) -> Callable[[Job], Outcome]:
    """Makes an executor inside its worker process, for tasks of one run or of many."""
    clear_up()  # leftovers of a killed executor that this one replaces
    runner = lru_cache(maxsize=8)(runner_for)

    @lru_cache(maxsize=8)
    def agent(run: RunDirectory, env: ExecutionEnv) -> ExecutorAgent:
        return ExecutorAgent(settings, run, runner(env.sandbox, env.venv))

    return lambda job: agent(job.handle.run, job.handle.env).execute(job)


class ExecutorAgent:
    """Works on the tasks of a run, one after the other, in one process."""

    def __init__(self, settings: ExecutorSettings, run: RunDirectory, runner: Runner) -> None:
        self._settings = settings
        self._run = run
        self._scenario = require_scenario(run)
        self._plan = plan_of(run)
        self._runner = runner
        self._prewarm = runner.prewarm if isinstance(runner, BubblewrapRunner) and settings.prewarm else None
        self._trunk = Trunk(run, runner, TEST_TIMEOUT_S, self._prewarm)
        ROOM.use(settings.socket.parent, self._scenario.max_executors)

    def execute(self, job: Job) -> Outcome:
        """Continue the claimed task until it is merged, sent back, or failed.

        What is not the task's fault (budget, endpoint, a stop) is raised; the attempt then stands where it is.
        """
        task, scenario_model = task_of(self._run, self._plan, job.claim.task), self._scenario.executor_model
        ROOM.on_wait = lambda: job.report("waiting for memory")
        ROOM.on_turn = lambda: job.report("running a command", LONGEST_RUN_S)
        with ExitStack() as ending:
            transcript = self._transcript(task, job.claim)
            ending.callback(transcript.close)
            tools = self._tools(task, job.claim, transcript)
            ending.callback(tools.close)
            client = self._client(job.claim)
            ending.callback(client.close)
            ending.callback(self._trunk.close)
            try:
                if transcript.is_new:
                    self._begin(task, job, transcript, tools)
                elif transcript.conversation.turns == 0 and self._model_of(transcript) != scenario_model:
                    transcript.ask_of(scenario_model)
                if transcript.conversation.is_restarted:
                    tools.restart()
                ended = take_turns(transcript, self._context(job, transcript, client, tools), self._limits())
                if ended.kind is StopKind.FINISHED:
                    tools.finish(ended.text)
                else:
                    tools.close()  # no tool may write from here on
                transcript.outcome("submitted", ended.reason)
                return self._submit(task, job, transcript, ended)
            except ModelUnknown as error:
                if self._model_of(transcript) == scenario_model:
                    raise  # stops the run, which resumes when the person names another model
                return _failed(transcript, f"{error}; another attempt asks {scenario_model!r}")
            except TaskLimit as error:  # the workspace is too large to be read
                return _failed(transcript, str(error))
            except RecordingExhausted as error:
                if not isinstance(task, FixTask):
                    raise
                return _failed(transcript, str(error))  # a recording need not know of it: the whole stays red

    def _transcript(self, task: Task, claim: Claim) -> Transcript:
        """The attempt's transcript: a new one, or as it was left."""
        with disk_faults_in(self._run.root, ours=True):
            self._run.folder(claim.folder).mkdir(mode=0o700, exist_ok=True)
        return Transcript(self._run.transcript(claim.folder, task.id, claim.attempt))

    @staticmethod
    def _model_of(transcript: Transcript) -> str:
        """The model by the name that the person gave it; Claude Code sends another one."""
        return transcript.conversation.model_wanted

    def _begin(self, task: Task, job: Job, transcript: Transcript, tools: ToolBox | ClaudeCodeTools) -> None:
        """Create the workspace and record the conversation's start."""
        scenario, claim = self._scenario, job.claim
        base = self._trunk.head()
        self._trunk.open_workspace(self._folder(claim), base)
        if isinstance(tools, ClaudeCodeTools):
            job.report("starting Claude Code", START_S + 30)
            _, text = claude_code_texts(scenario.requirements, self._plan, task)
            start = tools.opening(text, scenario.endpoint_profile)
            start.model_wanted = scenario.executor_model
        else:
            start = opening(
                requirement=scenario.requirements,
                plan=self._plan,
                task=task,
                model=scenario.executor_model,
                profile=scenario.endpoint_profile,
            )
        transcript.begin(start, base=base, run=scenario.run, task_id=task.id, attempt=claim.attempt)

    def _tools(self, task: Task, claim: Claim, transcript: Transcript) -> ToolBox | ClaudeCodeTools:
        """What carries out the model's calls in the attempt's workspace."""
        scenario = self._scenario
        if scenario.backend == "api":
            return ToolBox(self._folder(claim), self._runner, BASH_TIMEOUT_S, self._prewarm)
        attempt = Caller(scenario.run, claim.task, claim.attempt)
        system, text = claude_code_texts(scenario.requirements, self._plan, task)
        settings = SessionSettings(
            model=scenario.executor_model,
            session=session_id(attempt),
            tools=TOOLS,
            system=system,
            max_turns=scenario.max_turns + 1,
            max_cost_usd=None if scenario.replay else scenario.task_max_cost_usd,
            settings=scenario.claude_settings,
        )
        state = self._run.claude_state(claim.folder, claim.task, claim.attempt)
        session = ClaudeCodeSession(self._runner, find(), self._folder(claim), state, settings)
        return ClaudeCodeTools(session, scenario.executor_model, lambda: transcript.conversation.said_last or text)

    def _submit(self, task: Task, job: Job, transcript: Transcript, ended: StopResult) -> Outcome:
        """Submit the work to the trunk; when it is rejected, send it back into its conversation."""
        claim = job.claim
        job.report("handing in", TEST_TIMEOUT_S)
        base = transcript.conversation.base
        early = ended.reason if ended.kind is StopKind.STOPPED else ""
        offer = Submission(
            *(task, self._plan, claim.attempt, claim.number, base, self._folder(claim)),
            title=task.name,
            ended_early=early,
        )
        if isinstance(task, FixTask):
            rounds_left = transcript.conversation.repair_rounds < self._scenario.repair_rounds
            goes_on = self._may_restart(transcript, ended) if early else rounds_left
            planned = planned_verify(self._run, self._plan)
            offer = replace(offer, planned=tuple(planned), own=tuple(self._scenario.verify), last=not goes_on)
        match self._trunk.submit(offer, job):
            case Merged(evidence=evidence):
                return Outcome(TaskState.MERGED, evidence=evidence)
            case Rejected(nothing=True) if early:
                return _failed(transcript, early)
            case Conflict(facts, tree, head):
                back = _SentBack(Rejection.CONFLICT, facts, head, tree)
            case TestsFailed(facts, tree, head):
                why = Rejection.STILL_RED if isinstance(task, FixTask) else Rejection.RED
                back = _SentBack(why, facts, head, tree)
            case Rejected(facts):
                tree = self._trunk.snapshot(self._folder(claim))
                back = _SentBack(Rejection.REFUSED, facts, base, tree)
        return self._restart(transcript, ended, back) if early else self._send_back(transcript, back)

    def _restart(self, transcript: Transcript, ended: StopResult, back: _SentBack) -> Outcome:
        """Have a new conversation finish what the stopped one left, or fail the task with both reasons."""
        if not self._may_restart(transcript, ended):
            return _failed(transcript, f"{ended.reason}; its work was submitted and not merged: {back.reason}")
        transcript.restart(restart_text(ended.reason, back.why, back.facts), base=back.base, tree=back.tree)
        return Outcome(TaskState.REPAIR, f"{ended.reason}; a new conversation continues: {back.reason}")

    def _may_restart(self, transcript: Transcript, ended: StopResult) -> bool:
        """Whether a new conversation may continue where one was stopped."""
        now = transcript.conversation
        return ended.restartable and now.restarts < MAX_RESTARTS and now.seconds < self._limits().seconds

    def _send_back(self, transcript: Transcript, back: _SentBack) -> Outcome:
        rounds = self._scenario.repair_rounds
        if transcript.conversation.repair_rounds >= rounds:
            return _failed(transcript, f"{back.reason} (after {rounds} repair rounds)")
        transcript.repair(send_back_text(back.why, back.facts), base=back.base, tree=back.tree)
        return Outcome(TaskState.REPAIR, back.reason)

    def _client(self, claim: Claim) -> ModelClient:
        settings = self._settings
        token = mint(settings.secret, Caller(self._scenario.run, claim.task, claim.attempt))
        return ModelClient(settings.socket, token)

    def _context(
        self, job: Job, transcript: Transcript, client: ModelClient, tools: ToolBox | ClaudeCodeTools
    ) -> AgentContext:
        folder = self._folder(job.claim)

        def progress(doing: str) -> None:
            # The gateway bounds how long an answer takes; the executor bounds how long a tool takes.
            job.report(doing, None if doing.startswith("asking") else CALL_S + 30)

        def ask(request: dict[str, Any], /, *, turn: int, phase: str, phase_turn: int) -> Answer:
            # While the model thinks, its next command and the tests of its work get ready.
            tools.prepare()
            self._trunk.prepare()
            betas = transcript.conversation.start.betas
            answer = client.ask(request, turn=turn, phase=phase, phase_turn=phase_turn, betas=betas)
            tools.answered(answer.usage)
            return answer

        return AgentContext(
            ask=ask,
            tools=tools,
            snapshot=lambda: self._trunk.snapshot(folder),
            restore=lambda tree: self._trunk.restore(folder, tree),
            progress=progress,
        )

    def _limits(self) -> Limits:
        scenario = self._scenario
        return Limits(turns=scenario.max_turns, seconds=scenario.task_timeout_min * 60)

    def _folder(self, claim: Claim) -> Path:
        return self._run.workspace(claim.folder, claim.task, claim.attempt)


@dataclass(frozen=True)
class _SentBack:
    """A submission that was not merged."""

    why: Rejection
    facts: tuple[str, ...]
    base: str
    """The commit of the next submission's base."""
    tree: str
    """The tree that the workspace starts from."""

    @property
    def reason(self) -> str:
        """Why, in one line for people."""
        return f"{self.why.value}: {'; '.join(fact.splitlines()[0].rstrip(': ') for fact in self.facts[:3])}"


def _failed(transcript: Transcript, reason: str) -> Outcome:
    transcript.outcome("failed", reason)
    return Outcome(TaskState.FAILED, reason)
