"""An endpoint that sends the key back in every way that it has."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from parallel_orchestrator.records.credential import Credential
from tests.fake_api import KEY, Answer, Block, FakeApi, text, tool_use
from tests.gateway.support import Setup, gateway

LATE = f"{'x' * 975} {KEY}"
"""Cut short after 1,000 characters, it ends in the first half of the key."""
OTHER = "another-secret-0123456789"
DIGITS = "918273645546372819"


@contextmanager
def _endpoint(status: int, headers: dict[str, str], body: str) -> Iterator[str]:
    """The URL of a server that answers everything with this."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(status)
            for name, value in {**headers, "content-length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def _event(kind: str, message: str) -> str:
    event = {"type": "error", "error": {"type": kind, "message": message}}
    return f"event: error\ndata: {json.dumps(event)}\n\n"


def _written(folder: Path) -> str:
    return "".join(path.read_text() for path in folder.iterdir())


@pytest.mark.parametrize(
    ("status", "headers", "body"),
    [
        (302, {"location": f"http://elsewhere/?key={KEY}"}, ""),
        (400, {}, json.dumps({"type": "error", "error": {"type": KEY, "message": LATE}})),
        (400, {"content-type": "text/plain"}, LATE),
        (200, {"content-type": "text/event-stream"}, _event("invalid_request_error", LATE)),
    ],
)
def test_nothing_that_the_endpoint_sends_brings_the_key_back(
    status: int, headers: dict[str, str], body: str, tmp_path: Path
) -> None:
    credential = Credential("api_key", KEY)
    with _endpoint(status, headers, body) as url, gateway(tmp_path, credential=credential, base_url=url) as gw:
        gw.open()
        answer = gw.ask(1)
        assert answer.status_code >= 400
        _assert_clean(answer.text, str(answer.headers), _written(tmp_path))


def _assert_clean(*texts: str) -> None:
    for told in texts:
        assert KEY[:16] not in told
        assert OTHER not in told


def test_a_value_in_two_pieces_of_a_stream_is_one_value(tmp_path: Path) -> None:
    contents = [
        Answer([text(KEY), text(OTHER)]),
        Answer([tool_use("toolu_1", "bash", command=KEY)]),
        Answer([tool_use("toolu_1", "bash", command="x" * 180 + OTHER + "y" * 200)]),
        Answer([{"type": "thinking", "thinking": KEY, "signature": "s"}, text("done")], stop_reason="max_tokens"),
    ]
    with FakeApi(lambda body: contents[_turn(body)]) as api, gateway(tmp_path, api, secrets=(OTHER,)) as gw:
        gw.open()
        for turn, content in enumerate(contents):
            _assert_answer_clean(gw, turn, content)
        _assert_clean(_written(tmp_path))


@pytest.mark.parametrize("spelt", [f'{{"a": "{OTHER}"}}'.replace("-", "\\u002d"), f'{{"a": {DIGITS}}}'])
def test_a_value_spelt_in_another_way_is_told_to_nobody(spelt: str, tmp_path: Path) -> None:
    def spell(events: list[Block]) -> list[Block]:
        deltas = [event["delta"] for event in events if event["type"] == "content_block_delta"]
        for delta, told in zip(deltas, (spelt, *[""] * len(deltas)), strict=False):
            delta["partial_json"] = told
        return events

    answer = Answer([tool_use("toolu_1", "bash", command="ls")], tamper=spell)
    with FakeApi(lambda body: answer) as api, gateway(tmp_path, api, secrets=(OTHER, DIGITS)) as gw:
        gw.open()
        first, again = (gw.ask(1, stream=False).json() for _ in range(2))
        assert first == again
        for told in (json.dumps(first), _written(tmp_path), gw.ask(1).text):
            assert DIGITS not in told
            assert OTHER not in told
            assert "u002d" not in told


def _turn(body: dict[str, object]) -> int:
    return int(str(body["max_tokens"])) - 1000


def _assert_answer_clean(gw: Setup, turn: int, content: Answer) -> None:
    asked = {"model": "m", "max_tokens": 1000 + turn, "messages": [{"role": "user", "content": "hello"}]}
    message = gw.ask(turn + 1, json=asked, stream=False).json()
    streamed = gw.ask(turn + 1, json=asked).text
    _assert_clean(json.dumps(message), streamed)
    cleaned = json.dumps(content.content).replace(KEY, "[credential]").replace(OTHER, "[credential]")
    assert message["content"] == json.loads(cleaned)
    assert [block["type"] for block in message["content"]] == [block["type"] for block in content.content]
