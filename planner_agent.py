"""The planner: one requirement in, one checked plan out.

    create_plan
      ask            one structured call through the gateway, which keeps the raw answer
      validate       shape by pydantic, the rest by `plan_faults`
      ask again      in the same conversation, with the exact faults; at most three times in all

There is no plan without a model: nothing falls back to templates. The ledger holds the answers, so a
planner that is killed anywhere parses them again and asks nothing twice.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable
from typing import Any, Protocol

from pydantic import ValidationError

from parallel_orchestrator.agent.model_client import ModelClient
from parallel_orchestrator.claude_code.binary import find
from parallel_orchestrator.claude_code.planning import ClaudeCodePlanning
from parallel_orchestrator.claude_code.session import ClaudeCodeSession, SessionSettings, session_id
from parallel_orchestrator.records.attempt_token import Caller
from parallel_orchestrator.records.errors import PlanRefused
from parallel_orchestrator.records.journals.ledger import AnswerRecord, IntentRecord
from parallel_orchestrator.records.plan import Complexity, Plan, plan_faults, shape_faults, shortened
from parallel_orchestrator.records.scenario import ExecutionEnv, Scenario
from parallel_orchestrator.sandbox.packages import missing
from parallel_orchestrator.sandbox.runner import runner_for
from parallel_orchestrator.store.journal import read_each
from parallel_orchestrator.store.paths import RunDirectory
from parallel_orchestrator.store.record_parser import LEDGER
from parallel_orchestrator.system.files import disk_faults_in

MAX_ATTEMPTS = 3
MAX_TOKENS = 32_000
MAX_CHARACTERS = 4_000_000
"""Of a plan's text; far more than any plan that can be run has."""
MAX_ECHO = 100_000
"""Characters of an unusable answer that are sent back with its faults."""
CUT_OFF = f"the answer was cut off at {MAX_TOKENS} tokens: plan shorter"

_PROMPT = """\
You plan software projects for a team of autonomous engineers who work in parallel and cannot talk to each other.
Analyse how complex the requirement is, then split it into tasks.

How the team works:
- Each task is given to one engineer, who sees the requirement, this plan, and the files of all tasks merged so far.
- A task starts when its dependencies are merged. Tasks without an order between them run at the same time.
- A finished task is merged only when it applies cleanly and the tests of the whole project pass.

What makes a good plan:
- As many tasks as the work really has: 1-3 for a simple requirement, 3-8 for a medium one, 8-15 for a complex one.
- Few dependencies, each of them real, so that much can run at once.
- Every file has one owner. Two tasks that may run at once never own the same path, not even an __init__.py.
- The contract fixes what the parts need to fit: modules, public signatures, data shapes, conventions.

Rules:
- Task ids are task_1, task_2, … in a sensible reading order. priority 1 is the highest.
- Files lie under src/, tests/ or docs/. src/ is the import root. Python tests are tests/test_*.py, run by pytest,
  each with a name unique in the project.
- A task that owns Python under src/ also owns a test file for it and adds passing tests.
- A task that builds something documents it in a docs/*.md of its own.
- Use the standard library of Python 3.11 unless the requirement says otherwise; packages lists third-party ones.
- verify lists shell commands, run once in the root of the finished project, that prove the whole; they exit with 0
  on success, ask nothing and leave no files behind. src is not on the path by itself there: PYTHONPATH=src.

{answer} of exactly this shape and nothing else:
{"complexity": {"level": "simple|medium|complex", "reasoning": "", "key_features": [""], "technical_components": [""]},
 "contract": "", "integration_notes": "", "packages": [], "verify": [""],
 "tasks": [{"id": "task_1", "name": "", "description": "what to build and how, specific enough to work from alone",
            "priority": 1, "estimated_effort": "low|medium|high", "dependencies": [],
            "files": ["src/…", "tests/test_….py", "docs/….md"], "acceptance": ["what must hold"],
            "integration_notes": ""}]}
"""

PROMPT = _PROMPT.replace("{answer}", "Answer with one JSON object")
CLAUDE_CODE_PROMPT = _PROMPT.replace("{answer}", "You have no files to look at. Give as structured output one object")

PLAN_SCHEMA = json.dumps(Plan.model_json_schema())
"""For Claude Code, which validates its answer against it; `plan_faults` checks the rest."""


class Planning(Protocol):
    """One planning conversation."""

    def say(self, text: str) -> tuple[str, str | None]:
        """The text of the model's answer, and its stop reason."""

    def accept(self) -> None:
        """The last answer is good."""

    def close(self) -> None:
        """The conversation is over."""


class PlannerAgent:
    """Turns requirements into plans by asking a model through the gateway.

    `note` is called with the faults of each answer that cannot be used. `planning` makes the conversation; the
    Messages API by default.
    """

    def __init__(
        self,
        client: ModelClient,
        scenario: Scenario,
        note: Callable[[str], None] = lambda text: None,
        planning: Callable[[], Planning] | None = None,
    ) -> None:
        self._scenario = scenario
        self._note = note
        self._planning = planning or (lambda: ApiPlanning(client, scenario))
        self._plans: dict[str, Plan] = {}

    def analyze_complexity(self, requirement: str) -> Complexity:
        """How complex the requirement is. Part of the plan's one call, so asking for both costs one."""
        return self.create_plan(requirement).complexity

    def create_plan(self, requirement: str) -> Plan:
        """A plan that passed every check. Raises PlanRefused with the last faults after three answers."""
        if requirement not in self._plans:
            self._plans[requirement] = self._ask_until_valid(requirement)
        return self._plans[requirement]

    def _ask_until_valid(self, requirement: str) -> Plan:
        said, faults = self._first_message(requirement), list[str]()
        with contextlib.closing(self._planning()) as planning:
            for turn in range(1, MAX_ATTEMPTS + 1):
                text, stop_reason = planning.say(said)
                if stop_reason == "refusal":
                    raise PlanRefused(f"the model refuses to plan this requirement: {text or 'no reason given'}")
                cut = stop_reason == "max_tokens"
                plan, faults = (None, [CUT_OFF]) if cut else self._read(text)
                if plan is not None and not faults:
                    planning.accept()
                    return plan
                self._note(f"plan {turn} of at most {MAX_ATTEMPTS} is not usable: " + "; ".join(shortened(faults)))
                said = _complaint(faults)
        listed = "\n".join(f"  {fault}" for fault in shortened(faults))
        raise PlanRefused(
            f"no usable plan after {MAX_ATTEMPTS} answers; the last one's faults:\n{listed}\n"
            "Say the requirement more precisely, use another model, or start from a plan of your own with --plan."
        )

    def _first_message(self, requirement: str) -> str:
        parts = [f"<requirement>\n{requirement}\n</requirement>"]
        if self._scenario.planner_instructions:
            parts.append(f"<instructions>\n{self._scenario.planner_instructions}\n</instructions>")
        return "\n\n".join(parts)

    def _read(self, text: str) -> tuple[Plan | None, list[str]]:
        if len(text) > MAX_CHARACTERS:
            return None, [f"the answer has {len(text):,} characters; at most {MAX_CHARACTERS:,} are read"]
        try:
            plan = Plan.model_validate_json(part := json_part(text))
        except ValidationError as error:
            return None, shape_faults(error, part, whole="answer")
        # A recording's plan passed when it was made, and a replay cannot ask for another one.
        return plan, [*plan_faults(plan, new=self._scenario.replay is None), *self._package_faults(plan)]

    def _package_faults(self, plan: Plan) -> list[str]:
        if self._scenario.allow_install:
            return []
        return [f"package {name!r} is not installed here: use the standard library" for name in missing(plan.packages)]


def plan_run(
    scenario: Scenario, run: RunDirectory, client: ModelClient, env: ExecutionEnv | None, note: Callable[[str], None]
) -> Plan:
    """Returns the plan of a run's requirement; for a process that has imported the SDK. `env`: where Claude Code runs.

    Called again after a kill, it buys no recorded answer again. Raises PlanRefused.
    """
    with disk_faults_in(run.root), contextlib.closing(client):
        scenario = scenario.model_copy(update={"planner_model": _begun_with(run) or scenario.planner_model})
        return _planner(scenario, run, client, env, note).create_plan(scenario.requirements)


def _begun_with(run: RunDirectory) -> str | None:
    """Returns the model that has answered the planner before; the conversation continues with that one."""
    asked: dict[int, str] = {}
    for record in read_each(run.ledger, LEDGER):
        if isinstance(record, IntentRecord) and record.task == "plan":
            asked[record.call] = record.model
        elif isinstance(record, AnswerRecord) and record.task == "plan":
            return asked.get(record.call)
    return None


def _planner(
    scenario: Scenario, run: RunDirectory, client: ModelClient, env: ExecutionEnv | None, note: Callable[[str], None]
) -> PlannerAgent:
    """With the back end that the scenario names."""
    if scenario.planner_backend == "api" or env is None:
        return PlannerAgent(client, scenario, note)
    settings = SessionSettings(
        model=scenario.planner_model,
        session=session_id(Caller(scenario.run, "plan", 1)),
        tools="",
        system=CLAUDE_CODE_PROMPT,
        max_turns=2 * MAX_ATTEMPTS,
        schema=PLAN_SCHEMA,
        settings=scenario.claude_settings,
    )
    session = ClaudeCodeSession(runner_for(env.sandbox), find(), run.planning / "workspace", run.planning, settings)
    return PlannerAgent(client, scenario, note, lambda: ClaudeCodePlanning(session, client, scenario.endpoint_profile))


class ApiPlanning:
    """Asks by the Messages API; the answers so far are part of each request."""

    def __init__(self, client: ModelClient, scenario: Scenario) -> None:
        self._client = client
        self._scenario = scenario
        self._messages: list[dict[str, Any]] = []
        self._turns = 0

    def say(self, text: str) -> tuple[str, str | None]:
        """The text of the model's answer, and its stop reason."""
        self._messages.append({"role": "user", "content": text})
        self._turns += 1
        request = self._request(list(self._messages))
        answer = self._client.ask(request, turn=self._turns, phase="work", phase_turn=self._turns)
        said = "".join(block["text"] for block in answer.content if block["type"] == "text")
        self._messages.append({"role": "assistant", "content": said[:MAX_ECHO].rstrip() or "(nothing)"})
        return said, answer.stop_reason

    def accept(self) -> None:
        """Does nothing."""

    def close(self) -> None:
        """Does nothing: the client's owner closes it."""

    def _request(self, messages: list[dict[str, Any]]) -> dict[str, Any]:
        request: dict[str, Any] = {
            "model": self._scenario.planner_model,
            "max_tokens": MAX_TOKENS,
            "system": PROMPT,
            "messages": messages,
        }
        if self._scenario.endpoint_profile == "anthropic":
            import anthropic  # not above: it takes two seconds, and workers have it preloaded

            schema = anthropic.transform_schema(Plan)
            request["output_config"] = {"format": {"type": "json_schema", "schema": schema}}
        return request


def json_part(text: str) -> str:
    """Returns the JSON object in an answer, without a Markdown fence or words around it."""
    stripped = text.strip()
    if stripped.startswith("{"):
        with contextlib.suppress(ValueError, RecursionError):
            return stripped[: json.JSONDecoder().raw_decode(stripped)[1]]  # words after it do no harm
        return stripped
    fence = re.search(r"```(?:json)?\s*\n(?=\{)", stripped)
    if fence:
        return json_part(stripped[fence.end() :].rpartition("```")[0])
    start, end = stripped.find("{"), stripped.rfind("}")
    return stripped[start : end + 1] if 0 <= start < end else stripped


def _complaint(faults: list[str]) -> str:
    listed = "\n".join(f"- {fault}" for fault in shortened(faults))
    return f"This plan cannot be used:\n{listed}\nAnswer with the whole corrected plan."
