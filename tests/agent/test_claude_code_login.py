"""Where Claude Code shows its login: what is taken for one, without the program that shows it."""

from __future__ import annotations

import http.client

import pytest

from parallel_orchestrator.claude_code import login


def _shown(counter: login._Counter, path: str, token: str) -> int:
    asked = http.client.HTTPConnection("127.0.0.1", counter.server_port, timeout=30)
    try:
        asked.request("POST", path, "{}", {"authorization": f"Bearer {token}", "anthropic-beta": "one, oauth-1,two"})
        return asked.getresponse().status
    finally:
        asked.close()


def test_a_login_is_what_the_request_shows() -> None:
    with login._counter("refused") as counter:
        assert _shown(counter, f"{counter.place}/v1/messages?beta=true", "refused") == 401
        assert _shown(counter, f"{counter.place}/v1/messages?beta=true", "") == 401
        assert counter.shown is None
        assert _shown(counter, f"{counter.place}/v1/messages?beta=true", "newer") == 200
        assert counter.shown == ("newer", "oauth-1")


@pytest.mark.parametrize("path", ["/v1/messages", "//v1/messages", f"/{'0' * 48}/v1/messages"])
def test_nobody_else_can_show_a_login(path: str) -> None:
    with login._counter("") as counter:
        assert _shown(counter, path, "another") == 404
        assert counter.shown is None
