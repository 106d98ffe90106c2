"""The door: a Unix socket at which one Claude Code asks, and where its requests wait until they are answered.

Nothing else can be reached from inside its sandbox. Whoever knocks with the right token has its request put into
the queue; the connection is kept alive by pings until somebody replies. The token is of one launch and good for this
door alone, which carries one conversation: what a command could do with it is to go on with its own task.
"""

from __future__ import annotations

import contextlib
import hmac
import json
import os
import queue
import secrets
import socketserver
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

from parallel_orchestrator.messages_api import sse

PING_S = 15.0
"""The program gives up after six minutes without a byte."""
LARGEST_BODY = 64 * 2**20

_PING = sse.encode({"type": "ping"}).encode()
_REFUSED = b'{"type":"error","error":{"type":"permission_error","message":"not through this door"}}'
_NAME = "door.sock"


@dataclass(eq=False)
class Request:
    """One request that waits for its reply."""

    body: dict[str, Any]
    betas: str
    """The beta features that it asks for, as in its header."""
    _replies: queue.SimpleQueue[tuple[int, str]] = field(default_factory=queue.SimpleQueue)

    def answer(self, stream: str) -> None:
        """Reply with a whole stream of events."""
        self._replies.put((200, stream))

    def refuse(self, told: str) -> None:
        """Reply with an error that is not tried again."""
        error = {"type": "error", "error": {"type": "invalid_request_error", "message": told}}
        self._replies.put((400, json.dumps(error)))

    def wait(self, timeout_s: float) -> tuple[int, str] | None:
        """Status and body of the reply; None when there is none yet."""
        try:
            return self._replies.get(timeout=timeout_s)
        except queue.Empty:
            return None


class Door:
    """Listens in `folder` until it is closed. `arrived` hears of each request, in a thread of its own."""

    def __init__(self, folder: Path, arrived: queue.SimpleQueue[Any]) -> None:
        self.token = secrets.token_hex(24)
        self.path = folder / _NAME
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.path.unlink(missing_ok=True)
        # The path of a run's folder may be longer than a socket's may be; by way of a descriptor it is short.
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        short = f"/proc/self/fd/{descriptor}/{_NAME}" if sys.platform == "linux" else str(self.path)
        try:
            self._server = _Server(short, self.token, arrived)
        finally:
            os.close(descriptor)
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        """Take no more requests. Those that wait are dropped with the program that made them."""
        self._server.shutdown()
        self._server.server_close()
        self.path.unlink(missing_ok=True)


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(self, path: str, token: str, arrived: queue.SimpleQueue[Any]) -> None:
        super().__init__(path, _Handler)
        self.token = token
        self.arrived = arrived

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Whoever asks may be killed at any time."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class names it so
        """No log: the transcript tells it all."""

    def address_string(self) -> str:
        return "claude"

    def do_POST(self) -> None:
        self.close_connection = True
        bearer = self.headers.get("authorization", "").removeprefix("Bearer ").strip()
        size = self.headers.get("content-length", "")
        if not size.isdecimal() or int(size) > LARGEST_BODY:
            self._whole(404, _REFUSED)
            return
        data = self.rfile.read(int(size))  # first: who is still writing hears no refusal
        if not hmac.compare_digest(bearer.encode(), self.server.token.encode()):
            self._whole(401, _REFUSED)
            return
        if self.path.partition("?")[0] != "/v1/messages":
            self._whole(404, _REFUSED)
            return
        with contextlib.suppress(ValueError, RecursionError):
            body = json.loads(data)
            if isinstance(body, dict):
                self._hand_over(Request(body, self.headers.get("anthropic-beta", "")))

    def do_GET(self) -> None:
        self._whole(404, b"{}")

    def do_HEAD(self) -> None:
        self._whole(200, b"")

    def _hand_over(self, request: Request) -> None:
        self.server.arrived.put(request)
        begun = False
        while (reply := request.wait(PING_S)) is None:
            begun = begun or self._begin()
            self.wfile.write(_PING)
        status, text = reply
        if status != 200 and not begun:
            self._whole(status, text.encode())
            return
        if not begun:
            self._begin()
        self.wfile.write((text if status == 200 else sse.encode(json.loads(text))).encode())

    def _begin(self) -> bool:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream; charset=utf-8")
        self.send_header("connection", "close")
        self.end_headers()
        return True

    def _whole(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def lines_of(stream: Any) -> Iterator[dict[str, Any]]:
    """The JSON objects of a stream of lines; what is none is left out."""
    for line in stream:
        with contextlib.suppress(ValueError, RecursionError):
            value = json.loads(line)
            if isinstance(value, dict):
                yield value
