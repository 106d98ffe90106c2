"""orchestrator.log: what happened, one line an event, from every process of the run."""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def one_line(text: str) -> str:
    """`text` with every control character escaped: it can neither end its line nor steer a terminal."""
    return _CONTROL.sub(lambda match: match.group().encode("unicode_escape").decode(), text)


def printable(text: str) -> str:
    """`text` with every control character but the newline escaped."""
    return "\n".join(map(one_line, text.split("\n")))


class _OneLineFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return one_line(super().format(record))


def log_to(path: Path) -> logging.Handler:
    """Append this process's log of our own package to `path`; the handler, for `stop_logging`.

    Each line is one small write in append mode, so lines of several processes do not mix.
    """
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(_OneLineFormatter("%(asctime)s %(processName)s %(levelname)s %(message)s"))
    logger = logging.getLogger("parallel_orchestrator")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    return handler


def stop_logging(handler: logging.Handler) -> None:
    """Undo `log_to`."""
    logging.getLogger("parallel_orchestrator").removeHandler(handler)
    handler.close()
