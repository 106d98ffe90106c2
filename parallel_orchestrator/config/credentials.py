"""Who pays, and where the calls go: read from the environment once, named to the person, kept out of files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from parallel_orchestrator.records.credential import Credential
from parallel_orchestrator.records.errors import UsageError
from parallel_orchestrator.system import redact
from parallel_orchestrator.system.environment import names_secret

DEFAULT_ENDPOINT = "https://api.anthropic.com"


def endpoint_from(environment: Mapping[str, str]) -> str:
    """Base URL of the Messages API: ANTHROPIC_BASE_URL, or Anthropic's own."""
    url = environment.get("ANTHROPIC_BASE_URL", "").strip().rstrip("/") or DEFAULT_ENDPOINT
    if not url.startswith(("http://", "https://")):
        raise UsageError(f"ANTHROPIC_BASE_URL is {url!r}: it must start with http:// or https://")
    if "@" in url.partition("://")[2].partition("/")[0]:
        # scenario.json names the endpoint, and holds no credential.
        raise UsageError("ANTHROPIC_BASE_URL holds a user name or password; set ANTHROPIC_AUTH_TOKEN instead")
    return url.removesuffix("/v1")


def is_anthropics(endpoint: str) -> bool:
    """Whether the endpoint is Anthropic's own, which answers only with a credential."""
    host = urlsplit(endpoint).hostname or ""
    return host == "anthropic.com" or host.endswith(".anthropic.com")


def misplaced(name: str) -> str | None:
    """What to say of a setting that would hold a credential or the endpoint; None for any other name.

    Both decide who pays and who reads everything, so no file of a project can set them.
    """
    if names_secret(name) or name in ("base_url", "endpoint", "url"):
        return "is no setting; credential and endpoint come from ANTHROPIC_API_KEY and ANTHROPIC_BASE_URL alone"
    return None


def refuse_secrets(written: Mapping[str, Any]) -> None:
    """Raise UsageError when one of these, which will be written to disk and sent, holds a credential."""
    for name, value in written.items():
        if redact.foreign(value) != value:
            raise UsageError(
                f"the {name} hold a credential, or what looks like one: it would be sent to the model and written to "
                "disk. Nothing was written. Take it out, and name the variable or file that will hold it instead"
            )


def holds_key(environment: Mapping[str, str]) -> bool:
    """Whether there is a key or token, which then pays."""
    return any(environment.get(name, "").strip() for name in ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN"))


def credential_from(environment: Mapping[str, str]) -> Credential | None:
    """The credential that will pay; the key goes before the token, as in the SDK.

    None for an endpoint that is not Anthropic's and for which none is set: a server of one's own may want none.
    Raises UsageError when nothing can be asked.
    """
    for kind, name in (("api_key", "ANTHROPIC_API_KEY"), ("auth_token", "ANTHROPIC_AUTH_TOKEN")):
        value = environment.get(name, "").strip()
        if value:
            if not value.isascii() or any(character.isspace() for character in value):
                raise UsageError(f"{name} holds white space or characters that no credential has; set it again")
            return Credential("api_key" if kind == "api_key" else "auth_token", value, source=name)
    if not is_anthropics(endpoint_from(environment)):
        return None
    raise UsageError(
        "no model to ask. Choose one:\n"
        "  export ANTHROPIC_API_KEY=…            Anthropic's API (or ANTHROPIC_AUTH_TOKEN)\n"
        "  export ANTHROPIC_BASE_URL=http://…    any endpoint with the Messages API, and its key if it wants one\n"
        "  --replay simple|medium|complex|FILE   a recording: costs nothing, needs no key\n"
        "--backend claude-code needs one of these too: a login of Claude Code cannot pay for a run"
    )
