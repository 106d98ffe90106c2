"""Every git call of this program: a minimal environment, only our configuration, no hooks, no filters.

A tree that an agent wrote must never make git run something. So every call names the repository and the work tree,
reads neither the system's, the user's nor the repository's own configuration (`safe_git_dir`), and gets an environment
that is built from nothing.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from parallel_orchestrator.records.errors import CannotGoOn, UsageError
from parallel_orchestrator.trunk.git.safe_git_dir import check_safe_git_dir, safe_git_dir

OLDEST_GIT = (2, 38)
"""The first version with `merge-tree --write-tree`."""

_SETTINGS = {
    "core.hooksPath": "/dev/null",
    "core.fsmonitor": "false",
    "core.attributesFile": "/dev/null",
    "core.excludesFile": "/dev/null",
    "core.autocrlf": "false",
    "core.symlinks": "true",
    "core.fsync": "all",
    "core.quotePath": "false",
    "commit.gpgSign": "false",
    "gc.auto": "0",
    "maintenance.auto": "false",
    "protocol.allow": "never",
    # A task's change stays in the files that the task wrote: git guesses no renames.
    "merge.renames": "false",
    "merge.directoryRenames": "false",
    "merge.conflictStyle": "merge",
}

_IDENTITY = ("Parallel Orchestrator", "orchestrator@localhost")
AUTHOR = "{} <{}>".format(*_IDENTITY)
"""Author of every commit, as git writes it."""
_TIMEOUT_S = 600.0


class GitFailed(CannotGoOn):
    """Git failed: a full disk, a damaged repository. No task is to blame."""


def require() -> None:
    """Raise UsageError unless a git that is new enough is installed."""
    wanted = ".".join(map(str, OLDEST_GIT))
    if shutil.which("git") is None:
        raise UsageError(f"git was not found on PATH. Install git {wanted} or newer, then start again.")
    try:
        done = subprocess.run(["git", "--version"], capture_output=True, check=False, env=_environment(), timeout=60)
        version = os.fsdecode(done.stdout)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UsageError(f"git on PATH does not start ({error}). Install git {wanted} or newer.") from error
    numbers = re.search(r"(\d{1,9})\.(\d{1,9})", version)
    if numbers is None or (int(numbers[1]), int(numbers[2])) < OLDEST_GIT:
        raise UsageError(
            f"git {wanted} or newer is needed; found {version.strip() or 'no version'}. Install a newer git."
        )


class Git:
    """Git on one repository and one work tree. `git_dir` replaces the safe git-dir while that does not exist."""

    def __init__(
        self, repository: Path, work_tree: Path, inherited: tuple[int, ...] = (), git_dir: Path | None = None
    ) -> None:
        self.repository = repository
        self._git_dir = git_dir or safe_git_dir(repository)
        self.work_tree = work_tree
        self.inherited = inherited
        """Descriptors that each git process inherits. A git outlives its killed parent; as it inherits the lock's
        descriptor, no peer gets the lock before that git ends."""

    def __call__(self, *arguments: str, feed: bytes = b"", accept: tuple[int, ...] = (0,)) -> bytes:
        """Return the standard output of one git call.

        Raises GitFailed when its exit code is not in `accept`, Tampered when the safe git-dir was changed.
        """
        return self.outcome(*arguments, feed=feed, accept=accept)[1]

    def outcome(self, *arguments: str, feed: bytes = b"", accept: tuple[int, ...] = (0,)) -> tuple[int, bytes]:
        """Return exit code and standard output."""
        try:
            done = subprocess.run(
                [*self._command(), *arguments],
                input=feed,
                capture_output=True,
                check=False,
                cwd=self.work_tree,
                env=_environment(self.repository / "index"),
                timeout=_TIMEOUT_S,
                pass_fds=self.inherited,
                process_group=0,  # Ctrl-C in the terminal must not stop git between two writes
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise GitFailed(f"git {arguments[0]} in {self.repository} did not run: {error}") from error
        if done.returncode not in accept:
            raise self._failed(arguments[0], done.returncode, done.stderr)
        return done.returncode, done.stdout

    def text(self, *arguments: str, feed: bytes = b"") -> str:
        """Return the standard output as text without the last newline."""
        return os.fsdecode(self(*arguments, feed=feed)).rstrip("\n")

    @contextmanager
    def conversation(self, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
        """Run a git process that reads questions on standard input and answers on standard output."""
        with subprocess.Popen(
            [*self._command(), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=self.work_tree,
            env=_environment(self.repository / "index"),
            process_group=0,
        ) as process:
            try:
                yield process
            finally:
                process.kill()

    def _command(self) -> list[str]:
        # Before each call, not once: an agent without a sandbox can change the git-dir while the run works.
        check_safe_git_dir(self.repository)
        settings = [part for name, value in _SETTINGS.items() for part in ("-c", f"{name}={value}")]
        return ["git", f"--git-dir={self._git_dir}", f"--work-tree={self.work_tree}", *settings]

    def _failed(self, verb: str, code: int, complaint: bytes) -> GitFailed:
        message = os.fsdecode(complaint).strip()[-2000:] or "no message"
        return GitFailed(
            f"git {verb} in {self.repository} ended with {code}: {message}. "
            "Nothing that was merged is lost. Correct the cause, then resume."
        )


def _environment(index: Path | None = None) -> dict[str, str]:
    name, address = _IDENTITY
    environment = {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": "/nonexistent",
        "LC_ALL": "C",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_ATTR_NOSYSTEM": "1",
        "GIT_NO_REPLACE_OBJECTS": "1",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_AUTHOR_NAME": name,
        "GIT_AUTHOR_EMAIL": address,
        "GIT_COMMITTER_NAME": name,
        "GIT_COMMITTER_EMAIL": address,
    }
    return environment | ({"GIT_INDEX_FILE": str(index)} if index else {})
