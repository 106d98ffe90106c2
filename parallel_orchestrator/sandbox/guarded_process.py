"""A command below a `reaper` that ends with this process, however this process ends, and so does all it started."""

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
from parallel_orchestrator.sandbox.output import OutputReader


class GuardedProcess:
    """Starts a command in its own session, which Ctrl-C does not reach. A context manager that ends it.

    The command inherits the descriptors `kept`; they are closed here. Raises CannotGoOn when it does not start.
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
        lifeline, self._lifeline = os.pipe()
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-I", "-S", reaper.__file__, str(lifeline), *arguments],
                env=environment,
                cwd=folder,
                stdin=stdin,
                stdout=subprocess.PIPE,
                stderr=stderr,
                start_new_session=True,
                pass_fds=(lifeline, *kept),
            )
        except OSError as error:
            os.close(self._lifeline)
            raise CannotGoOn(f"cannot start {arguments[0]}: {error.strerror or error}") from error
        finally:
            for descriptor in (lifeline, *kept):
                os.close(descriptor)
        self._output_limit = output_limit

    @cached_property
    def reader(self) -> OutputReader:
        """Reads the output from the first use on. Callers that never use it read the pipe themselves."""
        return OutputReader(self.process, self._output_limit)

    def __enter__(self) -> GuardedProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()
        self.process.__exit__(None, None, None)

    def ask_to_end(self) -> None:
        """Have the reaper send SIGTERM, and SIGKILL a little later."""
        with contextlib.suppress(BrokenPipeError):
            os.write(self._lifeline, b"T")

    def end(self) -> None:
        """Kill what is left of the command, and wait until it is gone."""
        if self._lifeline >= 0:
            os.close(self._lifeline)
            self._lifeline = -1
            if not self._ends_within(LAST_WAIT_S):
                self.process.kill()

    def _ends_within(self, seconds: float) -> bool:
        if "reader" in self.__dict__:
            return self.reader.until_end(time.monotonic() + seconds)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(seconds)
        return self.process.poll() is not None
