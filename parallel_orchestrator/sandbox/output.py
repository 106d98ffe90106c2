"""Follows a process to its end: keeps a bounded part of its output and enforces its time limit."""

from __future__ import annotations

import os
import selectors
import subprocess
import time
from collections.abc import Callable

from parallel_orchestrator.system import redact

_CHUNK = 1 << 16
_POLL_S = 0.02
"""How often to check for a process's end where the system has no pidfd."""
_WATCH_S = 0.05


class BoundedOutput:
    """The head and the tail of a byte stream of any length."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        # UTF-8 needs up to four bytes a character.
        self._half = 4 * (limit // 2 + 1)
        self._head = bytearray()
        self._tail = bytearray()
        self._total = 0

    def add(self, data: bytes) -> None:
        """Add the next bytes; drop those in the middle."""
        self._total += len(data)
        room = self._half - len(self._head)
        self._head += data[: max(room, 0)]
        self._tail += data[max(room, 0) :]
        if len(self._tail) > 2 * self._half + _CHUNK:
            del self._tail[: -self._half]

    def text(self) -> str:
        """Return at most `limit` characters, and a note on what was cut."""
        if self._total == len(self._head) + len(self._tail):
            whole = redact.foreign((self._head + self._tail).decode(errors="replace"))
            if len(whole) <= self._limit:
                return whole
        half = self._limit // 2
        head = redact.foreign(self._head.decode(errors="replace"))[:half]
        tail = redact.foreign(bytes(self._tail or self._head).decode(errors="replace"))[-half:]
        return f"{head}\n[... the middle was cut out of {self._total:,} bytes of output ...]\n{tail}"


class OutputReader:
    """Reads a process's output until the process ends.

    It does not wait for the pipe's end: a background child may hold the pipe open for ever.
    """

    def __init__(self, process: subprocess.Popen[bytes], output_limit: int) -> None:
        self._process = process
        self._output = BoundedOutput(output_limit)
        if process.stdout is None:
            raise ValueError("the process must be started with a pipe for its output")
        self._pipe = process.stdout.fileno()
        os.set_blocking(self._pipe, False)
        self._pipe_open = True

    def until_end(self, deadline: float, keep_on: Callable[[], bool] | None = None) -> bool:
        """Follow until the process ends (returns True) or the monotonic clock reaches `deadline` (False).

        `keep_on` is called 20 times a second; when it returns False, so does this.
        """
        with selectors.DefaultSelector() as selector:
            selector.register(self._pipe, selectors.EVENT_READ)
            descriptor = _end_descriptor(self._process.pid)
            try:
                if descriptor is not None:
                    selector.register(descriptor, selectors.EVENT_READ)
                longest = _POLL_S if descriptor is None else _WATCH_S if keep_on else 3600.0
                return self._follow(selector, deadline, longest, keep_on)
            finally:
                if descriptor is not None:
                    os.close(descriptor)

    def _follow(
        self, selector: selectors.BaseSelector, deadline: float, longest: float, keep_on: Callable[[], bool] | None
    ) -> bool:
        watched = time.monotonic()
        while self._process.poll() is None:
            now = time.monotonic()
            if now >= deadline:
                return False
            if keep_on is not None and now - watched >= _WATCH_S:
                watched = now
                if not keep_on():
                    return False
            selector.select(max(0.0, min(longest, deadline - now)))
            if self._pipe_open and not self._read():
                selector.unregister(self._pipe)
                self._pipe_open = False
        return True

    def rest(self) -> str:
        """Return all output, including what is still in the pipe. Call it when every writer is gone."""
        while self._pipe_open and self._read(to_end=True):
            pass
        return self._output.text()

    def _read(self, *, to_end: bool = False) -> bool:
        """Read what is there. Returns False at the end of the output."""
        try:
            data = os.read(self._pipe, _CHUNK)
        except BlockingIOError:
            return not to_end
        self._output.add(data)
        return bool(data)


def _end_descriptor(pid: int) -> int | None:
    """Return a pidfd, which becomes readable when the process ends; None where the system has none."""
    try:
        return os.pidfd_open(pid)
    except (AttributeError, OSError):
        return None
