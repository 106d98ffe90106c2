"""One call in a process of its own: a child of the fork server, which has imported already what the call needs.

call_apart
  start          the child; it dies with the fork server, and holds the run's lock
  hear           what it says and logs, until its result or its error comes
  start again    where it dies before that: for calls that lose nothing by it
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
"""A child that a signal has stopped for so long is killed."""
_LOOK_S = 0.25
_LAST_S = 5.0
"""For a child that has said all to end by itself."""


@dataclass(frozen=True)
class _End:
    """The last thing that a child says."""

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
    """What `function(*arguments, say)` returns in a child. Raises the OrchestratorError that it raises there.

    Function, arguments and result cross by pickle. What the child logs is logged here. A child that dies is followed
    by another, until MAX_DEATHS have died. May be called in several threads at once.
    """
    starved = 0
    for _ in range(MAX_DEATHS):
        kills = memory.kills()
        ours, theirs = multiprocessing.Pipe(duplex=False)
        carried = (function, arguments, theirs, InheritedDescriptor(run_lock))
        child = start_process(_answer, carried, function.__name__, preload)
        theirs.close()  # so that the child's death is an end of file here
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
    """Pass on what the child says and logs; how it ended, None when it died."""
    stopped = Stopped()
    while True:
        if ours.poll(_LOOK_S):
            try:
                said = ours.recv()
            except (EOFError, OSError):
                return None
            if isinstance(said, _End):
                return said
            if isinstance(said, str):
                say(said)
            else:
                logging.getLogger(said.name).handle(said)
        elif stopped.seconds(child.pid or 0) > STOPPED_GRACE_S:
            log.warning("process %d was stopped by a signal: killing it", child.pid)
            child.kill()  # its end of file comes next


class _Caller:
    """The caller as the child sees it."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe

    def put_nowait(self, said: str | logging.LogRecord | _End) -> None:
        """Say something; when nobody hears it any more, end as by a kill."""
        try:
            self._pipe.send(said)
        except BrokenPipeError:
            raise SystemExit(1) from None


def _answer(
    function: Callable[..., Any], arguments: tuple[Any, ...], pipe: Connection, _run_lock: InheritedDescriptor
) -> None:
    """The main function of the child."""
    become_worker()
    caller = _Caller(pipe)
    logger = logging.getLogger("parallel_orchestrator")
    # The usual handler for the records of another process; of a queue it uses put_nowait alone.
    logger.addHandler(logging.handlers.QueueHandler(caller))  # type: ignore[arg-type]
    logger.setLevel(logging.INFO)
    try:
        caller.put_nowait(_End(function(*arguments, caller.put_nowait)))
    except OrchestratorError as error:
        caller.put_nowait(_End(error=error))
    except Exception as error:
        log.exception("%s: unexpected error", function.__name__)
        caller.put_nowait(_End(error=internal_error(error)))
