"""One Claude Code that runs: started in the sandbox, asked for its next request, ended with all that it started.

Everything of it lies in a state folder beside the workspace, none of it in the person's home:

    config/      CLAUDE_CONFIG_DIR: its sessions, by which `--resume` goes on
    door/        the socket at which it asks
    system.md    what is added to its system prompt
    shell        the wrapper that every command of it goes through
    prompt.txt   what it was started with last
    stderr.txt   what it complained of
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

from parallel_orchestrator.claude_code import host_settings
from parallel_orchestrator.claude_code.binary import ClaudeCodeProgram
from parallel_orchestrator.claude_code.host_settings import HostSettings
from parallel_orchestrator.claude_code.request_server import Door, Request, lines_of
from parallel_orchestrator.records.attempt_token import Caller
from parallel_orchestrator.records.command import MOUNT
from parallel_orchestrator.records.scenario import ClaudeSettings
from parallel_orchestrator.sandbox.mounts import SET_LIMITS
from parallel_orchestrator.sandbox.resource_monitor import Limits
from parallel_orchestrator.sandbox.runner import BubblewrapRunner, PlainRunner
from parallel_orchestrator.sandbox.service_process import Mount, ServiceProcess, ServiceProgram
from parallel_orchestrator.system import redact
from parallel_orchestrator.system.folders import scratch_folder

COMMAND_TIMEOUT_S = 120
START_S = 90.0
"""From its start to its first request. 0.7 s by itself; eight at once on two cores take 5 s."""
FAREWELL_S = 15.0
"""From its last answer to its end."""

_LIMITS = Limits(processes=384, memory=3 * 2**30)
"""Its own share is about 40 threads and 0.25 GiB; the rest is what any command may take up."""
_INSIDE = "/claude"
_POLL_S = 0.05
_LAST_WORDS = 2000

Runner = BubblewrapRunner | PlainRunner

_log = logging.getLogger(__name__)

_SETTINGS = json.dumps({"attribution": {"commit": "", "pr": ""}})
"""No words on how to sign commits: none is made."""

_SHELL = f"""#!/bin/sh
# Claude Code starts every command through this: limits of its own, and nothing of the way to the model.
{{ {SET_LIMITS} }} 2>/dev/null
unset ANTHROPIC_AUTH_TOKEN ANTHROPIC_BASE_URL ANTHROPIC_UNIX_SOCKET CLAUDE_CODE_MESSAGING_TOKEN
exec /bin/bash -c "$1"
"""


class Gone(Exception):
    """It ended, or had to be ended, where a request was expected. The message says why."""


@dataclass(frozen=True)
class Setting:
    """How it is started, every time alike."""

    model: str
    session: uuid.UUID
    tools: str
    """Its built-in tools, by comma."""
    system: str
    """What is added to its own system prompt."""
    max_turns: int
    max_cost_usd: float | None = None
    """Its own limits, as a second line behind ours."""
    schema: str | None = None
    """JSON Schema of the final answer."""
    settings: ClaudeSettings = "none"
    """Whose settings it has: nobody's, or the person's own (`host`), with their MCP servers where it has tools."""


def session_id(attempt: Caller) -> uuid.UUID:
    """The name of an attempt's session: the same whenever it is asked for."""
    return uuid.uuid5(uuid.NAMESPACE_URL, f"parallel-orchestrator:{attempt.run}/{attempt.task}/{attempt.attempt}")


class Session:
    """At most one process at a time."""

    def __init__(self, runner: Runner, program: ClaudeCodeProgram, folder: Path, state: Path, setting: Setting) -> None:
        self._runner = runner
        self._program = program
        self._folder = folder
        self._state = state
        self._setting = setting
        self._arrived: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._ending = ExitStack()
        self._running: ServiceProcess | None = None
        self._host: Path | None = None
        """Copies of the person's settings, while it has them."""
        self.result: dict[str, Any] | None = None
        """The last `result` event of the process that runs, or ran last."""

    @property
    def is_running(self) -> bool:
        """Whether there is a process that has not ended."""
        return self._running is not None and self._running.process.poll() is None

    def forget(self) -> None:
        """Make its state empty."""
        self.kill()
        shutil.rmtree(self._state, ignore_errors=True)

    def start(self, prompt: str) -> bool:
        """Start it with a prompt; whether it goes on with a session that was there before."""
        self.kill()
        self.result, self._arrived = None, queue.SimpleQueue()
        config = self._state / "config"
        config.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._state.chmod(0o700)
        self._folder.mkdir(exist_ok=True)
        (self._state / "system.md").write_text(self._setting.system, encoding="utf-8")
        (self._state / "prompt.txt").write_text(prompt, encoding="utf-8")
        (self._state / "shell").write_text(_SHELL)
        (self._state / "shell").chmod(0o700)
        resumes = any(config.glob(f"projects/*/{self._setting.session}.jsonl"))
        door = Door(self._state / "door", self._arrived)
        self._ending.callback(door.close)
        self._host = self._copies(door) if self._setting.settings == "host" else None
        with (
            (self._state / "prompt.txt").open("rb") as prompt_file,
            (self._state / "stderr.txt").open("ab") as complaints,
        ):
            started = self._runner.service(
                ServiceProgram(
                    argv=self._arguments(resumes=resumes),
                    folder=self._folder,
                    environment=self._environment(door),
                    stdin=prompt_file.fileno(),
                    stderr=complaints.fileno(),
                    mounts=self._mounts(),
                    limits=_LIMITS,
                )
            )
            self._running = self._ending.enter_context(started)
        events = threading.Thread(target=_read, args=(self._running, self._arrived), daemon=True)
        events.start()
        return resumes

    def _copies(self, door: Door) -> Path:
        """A folder with the person's settings, until the end of what is about to start."""
        folder = self._ending.enter_context(scratch_folder("claude-"))
        HostSettings.read(os.environ).write(folder, self._environment(door))
        host_settings.link(self._seen(folder, "host"), self._state / "config")
        return folder

    def next_request(self, timeout_s: float, heard: Callable[[dict[str, Any]], None] = lambda event: None) -> Request:
        """Its next request; `heard` is told every event that it prints. Raises Gone, and then nothing of it is left.

        `timeout_s` counts from the last event.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                what = self._arrived.get(timeout=_POLL_S)
            except queue.Empty:
                self._check(deadline)
                continue
            if isinstance(what, Request):
                return what
            if what is None:
                raise self._gone("")
            deadline = time.monotonic() + timeout_s
            if what.get("type") == "result":
                self.result = what
            heard(what)

    def finish(self) -> dict[str, Any] | None:
        """Wait for its end after the last answer; its result, None when it told none."""
        with contextlib.suppress(Gone):
            request = self.next_request(FAREWELL_S)
            request.refuse("the conversation has ended")
        self.kill()
        return self.result

    def kill(self) -> None:
        """End it and everything that it started."""
        self._running = None
        self._ending.close()

    def _check(self, deadline: float) -> None:
        if self._running is None:
            raise self._gone("it is not running")
        if violation := self._running.violation():
            raise self._gone(violation)
        if time.monotonic() > deadline:
            raise self._gone("it gave no sign of life for too long")

    def _gone(self, why: str) -> Gone:
        code = self._running.process.poll() if self._running else None
        self.kill()
        said = self._last_words()
        if why:
            return Gone(why)
        ending = f"it ended with exit code {code}" if code is not None else "it ended"
        return Gone(f"{ending}{': ' + said if said else ''}")

    def _last_words(self) -> str:
        """What it said on its end: its result's words, or its complaints."""
        result = self.result or {}
        told = [str(result[key]) for key in ("terminal_reason", "result") if result.get(key)]
        if told:
            return redact.foreign(": ".join(told))[:_LAST_WORDS]
        with contextlib.suppress(OSError):
            text = (self._state / "stderr.txt").read_bytes()[-_LAST_WORDS:].decode(errors="replace")
            return redact.foreign(" ".join(text.split()))
        return ""

    def _arguments(self, *, resumes: bool) -> tuple[str, ...]:
        setting = self._setting
        session = ("--resume" if resumes else "--session-id", str(setting.session))
        cost = ("--max-budget-usd", str(setting.max_cost_usd)) if setting.max_cost_usd is not None else ()
        schema = ("--json-schema", setting.schema) if setting.schema else ()
        own = (
            ("--mcp-config", self._seen(self._host / host_settings.SERVERS, f"host/{host_settings.SERVERS}"))
            if self._host
            else ()
        )
        return (
            *(self._seen(self._program.path, "program"), "-p", "--output-format", "stream-json", "--verbose"),
            *("--model", setting.model, *session, "--max-turns", str(setting.max_turns), *cost, *schema),
            *("--tools", setting.tools, "--permission-mode", "bypassPermissions"),
            # Nothing else of the host's, nothing of the workspace's: no settings, hooks, CLAUDE.md, servers, skills.
            *("--setting-sources", "user" if self._host else "", "--strict-mcp-config", "--disable-slash-commands"),
            *(own if setting.tools else ()),
            *("--settings", _SETTINGS),
            *("--append-system-prompt-file", self._seen(self._state / "system.md", "system.md")),
        )

    def _environment(self, door: Door) -> dict[str, str]:
        return {
            "ANTHROPIC_AUTH_TOKEN": door.token,
            "ANTHROPIC_BASE_URL": "http://gateway",
            "ANTHROPIC_UNIX_SOCKET": self._seen(door.path, f"door/{door.path.name}"),
            "CLAUDE_CONFIG_DIR": self._seen(self._state / "config", "config"),
            "CLAUDE_CODE_SHELL_PREFIX": self._seen(self._state / "shell", "shell"),
            # bypassPermissions is refused to root unless it is told that it cannot do harm.
            "IS_SANDBOX": "1",
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
            "CLAUDE_CODE_ATTRIBUTION_HEADER": "0",
            "CLAUDE_CODE_MAX_RETRIES": "1",
            "CLAUDE_CODE_MAX_OUTPUT_TOKENS": "32000",
            "CLAUDE_CODE_DISABLE_AUTO_MEMORY": "1",
            # One conversation, built from the transcript: no summaries in between, no work beside it.
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
            Mount(state / "door", f"{_INSIDE}/door"),
            Mount(state / "system.md", f"{_INSIDE}/system.md"),
            Mount(state / "shell", f"{_INSIDE}/shell"),
            *([Mount(self._host, f"{_INSIDE}/host")] if self._host else []),
        )

    def _seen(self, path: Path, inside: str) -> str:
        """Where it finds `path`."""
        return f"{_INSIDE}/{inside}" if self._runner.has_own_paths else str(path.absolute())

    def to_program(self, value: Any) -> Any:
        """Arguments of a call, as this process needs them: without a sandbox /workspace is the folder itself."""
        return value if self._runner.has_own_paths else _replaced(value, MOUNT, str(self._folder.resolve()))

    def to_model(self, value: Any) -> Any:
        """What this process says, as the model reads it: no path of the host."""
        if self._runner.has_own_paths:
            return value
        seen = {str(self._folder.resolve()): MOUNT, str(self._state.resolve()): _INSIDE}
        for path in sorted(seen, key=len, reverse=True):  # either may begin with the other
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


def _read(running: ServiceProcess, arrived: queue.SimpleQueue[Any]) -> None:
    """Pass on what the process prints; None at its end."""
    with contextlib.suppress(ValueError, OSError):  # closed under us: it was ended
        for event in lines_of(running.process.stdout):
            arrived.put(event)
    arrived.put(None)
