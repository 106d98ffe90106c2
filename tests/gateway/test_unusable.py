"""Endpoints that can never answer end at once and say why; those that may answer later say when the next try comes."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from parallel_orchestrator.gateway.endpoints.error_classifier import dns_works, lasting_reason
from tests.fake_api import FakeApi, Fault, Wrong
from tests.gateway.support import MODEL, body, gateway

GENEROUS_S = 60.0
"""A patience that no test waits for: what ends sooner does not end by it."""


@contextlib.contextmanager
def server(reply: bytes, wrap: Callable[[socket.socket], socket.socket] = lambda one: one) -> Iterator[int]:
    """A server on the loopback that sends `reply` to each request, whatever it is; its port."""

    def serve() -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                raw, _ = listener.accept()
                with contextlib.suppress(OSError), wrap(raw) as connection:
                    connection.recv(65536)
                    connection.sendall(reply)
                raw.close()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def http(content_type: str, text: str, status: str = "200 OK") -> bytes:
    data = text.encode()
    head = (
        f"HTTP/1.1 {status}\r\ncontent-type: {content_type}\r\ncontent-length: {len(data)}\r\nconnection: close\r\n\r\n"
    )
    return head.encode() + data


OPENAI = '{"id": "x", "object": "chat.completion", "choices": [{"message": {"content": "hi"}}]}'
STREAM = 'data: {"choices": [{"delta": {"content": "hi"}}]}\n\ndata: [DONE]\n\n'
NO_STOP = (
    'data: {"type": "message_start", "message": {"id": "m", "role": "assistant", "content": [], "usage": {}}}\n\n'
    'data: {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 1}}\n\n'
)


@pytest.mark.parametrize(
    ("reply", "told", "tries"),
    [
        (http("text/html", "<html>Welcome to nginx!</html>"), "Welcome to nginx", 3),
        (http("application/json", OPENAI), "chat.completion", 3),
        (http("application/x-ndjson", '{"message": {"content": "hi"}}\n'), "x-ndjson", 3),
        (http("text/event-stream", STREAM), "", 3),
        (http("text/event-stream", NO_STOP), "ended after message_delta", 3),
        (http("text/html", "<h1>Not Found</h1>", "404 Not Found"), "HTTP 404", 1),
        (http("application/json", '{"detail": "Not Found"}', "404 Not Found"), "HTTP 404", 1),
        (http("text/html", "", "302 Found\r\nlocation: https://x.example/login"), "https://x.example/login", 1),
    ],
    ids=["html", "other json", "ndjson", "other stream", "no message_stop", "404 html", "404 json", "redirect"],
)
def test_a_server_of_another_kind_ends_the_run_and_is_quoted(
    tmp_path: Path, reply: bytes, told: str, tries: int
) -> None:
    with server(reply) as port, gateway(tmp_path, patience_s=GENEROUS_S, base_url=f"http://127.0.0.1:{port}") as gw:
        gw.open()
        refused = gw.ask(1)
        assert gw.error(refused) == "endpoint_unusable"
        assert "Messages API" in refused.text
        assert f"127.0.0.1:{port}" in refused.text
        assert told in refused.text
        assert len(gw.records("intent")) == tries
        assert gw.error(gw.ask(2)) == "endpoint_unusable"
        assert len(gw.records("intent")) == tries  # no other call goes out


def test_a_misformat_now_and_then_ends_nothing(tmp_path: Path) -> None:
    faults = [Fault.HTML, Fault.HTML, Fault.SERVER_ERROR, Fault.HTML, Fault.GARBAGE]
    with FakeApi(faults=faults) as api, gateway(tmp_path, api, patience_s=GENEROUS_S) as gw:
        gw.open()
        assert gw.ask(1).status_code == 200


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A self-signed certificate for 127.0.0.1, with its key."""
    file = tmp_path / "self-signed.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1",
         "-keyout", str(file), "-out", str(tmp_path / "cert.pem")],
        check=True, capture_output=True,
    )  # fmt: skip
    file.write_bytes(file.read_bytes() + (tmp_path / "cert.pem").read_bytes())
    return file


def test_a_certificate_that_is_not_trusted_ends_the_run_at_once(tmp_path: Path, certificate: Path) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    with (
        server(b"", lambda raw: context.wrap_socket(raw, server_side=True)) as port,
        gateway(tmp_path, patience_s=GENEROUS_S, base_url=f"https://127.0.0.1:{port}") as gw,
    ):
        gw.open()
        refused = gw.ask(1)
        assert gw.error(refused) == "endpoint_unusable"
        assert "certificate is not trusted" in refused.text
        assert "SSL_CERT_FILE" in refused.text
        assert len(gw.records("intent")) == 1


def test_a_server_without_tls_ends_the_run_at_once(tmp_path: Path) -> None:
    plain = b"HTTP/1.1 400 Bad Request\r\n\r\n"
    with server(plain) as port, gateway(tmp_path, patience_s=GENEROUS_S, base_url=f"https://127.0.0.1:{port}") as gw:
        gw.open()
        refused = gw.ask(1)
        assert gw.error(refused) == "endpoint_unusable"
        assert "does not speak TLS" in refused.text


@pytest.mark.parametrize(("known", "lasting"), [(["localhost"], True), (["no-such-host.invalid"], False)])
def test_an_unknown_host_is_lasting_only_where_other_names_are_found(known: list[str], lasting: bool) -> None:
    async def story() -> str:
        assert await dns_works(known) == lasting
        try:
            await asyncio.get_running_loop().getaddrinfo("no-such-host.invalid", 443)
        except OSError as error:
            if isinstance(error, socket.gaierror) and error.errno == socket.EAI_AGAIN:
                error.errno = socket.EAI_NONAME  # a machine without DNS does not even learn that there is no such name
            return await lasting_reason(error, "no-such-host.invalid", known)
        return "found"

    assert bool(asyncio.run(story())) == lasting


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (404, {"type": "error", "error": {"type": "not_found_error", "message": f"model: {MODEL}"}}),
        (404, {"error": {"message": f"The model `{MODEL}` does not exist.", "type": "NotFoundError", "code": 404}}),
        (404, {"error": f"model '{MODEL}' not found, try pulling it first"}),
        (400, {"error": {"message": "x", "type": "invalid_request_error", "code": "model_not_found"}}),
        (400, {"error": {"message": f"Invalid model name passed in model={MODEL}", "type": "x", "code": "400"}}),
    ],
)
def test_a_model_that_is_not_known_is_asked_for_once(tmp_path: Path, status: int, error: dict[str, Any]) -> None:
    import json

    reply = http("application/json", json.dumps(error), f"{status} X")
    with server(reply) as port, gateway(tmp_path, patience_s=GENEROUS_S, base_url=f"http://127.0.0.1:{port}") as gw:
        gw.open()
        for turn in (1, 2):
            refused = gw.ask(turn)
            assert gw.error(refused) == "model_unknown"
            assert repr(MODEL) in refused.text
        assert len(gw.records("intent")) == 1
        gw.ask(3, json=body(model="another"))
        assert len(gw.records("intent")) == 2  # another model is another matter


@pytest.mark.parametrize(
    ("fault", "least_s"), [(Wrong(Fault.RATE_LIMIT, "7"), 6.0), (Fault.RATE_LIMIT, 0.0), (Fault.OVERLOADED, 0.0)]
)
def test_each_failed_try_says_when_the_next_comes_and_when_it_gives_up(
    tmp_path: Path, fault: Fault | Wrong, least_s: float
) -> None:
    with FakeApi(faults=lambda n: fault) as api, gateway(tmp_path, api, patience_s=GENEROUS_S) as gw:
        gw.open()
        results: list[Any] = []
        asking = gw.ask_in_thread(results, 1)
        api.wait_for_requests(1 if least_s else 2)
        while not (found := gw.records("fault")):
            threading.Event().wait(0.05)
        assert found[0]["try"] == 1
        assert found[0]["next_s"] >= least_s
        assert found[0]["next_s"] < found[0]["gives_up_s"]
        gw.process.close_run("run1")
        asking.join()
