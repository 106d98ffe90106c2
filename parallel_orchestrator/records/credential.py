"""What pays for a run's calls, on its way from the environment to the endpoint.

How it is kept out of everything written: `system.redact`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class Credential:
    """An API key or a bearer token. Its value appears in no repr."""

    kind: Literal["api_key", "auth_token"]
    value: str = field(repr=False)
    source: str = ""
    """Name of the environment variable."""

    def describe(self) -> str:
        """For a person: the kind, the source and the last four characters."""
        name = "API key" if self.kind == "api_key" else "auth token"
        tail = f" (…{self.value[-4:]})" if len(self.value) >= 16 else ""
        return f"{name} from {self.source}{tail}"

    def headers(self) -> dict[str, str]:
        """The headers that show it.

        An API key goes out in both headers, since servers differ in which they read; a token as Bearer only.
        """
        bearer = {"authorization": f"Bearer {self.value}"}
        return {**bearer, "x-api-key": self.value} if self.kind == "api_key" else bearer
