"""Files that a person names. Their size is bounded, and what has no end, as a device or a pipe, is not read at all."""

from __future__ import annotations

import os
import stat
from pathlib import Path

LONGEST_TEXT = 1_000_000
"""Bytes of a requirement, of instructions, or of prices: far more than any of them has."""
LONGEST_PLAN = 10_000_000
LONGEST_RECORDING = 100_000_000


class Unusable(ValueError):
    """The file cannot be read, or is of a kind that is not read. The message says why."""


def read_named(path: Path, most: int = LONGEST_TEXT) -> str:
    """The text of a regular file of at most `most` bytes. Raises Unusable."""
    try:
        return _read(path, most).decode("utf-8").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        raise Unusable("it is not text in UTF-8") from error
    except OSError as error:
        raise Unusable(str(error.strerror)) from error


def _read(path: Path, most: int) -> bytes:
    try:
        # A pipe that nobody writes to would be waited for.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    except ValueError as error:
        raise Unusable("no file has such a name") from error
    with open(descriptor, "rb") as file:  # noqa: PTH123 - a descriptor has no path
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise Unusable("it is no regular file")
        data = file.read(most + 1)
    if len(data) > most:
        raise Unusable(f"it has more than {most:,} bytes")
    return data


def require_size(path: Path, most: int) -> None:
    """Raises Unusable for a file of more than `most` bytes."""
    if path.stat().st_size > most:
        raise Unusable(f"it has more than {most:,} bytes")
