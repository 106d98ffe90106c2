"""Luigi: local scheduler, worker processes, targets as files; priorities, and waits shortened, as its docs offer."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import luigi

from benchmarks.contestants.sleeping import Run, Tasks, schedule


class Sleep(luigi.Task):  # type: ignore[misc]  # luigi is not installed where types are checked
    """One task; what it is follows from its name."""

    name = luigi.Parameter()
    shape = luigi.Parameter()
    plan: ClassVar[dict[str, Any]] = {}
    folder: ClassVar[Path]

    @property
    def priority(self) -> float:
        """The longest first."""
        return float(self.plan[self.name][3])

    def requires(self) -> list[Sleep]:
        """Its dependencies."""
        return [Sleep(name=name, shape=self.shape) for name in self.plan[self.name][1]]

    def output(self) -> Any:
        """The file that says it is done."""
        return luigi.LocalTarget(str(self.folder / self.name))

    def run(self) -> None:
        """Sleep."""
        time.sleep(self.plan[self.name][2])
        self.output().open("w").close()


@contextmanager
def opened(executors: int) -> Iterator[Run]:
    """Nothing has to be started."""
    logging.disable(logging.CRITICAL)
    config = luigi.configuration.get_config()
    for option, value in (
        ("wait_interval", "0.01"),
        ("wait_jitter", "0.005"),
        ("ping_interval", "5"),
        ("check_unfulfilled_deps", "false"),
        ("cache_task_completion", "true"),
        ("task_process_context", ""),
    ):
        config.set("worker", option, value)

    def run(tasks: Tasks, folder: Path) -> None:
        Sleep.plan = {task[0]: task for task in tasks}
        Sleep.folder = folder
        if not luigi.build(
            [Sleep(name=task[0], shape=folder.name) for task in tasks], workers=executors, local_scheduler=True
        ):
            raise SystemExit("luigi failed")

    yield run


if __name__ == "__main__":
    schedule(opened)
