"""What pays: how it is shown to the endpoint. How it is kept out of everything written: `store.redact`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

CredentialKind = Literal["api_key", "auth_token", "login"]

_BETAS = "anthropic-beta"


@dataclass(frozen=True)
class Credential:
    """A key, a token, or the token of a login, for the endpoint. Its value appears in no repr."""

    kind: CredentialKind
    value: str
    betas: str = ""
    """Beta features, by comma, that a request paid by it has to name."""
    renewal: tuple[str, ...] = ()
    """A command that reads a refused value, and prints a newer one as JSON: value and betas. It ends with its input."""

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> Credential:
        """One that came over a pipe as JSON."""
        return cls(**{**fields, "renewal": tuple(fields.get("renewal", ()))})

    def __repr__(self) -> str:
        return f"Credential({self.kind})"

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
