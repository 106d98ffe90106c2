"""Claude Code as the planner: it asks the model for a structured answer, and the planner judges each one.

Claude Code retries text instead of a structured answer, and a shape that the schema refuses. The planner retries a plan
that cannot run. All are turns of one conversation. After a crash it starts over, and the ledger returns its answers.
"""

from __future__ import annotations

import json
from typing import Any

from parallel_orchestrator.agent.model_client import Answer, ModelClient
from parallel_orchestrator.claude_code.request_server import Request
from parallel_orchestrator.claude_code.session import START_S, ClaudeCodeSession, ProgramEnded
from parallel_orchestrator.messages_api.claude_code_wire import answer_stream, opening_of, request_of, steady
from parallel_orchestrator.messages_api.tool_calls import STRUCTURED_OUTPUT, text_block, text_of
from parallel_orchestrator.records.errors import CannotGoOn
from parallel_orchestrator.records.scenario import Profile

_CUT_SHORT = frozenset({"max_tokens", "refusal"})
"""Claude Code would continue such answers in its own way, so it does not get them."""


class ClaudeCodePlanning:
    """One planning conversation. Close it, as it may have a process."""

    def __init__(self, session: ClaudeCodeSession, client: ModelClient, profile: Profile) -> None:
        self._session = session
        self._client = client
        self._profile = profile
        self._turns = 0
        self._first = ""
        """The prompt with which the current session started."""
        self._held: Request | None = None
        self._answer: Answer | None = None

    def say(self, text: str) -> tuple[str, str | None]:
        """Returns the model's answer to `text`, its structured output as JSON or its text, and its stop reason."""
        request, added = self._next(text)
        start = opening_of(request.body, request.betas, self._profile)
        messages = steady(request.body["messages"])
        if added:
            messages[-1]["content"].append(text_block(text))
        self._turns += 1
        answer = self._client.ask(
            self._session.to_model(request_of(start, start.model, messages)),
            turn=self._turns,
            phase="work",
            phase_turn=self._turns,
            betas=start.betas,
        )
        self._held, self._answer = request, answer
        return _plan_text(answer), answer.stop_reason

    def accept(self) -> None:
        """Take the last answer as the plan, and let the process end with it."""
        if self._answer and any(block.get("name") == STRUCTURED_OUTPUT for block in self._answer.content):
            self._pass_on()
            self._session.finish()
        self.close()

    def close(self) -> None:
        """End the process and delete its state. The ledger holds all answers."""
        self._session.forget()

    def _next(self, text: str) -> tuple[Request, bool]:
        """Returns the request for the next answer, and whether `text` is still to be added to it."""
        if self._answer is None or self._answer.stop_reason in _CUT_SHORT:
            # The kill may have come before the process wrote its session to disk, so this starts a new one.
            self._session.forget()
            text = self._first = f"{self._first}\n\n{text}".lstrip()
        else:
            self._pass_on()
            try:
                return self._session.next_request(START_S), True  # Claude Code retries by itself
            except ProgramEnded:
                pass  # the shape was right: the process has ended, and its session is complete
        self._session.start(text)
        try:
            return self._session.next_request(START_S), False
        except ProgramEnded as error:
            raise CannotGoOn(f"Claude Code did not start: {error}") from error

    def _pass_on(self) -> None:
        if self._held and self._answer:
            self._held.answer(answer_stream(self._answer.model, self._answer.content, self._answer.usage))
            self._held = None


def _plan_text(answer: Answer) -> str:
    calls: list[Any] = [block.get("input") for block in answer.content if block.get("name") == STRUCTURED_OUTPUT]
    return json.dumps(calls[-1]) if calls else text_of(answer.content)
