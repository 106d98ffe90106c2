"""A gateway of a few lines over a Unix socket, which can break in every way. A program: it can be killed.

`replies.json` in its folder: for each turn the replies to the first, second, … time it is asked for; the last
one is repeated. Each request is a line of `asked.jsonl`, so that a restarted stub goes on counting.
"""

from __future__ import annotations

import http.server
import json
import os
import socket
import socketserver
import struct
import sys
from pathlib import Path
from typing import Any

FOLDER = Path()


def message(reply: dict[str, Any], turn: str) -> dict[str, Any]:
    """The message as the gateway tells it."""
    ended = {"stop_reason": reply.get("stop_reason", "end_turn"), "usage": {"input_tokens": 10, "output_tokens": 5}}
    times = {"endpoint_s": float(turn), "waited_s": 0.25}
    told = {"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": reply["content"]}
    return {**told, **ended, "orchestrator": times}


def _said(reply: dict[str, Any]) -> str:
    message: str = reply.get("message", "as told")
    return message


class Handler(http.server.BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"

    def address_string(self) -> str:
        return "unix"

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Say nothing."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        turn = self.headers["x-orchestrator-turn"]
        log = FOLDER / "asked.jsonl"
        before = [json.loads(line)["turn"] for line in log.read_text().splitlines()] if log.exists() else []
        headers = {name.lower(): value for name, value in self.headers.items()}
        with log.open("a") as file:
            file.write(json.dumps({"turn": turn, "body": body, "headers": headers}) + "\n")
        replies = json.loads((FOLDER / "replies.json").read_text())[turn]
        reply = replies[min(before.count(turn), len(replies) - 1)]
        self._reply(reply, turn)

    def _reply(self, reply: dict[str, Any], turn: str) -> None:
        if "status" in reply:
            self._json(reply["status"], {"type": "error", "error": {"type": reply["error"], "message": _said(reply)}})
            return
        failed = {"type": "error", "error": {"type": reply.get("error"), "message": _said(reply)}}
        data = json.dumps(failed if "error" in reply else message(reply, turn)).encode()
        self.close_connection = True
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data) + 1))
        self.end_headers()
        self.wfile.write(b"\n" + data[: len(data) // 2 if "break" in reply else None])
        match reply.get("break"):
            case "garbage":
                self.wfile.write(b"}" * (len(data) - len(data) // 2))
            case "reset":
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            case "death":
                self.wfile.flush()
                os._exit(9)

    def _json(self, status: int, value: dict[str, Any]) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """The same over a Unix socket."""

    daemon_threads = True


if __name__ == "__main__":
    FOLDER = Path(sys.argv[1])
    (FOLDER / "s").unlink(missing_ok=True)
    Server(str(FOLDER / "s"), Handler).serve_forever()
