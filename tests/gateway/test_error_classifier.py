from __future__ import annotations

import email.utils
import time
from typing import Any

import pytest

from parallel_orchestrator.gateway.calls.messages import CallFault, Refusal, Scope
from parallel_orchestrator.gateway.endpoints.error_classifier import classify_event, classify_status
from parallel_orchestrator.records.credential import Credential


def error(kind: str, message: str = "", **more: Any) -> dict[str, Any]:
    return {"type": "error", "error": {"type": kind, "message": message, **more}}


@pytest.mark.parametrize("status", [408, 409, 425, 429, 500, 502, 503, 504, 520, 524, 529, 599])
@pytest.mark.parametrize("body", ["<html>", {}, {"error": "busy"}, error("api_error", "x")])
def test_transient_statuses_are_tried_again(status: int, body: Any) -> None:
    outcome = classify_status(status, {}, body)
    assert isinstance(outcome, CallFault)
    assert outcome.kind == str(status)
    assert not outcome.ambiguous
    assert outcome.holds_back == (status == 429)
    assert outcome.overload == (status in (429, 529))


@pytest.mark.parametrize(
    ("status", "body", "scope"),
    [
        (400, error("invalid_request_error", "bad"), Scope.CALLER),
        (400, error("invalid_request_error", "tools.0.name: 'credit_card' is wrong"), Scope.CALLER),
        (400, error("invalid_request_error", "Your credit balance is too low"), Scope.CREDIT_EXHAUSTED),
        (402, error("billing_error", "pay"), Scope.CREDIT_EXHAUSTED),
        (403, error("permission_error", "no credits left"), Scope.CREDIT_EXHAUSTED),
        (403, error("permission_error", "not allowed"), Scope.KEY_REFUSED),
        (401, error("authentication_error", "no"), Scope.KEY_REFUSED),
        (401, {"error": {"code": 401, "message": "bad key", "type": "auth"}}, Scope.KEY_REFUSED),
        (401, "<html>", Scope.KEY_REFUSED),
        (
            429,
            error("rate_limit_error", "x", details={"error_code": "enforced_spend_limit_reached"}),
            Scope.CREDIT_EXHAUSTED,
        ),
        (404, error("not_found_error", "model: x"), Scope.MODEL_UNKNOWN),
        (404, error("not_found_error", "Not found"), Scope.UNUSABLE),
        (404, "<html>no such page</html>", Scope.UNUSABLE),
        (405, "<html>", Scope.UNUSABLE),
        (413, "too large", Scope.CALLER),
    ],
)
def test_refusals(status: int, body: Any, scope: Scope) -> None:
    outcome = classify_status(status, {}, body)
    assert isinstance(outcome, Refusal)
    assert (outcome.status, outcome.scope) == (status, scope)


def test_a_redirect_names_its_target() -> None:
    outcome = classify_status(301, {"location": "https://x.example/"}, "")
    assert isinstance(outcome, Refusal)
    assert "https://x.example/" in outcome.detail


def retry_after(header: str) -> float | None:
    outcome = classify_status(429, {"retry-after": header}, {})
    assert isinstance(outcome, CallFault)
    return outcome.retry_after_s


def test_retry_after_is_seconds_or_a_date() -> None:
    assert [retry_after(header) for header in ("3", "0.5", "-1")] == [3, 0.5, 0]
    for_a_date = retry_after(email.utils.formatdate(time.time() + 3600, usegmt=True))
    assert for_a_date is not None
    assert 3000 < for_a_date <= 3600
    assert retry_after(email.utils.formatdate(time.time() - 3600, usegmt=True)) == 0


@pytest.mark.parametrize("header", ["", "soon", "nan"])
def test_a_senseless_retry_after_is_none(header: str) -> None:
    assert retry_after(header) is None


@pytest.mark.parametrize("kind", ["overloaded_error", "api_error", "rate_limit_error", "timeout_error", "unheard_of"])
@pytest.mark.parametrize("begun", [True, False])
def test_transient_events_are_ambiguous_once_an_answer_began(kind: str, begun: bool) -> None:
    outcome = classify_event(error(kind, "x"), answer_started=begun)
    assert isinstance(outcome, CallFault)
    assert (outcome.kind, outcome.ambiguous) == ("sse_error", begun)
    assert outcome.holds_back == (kind == "rate_limit_error")


def test_a_refusal_may_come_as_an_event() -> None:
    outcome = classify_event(error("authentication_error", "no"), answer_started=False)
    assert isinstance(outcome, Refusal)
    assert outcome.scope is Scope.KEY_REFUSED


def test_a_credential_does_not_show_itself() -> None:
    credential = Credential("api_key", "sk-ant-0123456789")
    assert "0123456789" not in repr(credential)
    assert credential.headers() == {"authorization": "Bearer sk-ant-0123456789", "x-api-key": "sk-ant-0123456789"}
    assert Credential("auth_token", "t").headers() == {"authorization": "Bearer t"}
