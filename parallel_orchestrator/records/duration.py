"""Durations as people write them."""

from __future__ import annotations

import re
from typing import Any

_PARTS = re.compile(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s?)?", re.ASCII)
_LONGEST = 40
"""Characters."""


def seconds_of(value: Any) -> Any:
    """The seconds of a text such as 90s, 10m, 8h or 1h30m; any other value as it is. Raises ValueError."""
    if not isinstance(value, str):
        return value
    text = value.strip().lower().replace(" ", "")
    found = _PARTS.fullmatch(text) if 0 < len(text) <= _LONGEST else None
    if found is None:
        raise ValueError("has to be a duration such as 90s, 10m or 8h")
    hours, minutes, seconds = (float(part or 0) for part in found.groups())
    return 3600 * hours + 60 * minutes + seconds
