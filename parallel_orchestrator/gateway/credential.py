"""The key: how it is shown to the endpoint. How it is kept out of everything written: `store.redact`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

CredentialKind = Literal["api_key", "auth_token"]


@dataclass(frozen=True)
class Credential:
    """A key or token for the endpoint. Its value appears in no repr."""

    kind: CredentialKind
    value: str

    def __repr__(self) -> str:
        return f"Credential({self.kind})"

    def headers(self) -> dict[str, str]:
        """An API key goes out in both headers, since servers differ in which they read; a token as Bearer only."""
        shown = {"authorization": f"Bearer {self.value}"}
        return shown if self.kind == "auth_token" else {**shown, "x-api-key": self.value}
