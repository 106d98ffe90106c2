"""Classifies an endpoint's errors: retry the call, stop the run, or return the error to the caller."""

from __future__ import annotations

import asyncio
import email.utils
import math
import re
import socket
import ssl
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from parallel_orchestrator.gateway.calls.messages import CallFault, Json, Refusal, Scope

_NO_SUCH_PATH = frozenset({404, 405, 410})
_MODEL = re.compile(r"\bmodel", re.IGNORECASE)
_MODEL_UNKNOWN = re.compile(
    r"\bmodel\b[^.]{0,100}\b(not found|not exist|unknown)\b|\b(invalid|unknown) model\b", re.IGNORECASE
)
"""Stricter, for status 400, which stands for other faulty requests, too."""

_TRANSIENT_STATUSES = frozenset({408, 409, 425, 429})
"""In addition to every status from 500."""

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
"""Stricter, for status 400: such messages quote the request, whose fields may be called credit_card."""

KNOWN_HOSTS = ("api.anthropic.com", "a.root-servers.net", "example.com")
"""Names that exist. When none resolves, this machine is offline or its DNS is down; both may end."""
_LOOK_UP_S = 5.0
_NO_SUCH_NAME = frozenset({socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)})
_NO_TLS = frozenset({"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE"})


def classify_status(status: int, headers: Mapping[str, str], body: Any) -> CallFault | Refusal:
    """Classifies a response whose status is not 200. `body` is its JSON, or its text."""
    error = _error_object(body)
    kind, message = str(error.get("type") or f"http_{status}"), str(error.get("message") or body)[:1000]
    whole = body if isinstance(body, dict) and isinstance(body.get("error"), dict) else None
    scope = _scope(status, kind, message, error)
    if scope is Scope.UNUSABLE:
        return Refusal(status, kind, f"HTTP {status}, {message[:200]}:", scope, whole)
    if scope is Scope.CALLER and (status in _TRANSIENT_STATUSES or status >= 500):
        return CallFault(
            str(status),
            ambiguous=False,  # a status in place of an answer: nothing was billed
            detail=message[:300],
            retry_after_s=_retry_after(headers),
            overload=status in (429, 529),
            holds_back=status == 429,
        )
    if scope is Scope.CALLER and status < 400:
        reason = f"it answers with a redirect to {headers.get('location', 'nowhere')}:"
        return Refusal(502, "api_error", reason, Scope.UNUSABLE)
    return Refusal(status, kind, message, scope, whole)


def classify_event(event: Json, *, answer_started: bool) -> CallFault | Refusal:
    """Classifies an error event of a stream. `answer_started`: whether a part of an answer came before it."""
    error = _error_object(event)
    kind, message = str(error.get("type")), str(error.get("message"))
    # An unknown type counts as transient: the inactivity timeout ends the retries, while a refusal fails the task.
    outcome = classify_status(_STATUS_OF_TYPE.get(kind, 500), {}, event)
    if isinstance(outcome, Refusal):
        return outcome
    detail = f"{kind}: {message}"[:300]
    return CallFault("sse_error", answer_started, detail, None, outcome.overload, outcome.holds_back)


async def lasting_reason(error: BaseException, host: str, known_hosts: Sequence[str] = KNOWN_HOSTS) -> str:
    """Returns why every try to connect to `host` will fail, for people; empty when another try may succeed."""
    for cause in _causes(error):
        if isinstance(cause, ssl.SSLCertVerificationError):
            why = cause.verify_message
            return f"its certificate is not trusted ({why}): name the file of its CA in SSL_CERT_FILE, or"
        if isinstance(cause, ssl.SSLError) and cause.reason in _NO_TLS:
            return "it does not speak TLS: use http://, or"
        if isinstance(cause, socket.gaierror) and cause.errno in _NO_SUCH_NAME:
            # A resolver that is down reports "no such name" as well, so an unknown name alone proves nothing.
            return f"the host {host} is unknown, while other names resolve:" if await dns_works(known_hosts) else ""
    return ""


async def dns_works(names: Sequence[str]) -> bool:
    """Whether any of these names resolves."""
    loop = asyncio.get_running_loop()
    for name in names:
        try:
            async with asyncio.timeout(_LOOK_UP_S):
                await loop.getaddrinfo(name, 443)
        except (OSError, TimeoutError):
            continue
        return True
    return False


def _scope(status: int, kind: str, message: str, error: Json) -> Scope:
    details = error.get("details")
    codes = [error.get("error_code"), details.get("error_code") if isinstance(details, dict) else None]
    about_money = _NO_MONEY_LEFT if status == 400 else _MONEY
    # First: it comes with status 429, and a rate limit would be retried for ever.
    if "enforced_spend_limit_reached" in codes:
        return Scope.CREDIT_EXHAUSTED
    # Before the key: 403 stands for both, and a new key does not help an account without money.
    if status in (400, 402, 403) and (_MONEY.search(kind) or about_money.search(message)):
        return Scope.CREDIT_EXHAUSTED
    # Before the path: 404 stands for both, and a wrong model leaves the endpoint usable for others.
    if "model_not_found" in (*codes, error.get("code")) or _names_unknown_model(status, message, error):
        return Scope.MODEL_UNKNOWN
    if status in _NO_SUCH_PATH:
        return Scope.UNUSABLE
    return Scope.KEY_REFUSED if status in (401, 403) else Scope.CALLER


def _names_unknown_model(status: int, message: str, error: Json) -> bool:
    """Whether an error says that the model does not exist; the wording differs from server to server."""
    pattern = {404: _MODEL, 400: _MODEL_UNKNOWN}.get(status)
    return bool(error and pattern and pattern.search(message))


def _error_object(body: Any) -> Json:
    """Returns the error inside a body. Some servers leave the outer object out, or send a text."""
    error = body.get("error", body) if isinstance(body, dict) else {}
    return error if isinstance(error, dict) else {"message": error}


def _retry_after(headers: Mapping[str, str]) -> float | None:
    value = headers.get("retry-after", "").strip()
    try:
        seconds = float(value)
    except ValueError:  # HTTP also allows a date
        try:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
        except ValueError:
            return None
    return None if math.isnan(seconds) else max(0.0, seconds)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
