"""Functions for calls in processes of their own."""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

from parallel_orchestrator.records.errors import PlanRefused

Say = Callable[[str], None]

log = logging.getLogger("parallel_orchestrator.tests")


def double(number: int, say: Say) -> tuple[int, int]:
    """Twice the number, and where that was found."""
    say(f"doubling {number}")
    log.warning("doubled %d", number)
    return 2 * number, os.getpid()


def refuse(why: str, say: Say) -> None:
    """Raise what is foreseen."""
    raise PlanRefused(why)


def stumble(say: Say) -> None:
    """Raise what is not."""
    raise ZeroDivisionError("a bug")


def die(folder: Path, times: int, by: int, say: Say) -> int:
    """End by a signal, or be stopped by it, so many times; then how often."""
    died = len(list(folder.iterdir()))
    (folder / f"{os.getpid()}").touch()
    if died < times:
        os.kill(os.getpid(), by)
    return died


def sleep(folder: Path, say: Say) -> None:
    """Say where, and do nothing for long."""
    (folder / f"{os.getpid()}").touch()
    say("asleep")
    time.sleep(600)


def secrets(say: Say) -> list[str]:
    """Names in the environment that begin with ANTHROPIC, and how Ctrl-C is taken."""
    return [name for name in os.environ if name.startswith("ANTHROPIC")] + [str(signal.getsignal(signal.SIGINT))]
