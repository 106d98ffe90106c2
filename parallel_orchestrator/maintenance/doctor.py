"""Looks at what a run needs before one is started. Asks no model and costs nothing; each finding comes with its fix."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
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
from parallel_orchestrator.records.errors import UsageError
from parallel_orchestrator.report.live.console import holds_signs, plain_because
from parallel_orchestrator.sandbox.runner import detect
from parallel_orchestrator.system.terminal_text import counted
from parallel_orchestrator.trunk.git import git

_LEAST_FREE_MIB, _SCANT_FREE_MIB = 100, 1024
_CONNECT_S = 5.0

_SECOND_LOCKER = """
import fcntl, sys
try:
    fcntl.flock(open(sys.argv[1], "rb"), fcntl.LOCK_EX | fcntl.LOCK_NB)
except OSError:
    sys.exit(1)
"""

Level = Literal["ok", "note", "fault"]


@dataclass(frozen=True)
class Check:
    """One thing that was looked at."""

    name: str
    level: Level
    """`note`: a run works, but knowing it may help."""
    told: str
    fix: str = ""


def python() -> Check:
    """The interpreter; one that is too old does not come as far as this."""
    return Check("python", "ok", f"{sys.version.split()[0]} at {sys.executable}")


def git_program() -> Check:
    """Whether git is there and new enough."""
    try:
        git.require()
    except UsageError as error:
        return Check("git", "fault", str(error), "install a newer git, for instance: apt install git")
    return Check("git", "ok", str(shutil.which("git")))


def sandbox() -> Check:
    """Whether commands of agents can be run in a sandbox here."""
    try:
        return Check("sandbox", "ok", detect("auto").describe().removeprefix("Sandbox: "))
    except UsageError as error:
        why = str(error).split(": ", 1)[-1].split(". Install")[0]
        fix = "apt install bubblewrap, where user namespaces are allowed; or run with --sandbox off, in a container"
        return Check("sandbox", "fault", why, fix)


def claude_code() -> Check:
    """Which Claude Code `--backend claude-code` would use."""
    try:
        program = find()
    except UsageError as error:
        return Check("claude", "note", "not here; only --backend claude-code needs it", str(error))
    return Check("claude", "ok", f"{program.version} from {program.source}")


def key(paying: str | None) -> Check:
    """What would pay, described by `paying`; None where nothing would."""
    if paying:
        return Check("key", "ok", paying)
    return Check("key", "fault", "no key", "export ANTHROPIC_API_KEY=…; recordings need none")


def endpoint(url: str) -> Check:
    """Whether something listens where the model is asked; nothing is sent."""
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
        return Check("endpoint", "fault", f"{url}{by} cannot be reached: {reason}", fix)
    return Check("endpoint", "ok", f"{url}{by} can be reached (nothing was asked)")


def price(model: str, prices: Path | None) -> Check:
    """Whether a budget can hold for this model."""
    try:
        table = PriceTable.load(prices)
    except UsageError as error:
        return Check("model", "fault", str(error), "mend that file, or leave --prices out")
    if table.knows(model):
        return Check("model", "ok", f"{model} has a known price")
    fix = f'name its price in a file for --prices: {{"models": {{"{model}": {{"input": 1, "output": 5}}}}}}'
    return Check("model", "note", f"{model} has no known price, so --max-cost is refused for it", fix)


def disk(folder: Path) -> Check:
    """Whether runs can be written there."""
    place = _existing(folder)
    if not os.access(place, os.W_OK | os.X_OK):
        return Check("disk", "fault", f"{place} cannot be written", "go to another folder, or use --output-dir")
    free = shutil.disk_usage(place).free >> 20
    told = f"{free:,} MiB free in {place}"
    level: Level = "fault" if free < _LEAST_FREE_MIB else "note" if free < _SCANT_FREE_MIB else "ok"
    return Check("disk", level, told, "" if level == "ok" else "make room, or use --output-dir on another disk")


def locks(folder: Path) -> Check:
    """Whether a lock that one process holds there keeps a second process out."""
    place = _existing(folder)
    fix = "use --output-dir on a local disk: network file systems often do not lock"
    try:
        with tempfile.NamedTemporaryFile(dir=place, prefix=".lock-probe-") as file:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            second = subprocess.run([sys.executable, "-I", "-c", _SECOND_LOCKER, file.name], check=False)
    except OSError as error:
        return Check("locks", "fault", f"files in {place} cannot be locked: {error.strerror}", fix)
    if second.returncode == 0:
        return Check("locks", "fault", f"a lock in {place} does not keep a second process out", fix)
    return Check("locks", "ok", f"a second process is kept out in {place}")


def terminal(environment: Mapping[str, str]) -> Check:
    """How a run will be shown."""
    if not holds_signs(encoding := sys.stderr.encoding):
        told = f"its encoding is {encoding}: one line for each change, signs that it lacks escaped"
        return Check("terminal", "note", told, "export LC_ALL=C.UTF-8")
    if why := plain_because(environment):
        told, wanting = f"{why}: one line for each change", why.startswith("TERM")
        return Check("terminal", "note" if wanting else "ok", told, "export TERM=xterm-256color" if wanting else "")
    return Check("terminal", "ok", f"{shutil.get_terminal_size().columns} columns, live view")


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists."""
    absolute = folder.absolute()
    return next(place for place in (absolute, *absolute.parents) if place.is_dir())


def page(checks: list[Check]) -> str:
    """A line for each check, its fix below it."""
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
        lines.append("all that a run needs is there")
    return "\n".join(lines)
