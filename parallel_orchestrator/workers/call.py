"""One call in its own process: a child of the fork server, which has already imported what the call needs.

call_apart
  start_process  the child; it dies with the fork server, and keeps the run's lock held
  _hear          pass on its messages and log records until it sends its result or its error
  repeat         when it dies before that: only for calls that lose nothing by it
"""

from __future__ import annotations

import logging
import logging.handlers
import multiprocessing
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

from parallel_orchestrator.records.errors import OrchestratorError, internal_error
from parallel_orchestrator.system import memory
from parallel_orchestrator.system.process import Stopped
from parallel_orchestrator.workers.forking import (
    InheritedDescriptor,
    become_worker,
    how_it_died,
    start_process,
)

log = logging.getLogger(__name__)

MAX_DEATHS = 3
STOPPED_GRACE_S = 5.0
"""A child that a signal stopped for so long is killed."""
_LOOK_S = 0.25
_LAST_S = 5.0
"""For a child to exit after it sent its result."""


@dataclass(frozen=True)
class _End:
    """The last message of a child."""

    result: Any = None
    error: OrchestratorError | None = None


def call_apart(
    function: Callable[..., Any],
    arguments: tuple[Any, ...],
    say: Callable[[str], None],
    *,
    preload: Sequence[str],
    run_lock: int,
) -> Any:
    """Return what `function(*arguments, say)` returns in a child. Raises the OrchestratorError that it raises there.

    Function, arguments and result are pickled. This process logs the child's log records. When the child dies, another
    one repeats the call, at most MAX_DEATHS times. Callable in several threads at once.
    """
    starved = 0
    for _ in range(MAX_DEATHS):
        kills = memory.kills()
        ours, theirs = multiprocessing.Pipe(duplex=False)
        carried = (function, arguments, theirs, InheritedDescriptor(run_lock))
        child = start_process(_answer, carried, function.__name__, preload)
        theirs.close()  # the child has the only write end now, so its death is an end of file here
        try:
            end = _hear(ours, child, say)
            child.join(_LAST_S)
        finally:
            child.kill()
            child.join()
            ours.close()
        if end is None:
            died = f"{function.__name__} (pid {child.pid}) {how_it_died(child.exitcode or 0)}"
            log.warning("%s", died)
            starved += child.exitcode == -signal.SIGKILL and memory.killed_since(kills, 128 + signal.SIGKILL)
            if starved > 1:
                raise memory.lacking("the planner's process", 0, 1)
        elif end.error is not None:
            raise end.error
        else:
            return end.result
    raise OrchestratorError(f"{died}, {MAX_DEATHS} times in a row; the log has more")


def _hear(ours: Connection, child: BaseProcess, say: Callable[[str], None]) -> _End | None:
    """Pass on the child's messages and log records. Returns its last message, or None when it died."""
    stopped = Stopped()
    while True:
        if ours.poll(_LOOK_S):
            try:
                message = ours.recv()
            except (EOFError, OSError):
                return None
            if isinstance(message, _End):
                return message
            if isinstance(message, str):
                say(message)
            else:
                logging.getLogger(message.name).handle(message)
        elif stopped.seconds(child.pid or 0) > STOPPED_GRACE_S:
            log.warning("process %d was stopped by a signal: killing it", child.pid)
            child.kill()  # the next poll reads its end of file


class _Caller:
    """The caller as the child sees it."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe

    def put_nowait(self, message: str | logging.LogRecord | _End) -> None:
        """Send a message. Ends this process when the caller is gone."""
        try:
            self._pipe.send(message)
        except BrokenPipeError:
            raise SystemExit(1) from None


def _answer(
    function: Callable[..., Any], arguments: tuple[Any, ...], pipe: Connection, _run_lock: InheritedDescriptor
) -> None:
    """Main function of the child."""
    become_worker()
    caller = _Caller(pipe)
    logger = logging.getLogger("parallel_orchestrator")
    # QueueHandler calls nothing of a queue but put_nowait.
    logger.addHandler(logging.handlers.QueueHandler(caller))  # type: ignore[arg-type]
    logger.setLevel(logging.INFO)
    try:
        caller.put_nowait(_End(function(*arguments, caller.put_nowait)))
    except OrchestratorError as error:
        caller.put_nowait(_End(error=error))
    except Exception as error:
        log.exception("%s: unexpected error", function.__name__)
        caller.put_nowait(_End(error=internal_error(error)))
