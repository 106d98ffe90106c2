"""The same by multiprocessing's plain spawn: each process imports the SDK for itself."""

from __future__ import annotations

import multiprocessing
import time
from pathlib import Path
from typing import Any

from benchmarks.contestants import Job, answer
from benchmarks.contestants.our_start import pss_mib
from benchmarks.work import become_ready


def _work(job: Job) -> Any:
    folder = Path(job["folder"])
    context = multiprocessing.get_context("spawn")
    begun = time.monotonic()
    processes = [context.Process(target=_hold, args=(str(folder),), daemon=True) for _ in range(job["executors"])]
    for process in processes:
        process.start()
    while len(list(folder.glob("up.*"))) < len(processes):
        time.sleep(0.01)
    memory = sorted(pss_mib(process.pid or 0) for process in processes)
    ups = sorted(float(file.read_text()) for file in folder.glob("up.*"))
    return {"first": ups[0] - begun, "last": ups[-1] - begun, "pss_mib": memory[len(memory) // 2], "most": memory[-1]}


def _hold(folder: str) -> None:
    become_ready(folder)
    time.sleep(300)


if __name__ == "__main__":
    answer(_work)
