"""What all records of all journals have in common."""

from __future__ import annotations

from typing import cast

from msgspec import UNSET, Struct


class JournalRecord(Struct, kw_only=True):
    """One line of a journal.

    Fields that a newer version added are ignored. A subclass's first own field, or its tag, tells its kind.
    """

    seq: int = cast("int", UNSET)
    """The line's number, from 1. The journal sets it, and writes it itself: an unset field is left out."""
