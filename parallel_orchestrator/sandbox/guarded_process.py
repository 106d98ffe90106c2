"""A command below a `reaper`, held on a leash: however we end, it ends too, and all that it started."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from functools import cached_property
from pathlib import Path

from parallel_orchestrator.records.errors import CannotGoOn
from parallel_orchestrator.sandbox import reaper
from parallel_orchestrator.sandbox.namespace import LAST_WAIT_S
from parallel_orchestrator.sandbox.output import Follower


class Leashed:
    """Starts it, in a session of its own, so that a Ctrl-C for us is none for it; a context manager that ends it.

    `kept` are descriptors that are handed over to it. Raises CannotGoOn when it cannot be started.
    """

    def __init__(
        self,
        arguments: list[str],
        environment: dict[str, str],
        folder: Path,
        output_limit: int,
        *kept: int,
        stdin: int = subprocess.DEVNULL,
        stderr: int = subprocess.STDOUT,
    ) -> None:
        leash, self._end = os.pipe()
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-I", "-S", reaper.__file__, str(leash), *arguments],
                env=environment,
                cwd=folder,
                stdin=stdin,
                stdout=subprocess.PIPE,
                stderr=stderr,
                start_new_session=True,
                pass_fds=(leash, *kept),
            )
        except OSError as error:
            os.close(self._end)
            raise CannotGoOn(f"cannot start {arguments[0]}: {error.strerror or error}") from error
        finally:
            for descriptor in (leash, *kept):
                os.close(descriptor)
        self._output_limit = output_limit

    @cached_property
    def follower(self) -> Follower:
        """Reads its output from the first use on. Who never uses it reads that for himself."""
        return Follower(self.process, self._output_limit)

    def __enter__(self) -> Leashed:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()
        self.process.__exit__(None, None, None)

    def ask_to_end(self) -> None:
        """Send it SIGTERM, and a short while later SIGKILL."""
        with contextlib.suppress(BrokenPipeError):
            os.write(self._end, b"T")

    def end(self) -> None:
        """Kill what there still is of it, and wait until it is gone."""
        if self._end >= 0:
            os.close(self._end)
            self._end = -1
            if not self._ends_within(LAST_WAIT_S):
                self.process.kill()

    def _ends_within(self, seconds: float) -> bool:
        if "follower" in self.__dict__:
            return self.follower.until_end(time.monotonic() + seconds)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(seconds)
        return self.process.poll() is not None
