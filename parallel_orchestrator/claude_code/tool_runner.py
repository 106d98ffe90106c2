"""Runs an executor's tool calls through Claude Code: gives it the model's answers and collects the results.

The transcript holds the conversation, as with the other back end. So a crash buys no answer twice. A process that is
started again (`--resume`) sends a request with what it remembers. It gets the answer whose calls have no results yet.
The transcript takes only their results from its next request.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import msgspec

from parallel_orchestrator.claude_code.request_server import Request
from parallel_orchestrator.claude_code.session import COMMAND_TIMEOUT_S, START_S, ClaudeCodeSession, ProgramEnded
from parallel_orchestrator.messages_api.claude_code_wire import answer_stream, opening_of, results_in
from parallel_orchestrator.messages_api.tool_calls import Json, ToolCall, ToolResult, text_block
from parallel_orchestrator.records.errors import CannotGoOn, TaskLimit, TurnLimit
from parallel_orchestrator.records.journals.transcript import Opening
from parallel_orchestrator.records.scenario import Profile

TOOLS = "Bash,Edit,Read,Write"
RESUME_PROMPT = "Go on."
"""For a process that is started again; the model never reads it."""
CALL_S = COMMAND_TIMEOUT_S + 60.0
"""The longest time without an event while a call runs."""

_OWN_LIMITS: dict[str, tuple[str, type[TaskLimit]]] = {
    "error_max_turns": ("turns", TurnLimit),
    "error_max_budget_usd": ("cost", TaskLimit),
}
"""Results with which Claude Code ends at the limits that it was given. It counts slightly differently."""

_FOREIGN = "this socket serves one conversation, and this is not its next request"

_log = logging.getLogger(__name__)


class ClaudeCodeTools:
    """Carries out the tool calls of one attempt. Close it, as it may have a process."""

    def __init__(
        self, session: ClaudeCodeSession, model: str, prompt: Callable[[], str] = lambda: RESUME_PROMPT
    ) -> None:
        self._session = session
        self._model = model
        self._prompt = prompt
        """The prompt for a process that is started again."""
        self._held: Request | None = None
        """The process's request that waits for the model's next answer."""
        self._last_reply: tuple[Any, str] = (None, "")
        self._suffix = ""
        self._usage: Json = {}

    def opening(self, prompt: str, profile: Profile) -> Opening:
        """Start a new conversation. Returns its start, for the transcript. Raises CannotGoOn if the program fails."""
        self._session.forget()
        self._session.start(prompt)
        try:
            self._held = self._session.next_request(START_S)
        except ProgramEnded as error:
            raise CannotGoOn(f"Claude Code did not start: {error}") from error
        start = opening_of(self._held.body, self._held.betas, profile)
        start.backend = "claude-code"
        shown: Opening = msgspec.convert(self._session.to_model(msgspec.to_builtins(start)), Opening)
        return shown

    def restart(self) -> None:
        """Forget the session, because the conversation starts over without its content."""
        self._held = None
        self._session.forget()

    def prepare(self) -> None:
        """Start the process if it is not running, while the model works on its answer."""
        if not self._session.is_running:
            resumes = self._session.start(self._prompt())
            # The session may hold these very calls, cut off by the crash. With new ids they cannot be taken for those.
            self._suffix = f"_{secrets.token_hex(3)}" if resumes else ""
            self._held = None

    def answered(self, usage: Mapping[str, Any]) -> None:
        """Note the cost of the answer whose calls come next. A process that gets old calls again gets no cost."""
        self._usage = dict(usage)

    def mutates(self, name: str, arguments: object) -> bool:
        """Whether the call can change files of the workspace."""
        return name != "Read"

    def run_all(self, calls: Sequence[ToolCall], progress: Callable[[str], None]) -> list[ToolResult]:
        """Returns the results of an answer's calls. If the process ends during a call, the result says so.

        Raises CannotGoOn when the process cannot be started.
        """
        progress(str(calls[0]))
        try:
            self._await_request()
            # After that: a process that had to be started for it has a new suffix.
            named = [replace(call, id=call.id + self._suffix) for call in calls]
            self._reply([replace(call, arguments=self._session.to_program(call.arguments)).block() for call in named])
            results = self._await_results(named, progress)
        except ProgramEnded as error:
            if reached := _OWN_LIMITS.get(str((self._session.result or {}).get("subtype"))):
                what, limit = reached
                raise limit(f"Claude Code ended at its own limit of {what}") from error
            _log.warning("Claude Code ended during %s: %s", ", ".join(map(str, calls)), error)
            message = f"Error: the tools stopped during this call, so its effect is unknown; check the files: {error}"
            return [ToolResult(message, is_error=True)] * len(calls)
        return [ToolResult(self._session.to_model(result.content), result.is_error) for result in results]

    def finish(self, text: str) -> None:
        """Send the model's closing words, so that the session is complete, and wait for the process to end."""
        # The session must end with an answer: a later repair resumes it.
        if self._held is not None and self._session.is_running:
            self._reply([text_block(text or "Done.")])
            result = self._session.finish() or {}
            denied = len(result.get("permission_denials") or ())
            _log.info("Claude Code ended: %s, %d calls denied", result.get("subtype", "without a result"), denied)
        self.close()

    def close(self) -> None:
        """End the process, if there is one."""
        self._held = None
        self._session.kill()

    def _await_request(self) -> None:
        """Wait until the process's request is held. Raises CannotGoOn when the process fails twice."""
        for last in (False, True):
            if self._held is not None and self._session.is_running:
                return
            self.prepare()
            try:
                self._held = self._session.next_request(START_S)
                return
            except ProgramEnded as error:
                if last:
                    raise CannotGoOn(f"Claude Code does not start: {error}") from error
                _log.warning("Claude Code cannot resume its session (%s): starting a new one", error)
                self._session.forget()

    def _reply(self, content: list[Json]) -> None:
        if self._held is None:
            raise ProgramEnded("it made no request")
        text = answer_stream(self._model, content, self._usage)
        self._last_reply, self._usage = (self._held.body.get("messages"), text), {}
        self._held.answer(text)
        self._held = None

    def _await_results(self, calls: Sequence[ToolCall], progress: Callable[[str], None]) -> list[ToolResult]:
        waiting = {call.id: str(call) for call in calls}

        def on_event(event: Json) -> None:
            for block in _content(event) if event.get("type") == "user" else ():
                waiting.pop(str(block.get("tool_use_id")), None)
            if waiting:
                progress(next(iter(waiting.values())))

        while True:
            request = self._session.next_request(CALL_S, on_event)
            results = results_in(request.body, calls)
            if results is not None:
                self._held = request
                return results
            # A connection that broke makes the process repeat its last request: it gets the same answer. Any other
            # request comes from a command that has stolen the token.
            if request.body.get("messages") == self._last_reply[0]:
                request.answer(self._last_reply[1])
            else:
                request.refuse(_FOREIGN)


def _content(event: Json) -> list[Json]:
    with contextlib.suppress(AttributeError, TypeError):
        content = event["message"]["content"]
        return [block for block in content if isinstance(block, dict)] if isinstance(content, list) else []
    return []
