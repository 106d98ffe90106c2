"""The orchestrator's hand on the gateway process: start it, open runs, restart it when it died, end it."""

from __future__ import annotations

import contextlib
import http.client
import json
import logging
import os
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, Self

from parallel_orchestrator.gateway.config import OpenedRun, RunConfig, StartConfig
from parallel_orchestrator.gateway.sockets import LONGEST_PATH, new_socket_directory, remove_socket
from parallel_orchestrator.records import errors
from parallel_orchestrator.records.errors import CannotGoOn, DamagedState, OrchestratorError, UsageError
from parallel_orchestrator.system.environment import clean_environment
from parallel_orchestrator.system.invocation import INVOKED_AS, invoked_as

__all__ = ["GatewayProcess", "gateway_environment", "new_socket_directory"]

log = logging.getLogger(__name__)

_REPLY_S = 60.0
_LOOK_S = 0.25


def gateway_environment() -> dict[str, str]:
    """What the gateway needs of this process's environment; the credential it gets by pipe.

    The package's own place is put on PYTHONPATH, so that the gateway starts from any working directory.
    """
    kept = {**clean_environment(os.environ, network=True), INVOKED_AS: invoked_as()}
    package = str(Path(__file__).resolve().parents[2])
    kept["PYTHONPATH"] = os.pathsep.join(part for part in (package, kept.get("PYTHONPATH")) if part)
    return kept


class GatewayProcess:
    """One gateway and its restarts. Methods may be called from several threads.

    `lock_fd` is kept open in the gateway, so that a lock on it shows that the gateway lives. `stderr` takes the
    gateway's log; the default is this process's own standard error.
    """

    def __init__(self, start: StartConfig, lock_fd: int | None = None, *, stderr: IO[Any] | int | None = None) -> None:
        if len(os.fsencode(start.socket)) > LONGEST_PATH:
            raise UsageError(f"the socket path {start.socket} is longer than {LONGEST_PATH} bytes; use a shorter one")
        self.config = start
        self._lock_fd = lock_fd
        self._stderr = stderr
        self._runs: dict[str, RunConfig] = {}
        self._closed: dict[str, RunConfig] = {}
        self._process: subprocess.Popen[bytes] | None = None
        self._received = b""
        self._mutex = threading.RLock()

    @property
    def pid(self) -> int | None:
        """Of the gateway process started last."""
        return self._process.pid if self._process else None

    def start(self) -> Self:
        """Start the process; on return it listens. Raises OrchestratorError."""
        with self._mutex:
            self._received = b""
            try:
                self._process = subprocess.Popen(
                    # -P: a module in the working directory must not stand in for one of ours.
                    [sys.executable, "-P", "-m", "parallel_orchestrator.gateway"],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=self._stderr,
                    env=gateway_environment(),
                    pass_fds=() if self._lock_fd is None else (self._lock_fd,),
                )
            except OSError as error:
                raise CannotGoOn(f"cannot start the gateway process: {error}; resume when it can be") from error
            self._tell({"start": self.config.to_json()})
            return self

    def open_run(self, run: RunConfig) -> OpenedRun:
        """Have the gateway serve a run; it is opened again after a restart. Raises OrchestratorError."""
        with self._mutex:
            reply = self._tell({"open_run": run.to_json()})
            self._runs[run.run] = run
            return OpenedRun(reply["spent_usd"], reply["open_calls"])

    def close_run(self, run: str) -> None:
        """Have the gateway take no more asks for a run."""
        with self._mutex:
            if run in self._runs:
                self._closed[run] = self._runs.pop(run)
            self._tell({"close_run": {"run": run}})

    def ensure_alive(self) -> bool:
        """Start a dead gateway again, with its runs. True when that was needed."""
        with self._mutex:
            if self._process and self._process.poll() is None:
                return False
            log.warning("the gateway has ended unexpectedly; starting it again")
            self._close_pipes()
            self.start()
            for run in list(self._runs.values()):
                self.open_run(run)
            if self.config.max_cost_usd is not None:
                self._count_closed()
            return True

    def _count_closed(self) -> None:
        """Have a gateway that was started again count what closed runs have spent, too."""
        for run in list(self._closed.values()):
            with contextlib.suppress(UsageError, DamagedState):  # as when somebody has altered its files meanwhile
                self.open_run(run)
                self.close_run(run.run)

    @contextlib.contextmanager
    def kept_alive(self, told: Callable[[], None]) -> Iterator[None]:
        """While the block runs, a gateway that died is started again; `told` hears of each time, in another thread."""
        over = threading.Event()

        def watch() -> None:
            while not over.wait(_LOOK_S):
                try:
                    if self.ensure_alive():
                        told()
                except OrchestratorError as error:
                    log.error("%s", error)

        watcher = threading.Thread(target=watch, name="gateway watcher", daemon=True)
        watcher.start()
        try:
            yield
        finally:
            over.set()
            watcher.join()

    def stop(self, timeout: float | None = None) -> int | None:
        """End the gateway once its calls in flight have landed; kill it after `timeout` seconds. Its exit code."""
        with self._mutex:
            if not self._process:
                return None
            with contextlib.suppress(OSError):
                self._process.stdin.close()  # type: ignore[union-attr]
            try:
                self._process.wait(timeout)
            except subprocess.TimeoutExpired:
                log.warning("the gateway did not end within %g s and is killed; its open calls are lost", timeout)
                self._process.kill()
                self._process.wait()
            self._close_pipes()
            remove_socket(self.config.socket)
            return self._process.returncode

    def leave(self) -> None:
        """Have the gateway end once its calls in flight have landed, without waiting for it."""
        self._close_pipes()

    def status(self) -> dict[str, Any]:
        """What GET /orchestrator/status says. Raises CannotGoOn when the gateway does not answer."""
        connection = _UnixConnection(self.config.socket)
        try:
            connection.request("GET", "/orchestrator/status", headers={"authorization": f"Bearer {self.config.secret}"})
            status: dict[str, Any] = json.loads(connection.getresponse().read())
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise CannotGoOn(f"the gateway does not answer on {self.config.socket}: {error}") from error
        finally:
            connection.close()
        return status

    def _tell(self, command: dict[str, Any]) -> dict[str, Any]:
        process = self._process
        if not process or not process.stdin or process.stdin.closed:  # by `stop`, in another thread perhaps
            raise CannotGoOn("the gateway is not running; `resume` starts one")
        try:
            process.stdin.write(json.dumps(command).encode() + b"\n")
            process.stdin.flush()
        except OSError as error:
            raise self._ended() from error
        reply: dict[str, Any] = json.loads(self._read_line(process))
        if "error" in reply:
            raise _error_of(reply)
        return reply

    def _read_line(self, process: subprocess.Popen[bytes]) -> bytes:
        descriptor = process.stdout.fileno()  # type: ignore[union-attr]
        deadline = time.monotonic() + _REPLY_S
        while b"\n" not in self._received:
            ready, _, _ = select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                raise CannotGoOn(f"the gateway (process {process.pid}) has not answered for {_REPLY_S:g} s")
            data = os.read(descriptor, 65536)
            if not data:
                raise self._ended()
            self._received += data
        line, _, self._received = self._received.partition(b"\n")
        return line

    def _ended(self) -> CannotGoOn:
        code = self._process.wait() if self._process else None
        return CannotGoOn(f"the gateway ended with code {code}; its log says why. `resume` starts a new one")

    def _close_pipes(self) -> None:
        if self._process:
            for pipe in (self._process.stdin, self._process.stdout):
                with contextlib.suppress(OSError):
                    pipe.close()  # type: ignore[union-attr]


@contextlib.contextmanager
def serving(start: StartConfig, lock_fd: int, log_file: Path, say: Callable[[str], None]) -> Iterator[GatewayProcess]:
    """A gateway for as long as the block runs, started again when it dies. At the end it lands the calls in flight."""
    with log_file.open("ab") as gateway_log:
        gateway = GatewayProcess(start, lock_fd, stderr=gateway_log)
        end: Callable[[], object] = gateway.stop
        try:
            gateway.start()
            with gateway.kept_alive(lambda: say("the gateway had died and was started again")):
                yield gateway
        except KeyboardInterrupt as error:
            if isinstance(error.__context__, KeyboardInterrupt):  # the second, while the executors were being stopped
                end = gateway.leave
            else:
                say("stopping: calls in flight land in the ledger first; Ctrl-C again does not wait for them")
            raise
        finally:
            end()


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("gateway", timeout=10)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def _error_of(reply: dict[str, Any]) -> OrchestratorError:
    """The error that the gateway met, in its own class."""
    kind = getattr(errors, reply["kind"], OrchestratorError)
    error: OrchestratorError = kind(reply["error"])
    return error
