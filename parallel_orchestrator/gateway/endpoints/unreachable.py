"""Whether an endpoint that cannot be reached ever can be: an outage ends by itself, a wrong address does not."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Iterator, Sequence

KNOWN_HOSTS = ("api.anthropic.com", "a.root-servers.net", "example.com")
"""Names that exist. Where none of them is found, the machine is offline or its DNS is down, and that may end."""
_LOOK_UP_S = 5.0

_NO_SUCH_NAME = frozenset({socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)})
_NO_TLS = frozenset({"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE"})


async def lasting_reason(error: BaseException, host: str, known_hosts: Sequence[str] = KNOWN_HOSTS) -> str:
    """Why connecting to `host` will fail at each try, for a person; empty when another try may succeed."""
    for cause in _causes(error):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return (
                f"its certificate is not trusted ({cause.verify_message}): name the file of its CA in SSL_CERT_FILE, or"
            )
        if isinstance(cause, ssl.SSLError) and cause.reason in _NO_TLS:
            return "it does not speak TLS: use http://, or"
        if isinstance(cause, socket.gaierror) and cause.errno in _NO_SUCH_NAME:
            return f"the host {host} is unknown, while other names are found:" if await dns_works(known_hosts) else ""
    return ""


async def dns_works(names: Sequence[str]) -> bool:
    """Whether any of these names is found."""
    loop = asyncio.get_running_loop()
    for name in names:
        try:
            async with asyncio.timeout(_LOOK_UP_S):
                await loop.getaddrinfo(name, 443)
        except (OSError, TimeoutError):
            continue
        return True
    return False


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
