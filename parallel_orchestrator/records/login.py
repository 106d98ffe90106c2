"""A login of Claude Code's, as it is lent to a run that has no key."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Login:
    """What pays, and how a newer one is had. Its value appears in no repr, and in nothing that is written."""

    source: str
    """Where Claude Code has it from: a file, or the name of a variable."""
    value: str = field(repr=False)
    """The token after `Bearer`."""
    betas: str
    """The beta features, by comma, without which the API does not take such a token."""
    renewal: tuple[str, ...]
    """The command that reads a refused value and prints {"value", "betas"} of a newer one; empty where none renews it.

    It ends with its input.
    """
