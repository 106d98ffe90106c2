"""Who pays, and where the calls go: read from the environment once, named to the person, kept out of files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from parallel_orchestrator.records.errors import UsageError

DEFAULT_ENDPOINT = "https://api.anthropic.com"


@dataclass(frozen=True)
class Credential:
    """A secret and where it came from. Its value stays out of repr, files and logs."""

    kind: Literal["api_key", "auth_token"]
    source: str
    """Name of the environment variable."""
    value: str = field(repr=False)

    def describe(self) -> str:
        """For a person: the kind, the source and the last four characters."""
        name = "API key" if self.kind == "api_key" else "auth token"
        tail = f" (…{self.value[-4:]})" if len(self.value) >= 16 else ""
        return f"{name} from {self.source}{tail}"


def endpoint_from(environment: Mapping[str, str]) -> str:
    """Base URL of the Messages API: ANTHROPIC_BASE_URL, or Anthropic's own."""
    url = environment.get("ANTHROPIC_BASE_URL", "").strip().rstrip("/") or DEFAULT_ENDPOINT
    if not url.startswith(("http://", "https://")):
        raise UsageError(f"ANTHROPIC_BASE_URL is {url!r}: it must start with http:// or https://")
    if "@" in url.partition("://")[2].partition("/")[0]:
        # scenario.json names the endpoint, and holds no credential.
        raise UsageError("ANTHROPIC_BASE_URL holds a user name or password; set ANTHROPIC_AUTH_TOKEN instead")
    return url.removesuffix("/v1")


def credential_from(environment: Mapping[str, str]) -> Credential:
    """The credential that will pay; the key goes before the token, as in the SDK. UsageError when there is none."""
    for kind, name in (("api_key", "ANTHROPIC_API_KEY"), ("auth_token", "ANTHROPIC_AUTH_TOKEN")):
        value = environment.get(name, "").strip()
        if value:
            if not value.isascii() or any(character.isspace() for character in value):
                raise UsageError(f"{name} holds white space or characters that no credential has; set it again")
            return Credential("api_key" if kind == "api_key" else "auth_token", name, value)
    raise UsageError(
        "no model to ask. Choose one:\n"
        "  export ANTHROPIC_API_KEY=…            Anthropic's API (or ANTHROPIC_AUTH_TOKEN)\n"
        "  export ANTHROPIC_BASE_URL=http://…    any endpoint that speaks the Messages API, with a key or a dummy one\n"
        "  --replay simple|medium|complex|FILE   a recording: costs nothing, needs no key"
    )
