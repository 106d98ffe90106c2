"""Controls the gateway process for the orchestrator: starts it, opens runs, restarts it after a crash, ends it."""

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

from parallel_orchestrator.gateway.config import LONGEST_PATH, OpenedRun, RunConfig, StartConfig, encode, remove_socket
from parallel_orchestrator.records import errors
from parallel_orchestrator.records.errors import CannotGoOn, DamagedState, OrchestratorError, UsageError
from parallel_orchestrator.system.environment import clean_environment
from parallel_orchestrator.system.invocation import INVOKED_AS, invoked_as

log = logging.getLogger(__name__)

_REPLY_S = 60.0
_POLL_S = 0.25


def gateway_environment() -> dict[str, str]:
    """Returns what the gateway needs of this process's environment. It gets the credential by pipe.

    The package's own place is on its PYTHONPATH, so that it starts from any working directory.
    """
    kept = {**clean_environment(os.environ, network=True), INVOKED_AS: invoked_as()}
    package = str(Path(__file__).resolve().parents[2])
    kept["PYTHONPATH"] = os.pathsep.join(part for part in (package, kept.get("PYTHONPATH")) if part)
    return kept


class GatewayProcess:
    """One gateway and its restarts. Several threads may call its methods.

    The gateway keeps `lock_fd` open, so a lock on it shows that the gateway lives. `stderr` takes the gateway's log;
    the default is this process's own standard error.
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
        """The process id of the gateway started last."""
        return self._process.pid if self._process else None

    def start(self) -> Self:
        """Start the process. On return it listens. Raises OrchestratorError."""
        with self._mutex:
            # A dead gateway may have left half a reply, which is no start of the next one's.
            self._received = b""
            try:
                self._process = subprocess.Popen(
                    # -P: a module in the working directory must not replace one of the package.
                    [sys.executable, "-P", "-m", "parallel_orchestrator.gateway"],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=self._stderr,
                    env=gateway_environment(),
                    # The lock is free only when orchestrator and gateway are dead: until then a resume waits, so that
                    # two gateways never write one ledger.
                    pass_fds=() if self._lock_fd is None else (self._lock_fd,),
                )
            except OSError as error:
                raise CannotGoOn(f"cannot start the gateway process: {error}; fix this, then resume") from error
            self._send({"start": self.config})
            return self

    def open_run(self, run: RunConfig) -> OpenedRun:
        """Make the gateway serve a run, also after a restart. Raises OrchestratorError."""
        with self._mutex:
            reply = self._send({"open_run": run})
            # After the reply: a restart must not open a run that the gateway has refused.
            self._runs[run.run] = run
            return OpenedRun(reply["spent_usd"], reply["open_calls"])

    def close_run(self, run: str) -> None:
        """Make the gateway take no more requests for a run."""
        with self._mutex:
            # Before the command: if the gateway dies over it, the restarted one must not serve the run.
            if run in self._runs:
                self._closed[run] = self._runs.pop(run)
            self._send({"close_run": {"run": run}})

    def ensure_alive(self) -> bool:
        """Start a dead gateway again, with its runs. Returns whether that was needed."""
        with self._mutex:
            # Under the mutex: the watcher and a command may notice the same death, and one of them restarts.
            if self._process and self._process.poll() is None:
                return False
            log.warning("the gateway has died; starting it again")
            self._close_pipes()
            self.start()
            for run in list(self._runs.values()):
                self.open_run(run)
            if self.config.max_cost_usd is not None:
                self._count_closed()
            return True

    def _count_closed(self) -> None:
        """Make a restarted gateway count what closed runs have spent: the cap covers them, too."""
        for run in list(self._closed.values()):
            with contextlib.suppress(UsageError, DamagedState):  # a run's files may have been changed since
                self.open_run(run)
                self.close_run(run.run)

    @contextlib.contextmanager
    def kept_alive(self, on_restart: Callable[[], None]) -> Iterator[None]:
        """Restart a gateway that dies while the block runs. Another thread then calls `on_restart`."""
        ended = threading.Event()

        def watch() -> None:
            while not ended.wait(_POLL_S):
                try:
                    if self.ensure_alive():
                        on_restart()
                except OrchestratorError as error:
                    log.error("%s", error)  # the loop tries again: a full disk, for example, may have room then

        watcher = threading.Thread(target=watch, name="gateway watcher", daemon=True)
        watcher.start()
        try:
            yield
        finally:
            ended.set()
            watcher.join()

    def stop(self, timeout: float | None = None) -> int | None:
        """End the gateway after its calls in flight; kill it after `timeout` seconds. Returns its exit code."""
        with self._mutex:
            if not self._process:
                return None
            # The end of its input makes the gateway land its calls and end.
            with contextlib.suppress(OSError):
                self._process.stdin.close()  # type: ignore[union-attr]
            try:
                self._process.wait(timeout)
            except subprocess.TimeoutExpired:
                log.warning("killing the gateway, which did not end within %g s; its open calls are lost", timeout)
                self._process.kill()
                self._process.wait()
            self._close_pipes()
            remove_socket(self.config.socket)
            return self._process.returncode

    def leave(self) -> None:
        """Make the gateway end after its calls in flight, without waiting for it."""
        self._close_pipes()

    def status(self) -> dict[str, Any]:
        """Returns what GET /orchestrator/status says. Raises CannotGoOn if the gateway does not answer."""
        # Over the socket: on the pipe this thread would have to wait for another thread's command.
        connection = _UnixConnection(self.config.socket)
        try:
            connection.request("GET", "/orchestrator/status", headers={"authorization": f"Bearer {self.config.secret}"})
            status: dict[str, Any] = json.loads(connection.getresponse().read())
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise CannotGoOn(f"the gateway does not answer on {self.config.socket}: {error}") from error
        finally:
            connection.close()
        return status

    def _send(self, command: dict[str, Any]) -> dict[str, Any]:
        process = self._process
        if not process or not process.stdin or process.stdin.closed:  # another thread may have called `stop`
            raise CannotGoOn("the gateway is not running; resume the run to start one")
        try:
            process.stdin.write(encode(command))
            process.stdin.flush()
        except OSError as error:
            raise self._ended() from error
        reply: dict[str, Any] = json.loads(self._read_line(process))
        if "error" in reply:
            raise _error_of(reply)
        return reply

    def _read_line(self, process: subprocess.Popen[bytes]) -> bytes:
        descriptor = process.stdout.fileno()  # type: ignore[union-attr]
        # With a deadline: a gateway that hangs must not hang the orchestrator, which holds the mutex here.
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
        return CannotGoOn(f"the gateway ended with code {code}, see its log; resume the run to start a new one")

    def _close_pipes(self) -> None:
        if self._process:
            for pipe in (self._process.stdin, self._process.stdout):
                with contextlib.suppress(OSError):
                    pipe.close()  # type: ignore[union-attr]


@contextlib.contextmanager
def serving(start: StartConfig, lock_fd: int, log_file: Path, say: Callable[[str], None]) -> Iterator[GatewayProcess]:
    """Yields a gateway, restarted if it dies. At the end it lands the calls in flight."""
    with log_file.open("ab") as gateway_log:
        gateway = GatewayProcess(start, lock_fd, stderr=gateway_log)
        end: Callable[[], object] = gateway.stop
        try:
            gateway.start()
            with gateway.kept_alive(lambda: say("the gateway died and was restarted")):
                yield gateway
        except KeyboardInterrupt as error:
            # The second Ctrl-C comes while the first one stops the executors: it must not wait for the calls.
            if isinstance(error.__context__, KeyboardInterrupt):
                end = gateway.leave
            else:
                say("stopping: waiting for the calls in flight; press Ctrl-C again to leave at once")
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
    """Returns the gateway's error, in its own class."""
    kind = getattr(errors, reply["kind"], OrchestratorError)
    error: OrchestratorError = kind(reply["error"])
    return error
