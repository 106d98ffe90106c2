"""Queues on disk that can be installed: take one, and acknowledge it where that exists."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import diskcache
import huey
import litequeue
import persistqueue

from benchmarks.contestants import Job
from benchmarks.contestants.taking import Opened, Pair, race


def _open(folder: Path, peer: str) -> tuple[Callable[[str], Any], Pair]:
    """Its way to put a message, and its way to take and acknowledge one."""
    match peer:
        case "huey_sqlite" | "huey_file":
            made = huey.SqliteHuey(filename=str(folder / "db")) if "sql" in peer else huey.FileHuey(path=str(folder))
            storage = made.storage
            return lambda text: storage.enqueue(text.encode()), lambda: storage.dequeue() is not None
        case "persist_queue":
            ack_queue = persistqueue.SQLiteAckQueue(str(folder), multithreading=True, auto_resume=False)

            def take_and_ack() -> bool:
                try:
                    ack_queue.ack(ack_queue.get(block=False))
                except persistqueue.Empty:
                    return False
                return True

            return ack_queue.put, take_and_ack
        case "litequeue":
            lite = litequeue.LiteQueue(str(folder / "db"))

            def pop_and_mark() -> bool:
                message = lite.pop()
                if message is not None:
                    lite.done(message.message_id)
                return message is not None

            return lite.put, pop_and_mark
        case _:
            deque = diskcache.Deque(directory=str(folder))

            def pop() -> bool:
                try:
                    deque.popleft()
                except IndexError:
                    return False
                return True

            return deque.append, pop


def fill(folder: Path, job: Job) -> None:
    """So many messages of the size of our records."""
    put, _ = _open(folder, job["peer"])
    for number in range(job["tasks"]):
        put(f"task_{number}".ljust(job["bytes"]))


def opened(folder: Path, job: Job, _number: int) -> Opened:
    """A handle of the process's own."""
    return _open(folder, job["peer"])[1], []


if __name__ == "__main__":
    race(fill, opened)
