"""The login of a person's own Claude Code, for runs that have no key: Claude Code itself shows what it would pay with.

It is started as the person would start it, with their configuration directory and outside the sandbox, but without
tools, settings or MCP servers, and its one request goes to a server of ours on loopback. What that request shows in its
header is the login. Claude Code keeps it, renews it and writes it, as always; nothing of it is read from a file or
written to one here, and the request is answered without a model.

A program, too: `python -m parallel_orchestrator.claude_code.login PROGRAM` reads a refused token from the first
line of its input and prints {"value", "betas"} of a newer one. It ends, and Claude Code with it, when its input does.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from parallel_orchestrator.claude_code.binary import find
from parallel_orchestrator.messages_api.claude_code_wire import answer_stream
from parallel_orchestrator.records.credential import Credential
from parallel_orchestrator.records.errors import UsageError
from parallel_orchestrator.sandbox.guarded_process import Leashed
from parallel_orchestrator.system import redact
from parallel_orchestrator.system.environment import clean_environment
from parallel_orchestrator.system.scratch import scratch_folder

PATIENCE_S = 60.0
"""It takes a second, and some more where it renews the login first."""
ENVIRONMENT_TOKEN = "CLAUDE_CODE_OAUTH_TOKEN"  # noqa: S105 - the name of a variable

_SAID = 2000
_LARGEST_BODY = 2**20
_REFUSED = b'{"type":"error","error":{"type":"authentication_error","message":"OAuth token has expired"}}'
_ARGUMENTS = (
    *("-p", "Say ok.", "--output-format", "json", "--max-turns", "1", "--no-session-persistence"),
    *("--tools", "", "--setting-sources", "", "--strict-mcp-config", "--disable-slash-commands"),
)


def find_login(environment: Mapping[str, str]) -> str | None:
    """Where a person's login to Claude Code on this machine lies, None when nobody is logged in. No value is kept."""
    if environment.get(ENVIRONMENT_TOKEN):
        return ENVIRONMENT_TOKEN
    home = Path(environment.get("CLAUDE_CONFIG_DIR") or Path(environment.get("HOME", "/")) / ".claude")
    file = home / ".credentials.json"
    try:
        held = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return None
    # The same file keeps logins to MCP servers.
    return str(file) if isinstance(held, dict) and held.get("claudeAiOauth") else None


def lend(environment: Mapping[str, str]) -> Credential | None:
    """The login of the Claude Code that is here; None where nobody is logged in. Raises UsageError when it shows none.

    It is asked once in the life of a process.
    """
    source = find_login(environment)
    if source is None:
        return None
    program = find().path
    value, betas = _shown_once(program, tuple(sorted(_around(environment).items())))
    # -P: a module in the working directory must not stand in for one of ours. A variable is renewed by nobody.
    renewal = (sys.executable, "-P", "-m", __spec__.name, str(program)) if source != ENVIRONMENT_TOKEN else ()
    return Credential("login", value, betas, renewal, source)


@cache
def _shown_once(program: Path, around: tuple[tuple[str, str], ...]) -> tuple[str, str]:
    return _shown(program, dict(around), refused="")


def _around(environment: Mapping[str, str]) -> dict[str, str]:
    """What Claude Code finds in its environment: the person's, as far as it is for the way to the login."""
    kept = {**clean_environment(environment, network=True), ENVIRONMENT_TOKEN: environment.get(ENVIRONMENT_TOKEN, "")}
    return {name: value for name, value in kept.items() if value}  # an empty CLAUDE_CONFIG_DIR is none, as for us


def _shown(program: Path, around: Mapping[str, str], refused: str) -> tuple[str, str]:
    """Token and beta features of a login that is not the refused one."""
    with _counter(refused) as counter, scratch_folder("claude-") as folder:
        direct = ",".join(filter(None, [around.get("NO_PROXY"), around.get("no_proxy"), "127.0.0.1"]))
        environment = {
            **around,
            "ANTHROPIC_BASE_URL": counter.url,
            "NO_PROXY": direct,
            "no_proxy": direct,
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
            "CLAUDE_CODE_MAX_RETRIES": "1",
            "DISABLE_AUTOUPDATER": "1",
        }
        with Leashed([str(program), *_ARGUMENTS], environment, folder, _SAID) as leashed:
            leashed.follower.until_end(time.monotonic() + PATIENCE_S)
            leashed.end()
            said = leashed.follower.rest()
    if counter.shown is None:
        raise UsageError(f"Claude Code shows no login that can pay ({_words(said)}): log in with `claude /login`")
    return counter.shown


def _words(said: str) -> str:
    """What it said on its end, for a person."""
    with contextlib.suppress(ValueError, AttributeError):
        said = json.loads(said).get("result") or said
    return redact.foreign(" ".join(str(said).split()))[:200] or "it said nothing"


class _Counter(ThreadingHTTPServer):
    """Where the login is shown. Its address has a secret in it: nobody else on this machine can show another one."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, refused: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.place = f"/{secrets.token_hex(24)}"
        self.url = f"http://127.0.0.1:{self.server_port}{self.place}"
        self.refused = refused
        self.shown: tuple[str, str] | None = None


class _Handler(BaseHTTPRequestHandler):
    server: _Counter

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it so
        """No log."""

    def do_POST(self) -> None:
        size = self.headers.get("content-length", "")
        if self.path.partition("?")[0] != f"{self.server.place}/v1/messages" or not size.isdecimal():
            self._reply(404, "application/json", b"{}")
            return
        self.rfile.read(min(int(size), _LARGEST_BODY))
        bearer = self.headers.get("authorization", "").removeprefix("Bearer ").strip()
        if not bearer or bearer == self.server.refused:
            self._reply(401, "application/json", _REFUSED)  # it renews its login then, and asks again
            return
        betas = [flag.strip() for flag in self.headers.get("anthropic-beta", "").split(",")]
        self.server.shown = (bearer, ",".join(flag for flag in betas if flag.startswith("oauth-")))
        words = answer_stream("msg_login", "none", [{"type": "text", "text": "ok"}], {})
        self._reply(200, "text/event-stream", words.encode())

    def _reply(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextlib.contextmanager
def _counter(refused: str) -> Iterator[_Counter]:
    with _Counter(refused) as counter:
        threading.Thread(target=counter.serve_forever, args=(0.05,), daemon=True).start()
        try:
            yield counter
        finally:
            counter.shutdown()


def _end_with_input() -> None:
    """Whoever waits for the login is gone: end at once. The leash ends Claude Code."""
    sys.stdin.read()
    os._exit(1)


def main() -> int:
    """Print a newer login than the refused one."""
    refused = sys.stdin.readline().strip()
    redact.know(refused)
    threading.Thread(target=_end_with_input, daemon=True).start()
    try:
        value, betas = _shown(Path(sys.argv[1]), _around(os.environ), refused)
    except UsageError as error:
        print(error, file=sys.stderr)
        return 1
    print(json.dumps({"value": value, "betas": betas}), flush=True)
    return 0


if __name__ == "__main__":
    os._exit(main())
