"""Threads for jobs that must not hold up a supervisor: preparing runs and finishing them."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable

log = logging.getLogger(__name__)

_LOOK_S = 0.25


class DaemonPool:
    """Threads that do jobs; with no threads, the caller does each at once. A job handles its own errors.

    The threads are daemons, unlike those of ThreadPoolExecutor: a second Ctrl-C ends the program at once, and every
    job may be killed anywhere.
    """

    def __init__(self, threads: int, name: str) -> None:
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._threads = [threading.Thread(target=self._work, name=name, daemon=True) for _ in range(threads)]
        for thread in self._threads:
            thread.start()

    def do(self, job: Callable[[], None]) -> None:
        """Have one of the threads do it, or do it now where there are none."""
        if self._threads:
            self._jobs.put(job)
        else:
            job()

    def join(self, meanwhile: Callable[[], None]) -> None:
        """Return when all jobs are done; `meanwhile` is called every now and then, and once after each thread."""
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            while thread.is_alive():
                thread.join(_LOOK_S)
                meanwhile()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                job()
            except Exception:
                log.exception("a job failed")
