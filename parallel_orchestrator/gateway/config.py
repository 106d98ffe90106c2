"""What orchestrator and gateway agree on: the lines on the gateway's standard input, and the path of its socket.

Each line is one JSON object; the end of the input ends the gateway.

    {"start": {...}}       StartConfig, first and once        -> {"ok": true}
    {"open_run": {...}}    RunConfig                          -> {"ok": true, "spent_usd": x, "open_calls": n}
    {"close_run": {"run": id}}                                -> {"ok": true}

The gateway writes one line in reply to each. If it refuses one: {"error": text, "kind": class, "exit_code": n}.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from parallel_orchestrator.records.credential import Credential
from parallel_orchestrator.records.errors import UsageError
from parallel_orchestrator.system import redact
from parallel_orchestrator.system.folders import new_folder, places
from parallel_orchestrator.system.memory import LOCKS

if TYPE_CHECKING:
    from parallel_orchestrator.records.scenario import Scenario

LONGEST_PATH = 90
"""Bytes of a socket's path; the kernel's limit is 107 on Linux and 103 on macOS."""

_PREFIX = "po-"
_ROOM = 50
"""Bytes for the directory's name and the socket's."""

_Config = TypeVar("_Config", "StartConfig", "RunConfig")


@dataclass(frozen=True)
class StartConfig:
    """The configuration for the gateway's whole life."""

    socket: Path
    """Where it listens; at most 90 bytes, in a directory that only this user can enter."""
    secret: str = field(repr=False)
    """Signs the attempts' tokens, and is the token for /orchestrator/status."""
    credential: Credential | None = None
    """None for replays, and for endpoints that need no credential."""
    base_url: str | None = None
    """The live endpoint, without /v1. None when the gateway only replays recordings."""
    prices: Path | None = None
    """A price file that takes precedence over the built-in table."""
    patience_s: float = 600.0
    max_cost_usd: float | None = None
    """Cap over all runs together."""
    spent_before_usd: dict[str, float] = field(default_factory=dict)
    """What runs under that cap had spent before, by run. It counts until the run is opened and counts itself."""
    secrets: tuple[str, ...] = field(default=(), repr=False)
    """Other values that redaction has to remove."""

    @classmethod
    def of(cls, scenario: Scenario, credential: Credential | None) -> StartConfig:
        """Returns the configuration for runs like this one."""
        return cls(
            socket=new_socket_directory() / "gateway.sock",
            secret=token_hex(32),
            credential=credential,
            base_url=None if scenario.replay else scenario.endpoint,
            prices=Path(scenario.prices) if scenario.prices else None,
            patience_s=scenario.endpoint_patience,
            secrets=redact.known_secrets(),
        )


@dataclass(frozen=True)
class RunConfig:
    """One run that the gateway serves."""

    run: str
    ledger: Path
    max_cost_usd: float | None = None
    task_max_cost_usd: float | None = None
    recording: Path | None = None
    """The gateway replays it instead of calling the endpoint."""
    speed: float = 1.0
    """Divides the latencies of a replay."""
    models: tuple[str, ...] = ()
    """Models that the run will ask for; with a cap, each needs a price."""

    @classmethod
    def of(cls, scenario: Scenario, ledger: Path, recording: Path | None) -> RunConfig:
        """Returns the configuration of a scenario's run."""
        return cls(
            run=scenario.run,
            ledger=ledger,
            max_cost_usd=scenario.max_cost_usd,
            task_max_cost_usd=scenario.task_max_cost_usd,
            recording=recording,
            speed=scenario.speed,
            models=(scenario.planner_model, scenario.executor_model),
        )


@dataclass(frozen=True)
class OpenedRun:
    """What the ledger of a run just opened says."""

    spent_usd: float
    """Answers, and doubtful calls at their bound."""
    open_calls: int
    """Calls that died with an earlier gateway. They may have been billed, and are in `spent_usd` at their bound."""


def encode(command: Mapping[str, Any]) -> bytes:
    """Returns a command as one line for the pipe. The first line holds the key: write it nowhere else."""
    plain = msgspec.to_builtins(command, enc_hook=lambda path: str(path.absolute()))
    # In ASCII: a path may hold bytes that are no UTF-8, as lone surrogates.
    return json.dumps(plain).encode() + b"\n"


def decode(fields: Mapping[str, Any], kind: type[_Config]) -> _Config:
    """Returns the configuration in a command. Raises ValueError."""
    return msgspec.convert(fields, kind, dec_hook=lambda path, value: path(value))


def new_socket_directory() -> Path:
    """Makes a directory of mode 0700 for one socket, in $XDG_RUNTIME_DIR or /tmp: the path of a socket must be short.

    The gateway removes it when it ends.
    """
    for base in places():
        if os.access(base, os.W_OK) and len(os.fsencode(base)) <= LONGEST_PATH - _ROOM:
            return new_folder(_PREFIX, base)
    raise UsageError("no place for a socket: neither $XDG_RUNTIME_DIR nor /tmp can be written")


def listen(path: Path) -> socket.socket:
    """Returns a listening socket for this user alone; it replaces a dead gateway's file. Raises UsageError."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # The mode counts from `bind` on: a later chmod would leave a moment in which another user can connect.
    before = os.umask(0o177)
    try:
        path.unlink(missing_ok=True)
        listener.bind(str(path))
        listener.listen(1024)
    except OSError as error:
        listener.close()
        raise UsageError(f"cannot listen on {path}: {error}") from error
    finally:
        os.umask(before)
    return listener


def remove_socket(path: Path) -> None:
    """Remove the socket file, and its directory if `new_socket_directory` made it."""
    ours = path.parent.name.startswith(_PREFIX)
    with contextlib.suppress(OSError):
        path.unlink()
    # Executors' locks lie next to the socket. The orchestrator and the gateway both try to remove them.
    with contextlib.suppress(OSError):
        for name in LOCKS if ours else ():
            (path.parent / name).unlink(missing_ok=True)
        if ours:
            path.parent.rmdir()
