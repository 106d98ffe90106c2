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


def events(reply: dict[str, Any]) -> list[dict[str, Any]]:
    """The stream events of a message."""
    begun = {"input_tokens": 10, "output_tokens": 0}
    message = {"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": [], "usage": begun}
    told: list[dict[str, Any]] = [{"type": "message_start", "message": {**message, "stop_reason": None}}]
    for index, block in enumerate(reply["content"]):
        if block["type"] == "text":
            start, delta = {**block, "text": ""}, {"type": "text_delta", "text": block["text"]}
        else:
            start = {**block, "input": {}}
            delta = {"type": "input_json_delta", "partial_json": reply.get("raw_input") or json.dumps(block["input"])}
        told.append({"type": "content_block_start", "index": index, "content_block": start})
        told.append({"type": "content_block_delta", "index": index, "delta": delta})
        told.append({"type": "content_block_stop", "index": index})
    ended = {"stop_reason": reply.get("stop_reason", "end_turn"), "stop_sequence": None}
    usage = {} if reply.get("no_usage") else {"usage": {"output_tokens": 5}}
    told.append({"type": "message_delta", "delta": ended, **usage})
    return [*told, {"type": "message_stop"}]


class Handler(http.server.BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"

    def address_string(self) -> str:
        return "unix"

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Say nothing."""

    def do_GET(self) -> None:
        turn = self.path.rpartition("/")[2]
        self._json(200, {"endpoint_s": float(turn), "waited_s": 0.25})

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
        if body.get("stream"):
            self._reply(reply)
        else:
            self._json(200, {**events(reply)[0]["message"], "content": reply["content"], "stop_reason": "end_turn"})

    def _reply(self, reply: dict[str, Any]) -> None:
        if "status" in reply:
            self._json(reply["status"], {"type": "error", "error": {"type": reply["error"], "message": "as told"}})
            return
        self.close_connection = True
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.end_headers()
        self._event("ping", {"type": "ping"})
        if "error" in reply:
            self._event("error", {"type": "error", "error": {"type": reply["error"], "message": "as told"}})
            return
        told = events(reply)
        for event in told[:3] if "break" in reply else told:
            self._event(event["type"], event)
        if reply.get("break") == "garbage":
            self.wfile.write(b"event: message_delta\ndata: {nonsense\n\n")
        if reply.get("break") == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if reply.get("break") == "death":
            self.wfile.flush()
            os._exit(9)

    def _event(self, name: str, data: dict[str, Any]) -> None:
        self.wfile.write(f"event: {name}\ndata: {json.dumps(data)}\n\n".encode())

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
