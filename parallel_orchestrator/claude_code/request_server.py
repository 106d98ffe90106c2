"""An HTTP server on a Unix socket to which one Claude Code sends its requests to the model.

The sandbox lets Claude Code reach nothing else. Each request with the right token waits in a queue until it is
answered; pings keep its connection alive. The token belongs to one launch, and the endpoint to one conversation: a
command that steals the token can do no more than continue its own task.
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
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

from parallel_orchestrator.messages_api import sse

PING_S = 15.0
"""Claude Code gives up after six minutes without a byte."""
LARGEST_BODY = 64 * 2**20

_PING = sse.encode({"type": "ping"}).encode()
_REFUSED = b'{"type":"error","error":{"type":"permission_error","message":"this endpoint does not serve the request"}}'
_NAME = "endpoint.sock"


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

    def refuse(self, message: str) -> None:
        """Reply with an error that Claude Code does not retry."""
        error = {"type": "error", "error": {"type": "invalid_request_error", "message": message}}
        self._replies.put((400, json.dumps(error)))

    def wait(self, timeout_s: float) -> tuple[int, str] | None:
        """Returns status and body of the reply, or None at the timeout."""
        try:
            return self._replies.get(timeout=timeout_s)
        except queue.Empty:
            return None


class ClaudeEndpoint:
    """Listens in `folder` until it is closed. A thread of its own puts each request into `arrived`."""

    def __init__(self, folder: Path, arrived: queue.SimpleQueue[Any]) -> None:
        self.token = secrets.token_hex(24)
        self.path = folder / _NAME
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.path.unlink(missing_ok=True)
        # A run's path may be longer than the kernel allows a socket's. Through a descriptor it is short.
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        short = f"/proc/self/fd/{descriptor}/{_NAME}" if sys.platform == "linux" else str(self.path)
        try:
            self._server = _SocketServer(short, self.token, arrived)
        finally:
            os.close(descriptor)
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        """Take no more requests. Those that wait end with the program that made them."""
        self._server.shutdown()
        self._server.server_close()
        self.path.unlink(missing_ok=True)


class _SocketServer(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    # A handler thread waits for its answer, which a close means will never come.
    block_on_close = False
    request_queue_size = 64

    def __init__(self, path: str, token: str, arrived: queue.SimpleQueue[Any]) -> None:
        super().__init__(path, _Handler)
        self.token = token
        self.arrived = arrived

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore errors: Claude Code may be killed at any time."""


class _Handler(BaseHTTPRequestHandler):
    server: _SocketServer
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class names it so
        """Log nothing: the transcript holds it all."""

    def address_string(self) -> str:
        return "claude"

    def do_POST(self) -> None:
        # One request for each connection: none waits behind another's answer.
        self.close_connection = True
        bearer = self.headers.get("authorization", "").removeprefix("Bearer ").strip()
        size = self.headers.get("content-length", "")
        if not size.isdecimal() or int(size) > LARGEST_BODY:
            self._send(404, _REFUSED)
            return
        data = self.rfile.read(int(size))  # before any refusal: a client that still writes does not read one
        if not hmac.compare_digest(bearer.encode(), self.server.token.encode()):
            self._send(401, _REFUSED)
            return
        if self.path.partition("?")[0] != "/v1/messages":
            self._send(404, _REFUSED)
            return
        with contextlib.suppress(ValueError, RecursionError):
            body = json.loads(data)
            if isinstance(body, dict):
                self._serve(Request(body, self.headers.get("anthropic-beta", "")))

    def do_GET(self) -> None:
        self._send(404, b"{}")

    def do_HEAD(self) -> None:
        self._send(200, b"")

    def _serve(self, request: Request) -> None:
        self.server.arrived.put(request)
        started = False
        # The executor answers from its own thread. The first ping commits this one to status 200.
        while (reply := request.wait(PING_S)) is None:
            started = started or self._start_stream()
            self.wfile.write(_PING)
        status, text = reply
        if status != 200 and not started:
            self._send(status, text.encode())
            return
        if not started:
            self._start_stream()
        self.wfile.write((text if status == 200 else sse.encode(json.loads(text))).encode())

    def _start_stream(self) -> bool:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream; charset=utf-8")
        self.send_header("connection", "close")
        self.end_headers()
        return True

    def _send(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
