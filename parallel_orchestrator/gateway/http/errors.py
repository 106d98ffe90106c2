"""Errors that the gateway returns to its callers: an HTTP status and the error object of the Messages API."""

from __future__ import annotations

from typing import Any

from parallel_orchestrator.gateway.calls.messages import Refusal


class GatewayError(Exception):
    """The caller gets no answer. `type` names the reason: each function of this module has its own."""

    def __init__(self, status: int, kind: str, message: str, body: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.type = kind
        self.body = body or {"type": "error", "error": {"type": kind, "message": message}}

    def copy(self) -> GatewayError:
        """Returns an equal error to raise, without the traceback and frames of the last raise."""
        return GatewayError(self.status, self.type, str(self), self.body)


def unknown_token() -> GatewayError:
    """The request shows no valid token of an attempt."""
    return GatewayError(401, "unknown_token", "the gateway does not know this token; each attempt has its own")


def unknown_run(run: str) -> GatewayError:
    """The token is valid, but its run is not open here."""
    return GatewayError(404, "unknown_run", f"run {run} is not open in this gateway")


def bad_request(message: str) -> GatewayError:
    """The request cannot be understood. The gateway sent nothing to the endpoint."""
    return GatewayError(400, "invalid_request_error", message)


def not_found() -> GatewayError:
    """The path does not exist."""
    return GatewayError(404, "not_found_error", "the gateway serves only POST /v1/messages of the API")


def too_large(limit: int) -> GatewayError:
    """The request body exceeds the limit."""
    return GatewayError(413, "request_too_large", f"the request body is larger than {limit // 2**20} MiB")


def budget_reached(spent: float, cap: float) -> GatewayError:
    """The run has spent its cap."""
    return GatewayError(402, "budget_reached", f"${spent:.4f} of ${cap:.2f} are spent; raise --max-cost to continue")


def batch_budget_reached(spent: float, cap: float) -> GatewayError:
    """All runs together have spent their cap."""
    message = f"all scenarios together have spent ${spent:.4f} of ${cap:.2f}; raise --max-cost to continue"
    return GatewayError(402, "batch_budget_reached", message)


def task_budget_reached(task: str, spent: float, cap: float) -> GatewayError:
    """One task has spent its own cap."""
    return GatewayError(402, "task_budget_reached", f"{task} has spent ${spent:.4f} of its ${cap:.2f}")


def unpriced(model: str) -> GatewayError:
    """The run has a budget, and the price tables do not hold this model."""
    message = f"a budget is set, but the price of model {model!r} is unknown; name it in a --prices file"
    return GatewayError(400, "unpriced_model", message)


def endpoint_silent(reason: str) -> GatewayError:
    """The endpoint has sent nothing, or no whole answer, for too long; `reason` says which."""
    return GatewayError(503, "endpoint_silent", f"{reason}; resume later")


def stopping() -> GatewayError:
    """The gateway is ending. It still records the answers to calls that were at the endpoint."""
    return GatewayError(503, "gateway_stopping", "the gateway is stopping; resume the run and ask again")


def cannot_write(reason: str) -> GatewayError:
    """The gateway cannot write the ledger, so it makes no calls."""
    return GatewayError(503, "cannot_write", reason)


def gateway_fault(error: Exception) -> GatewayError:
    """The gateway itself failed during a call. It makes no more calls for the run, so that it pays for none twice."""
    failure = f"the gateway failed during a call ({type(error).__name__}) and makes no more; its log has the details"
    return GatewayError(503, "gateway_fault", f"{failure}. Resume continues from the ledger")


def refused(refusal: Refusal) -> GatewayError:
    """The endpoint's own refusal, unchanged."""
    return GatewayError(refusal.status, refusal.type, refusal.detail, refusal.body)


def key_refused(refusal: Refusal) -> GatewayError:
    """The endpoint refuses the credential."""
    message = f"the endpoint refused the credential (HTTP {refusal.status}): {refusal.detail}; resume with a valid one"
    return GatewayError(401, "key_refused", message)


def model_unknown(model: str, refusal: Refusal) -> GatewayError:
    """The endpoint does not know the model."""
    message = f"the endpoint does not know the model {model!r} (HTTP {refusal.status}): {refusal.detail}"
    return GatewayError(404, "model_unknown", message)


def unusable(endpoint: str, why: str) -> GatewayError:
    """The endpoint cannot answer any call."""
    return GatewayError(502, "endpoint_unusable", f"no Messages API at {endpoint}: {why} correct ANTHROPIC_BASE_URL")


def misformatted(endpoint: str, sent: str) -> GatewayError:
    """The endpoint has broken the format in the same way several times in a row."""
    message = f"this server does not speak the Messages API: {endpoint} sent {sent}; correct ANTHROPIC_BASE_URL"
    return GatewayError(502, "endpoint_unusable", message)


def credit_exhausted(refusal: Refusal) -> GatewayError:
    """The credential's account has no money left, or has reached its spending limit."""
    message = f"the endpoint refused for lack of credit: {refusal.detail}; add credit, then resume"
    return GatewayError(402, "credit_exhausted", message)
