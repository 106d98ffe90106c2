"""The gateway process: listens on its socket, obeys the commands on its standard input, and ends when they end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import uvicorn
import uvloop

from parallel_orchestrator.gateway.calls.ledger import Ledger
from parallel_orchestrator.gateway.calls.messages import Endpoint, Json
from parallel_orchestrator.gateway.calls.run import ServedRun
from parallel_orchestrator.gateway.calls.service import Service
from parallel_orchestrator.gateway.config import OpenedRun, RunConfig, StartConfig, decode, listen, remove_socket
from parallel_orchestrator.gateway.endpoints.live import LiveEndpoint
from parallel_orchestrator.gateway.endpoints.prices import PriceTable
from parallel_orchestrator.gateway.http.server import Application
from parallel_orchestrator.gateway.pacing.limiter import Limiter, Unlimited
from parallel_orchestrator.records.errors import CannotGoOn, OrchestratorError, UsageError
from parallel_orchestrator.system import redact
from parallel_orchestrator.system.files import write_all
from parallel_orchestrator.system.logfile import OneLineFormatter
from parallel_orchestrator.system.process import hide_memory

log = logging.getLogger(__name__)

DEFAULT_ENDPOINT = "https://api.anthropic.com"
_LINE_LIMIT = 2**20
_SHUTDOWN_S = 5
_POLL_S = 0.25
"""Between two checks of the socket's file."""


class GatewayServer:
    """One gateway, made from its `start` command."""

    def __init__(self, config: StartConfig) -> None:
        redact.know(*config.secrets, *([config.credential.value] if config.credential else []))
        self._config = config
        self._prices = PriceTable.load(config.prices)
        self.service = Service(
            limiter=Limiter(),
            patience_s=config.patience_s,
            max_cost_usd=config.max_cost_usd,
            spent_before_usd=config.spent_before_usd,
        )
        self._live = self._live_endpoint()
        self._application = Application(self.service, config.secret)
        self._servers: dict[_UvicornServer, asyncio.Task[None]] = {}
        self._listen()
        self._watches = [
            asyncio.create_task(self.service.watch_inactivity()),
            asyncio.create_task(self._keep_listening()),
        ]

    def _listen(self) -> None:
        """Serve a new socket at the gateway's path. Raises UsageError."""
        # An earlier gateway removes the directory at its end.
        self._config.socket.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        listener = listen(self._config.socket)
        self._bound = _identity(self._config.socket)
        server = _UvicornServer(
            uvicorn.Config(
                self._application,
                log_config=None,
                access_log=False,
                lifespan="off",
                ws="none",
                proxy_headers=False,
                # Longer than the caller's pool keeps a connection. Else the gateway may close one as it is reused.
                timeout_keep_alive=600,
                timeout_graceful_shutdown=_SHUTDOWN_S,
            )
        )
        self._servers[server] = asyncio.create_task(server.serve(sockets=[listener]))

    async def _keep_listening(self) -> None:
        """Listen again when the socket's file is gone or replaced: new callers connect there."""
        while True:
            await asyncio.sleep(_POLL_S)
            if _identity(self._config.socket) != self._bound:
                log.warning("the socket %s was removed; listening on a new one", self._config.socket)
                try:
                    self._listen()
                except (OSError, UsageError) as error:
                    log.warning("%s", error)

    async def open_run(self, config: RunConfig) -> OpenedRun:
        """Serve a run from now on. Raises OrchestratorError."""
        # Until the last call of a run that is closing has landed, its ledger has another writer.
        await self.service.runs.closed(config.run)
        if self.service.runs.is_open(config.run):
            raise UsageError(f"run {config.run} is already open")
        endpoint, limiter = self._endpoint(config)
        self._check_prices(config, endpoint)
        ledger = Ledger(config.ledger)
        if ledger.torn_bytes or ledger.dead_calls:
            log.warning(
                "%s: cut %d bytes of a torn record; %d calls have no outcome and count at their bound",
                config.ledger,
                ledger.torn_bytes,
                ledger.dead_calls,
            )
        caps = (config.max_cost_usd, config.task_max_cost_usd)
        run = ServedRun(config.run, ledger, endpoint, limiter, self._prices, *caps)
        self.service.runs.open(run)
        return OpenedRun(run.spent_usd(), ledger.dead_calls)

    def close_run(self, run: str) -> None:
        """Take no more requests for a run. Calls at the endpoint still land in its ledger."""
        if not self.service.runs.is_open(run):
            raise UsageError(f"run {run} is not open")
        self.service.runs.close(run)

    async def stop(self) -> None:
        """Land the calls in flight, deliver their answers, and end."""
        # First, and while the servers still run: the callers of these calls wait for their answers.
        await self.service.runs.close_all()
        for watch in self._watches:
            watch.cancel()
        for server in self._servers:
            server.should_exit = True
        await asyncio.gather(*self._servers.values())
        if self._live:
            await self._live.close()
        remove_socket(self._config.socket)

    def _endpoint(self, config: RunConfig) -> tuple[Endpoint, Limiter]:
        if config.recording:
            # Imported here because only a replay needs pydantic and YAML: a live gateway starts without them.
            from parallel_orchestrator.gateway.endpoints import recording, replay

            return replay.ReplayEndpoint(recording.load(config.recording), config.speed), Unlimited()
        if self._live is None:
            raise UsageError("there is no endpoint: set a key or a base URL, or replay a recording")
        return self._live, self.service.limiter

    def _live_endpoint(self) -> LiveEndpoint | None:
        config = self._config
        if config.base_url is None and config.credential is None:
            return None
        url = config.base_url or DEFAULT_ENDPOINT
        return LiveEndpoint(url, config.credential, self.service.inactivity)

    def _check_prices(self, config: RunConfig, endpoint: Endpoint) -> None:
        caps = (config.max_cost_usd, config.task_max_cost_usd, self._config.max_cost_usd)
        if not endpoint.free and any(cap is not None for cap in caps):
            self._prices.require(config.models)


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.lstat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


class _UvicornServer(uvicorn.Server):
    """uvicorn without its signal handlers: `serve` handles the signals of this process."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def serve() -> None:
    """Obey standard input until it ends or a signal comes, then stop in order."""
    lines = await _standard_input()
    end = asyncio.create_task(_signalled())
    gateway: GatewayServer | None = None
    while True:
        line = asyncio.create_task(lines.readline())
        await asyncio.wait([line, end], return_when=asyncio.FIRST_COMPLETED)
        if end.done() or not line.result():
            break
        try:
            command, fields = next(iter(json.loads(line.result()).items()))
            gateway, reply = await _obey(gateway, command, fields)
        except OrchestratorError as error:
            reply = {"error": str(error), "kind": type(error).__name__, "exit_code": error.exit_code}
        except OSError as error:
            reply = {"error": str(error), "kind": "CannotGoOn", "exit_code": CannotGoOn.exit_code}
        except (ValueError, TypeError, KeyError, StopIteration, AttributeError) as error:
            # Only the class: the text may quote the line, and the first line holds the key.
            reply = {"error": f"invalid command: {type(error).__name__}", "kind": "UsageError", "exit_code": 2}
        try:
            # Not with print: its buffer would be written again, with an error, when the interpreter ends.
            write_all(sys.stdout.fileno(), json.dumps(reply).encode() + b"\n")
        except BrokenPipeError:
            break  # the orchestrator died before it read this
    if gateway:
        await gateway.stop()


async def _obey(gateway: GatewayServer | None, command: str, fields: Json) -> tuple[GatewayServer | None, Json]:
    if command == "start" and gateway is None:
        return GatewayServer(decode(fields, StartConfig)), {"ok": True}
    if command == "open_run" and gateway:
        opened = await gateway.open_run(decode(fields, RunConfig))
        return gateway, {"ok": True, "spent_usd": opened.spent_usd, "open_calls": opened.open_calls}
    if command == "close_run" and gateway:
        gateway.close_run(fields["run"])
        return gateway, {"ok": True}
    raise UsageError(f"the gateway cannot do {command!r} now")


async def _standard_input() -> asyncio.StreamReader:
    reader = asyncio.StreamReader(limit=_LINE_LIMIT)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    return reader


async def _signalled() -> None:
    """Return at a signal to end. Ctrl-C is none: the orchestrator gets it, too, and decides."""
    signalled = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup ignores SIGHUP
            asyncio.get_running_loop().add_signal_handler(number, signalled.set)
    await signalled.wait()


def main() -> None:
    """Run the gateway until its standard input ends."""
    hide_memory()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(OneLineFormatter("%(asctime)s gateway %(levelname)s %(message)s"))  # it quotes the endpoint
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    for name in ("httpx2", "httpcore2", "uvicorn"):  # they log every request, or their start
        logging.getLogger(name).setLevel(logging.WARNING)
    uvloop.run(serve())
