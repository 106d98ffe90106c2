"""orchestrator.log: one line an event, from every process of the run."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from parallel_orchestrator.system.files import disk_error
from parallel_orchestrator.system.terminal_text import one_line


class _LogFile(logging.FileHandler):
    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Ignore the error: the next write of state to the same full disk stops the run with a message."""


class OneLineFormatter(logging.Formatter):
    """Formats each record as one line, with its traceback."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record's line, without a newline."""
        return one_line(super().format(record))


def log_to(path: Path) -> logging.Handler:
    """Append this process's log of this package to `path`. Returns the handler, for `stop_logging`.

    Each line is one small write in append mode, so processes do not mix their lines. Raises CannotGoOn.
    """
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
        handler = _LogFile(path, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise disk_error(path, error) from error
    handler.setFormatter(OneLineFormatter("%(asctime)s %(processName)s %(levelname)s %(message)s"))
    logger = logging.getLogger("parallel_orchestrator")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    return handler


def stop_logging(handler: logging.Handler) -> None:
    """Undo `log_to`."""
    logging.getLogger("parallel_orchestrator").removeHandler(handler)
    handler.close()
