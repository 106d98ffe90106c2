"""What the orchestrator tells the gateway over its standard input, one JSON object a line.

    {"start": {...}}       StartConfig, first and once        -> {"ok": true}
    {"open_run": {...}}    RunConfig                          -> {"ok": true, "spent_usd": x, "open_calls": n}
    {"close_run": {"run": id}}                                -> {"ok": true}

Each line has one reply line on standard output; a refused one is {"error": text, "kind": class, "exit_code": n}.
The end of the input ends the gateway.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING, Any

from parallel_orchestrator.gateway.sockets import new_socket_directory
from parallel_orchestrator.records.credential import Credential
from parallel_orchestrator.system import redact

if TYPE_CHECKING:
    from parallel_orchestrator.records.scenario import Scenario


@dataclass(frozen=True)
class StartConfig:
    """What holds for the gateway's whole life."""

    socket: Path
    """Where it listens; at most 90 bytes, in a directory that only this user can enter."""
    secret: str = field(repr=False)
    """What attempt tokens are signed with, and the token for /orchestrator/status."""
    credential: Credential | None = None
    """None for endpoints that want none, and for replays."""
    base_url: str | None = None
    """Of the live endpoint, without /v1. None when only recordings are replayed."""
    prices: Path | None = None
    """A price file that goes before the built-in table."""
    patience_s: float = 600.0
    max_cost_usd: float | None = None
    """Cap over all runs together."""
    spent_before_usd: dict[str, float] = field(default_factory=dict)
    """By run: what those under that cap had spent before. It counts until the run is opened and counts itself."""
    secrets: tuple[str, ...] = field(default=(), repr=False)
    """Other values that nothing may be written with."""

    @classmethod
    def of(cls, scenario: Scenario, credential: Credential | None) -> StartConfig:
        """For a gateway that serves runs like this one."""
        return cls(
            socket=new_socket_directory() / "gateway.sock",
            secret=token_hex(32),
            credential=credential,
            base_url=None if scenario.replay else scenario.endpoint,
            prices=Path(scenario.prices) if scenario.prices else None,
            patience_s=scenario.endpoint_patience,
            secrets=redact.known_secrets(),
        )

    def to_json(self) -> dict[str, Any]:
        """For the pipe only: this holds the key."""
        return _plain(asdict(self))

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> StartConfig:
        """The inverse of `to_json`. TypeError for unknown fields."""
        credential = fields.pop("credential", None)
        prices = fields.pop("prices", None)
        return cls(
            socket=Path(fields.pop("socket")),
            credential=Credential(**credential) if credential else None,
            prices=Path(prices) if prices else None,
            secrets=tuple(fields.pop("secrets", ())),
            **fields,
        )


@dataclass(frozen=True)
class RunConfig:
    """One run to be served."""

    run: str
    ledger: Path
    max_cost_usd: float | None = None
    task_max_cost_usd: float | None = None
    recording: Path | None = None
    """Replayed instead of calling the endpoint."""
    speed: float = 1.0
    """A replay's latencies are divided by this."""
    models: tuple[str, ...] = ()
    """Models that the run will ask for; with a cap, each needs a price."""

    @classmethod
    def of(cls, scenario: Scenario, ledger: Path, recording: Path | None) -> RunConfig:
        """For one run by its scenario."""
        return cls(
            run=scenario.run,
            ledger=ledger,
            max_cost_usd=scenario.max_cost_usd,
            task_max_cost_usd=scenario.task_max_cost_usd,
            recording=recording,
            speed=scenario.speed,
            models=(scenario.planner_model, scenario.executor_model),
        )

    def to_json(self) -> dict[str, Any]:
        """For the pipe."""
        return _plain(asdict(self))

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> RunConfig:
        """The inverse of `to_json`. TypeError for unknown fields."""
        recording = fields.pop("recording", None)
        return cls(
            ledger=Path(fields.pop("ledger")),
            recording=Path(recording) if recording else None,
            models=tuple(fields.pop("models", ())),
            **fields,
        )


@dataclass(frozen=True)
class OpenedRun:
    """What the ledger of a run just opened says."""

    spent_usd: float
    """Answers, and doubtful calls at their bound."""
    open_calls: int
    """Calls that died with an earlier gateway. They may have been billed, and are in `spent_usd` at their bound."""


def _plain(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: str(value.absolute()) if isinstance(value, Path) else value for name, value in fields.items()}
