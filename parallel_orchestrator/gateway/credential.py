"""What pays: how it is shown to the endpoint, and how a login is renewed.

How it is kept out of everything written: `store.redact`.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from parallel_orchestrator.store import redact

CredentialKind = Literal["api_key", "auth_token", "login"]

_BETAS = "anthropic-beta"
_RENEWAL_S = 90.0

log = logging.getLogger(__name__)


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

    async def renewed(self) -> Credential | None:
        """A newer one in place of this, which was refused; None when there is none."""
        if not self.renewal:
            return None
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(*self.renewal, stdin=pipe, stdout=pipe, stderr=pipe)
        try:
            async with asyncio.timeout(_RENEWAL_S):
                told, complaint = await _exchange(process, self.value)
                newer = replace(self, **json.loads(told)) if await process.wait() == 0 else None
        except (TimeoutError, OSError, ValueError, TypeError) as error:
            told, complaint, newer = b"", repr(error).encode(), None
        finally:
            if process.returncode is None:
                process.kill()
        if newer is None or newer.value == self.value:
            log.warning("the login cannot be renewed: %s", redact.foreign(complaint.decode(errors="replace").strip()))
            return None
        redact.know(newer.value)
        log.info("the login was renewed")
        return newer


async def _exchange(process: asyncio.subprocess.Process, value: str) -> tuple[bytes, bytes]:
    """Tell it the value; what it prints. Its input stays open until then, as it ends with that."""
    if not (process.stdin and process.stdout and process.stderr):
        raise ValueError("started without pipes")
    process.stdin.write(value.encode() + b"\n")
    told, complaint = await asyncio.gather(process.stdout.read(), process.stderr.read())
    process.stdin.close()
    return told, complaint
