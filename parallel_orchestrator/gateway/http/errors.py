"""Errors as callers of the gateway get them: an HTTP status and the error object of the Messages API."""

from __future__ import annotations

from typing import Any

from parallel_orchestrator.gateway.calls.messages import Refusal


class Declined(Exception):
    """The caller gets no answer. `type` tells it why: see the functions of this module."""

    def __init__(self, status: int, kind: str, message: str, body: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.type = kind
        self.body = body or {"type": "error", "error": {"type": kind, "message": message}}

    def again(self) -> Declined:
        """The same error to be raised anew, without the traceback and frames of its last use."""
        return Declined(self.status, self.type, str(self), self.body)


def unknown_token() -> Declined:
    """No valid token of an attempt was shown."""
    return Declined(401, "unknown_token", "the gateway knows no such token; a token is minted for each attempt")


def unknown_run(run: str) -> Declined:
    """The token is good, but its run is not open here."""
    return Declined(404, "unknown_run", f"run {run} is not open in this gateway")


def bad_request(message: str) -> Declined:
    """The request cannot be understood. Nothing was sent to the endpoint."""
    return Declined(400, "invalid_request_error", message)


def not_found() -> Declined:
    """No such path."""
    return Declined(404, "not_found_error", "the gateway serves POST /v1/messages and nothing else of the API")


def too_large(limit: int) -> Declined:
    """The body is over the limit."""
    return Declined(413, "request_too_large", f"the request body is larger than {limit // 2**20} MiB")


def budget_reached(spent: float, cap: float) -> Declined:
    """The run has spent its cap."""
    return Declined(402, "budget_reached", f"${spent:.4f} of ${cap:.2f} are spent; raise --max-cost to go on")


def batch_budget_reached(spent: float, cap: float) -> Declined:
    """All runs together have spent their cap."""
    told = f"all scenarios together have spent ${spent:.4f} of ${cap:.2f}; raise --max-cost to go on"
    return Declined(402, "batch_budget_reached", told)


def task_budget_reached(task: str, spent: float, cap: float) -> Declined:
    """One task has spent its own cap."""
    return Declined(402, "task_budget_reached", f"{task} has spent ${spent:.4f} of its ${cap:.2f}")


def unpriced(model: str) -> Declined:
    """A budget is set, and nobody knows what this model costs."""
    return Declined(
        400,
        "unpriced_model",
        f"a budget is set, but the price of model {model!r} is unknown; name it in a --prices file",
    )


def endpoint_silent(vain: str) -> Declined:
    """The endpoint has sent nothing, or nothing of use, for too long; `vain` says which."""
    return Declined(503, "endpoint_silent", f"{vain}; resume later")


def stopping() -> Declined:
    """The gateway ends. Calls that were at the endpoint still land in the ledger."""
    return Declined(503, "gateway_stopping", "the gateway is stopping; ask again after a resume")


def cannot_write(reason: str) -> Declined:
    """The ledger cannot be written, so nothing may be bought."""
    return Declined(503, "cannot_write", reason)


def gateway_fault(error: Exception) -> Declined:
    """The gateway itself failed at a call. Nothing more is bought for its run, so that nothing is bought twice."""
    message = f"the gateway failed at a call ({type(error).__name__}); its log says where. No more calls are made"
    return Declined(503, "gateway_fault", f"{message}; resume continues from what the ledger holds")


def refused(refusal: Refusal) -> Declined:
    """The endpoint's own refusal, passed on as it is."""
    return Declined(refusal.status, refusal.type, refusal.detail, refusal.body)


def key_refused(refusal: Refusal) -> Declined:
    """The endpoint refuses the credential."""
    return Declined(
        401,
        "key_refused",
        f"the endpoint refused the credential (HTTP {refusal.status}): {refusal.detail}; resume with one that it takes",
    )


def model_unknown(model: str, refusal: Refusal) -> Declined:
    """The endpoint does not know the model."""
    message = f"the endpoint does not know the model {model!r} (HTTP {refusal.status}): {refusal.detail}"
    return Declined(404, "model_unknown", message)


def unusable(endpoint: str, why: str) -> Declined:
    """No call to this endpoint can ever be answered."""
    return Declined(502, "endpoint_unusable", f"no Messages API at {endpoint}: {why} correct ANTHROPIC_BASE_URL")


def misformatted(endpoint: str, sent: str) -> Declined:
    """The endpoint has broken the format in the same way several times in a row."""
    message = f"this server does not speak the Messages API: {endpoint} sent {sent}; correct ANTHROPIC_BASE_URL"
    return Declined(502, "endpoint_unusable", message)


def credit_exhausted(refusal: Refusal) -> Declined:
    """The account behind the credential has no money left, or may not spend more."""
    return Declined(
        402, "credit_exhausted", f"the endpoint refused for lack of credit: {refusal.detail}; resume when there is some"
    )
