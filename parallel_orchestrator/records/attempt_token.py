"""Attempt tokens: what a caller shows the gateway, and all that the gateway believes about it.

A token names run, task and attempt and is signed (HMAC-SHA256) with a secret that only
the gateway and the worker processes have. It is not encrypted. A process that reads one can
spend under that attempt's cap while the run lasts, and under no other.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass


@dataclass(frozen=True)
class Caller:
    """Who asks: one attempt at one task of one run."""

    run: str
    task: str
    attempt: int


def mint(secret: str, caller: Caller) -> str:
    """The token of `caller`."""
    name = f"{caller.run}.{caller.task}.{caller.attempt}"
    return f"po1.{name}.{_sign(secret, name)}"


def verify(secret: str, token: str) -> Caller | None:
    """The caller that `token` proves, or None when it is not one of ours."""
    version, _, rest = token.partition(".")
    name, _, signature = rest.rpartition(".")
    parts = name.split(".")
    if version != "po1" or len(parts) != 3 or not parts[2].isdecimal():
        return None
    if not hmac.compare_digest(signature.encode(), _sign(secret, name).encode()):
        return None
    return Caller(parts[0], parts[1], int(parts[2]))


def _sign(secret: str, name: str) -> str:
    return hmac.new(secret.encode(), name.encode(), hashlib.sha256).hexdigest()[:32]
