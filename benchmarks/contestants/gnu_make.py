"""GNU make -j: one rule a task, done when its stamp file is there."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.contestants.sleeping import Run, Tasks, schedule


@contextmanager
def opened(executors: int) -> Iterator[Run]:
    """Nothing has to be started."""

    def run(tasks: Tasks, folder: Path) -> None:
        rules = [f"{task}: {' '.join(before)}\n\t@sleep {seconds} && touch $@" for task, before, seconds, _ in tasks]
        text = "\n".join([f"all: {' '.join(task for task, *_ in tasks)}", *rules, ""])
        (folder / "Makefile").write_text(text)
        subprocess.run(["make", "-s", f"-j{executors}", "all"], cwd=folder, check=True)

    yield run


if __name__ == "__main__":
    schedule(opened)
