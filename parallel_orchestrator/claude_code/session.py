"""Runs one Claude Code: starts it in the sandbox, waits for its requests, and ends it with all that it started.

Its files lie in a state folder next to the workspace, none in the user's home:

    config/      CLAUDE_CONFIG_DIR: its sessions, for `--resume`
    endpoint/    the socket to which it sends its requests
    system.md    the addition to its system prompt
    shell        the wrapper through which it starts every command
    prompt.txt   the prompt of its last start
    stderr.txt   its error output
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import queue
import shutil
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from parallel_orchestrator.claude_code.binary import ClaudeCodeProgram
from parallel_orchestrator.claude_code.host_settings import SERVERS, HostSettings, link
from parallel_orchestrator.claude_code.request_server import ClaudeEndpoint, Request
from parallel_orchestrator.messages_api.tool_calls import Json
from parallel_orchestrator.records.attempt_token import Caller
from parallel_orchestrator.records.command import MOUNT
from parallel_orchestrator.records.scenario import ClaudeSettings
from parallel_orchestrator.sandbox.mounts import SET_LIMITS
from parallel_orchestrator.sandbox.resource_monitor import ResourceLimits
from parallel_orchestrator.sandbox.runner import BubblewrapRunner, PlainRunner
from parallel_orchestrator.sandbox.service_process import Mount, ServiceProcess, ServiceProgram
from parallel_orchestrator.system import redact
from parallel_orchestrator.system.folders import scratch_folder

COMMAND_TIMEOUT_S = 120
START_S = 90.0
"""From start to first request. One takes 0.7 s; eight at once on two cores take 5 s."""
FAREWELL_S = 15.0
"""From the last answer to the process's end."""

_LIMITS = ResourceLimits(processes=384, memory=3 * 2**30)
"""Claude Code itself takes about 40 threads and 0.25 GiB; the rest is for its commands."""
_INSIDE = "/claude"
_POLL_S = 0.05
_LAST_WORDS = 2000

Runner = BubblewrapRunner | PlainRunner

_log = logging.getLogger(__name__)

_SETTINGS = json.dumps({"attribution": {"commit": "", "pr": ""}})
"""Without its instructions on signing commits, as it makes none."""

_SHELL = f"""#!/bin/sh
# Claude Code starts every command through this: with its own limits, and without the way to the model.
{{ {SET_LIMITS} }} 2>/dev/null
unset ANTHROPIC_AUTH_TOKEN ANTHROPIC_BASE_URL ANTHROPIC_UNIX_SOCKET CLAUDE_CODE_MESSAGING_TOKEN
exec /bin/bash -c "$1"
"""


class ProgramEnded(Exception):
    """Claude Code ended, or had to be killed, when a request was expected. The message says why."""


@dataclass(frozen=True)
class SessionSettings:
    """The settings of every start of a session."""

    model: str
    session: uuid.UUID
    tools: str
    """Its built-in tools, separated by commas."""
    system: str
    """An addition to its own system prompt."""
    max_turns: int
    max_cost_usd: float | None = None
    """Claude Code enforces this and `max_turns` in addition to the orchestrator."""
    schema: str | None = None
    """JSON Schema of the final answer."""
    settings: ClaudeSettings = "none"
    """`host`: the user's own settings apply, with their MCP servers if it has tools. `none`: no settings."""


def session_id(attempt: Caller) -> uuid.UUID:
    """Returns the name of an attempt's session, always the same for one attempt."""
    return uuid.uuid5(uuid.NAMESPACE_URL, f"parallel-orchestrator:{attempt.run}/{attempt.task}/{attempt.attempt}")


class ClaudeCodeSession:
    """One session of Claude Code, with at most one process at a time."""

    def __init__(
        self, runner: Runner, program: ClaudeCodeProgram, folder: Path, state: Path, settings: SessionSettings
    ) -> None:
        self._runner = runner
        self._program = program
        self._folder = folder
        self._state = state
        self._settings = settings
        self._arrived: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._ending = ExitStack()
        self._running: ServiceProcess | None = None
        self._host: Path | None = None
        """The folder with copies of the user's settings, if they apply."""
        self.result: Json | None = None
        """The last `result` event of the current or last process."""

    @property
    def is_running(self) -> bool:
        """Whether a process is running."""
        return self._running is not None and self._running.process.poll() is None

    def forget(self) -> None:
        """Kill the process and delete the state folder."""
        self.kill()
        shutil.rmtree(self._state, ignore_errors=True)

    def start(self, prompt: str) -> bool:
        """Start a process with a prompt. Returns whether it resumes an earlier session."""
        # Two processes must never write to one workspace.
        self.kill()
        # A new queue: the reader thread of the old process may still put its end into the old one.
        self.result, self._arrived = None, queue.SimpleQueue()
        config = self._state / "config"
        config.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._state.chmod(0o700)  # `mkdir` leaves the mode of a folder that exists
        self._folder.mkdir(exist_ok=True)
        (self._state / "system.md").write_text(self._settings.system, encoding="utf-8")
        (self._state / "prompt.txt").write_text(prompt, encoding="utf-8")
        (self._state / "shell").write_text(_SHELL)
        (self._state / "shell").chmod(0o700)
        resumes = any(config.glob(f"projects/*/{self._settings.session}.jsonl"))
        endpoint = ClaudeEndpoint(self._state / "endpoint", self._arrived)
        self._ending.callback(endpoint.close)
        self._host = self._copy_host_settings(endpoint) if self._settings.settings == "host" else None
        # As standard input: an argument has a limit of 128 KiB, and a requirement may be longer.
        with (
            (self._state / "prompt.txt").open("rb") as prompt_file,
            (self._state / "stderr.txt").open("ab") as error_file,
        ):
            started = self._runner.service(
                ServiceProgram(
                    argv=self._arguments(resumes=resumes),
                    folder=self._folder,
                    environment=self._environment(endpoint),
                    stdin=prompt_file.fileno(),
                    stderr=error_file.fileno(),
                    mounts=self._mounts(),
                    limits=_LIMITS,
                )
            )
            self._running = self._ending.enter_context(started)
        threading.Thread(target=_read_events, args=(self._running, self._arrived), daemon=True).start()
        return resumes

    def _copy_host_settings(self, endpoint: ClaudeEndpoint) -> Path:
        """Returns a folder with copies of the user's settings, which is deleted when the process ends."""
        folder = self._ending.enter_context(scratch_folder("claude-"))
        HostSettings.read(os.environ).write(folder, self._environment(endpoint))
        link(self._seen(folder, "host"), self._state / "config")
        return folder

    def next_request(self, timeout_s: float, on_event: Callable[[Json], None] = lambda event: None) -> Request:
        """Returns the process's next request, and calls `on_event` with each event that it prints.

        `timeout_s` counts from the last event. Raises ProgramEnded, and then no process is left.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                arrived = self._arrived.get(timeout=_POLL_S)
            except queue.Empty:
                self._check(deadline)
                continue
            if isinstance(arrived, Request):
                return arrived
            # The output has ended, and the process with it: no request can follow.
            if arrived is None:
                raise self._ended("")
            deadline = time.monotonic() + timeout_s
            if arrived.get("type") == "result":
                self.result = arrived
            on_event(arrived)

    def finish(self) -> Json | None:
        """Wait for the process to end after the last answer. Returns its result, or None if it printed none."""
        # Usually it ends by itself. One that asks again after the last answer would keep the executor waiting.
        with contextlib.suppress(ProgramEnded):
            request = self.next_request(FAREWELL_S)
            request.refuse("the conversation has ended")
        self.kill()
        return self.result

    def kill(self) -> None:
        """Kill the process and everything that it started."""
        self._running = None
        self._ending.close()

    def _check(self, deadline: float) -> None:
        if self._running is None:
            raise self._ended("it is not running")
        # Polled here because no other thread watches the process's memory and disk space.
        if violation := self._running.violation():
            raise self._ended(violation)
        if time.monotonic() > deadline:
            raise self._ended("it printed nothing and asked nothing for too long")

    def _ended(self, why: str) -> ProgramEnded:
        # Before the kill: afterwards every exit code would be the kill's.
        code = self._running.process.poll() if self._running else None
        self.kill()
        words = self._last_words()
        if why:
            return ProgramEnded(why)
        ending = f"it ended with exit code {code}" if code is not None else "it ended"
        return ProgramEnded(f"{ending}{': ' + words if words else ''}")

    def _last_words(self) -> str:
        """Returns the words of its result, or the end of its error output."""
        result = self.result or {}
        if words := [str(result[key]) for key in ("terminal_reason", "result") if result.get(key)]:
            return redact.foreign(": ".join(words))[:_LAST_WORDS]
        with contextlib.suppress(OSError):
            text = (self._state / "stderr.txt").read_bytes()[-_LAST_WORDS:].decode(errors="replace")
            return redact.foreign(" ".join(text.split()))
        return ""

    def _arguments(self, *, resumes: bool) -> tuple[str, ...]:
        settings = self._settings
        session = ("--resume" if resumes else "--session-id", str(settings.session))
        cost = ("--max-budget-usd", str(settings.max_cost_usd)) if settings.max_cost_usd is not None else ()
        schema = ("--json-schema", settings.schema) if settings.schema else ()
        servers = ("--mcp-config", self._seen(self._host / SERVERS, f"host/{SERVERS}")) if self._host else ()
        return (
            *(self._seen(self._program.path, "program"), "-p", "--output-format", "stream-json", "--verbose"),
            *("--model", settings.model, *session, "--max-turns", str(settings.max_turns), *cost, *schema),
            *("--tools", settings.tools, "--permission-mode", "bypassPermissions"),
            # Nothing in the workspace may steer it: no settings, hooks, CLAUDE.md, servers or skills from there.
            *("--setting-sources", "user" if self._host else "", "--strict-mcp-config", "--disable-slash-commands"),
            *(servers if settings.tools else ()),
            *("--settings", _SETTINGS),
            *("--append-system-prompt-file", self._seen(self._state / "system.md", "system.md")),
        )

    def _environment(self, endpoint: ClaudeEndpoint) -> dict[str, str]:
        return {
            "ANTHROPIC_AUTH_TOKEN": endpoint.token,
            "ANTHROPIC_BASE_URL": "http://gateway",
            "ANTHROPIC_UNIX_SOCKET": self._seen(endpoint.path, f"endpoint/{endpoint.path.name}"),
            "CLAUDE_CONFIG_DIR": self._seen(self._state / "config", "config"),
            "CLAUDE_CODE_SHELL_PREFIX": self._seen(self._state / "shell", "shell"),
            # Claude Code refuses bypassPermissions to root unless this is set.
            "IS_SANDBOX": "1",
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
            "CLAUDE_CODE_ATTRIBUTION_HEADER": "0",
            "CLAUDE_CODE_MAX_RETRIES": "1",
            "CLAUDE_CODE_MAX_OUTPUT_TOKENS": "32000",
            "CLAUDE_CODE_DISABLE_AUTO_MEMORY": "1",
            # The transcript holds one conversation: without summaries in between, and without background work.
            "DISABLE_AUTO_COMPACT": "1",
            "CLAUDE_CODE_DISABLE_BACKGROUND_TASKS": "1",
            "ENABLE_TOOL_SEARCH": "false",
            "BASH_DEFAULT_TIMEOUT_MS": str(1000 * COMMAND_TIMEOUT_S),
            "BASH_MAX_TIMEOUT_MS": str(1000 * COMMAND_TIMEOUT_S),
            "MCP_TOOL_TIMEOUT": str(1000 * COMMAND_TIMEOUT_S),
            "DISABLE_AUTOUPDATER": "1",
        }

    def _mounts(self) -> tuple[Mount, ...]:
        state = self._state
        return (
            Mount(self._program.path, f"{_INSIDE}/program"),
            Mount(state / "config", f"{_INSIDE}/config", writable=True),
            *(Mount(state / name, f"{_INSIDE}/{name}") for name in ("endpoint", "system.md", "shell")),
            *([Mount(self._host, f"{_INSIDE}/host")] if self._host else []),
        )

    def _seen(self, path: Path, inside: str) -> str:
        """Returns where the process finds `path`."""
        return f"{_INSIDE}/{inside}" if self._runner.has_own_paths else str(path.absolute())

    def to_program(self, value: Any) -> Any:
        """Returns a call's arguments with paths of the process: without a sandbox /workspace is the folder itself."""
        return value if self._runner.has_own_paths else _replaced(value, MOUNT, str(self._folder.resolve()))

    def to_model(self, value: Any) -> Any:
        """Returns the process's output as the model reads it: without paths of the host."""
        if self._runner.has_own_paths:
            return value
        seen = {str(self._folder.resolve()): MOUNT, str(self._state.resolve()): _INSIDE}
        for path in sorted(seen, key=len, reverse=True):  # longest first: one may be the prefix of the other
            value = _replaced(value, path, seen[path])
        return value


def _replaced(value: Any, old: str, new: str) -> Any:
    if isinstance(value, str):
        return value.replace(old, new)
    if isinstance(value, list):
        return [_replaced(part, old, new) for part in value]
    if isinstance(value, dict):
        return {name: _replaced(part, old, new) for name, part in value.items()}
    return value


def _read_events(running: ServiceProcess, arrived: queue.SimpleQueue[Any]) -> None:
    """Put each JSON object that the process prints into `arrived`, and None at its end."""
    # `kill` may close the output while this thread reads it.
    with contextlib.suppress(ValueError, OSError):
        for line in running.process.stdout or ():
            with contextlib.suppress(ValueError, RecursionError):
                event = json.loads(line)
                if isinstance(event, dict):
                    arrived.put(event)
    arrived.put(None)
