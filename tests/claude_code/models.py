"""The scripted models of other tests, in the tools that whoever asks has; slow commands for those that are killed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from parallel_orchestrator.messages_api.tool_translation import translated
from tests.end_to_end import scripted
from tests.fake_api import Answer, Block, Body, Script
from tests.reliability import project

OPTIONS = ("--backend", "claude-code")
SLEEP = "sleep 0.731"
"""Found on no other command line."""


def in_their_tools(script: Script) -> Callable[[Body], Answer]:
    """The script, its calls told in the tools that a request offers."""

    def told(body: Body) -> Answer:
        answer = script(body)
        answer = answer if isinstance(answer, Answer) else Answer(answer)
        calls = any(block["type"] == "tool_use" for block in answer.content)
        natural = answer.stop_reason or ("tool_use" if calls else "end_turn")
        content, stop_reason = translated(body, answer.content, natural)
        return replace(answer, content=content, stop_reason=stop_reason)

    return told


def layered(layers: int, width: int) -> Script:
    """Builds so many layers of so many tasks."""
    return in_their_tools(scripted.model(scripted.layered(layers, width)))


def killed(body: Body) -> Answer:
    """The project that is killed."""
    return in_their_tools(project.answer)(body)


def killed_slowly(body: Body) -> Answer:
    """The same; each of its commands takes a while first, and stands on its command line."""
    answer = killed(body)
    return replace(answer, content=[_slower(block) for block in answer.content])


def _slower(block: Block) -> Block:
    if block.get("name") not in ("Bash", "bash"):
        return block
    arguments: dict[str, Any] = block["input"]
    return {**block, "input": {**arguments, "command": f"{SLEEP}\n{arguments['command']}"}}
