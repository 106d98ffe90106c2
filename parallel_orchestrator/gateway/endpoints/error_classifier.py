"""What an endpoint's error means: try again, stop the run, or hand it to the caller."""

from __future__ import annotations

import email.utils
import math
import re
import time
from collections.abc import Mapping
from typing import Any

from parallel_orchestrator.gateway.calls.messages import Fault, Json, Refusal, Verdict

_NO_SUCH_PATH = frozenset({404, 405, 410})
_MODEL = re.compile(r"\bmodel", re.IGNORECASE)
_MODEL_UNKNOWN = re.compile(
    r"\bmodel\b[^.]{0,100}\b(not found|not exist|unknown)\b|\b(invalid|unknown) model\b", re.IGNORECASE
)
"""Stricter, for status 400: other requests are refused with it, too."""

_TRANSIENT_STATUSES = frozenset({408, 409, 425, 429})
"""Besides everything from 500 on."""

_STATUS_OF_TYPE = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}

_MONEY = re.compile(r"credit|billing", re.IGNORECASE)
_NO_MONEY_LEFT = re.compile(r"credit balance|out of credits?|billing", re.IGNORECASE)
"""Stricter, for status 400: such messages quote the request, where a field may be called credit_card."""


def verdict_on_status(status: int, headers: Mapping[str, str], body: Any) -> Fault | Refusal:
    """What an answer with that status, not 200, means. `body` is its JSON, or its text."""
    error = _error_object(body)
    kind, message = str(error.get("type") or f"http_{status}"), str(error.get("message") or body)[:1000]
    verdict = _verdict(status, kind, message, error)
    if verdict is Verdict.UNUSABLE:
        return Refusal(status, kind, f"HTTP {status}, {message[:200]}:", verdict, _whole(body))
    if verdict is not Verdict.CALLER:
        return Refusal(status, kind, message, verdict, _whole(body))
    if status in _TRANSIENT_STATUSES or status >= 500:
        return Fault(
            str(status),
            ambiguous=False,
            detail=message[:300],
            retry_after_s=_retry_after(headers),
            overload=status in (429, 529),
            holds_back=status == 429,
        )
    if status < 400:
        reason = f"it answers with a redirect to {headers.get('location', 'nowhere')}:"
        return Refusal(502, "api_error", reason, Verdict.UNUSABLE)
    return Refusal(status, kind, message, verdict, _whole(body))


def verdict_on_event(event: Json, *, begun: bool) -> Fault | Refusal:
    """What an error event inside a stream means. `begun`: whether part of an answer came before it."""
    error = _error_object(event)
    kind, message = str(error.get("type")), str(error.get("message"))
    outcome = verdict_on_status(_STATUS_OF_TYPE.get(kind, 500), {}, event)
    if isinstance(outcome, Refusal):
        return outcome
    return Fault("sse_error", begun, f"{kind}: {message}"[:300], None, outcome.overload, outcome.holds_back)


def _verdict(status: int, kind: str, message: str, error: Json) -> Verdict:
    details = error.get("details")
    codes = [error.get("error_code"), details.get("error_code") if isinstance(details, dict) else None]
    about_money = _NO_MONEY_LEFT if status == 400 else _MONEY
    if "enforced_spend_limit_reached" in codes:
        return Verdict.CREDIT_EXHAUSTED
    if status in (400, 402, 403) and (_MONEY.search(kind) or about_money.search(message)):
        return Verdict.CREDIT_EXHAUSTED
    if "model_not_found" in (*codes, error.get("code")) or _names_unknown_model(status, message, error):
        return Verdict.MODEL_UNKNOWN
    if status in _NO_SUCH_PATH:
        return Verdict.UNUSABLE
    return Verdict.KEY_REFUSED if status in (401, 403) else Verdict.CALLER


def _names_unknown_model(status: int, message: str, error: Json) -> bool:
    """Whether an error says that the model does not exist; servers choose their own words."""
    return bool(error) and bool(
        (status == 404 and _MODEL.search(message)) or (status == 400 and _MODEL_UNKNOWN.search(message))
    )


def _error_object(body: Any) -> Json:
    """The error inside a body; some servers leave the outer object out, or name the type a code."""
    found = body.get("error", body) if isinstance(body, dict) else {}
    return found if isinstance(found, dict) else {"message": found}


def _whole(body: Any) -> Json | None:
    """The body, when it is an error in the API's own form."""
    return body if isinstance(body, dict) and isinstance(body.get("error"), dict) else None


def _retry_after(headers: Mapping[str, str]) -> float | None:
    value = headers.get("retry-after", "").strip()
    if not value:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
        except ValueError:
            return None
    return None if math.isnan(seconds) else max(0.0, seconds)
