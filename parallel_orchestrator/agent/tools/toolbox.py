"""The tools of one attempt: the text editor and bash, over its workspace."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from parallel_orchestrator.agent.tools.editor import Editor
from parallel_orchestrator.agent.tools.workspace_paths import Workspace
from parallel_orchestrator.messages_api.tool_calls import BASH, EDITOR, ToolCall, ToolFault, ToolResult
from parallel_orchestrator.records.command import MOUNT, Command, CommandResult, CommandRunner, Prewarm, PrewarmedRunner
from parallel_orchestrator.system import redact
from parallel_orchestrator.system.memory import ROOM

_COMMAND_LIMIT = 100_000
"""Bytes of the longest command; the kernel takes 128 KiB in one argument."""

_REST_OF_A_NAME = re.compile(r"[\w.-]")

_log = logging.getLogger(__name__)


class ToolBox:
    """Executes a model's tool calls. A wrong call raises nothing; its result says what was wrong."""

    def __init__(
        self,
        folder: Path,
        runner: CommandRunner,
        bash_timeout_s: float = 120,
        prewarm: Prewarm | None = None,
    ) -> None:
        self._folder = folder.resolve()
        self._runner = runner
        self._prewarm = prewarm
        self._prewarmed: PrewarmedRunner | None = None
        self._timeout_s = bash_timeout_s
        self._host_paths = sorted({str(folder), str(self._folder)}, key=len, reverse=True)

    def run_all(self, calls: Sequence[ToolCall], progress: Callable[[str], None]) -> list[ToolResult]:
        """Execute an answer's calls in order, and report each to `progress` first."""
        results = []
        for call in calls:
            progress(str(call))
            results.append(self.run(call.name, call.arguments))
        return results

    def run(self, name: str, arguments: object) -> ToolResult:
        """Execute one call. Raises OrchestratorError when commands cannot run at all."""
        try:
            if not isinstance(arguments, Mapping):
                raise ToolFault(f"the arguments must be a JSON object, not {type(arguments).__name__}")
            result = self._dispatch(name, arguments)
        except ToolFault as fault:
            result = ToolResult(f"Error: {fault}", is_error=True)
        except OSError as error:
            _log.warning("%s failed on the host: %s", name, error)
            result = ToolResult(f"Error: {error.strerror or 'the system refused'}", is_error=True)
        content = redact.foreign(result.content)
        for path in self._host_paths:
            content = _mounted(content, path)
        return ToolResult(content or "(no output)", result.is_error)

    def restart(self) -> None:
        """Do nothing: these tools keep no conversation."""

    def prepare(self) -> None:
        """Prewarm a sandbox with a shell for the next command. `close` ends it."""
        if self._prewarm and self._prewarmed is None:
            self._prewarmed = self._prewarm(self._command(""))

    def answered(self, usage: Mapping[str, Any]) -> None:
        """Do nothing: the ledger records what an answer cost."""

    def finish(self, text: str) -> None:
        """Do nothing: these tools do not use the model's closing words."""

    def close(self) -> None:
        """End what still runs."""
        if self._prewarmed:
            self._prewarmed.close()
            self._prewarmed = None

    def mutates(self, name: str, arguments: object) -> bool:
        """Whether the call can change files of the workspace."""
        if not isinstance(arguments, Mapping):
            return False
        if name == EDITOR:
            return arguments.get("command") != "view"
        return name == BASH and not arguments.get("restart")

    def _dispatch(self, name: str, arguments: Mapping[str, Any]) -> ToolResult:
        if name == EDITOR:
            workspace = Workspace(self._folder)
            try:
                return ToolResult(Editor(workspace).run(arguments))
            finally:
                workspace.close()
        if name == BASH:
            return self._bash(arguments)
        raise ToolFault(f"there is no tool {name!r}; the tools are {EDITOR} and {BASH}")

    def _bash(self, arguments: Mapping[str, Any]) -> ToolResult:
        if arguments.get("restart"):
            return ToolResult("There is nothing to restart: each command starts a fresh shell.")
        command = arguments.get("command")
        if not isinstance(command, str) or not command.strip():
            raise ToolFault("the argument command is missing; it must be a string")
        if "\0" in command or len(command.encode(errors="replace")) > _COMMAND_LIMIT:
            raise ToolFault(
                "a command must not contain NUL characters and is "
                f"limited to at most {_COMMAND_LIMIT:,} bytes; write long text to a file first"
            )
        command = command.encode(errors="replace").decode()
        done = self._run(self._command(command))
        if done.starved:
            raise ROOM.exhausted("an agent's command", done.memory)
        output = done.output.rstrip("\n")
        if done.timed_out:
            note = f"[stopped: it ran longer than {self._timeout_s:g} s; every process that it started was killed]"
            return ToolResult(f"{output}\n{note}".lstrip("\n"), is_error=True)
        if done.code != 0:
            output = f"{output}\n[exit code {done.code}]".lstrip("\n")
        return ToolResult(output)

    def _command(self, script: str) -> Command:
        return Command(("bash", "-c", script), self._folder, self._timeout_s)

    def _run(self, command: Command) -> CommandResult:
        prewarmed, self._prewarmed = self._prewarmed, None
        if prewarmed is None:
            return self._runner(command)
        with closing(prewarmed):
            return prewarmed(command)


def _mounted(text: str, path: str) -> str:
    """Replace the workspace's path on the host by its path in the sandbox, except as the beginning of a longer name.

    It compiles no pattern of the path: `re` would cache one for each of hundreds of workspaces.
    """
    first, *others = text.split(path)
    return first + "".join((path if _REST_OF_A_NAME.match(other) else MOUNT) + other for other in others)
