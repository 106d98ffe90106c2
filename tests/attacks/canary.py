"""A key whose every appearance is looked for: in all forms, in every file, in git's objects and in processes."""

from __future__ import annotations

import base64
import contextlib
import ctypes
import os
import re
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from parallel_orchestrator.sandbox import reaper

CANARY = "sk-ant-api03-Qm7xkX2-vR9tLw4ZsYb1NcJd8HfGp0eUaTi6oKxBn3y_Vj5CrMlWqSzDgEhFuIvOtPkAyXbR2s9J4w7e0QzLm-8yHUAgAA"
"""Of a real key's shape and length."""
BACKWARDS = CANARY[::-1]
"""None of its forms: what a model says to have a command make the key without saying it."""


@cache
def forms() -> dict[str, bytes]:
    """The key in each form that is looked for."""
    data = CANARY.encode()
    found = {
        "plain": data,
    }
    for shift in range(3):
        # Three bytes less at either end: what is left does not depend on what stands beside the key.
        inner = data[3 - shift : -6]
        inner = inner[: len(inner) // 3 * 3]
        found[f"base64, shifted by {shift}"] = base64.b64encode(inner)
        found[f"base64 for URLs, shifted by {shift}"] = base64.urlsafe_b64encode(inner)
    return found


def found_in(data: bytes) -> list[str]:
    """The forms of the key that `data` holds, base64 also when it is wrapped."""
    unwrapped = re.sub(rb"\s|\\+[nr]", b"", data)
    return [name for name, form in forms().items() if form in data or form in unwrapped]


def leaks(directory: Path) -> list[str]:
    """Every file and git object below `directory` that holds the key, in whichever form; names count as well."""
    told = []
    for path in directory.rglob("*"):
        content = path.read_bytes() if path.is_file() else b""
        told += [f"{path}: {form}" for form in found_in(content + str(path).encode())]
    for repository in directory.rglob(".git"):
        command = ["git", f"--git-dir={repository}", "cat-file", "--batch", "--batch-all-objects"]
        objects = subprocess.run(command, capture_output=True, check=True, env={"PATH": "/usr/bin:/bin"}).stdout
        assert objects
        told += [f"objects of {repository}: {form}" for form in found_in(objects)]
    return told


@contextmanager
def processes_watched() -> Iterator[set[str]]:
    """Meanwhile, the command lines of what is below this process that hold the key, or whose environment does.

    What daemonises itself is below this process, too.
    """
    ctypes.CDLL(None).prctl(reaper.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    seen: set[str] = set()
    over = threading.Event()

    def watch() -> None:
        while not over.is_set():
            for pid in reaper.descendants(os.getpid()):
                _look(Path(f"/proc/{pid}"), seen)
            time.sleep(0.05)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield seen
    finally:
        over.set()
        watcher.join()


def _look(process: Path, seen: set[str]) -> None:
    with contextlib.suppress(OSError):
        environment = (process / "environ").read_bytes()  # first: between both it may become another program
        command = (process / "cmdline").read_bytes()
        if found_in(command):
            seen.add(f"command line {command!r}")
        if CANARY.encode() in environment:
            seen.add(f"environment of {command.replace(bytes(1), b' ').decode(errors='replace')}")
