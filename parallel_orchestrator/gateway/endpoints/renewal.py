"""A login that was refused is renewed by a command, as whoever keeps it knows how."""

from __future__ import annotations

import asyncio
import json
import logging
from dataclasses import replace

from parallel_orchestrator.records.credential import Credential
from parallel_orchestrator.system import redact

_PATIENCE_S = 90.0

log = logging.getLogger(__name__)


async def renewed(refused: Credential) -> Credential | None:
    """A newer login in place of the refused one; None when there is none, or it is no login."""
    if not refused.renewal:
        return None
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*refused.renewal, stdin=pipe, stdout=pipe, stderr=pipe)
    try:
        async with asyncio.timeout(_PATIENCE_S):
            told, complaint = await _exchange(process, refused.value)
            newer = replace(refused, **json.loads(told)) if await process.wait() == 0 else None
    except (TimeoutError, OSError, ValueError, TypeError) as error:
        told, complaint, newer = b"", repr(error).encode(), None
    finally:
        if process.returncode is None:
            process.kill()
    if newer is None or newer.value == refused.value:
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
