"""`doctor`: checks what a run needs, before one is started. Calls no model; each fault comes with its fix."""

from __future__ import annotations

import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from parallel_orchestrator.claude_code.binary import find
from parallel_orchestrator.gateway.endpoints.prices import PriceTable
from parallel_orchestrator.records.errors import OrchestratorError, UsageError
from parallel_orchestrator.report.live.console import holds_signs, plain_because
from parallel_orchestrator.sandbox.runner import detect
from parallel_orchestrator.store.run_lock import RunLock
from parallel_orchestrator.system.terminal_text import counted
from parallel_orchestrator.trunk.git import git

_LEAST_FREE_MIB, _SCANT_FREE_MIB = 100, 1024
_CONNECT_S = 5.0

Level = Literal["ok", "note", "fault"]


@dataclass(frozen=True)
class DoctorCheck:
    """The result of one check."""

    name: str
    level: Level
    """`note`: a run works all the same."""
    told: str
    fix: str = ""


def python() -> DoctorCheck:
    """Returns the interpreter. One that is too old fails before this."""
    return DoctorCheck("python", "ok", f"{sys.version.split()[0]} at {sys.executable}")


def git_program() -> DoctorCheck:
    """Checks that git is installed and new enough."""
    try:
        git.require()
    except UsageError as error:
        return DoctorCheck("git", "fault", str(error), "install a newer git, for instance: apt install git")
    return DoctorCheck("git", "ok", str(shutil.which("git")))


def sandbox() -> DoctorCheck:
    """Checks that agents' commands can run in a sandbox."""
    try:
        return DoctorCheck("sandbox", "ok", detect("auto").describe().removeprefix("Sandbox: "))
    except UsageError as error:
        why = str(error).split(": ", 1)[-1].split(". Install")[0]
        fix = "apt install bubblewrap, where user namespaces are allowed; or run with --sandbox off, in a container"
        return DoctorCheck("sandbox", "fault", why, fix)


def claude_code() -> DoctorCheck:
    """Returns the Claude Code that `--backend claude-code` would use."""
    try:
        program = find()
    except UsageError as error:
        return DoctorCheck("claude", "note", "not here; only --backend claude-code needs it", str(error))
    return DoctorCheck("claude", "ok", f"{program.version} from {program.source}")


def key(paying: str | None) -> DoctorCheck:
    """Checks that a credential would pay. `paying` describes it; None when there is none."""
    if paying:
        return DoctorCheck("key", "ok", paying)
    return DoctorCheck("key", "fault", "no key", "export ANTHROPIC_API_KEY=…; recordings need none")


def endpoint(url: str) -> DoctorCheck:
    """Checks that a connection to the endpoint, or to its proxy, can be opened. Sends nothing."""
    target = urlsplit(url)
    host, port = target.hostname or "", target.port or (443 if target.scheme == "https" else 80)
    proxy = None if proxy_bypass(host) else getproxies().get(target.scheme)
    by = ""
    if proxy:
        through = urlsplit(proxy if "//" in proxy else f"//{proxy}")
        host, port = through.hostname or "", through.port or 80
        by = f" by way of the proxy {host}:{port}"
    try:
        socket.create_connection((host, port), timeout=_CONNECT_S).close()
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        fix = "look at the network, at ANTHROPIC_BASE_URL and at HTTPS_PROXY"
        return DoctorCheck("endpoint", "fault", f"{url}{by} cannot be reached: {reason}", fix)
    return DoctorCheck("endpoint", "ok", f"{url}{by} can be reached (nothing was asked)")


def price(model: str, prices: Path | None) -> DoctorCheck:
    """Checks that the model has a price, without which there is no budget."""
    try:
        table = PriceTable.load(prices)
    except UsageError as error:
        return DoctorCheck("model", "fault", str(error), "correct that file, or leave out --prices")
    if table.knows(model):
        return DoctorCheck("model", "ok", f"{model} has a known price")
    fix = f'name its price in a file for --prices: {{"models": {{"{model}": {{"input": 1, "output": 5}}}}}}'
    return DoctorCheck("model", "note", f"{model} has no known price, so --max-cost is refused for it", fix)


def disk(folder: Path) -> DoctorCheck:
    """Checks that runs can be written there."""
    place = _existing(folder)
    if not os.access(place, os.W_OK | os.X_OK):
        return DoctorCheck("disk", "fault", f"{place} cannot be written", "go to another folder, or use --output-dir")
    free = shutil.disk_usage(place).free >> 20
    told = f"{free:,} MiB free in {place}"
    level: Level = "fault" if free < _LEAST_FREE_MIB else "note" if free < _SCANT_FREE_MIB else "ok"
    return DoctorCheck("disk", level, told, "" if level == "ok" else "make room, or use --output-dir on another disk")


def locks(folder: Path) -> DoctorCheck:
    """Checks that a run's lock works there: a second lock on the same file has to be refused."""
    place = _existing(folder)
    try:
        with tempfile.TemporaryDirectory(dir=place, prefix=".lock-probe-") as probe:
            RunLock.acquire(Path(probe) / "run.lock", say=lambda _: None).release()
    except (OSError, OrchestratorError) as error:
        fix = "use --output-dir on a local disk: network file systems often do not lock"
        return DoctorCheck("locks", "fault", f"files in {place} cannot be locked: {error}", fix)
    return DoctorCheck("locks", "ok", f"a second lock is refused in {place}")


def terminal(environment: Mapping[str, str]) -> DoctorCheck:
    """Returns how a run will be displayed."""
    if not holds_signs(encoding := sys.stderr.encoding):
        told = f"its encoding is {encoding}: one line for each change, signs that it lacks escaped"
        return DoctorCheck("terminal", "note", told, "export LC_ALL=C.UTF-8")
    if why := plain_because(environment):
        fix = "export TERM=xterm-256color" if why.startswith("TERM") else ""
        return DoctorCheck("terminal", "note" if fix else "ok", f"{why}: one line for each change", fix)
    return DoctorCheck("terminal", "ok", f"{shutil.get_terminal_size().columns} columns, live view")


def _existing(folder: Path) -> Path:
    """Returns the folder, or the nearest existing one above it."""
    absolute = folder.absolute()
    return next(place for place in (absolute, *absolute.parents) if place.is_dir())


def page(checks: list[DoctorCheck]) -> str:
    """Returns a line for each check, with its fix below."""
    words = {"ok": "ok   ", "note": "note ", "fault": "FAULT"}
    lines = []
    for check in checks:
        lines.append(f"{words[check.level]}  {check.name:<9} {check.told}")
        if check.fix:
            lines.append(f"{'':17}fix: {check.fix}")
    faults = sum(check.level == "fault" for check in checks)
    if faults:
        lines.append(f"{counted(faults, 'fault')}; recordings need neither key nor endpoint")
    else:
        lines.append("everything that a run needs is there")
    return "\n".join(lines)
