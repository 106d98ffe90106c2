"""Running the real command line against a fake API server, and looking at its processes."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.fake_api import KEY, FakeApi
from tests.journals import read_all

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = [sys.executable, str(ROOT / "orchestrator.py")]


def typed(command: str, directory: Path) -> str:
    """What this program, as the tests start it, tells a person to type."""
    return f"{' '.join(PROGRAM)} {command} {directory}"


_BUILD = ("run", "batch", "resume", "retry")
_BUILD_NOTHING = ("plan", "status", "logs", "init", "doctor", "schema", "check", "repair", "export")


def command(*arguments: str) -> list[str]:
    """The words that start the program; it agrees to live runs without a cap, which most tests are about."""
    first, *rest = arguments or ("--help",)
    if first in _BUILD:
        return [*PROGRAM, first, "--yes", *rest]
    alone = first in _BUILD_NOTHING or first in ("--help", "-h", "--version")
    return [*PROGRAM, *arguments] if alone else [*PROGRAM, "--yes", *arguments]


def environment(url: str | None, **extra: str) -> dict[str, str]:
    """The test's environment with this endpoint and no other credential."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ANTHROPIC")}
    live = {"ANTHROPIC_BASE_URL": url, "ANTHROPIC_API_KEY": KEY} if url else {}
    return {**kept, **live, **extra}


@contextlib.contextmanager
def started(
    *arguments: str,
    url: str | None = None,
    cwd: Path | None = None,
    variables: dict[str, str] | None = None,
    prefix: Sequence[str] = (),
) -> Iterator[subprocess.Popen[str]]:
    """The program, running in a session of its own; all of it is killed at the end.

    `variables`: of its environment. `prefix`: the words before its command line, for a program that becomes it.
    """
    process = subprocess.Popen(
        [*prefix, *command(*arguments)],
        env=environment(url, **(variables or {})),
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert process.stdout
        process.stdout.close()


def run(
    *arguments: str,
    api: FakeApi | None = None,
    cwd: Path | None = None,
    code: int = 0,
    variables: dict[str, str] | None = None,
    prefix: Sequence[str] = (),
) -> str:
    """Run the program to its end; what it printed. Fails unless it ends with `code`."""
    with started(*arguments, url=api.url if api else None, cwd=cwd, variables=variables, prefix=prefix) as process:
        output, _ = process.communicate(timeout=230)
        assert process.returncode == code, output
        return output


def quiet(*arguments: str, api: FakeApi | None = None, code: int = 0) -> str:
    """Run the program to its end; what is on its standard output alone."""
    url = api.url if api else None
    done = subprocess.run(
        command(*arguments), env=environment(url), capture_output=True, text=True, check=False, timeout=230
    )
    assert done.returncode == code, done.stderr
    return done.stdout


def summary(directory: Path) -> dict[str, Any]:
    """The run's summary."""
    found: dict[str, Any] = json.loads((directory / "execution_summary.json").read_text())
    return found


def moves(directory: Path) -> list[dict[str, Any]]:
    """The queue's task moves."""
    return [record for record in read_all(directory / "queue.jsonl") if "task" in record]


def family(directory: Path) -> set[int]:
    """Processes that hold the run's lock open: orchestrator, gateway, workers."""
    lock = (directory / "run.lock").stat()
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                links = [link.stat() for link in (entry / "fd").iterdir()]
                if any((link.st_dev, link.st_ino) == (lock.st_dev, lock.st_ino) for link in links):
                    found.add(int(entry.name))
    return found


def workers(directory: Path, orchestrator: int) -> set[int]:
    """The executor processes: those of the run whose parent is the orchestrator's fork server."""
    return {pid for pid in family(directory) if _parent(_parent(pid)) == orchestrator}


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def wait_until(condition: Callable[[], object], timeout_s: float = 120) -> None:
    """Return when the condition holds; AssertionError when it never does."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it never came to that"
        time.sleep(0.02)


def tree(directory: Path) -> dict[str, str]:
    """The project's own files under src and tests, and the tasks' documents."""
    return {
        path.relative_to(directory).as_posix(): path.read_text()
        for root in ("src", "tests", "docs")
        for path in sorted((directory / root).rglob("*"))
        if path.is_file() and path.suffix in (".py", ".md")
    }


def recount(directory: Path, *options: str) -> list[str]:
    """The differences between the run's summary and what its other files say, by `tests.checks.recount`."""
    counting = [sys.executable, "-m", "tests.checks.recount", str(directory), *options]
    done = subprocess.run(counting, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == bool(done.stdout), done.stderr
    return done.stdout.splitlines()


def fingerprint(directory: Path) -> dict[str, str]:
    """Mode and content of every file of a run, by path, but its log and run.lock, which names the last owner."""
    changing = (directory / "orchestrator.log", directory / "run.lock")
    files = [path for path in sorted(directory.rglob("*")) if path.is_file() and path not in changing]
    return {
        str(path.relative_to(directory)): f"{path.stat().st_mode:o} {hashlib.sha256(path.read_bytes()).hexdigest()}"
        for path in files
    }
