"""Replays a recording as an endpoint: each answer comes after its recorded latency and costs nothing."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable

from parallel_orchestrator.gateway.calls.messages import Answered, Json, ModelRequest, Outcome, Refusal
from parallel_orchestrator.gateway.endpoints.answer_redaction import without_secrets
from parallel_orchestrator.gateway.endpoints.recording import Recording
from parallel_orchestrator.messages_api import sse
from parallel_orchestrator.messages_api.tool_translation import translated


class ReplayEndpoint:
    """Answers by task, phase and turn. Of a request's body it reads only the tools. `speed` divides the latencies."""

    free = True
    name = "a recording"

    def __init__(self, recording: Recording, speed: float) -> None:
        self._recording = recording
        self._speed = speed
        self._answers = {answer.key: answer for answer in recording.answers}

    async def ask(self, request: ModelRequest, on_first_event: Callable[[Json], None]) -> Outcome:
        """Returns the recorded answer, or a refusal that names the missing task, phase and turn."""
        started = time.monotonic()
        answer = self._answers.get((request.key.task, request.phase, request.phase_turn))
        if answer is None:
            return self._exhausted(request)
        content, stop_reason = translated(json.loads(request.body), answer.content, answer.stop_reason)
        await asyncio.sleep(answer.latency_s / self._speed)
        name = "_".join(map(str, answer.key)).replace(" ", "_")
        message = sse.message_of(
            f"msg_recorded_{name}", self._recording.model, content, stop_reason, dict(answer.usage)
        )
        text = sse.stream_of(message)
        # The caller gets this answer from memory now, from the ledger later: both must be the redacted one.
        events = sse.parse(text)
        text, message = without_secrets(events, text, sse.assemble(events))
        return Answered(
            events=text,
            message=message,
            model=self._recording.model,
            stop_reason=stop_reason,
            usage=dict(answer.usage),
            request_id=None,
            endpoint_s=time.monotonic() - started,
        )

    def _exhausted(self, request: ModelRequest) -> Refusal:
        missing = f"{request.key.task}, phase {request.phase}, turn {request.phase_turn}"
        return Refusal(
            404, "recording_exhausted", f"the recording {self._recording.name!r} has no answer for {missing}"
        )
