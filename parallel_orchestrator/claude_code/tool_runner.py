"""Claude Code as the hands of an executor: shown the model's answers, it carries out their calls and brings results.

The conversation itself is the transcript's, as it is without it. That is why nothing that was answered is bought
again whoever dies: a process that is started anew (`--resume`) knocks at the door with whatever it remembers, is
given the answer whose calls have no results yet, and only their results are taken from what it says then.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from parallel_orchestrator.claude_code.request_server import Request
from parallel_orchestrator.claude_code.session import COMMAND_TIMEOUT_S, START_S, Gone, Session
from parallel_orchestrator.messages_api.claude_code_wire import answer_stream, opening_of, results_in
from parallel_orchestrator.messages_api.tool_calls import ToolCall, ToolResult, text_block
from parallel_orchestrator.records.errors import CannotGoOn, TaskLimit, TurnLimit
from parallel_orchestrator.records.scenario import Profile

TOOLS = "Bash,Edit,Read,Write"
GO_ON = "Go on."
"""To a process that is started again; the model never reads it."""
CALL_S = COMMAND_TIMEOUT_S + 60.0
"""Between two signs of life while a call runs."""

_OWN_LIMITS: dict[str, tuple[str, type[TaskLimit]]] = {
    "error_max_turns": ("turns", TurnLimit),
    "error_max_budget_usd": ("cost", TaskLimit),
}
"""Results with which it ends by the limits that it was passed, which are ours: it counts a little otherwise."""

_FOREIGN = "this socket serves one conversation, and this is not its next request"

_log = logging.getLogger(__name__)


class ClaudeCodeHands:
    """Carries out the tool calls of one attempt. Close it: it may have a process."""

    def __init__(self, session: Session, model: str, prompt: Callable[[], str] = lambda: GO_ON) -> None:
        self._session = session
        self._model = model
        self._prompt = prompt
        """What a process that is started again is told."""
        self._held: Request | None = None
        """Its request that waits for the model's next answer."""
        self._last_reply: tuple[Any, str] = (None, "")
        self._suffix = ""
        self._usage: dict[str, Any] = {}

    def opening(self, prompt: str, profile: Profile) -> dict[str, Any]:
        """Start a new conversation; what it starts with. Raises CannotGoOn when the program does not get that far."""
        self._session.forget()
        self._session.start(prompt)
        try:
            self._held = self._session.next_request(START_S)
        except Gone as error:
            raise CannotGoOn(f"Claude Code did not start: {error}") from error
        start = opening_of(self._held.body, self._held.betas, profile)
        return {"backend": "claude-code", **self._session.to_model(start)}

    def restart(self) -> None:
        """Forget the session, because the conversation starts over without what the session holds."""
        self._held = None
        self._session.forget()

    def prepare(self) -> None:
        """Start it beside the model's thinking, where it is not running."""
        if not self._session.is_running:
            resumes = self._session.start(self._prompt())
            # The session may hold these very calls, cut off: as new ones they cannot be taken for those.
            self._suffix = f"_{secrets.token_hex(3)}" if resumes else ""
            self._held = None

    def answered(self, usage: Mapping[str, Any]) -> None:
        """What the answer cost whose calls come next. A process that is given old calls again is told no cost."""
        self._usage = dict(usage)

    def mutates(self, name: str, arguments: object) -> bool:
        """Whether the call can change files of the workspace."""
        return name != "Read"

    def run_all(self, calls: Sequence[ToolCall], progress: Callable[[str], None]) -> list[ToolResult]:
        """The results of an answer's calls. A process that dies over them is told as their result.

        Raises CannotGoOn when it cannot be started at all.
        """
        progress(str(calls[0]))
        named = [replace(call, id=call.id + self._suffix) for call in calls]
        try:
            self._knock()
            named = [replace(call, id=call.id + self._suffix) for call in calls]
            self._reply([replace(call, arguments=self._session.to_program(call.arguments)).block() for call in named])
            results = self._await_results(named, progress)
        except Gone as error:
            if reached := _OWN_LIMITS.get(str((self._session.result or {}).get("subtype"))):
                what, limit = reached
                raise limit(f"Claude Code ended at its own limit of {what}") from error
            _log.warning("Claude Code ended over %s: %s", ", ".join(map(str, calls)), error)
            message = f"Error: the tools stopped during this call, so its effect is unknown; check the files: {error}"
            return [ToolResult(message, is_error=True)] * len(calls)
        return [ToolResult(self._session.to_model(result.content), result.is_error) for result in results]

    def finish(self, text: str) -> None:
        """Give it the model's closing words, so that its session has an end too, and wait for its own."""
        if self._held is not None and self._session.is_running:
            self._reply([text_block(text or "Done.")])
            result = self._session.finish() or {}
            denied = len(result.get("permission_denials") or ())
            _log.info("Claude Code ended: %s, %d calls denied", result.get("subtype", "without a word"), denied)
        self.close()

    def close(self) -> None:
        """End its process, if there is one."""
        self._held = None
        self._session.kill()

    def _knock(self) -> None:
        """Have its request at hand. Raises CannotGoOn when it does not get that far, twice."""
        for last in (False, True):
            if self._held is not None and self._session.is_running:
                return
            self.prepare()
            try:
                self._held = self._session.next_request(START_S)
                return
            except Gone as error:
                if last:
                    raise CannotGoOn(f"Claude Code does not start: {error}") from error
                _log.warning("Claude Code does not go on with its session (%s): a new one begins", error)
                self._session.forget()

    def _reply(self, content: list[dict[str, Any]]) -> None:
        if self._held is None:
            raise Gone("it asked nothing")
        text = answer_stream(self._model, content, self._usage)
        self._last_reply, self._usage = (self._held.body.get("messages"), text), {}
        self._held.answer(text)
        self._held = None

    def _await_results(self, calls: Sequence[ToolCall], progress: Callable[[str], None]) -> list[ToolResult]:
        waiting = {call.id: str(call) for call in calls}

        def heard(event: dict[str, Any]) -> None:
            for block in _content(event) if event.get("type") == "user" else ():
                waiting.pop(str(block.get("tool_use_id")), None)
            if waiting:
                progress(next(iter(waiting.values())))

        while True:
            request = self._session.next_request(CALL_S, heard)
            results = results_in(request.body, calls)
            if results is not None:
                self._held = request
                return results
            if request.body.get("messages") == self._last_reply[0]:
                request.answer(self._last_reply[1])  # its connection broke: the same again
            else:
                request.refuse(_FOREIGN)


def _content(event: dict[str, Any]) -> list[dict[str, Any]]:
    with contextlib.suppress(AttributeError, TypeError):
        found = event["message"]["content"]
        return [block for block in found if isinstance(block, dict)] if isinstance(found, list) else []
    return []
