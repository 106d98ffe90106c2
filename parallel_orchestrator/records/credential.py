"""What pays for a run's calls, on its way from the environment to the endpoint.

How it is kept out of everything written: `store.redact`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

_BETAS = "anthropic-beta"


@dataclass(frozen=True)
class Credential:
    """A key, a token, or the token of a login of Claude Code's. Its value appears in no repr."""

    kind: Literal["api_key", "auth_token", "login"]
    value: str = field(repr=False)
    betas: str = ""
    """Beta features, by comma, without which the API does not take it."""
    renewal: tuple[str, ...] = ()
    """The command that reads a refused value and prints {"value", "betas"} of a newer one; empty where none renews it.

    It ends with its input.
    """
    source: str = ""
    """Name of the environment variable; of a login also the file."""

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> Credential:
        """One that came over a pipe as JSON."""
        return cls(**{**fields, "renewal": tuple(fields.get("renewal", ()))})

    def describe(self) -> str:
        """For a person: the kind, the source and the last four characters."""
        if self.kind == "login":
            return f"Claude Code's login from {self.source}"
        name = "API key" if self.kind == "api_key" else "auth token"
        tail = f" (…{self.value[-4:]})" if len(self.value) >= 16 else ""
        return f"{name} from {self.source}{tail}"

    def headers(self, asked: Mapping[str, str] | None = None) -> dict[str, str]:
        """Headers of a request that came with `asked`.

        An API key goes out in both headers, since servers differ in which they read; a token as Bearer only.
        """
        shown = {**(asked or {}), "authorization": f"Bearer {self.value}"}
        if self.kind == "api_key":
            shown["x-api-key"] = self.value
        if self.betas:
            shown[_BETAS] = ",".join(dict.fromkeys(filter(None, [*shown.get(_BETAS, "").split(","), self.betas])))
        return shown
