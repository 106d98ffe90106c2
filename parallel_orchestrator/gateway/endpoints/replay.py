"""A recording as an endpoint: its answers come after their recorded latency, and cost nothing."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable

from parallel_orchestrator.gateway.calls.messages import Answered, Json, ModelRequest, Outcome, Refusal
from parallel_orchestrator.gateway.endpoints.answer_redaction import without_secrets
from parallel_orchestrator.gateway.endpoints.recording import RecordedAnswer, Recording
from parallel_orchestrator.gateway.endpoints.tool_translation import told_for
from parallel_orchestrator.messages_api import sse


class ReplayEndpoint:
    """Answers by task, phase and turn in it; of what the request says, only its tools are looked at.

    Latencies are divided by `speed`.
    """

    free = True
    name = "a recording"

    def __init__(self, recording: Recording, speed: float) -> None:
        self._recording = recording
        self._speed = speed
        self._answers = {answer.key: answer for answer in recording.answers}

    async def ask(self, request: ModelRequest, on_first_event: Callable[[Json], None]) -> Outcome:
        """The recorded answer, or a refusal that names the key which the recording lacks."""
        started = time.monotonic()
        answer = self._answers.get((request.key.task, request.phase, request.phase_turn))
        if answer is None:
            return self._exhausted(request)
        content, stop_reason = told_for(json.loads(request.body), answer.content, answer.stop_reason)
        await asyncio.sleep(answer.latency_s / self._speed)
        text = sse.stream_of(self._message(answer, content, stop_reason))
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

    def _message(self, answer: RecordedAnswer, content: list[sse.Json], stop_reason: str) -> sse.Json:
        name = "_".join(map(str, answer.key)).replace(" ", "_")
        return {
            "id": f"msg_recorded_{name}",
            "type": "message",
            "role": "assistant",
            "model": self._recording.model,
            "content": content,
            "stop_reason": stop_reason,
            "stop_sequence": None,
            "usage": dict(answer.usage),
        }

    def _exhausted(self, request: ModelRequest) -> Refusal:
        missing = f"{request.key.task}, phase {request.phase}, turn {request.phase_turn}"
        return Refusal(
            404, "recording_exhausted", f"the recording {self._recording.name!r} has no answer for {missing}"
        )
