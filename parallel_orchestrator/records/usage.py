"""Figures of tokens and money as an endpoint or a file states them. Anything may stand there."""

from __future__ import annotations

import math
from typing import Any

MOST_TOKENS = 1_000_000_000
"""More than one answer can have read or written: the largest context windows have a thousandth of it."""


def token_count(value: Any) -> int | None:
    """Return `value` when it is a number of tokens, else None: negative, fractional, a text, a truth value, too large.

    A negative figure would lower what was spent, and so lift a cap.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MOST_TOKENS:
        return None
    return value


def dollars(value: Any) -> float | None:
    """Return an amount in USD, or None unless `value` is a finite number from 0.

    What is not a number is never at least a cap, and would lift it.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        amount = float(value)
    except OverflowError:
        return None
    return amount if math.isfinite(amount) and amount >= 0 else None
