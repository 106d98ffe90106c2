"""Reading files that the user names: bounded in size, and regular files only, so a device or pipe cannot block."""

from __future__ import annotations

import json
import os
import stat
from collections import Counter
from pathlib import Path
from typing import Any

LONGEST_TEXT = 1_000_000
"""Bytes of a requirement, instructions or prices."""
LONGEST_PLAN = 10_000_000
LONGEST_RECORDING = 20_000_000
_MOST_DIGITS = 300
"""Of an integer that a float can hold."""
_LONGEST_SHOWN = 40


class Unusable(ValueError):
    """The file cannot be read or used. The message says why."""


def read_user_file(path: Path, most: int = LONGEST_TEXT) -> str:
    """Return the text of a regular file of at most `most` bytes. Raises Unusable."""
    try:
        return _read(path, most).decode("utf-8").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        raise Unusable("it is not text in UTF-8") from error
    except OSError as error:
        raise Unusable(str(error.strerror)) from error


def parse_json(text: str) -> Any:
    """Parse JSON. Raises Unusable with the reason, and with the line when the parser knows it.

    Refuses duplicate keys, NaN, and numbers that no float can hold.
    """
    try:
        return json.loads(
            text, object_pairs_hook=_once, parse_constant=_no_number, parse_int=_integer, parse_float=_finite
        )
    except json.JSONDecodeError as error:
        raise Unusable(f"it is not JSON (line {error.lineno}, column {error.colno}: {error.msg})") from error
    except RecursionError as error:
        raise Unusable("it is not JSON that can be used (it is nested too deep)") from error


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    for key, times in Counter(key for key, _ in pairs).items():
        if times > 1:
            raise Unusable(f"{_shown(key)} stands in it {times} times in one object; keep one of them")
    return dict(pairs)


def _no_number(text: str) -> Any:
    raise Unusable(f"{_shown(text)} in it is not a number that can be used")


def _integer(text: str) -> int:
    return int(text) if len(text) <= _MOST_DIGITS else _no_number(text)


def _finite(text: str) -> float:
    number = float(text)
    return number if number - number == 0 else _no_number(text)


def _shown(text: str) -> str:
    return text if len(text) <= _LONGEST_SHOWN else f"{text[: _LONGEST_SHOWN - 1]}…"


def _read(path: Path, most: int) -> bytes:
    try:
        # O_NONBLOCK: opening a pipe without a writer would block.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    except ValueError as error:
        raise Unusable("no file has such a name") from error
    with open(descriptor, "rb") as file:  # noqa: PTH123 - a descriptor has no path
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise Unusable("it is not a regular file")
        data = file.read(most + 1)
    if len(data) > most:
        raise Unusable(f"it has more than {most:,} bytes")
    return data


def require_size(path: Path, most: int) -> None:
    """Raises Unusable for a file of more than `most` bytes."""
    if path.stat().st_size > most:
        raise Unusable(f"it has more than {most:,} bytes")
