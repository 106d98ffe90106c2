"""Claude Code as the planner: it asks for its structured answer, and each answer is judged by the same code as others.

Its own repetitions (words instead of the structured answer, a shape that its schema refuses) and ours (a plan that
cannot be run) are turns of one conversation. It is begun anew after a kill: the same answers come from the ledger.
"""

from __future__ import annotations

import json
from typing import Any

from parallel_orchestrator.agent.model_client import Answer, ModelClient
from parallel_orchestrator.claude_code.request_server import Request
from parallel_orchestrator.claude_code.session import START_S, Gone, Session
from parallel_orchestrator.messages_api.claude_code_wire import answer_stream, opening_of, request_of, steady
from parallel_orchestrator.messages_api.tool_calls import STRUCTURED_OUTPUT, text_block, text_of
from parallel_orchestrator.records.errors import CannotGoOn
from parallel_orchestrator.records.scenario import Profile

_CUT_SHORT = frozenset({"max_tokens", "refusal"})
"""Answers that the program would go on with in its own way; it is not shown them."""


class ClaudeCodePlanning:
    """One planning conversation. Close it: it may have a process."""

    def __init__(self, session: Session, client: ModelClient, profile: Profile) -> None:
        self._session = session
        self._client = client
        self._profile = profile
        self._turns = 0
        self._first = ""
        """What the session that goes on began with."""
        self._held: Request | None = None
        self._answer: Answer | None = None

    def say(self, text: str) -> tuple[str, str | None]:
        """Say it, and the model's answer: its text, or its structured output as JSON; and its stop reason."""
        request, added = self._next(text)
        start = opening_of(request.body, request.betas, self._profile)
        messages = steady(request.body["messages"])
        if added:
            messages[-1]["content"].append(text_block(text))
        self._turns += 1
        answer = self._client.ask(
            self._session.to_model(request_of(start, messages)),
            turn=self._turns,
            phase="work",
            phase_turn=self._turns,
            betas=start["betas"],
        )
        self._held, self._answer = request, answer
        return _plan_text(answer), answer.stop_reason

    def accept(self) -> None:
        """The last answer is good: let the program end with it."""
        if self._answer and any(block.get("name") == STRUCTURED_OUTPUT for block in self._answer.content):
            self._pass_on()
            self._session.finish()
        self.close()

    def close(self) -> None:
        """End the process, and leave nothing of it behind: all that counts is in the ledger."""
        self._session.forget()

    def _next(self, text: str) -> tuple[Request, bool]:
        """The request that asks for the next answer, and whether `text` is still to be added to it."""
        if self._answer is None or self._answer.stop_reason in _CUT_SHORT:
            # How much of its session was on disk when it was ended is left to chance, so that begins anew.
            self._session.forget()
            text = self._first = f"{self._first}\n\n{text}".lstrip()
        else:
            self._pass_on()
            try:
                return self._session.next_request(START_S), True  # it asks again by itself
            except Gone:
                pass  # the shape was right: it has ended, and its session is whole
        self._session.start(text)
        try:
            return self._session.next_request(START_S), False
        except Gone as error:
            raise CannotGoOn(f"Claude Code did not start: {error}") from error

    def _pass_on(self) -> None:
        if self._held and self._answer:
            self._held.answer(answer_stream(self._answer.model, self._answer.content, self._answer.usage))
            self._held = None


def _plan_text(answer: Answer) -> str:
    calls: list[Any] = [block.get("input") for block in answer.content if block.get("name") == STRUCTURED_OUTPUT]
    if calls:
        return json.dumps(calls[-1])
    return text_of(answer.content)
