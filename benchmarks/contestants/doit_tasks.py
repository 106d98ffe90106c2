"""doit -n: tasks with task_dep, run by its process pool."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from doit.cmd_base import ModuleTaskLoader
from doit.doit_cmd import DoitMain

from benchmarks.contestants.sleeping import Run, Tasks, schedule


def _pause(seconds: float) -> None:
    import time

    time.sleep(seconds)


@contextmanager
def opened(executors: int) -> Iterator[Run]:
    """Nothing has to be started."""

    def run(tasks: Tasks, folder: Path) -> None:
        def task_all() -> Iterator[dict[str, Any]]:
            for task, before, seconds, _ in tasks:
                dependencies = [f"all:{dependency}" for dependency in before]
                yield {"name": task, "actions": [(_pause, [seconds])], "task_dep": dependencies}

        config = {"dep_file": str(folder / "done.db"), "verbosity": 0, "reporter": "zero"}
        loader = ModuleTaskLoader({"task_all": task_all, "DOIT_CONFIG": config})
        if DoitMain(loader).run(["run", "-n", str(executors), "-P", "process"]):
            raise SystemExit("doit failed")

    yield run


if __name__ == "__main__":
    schedule(opened)
