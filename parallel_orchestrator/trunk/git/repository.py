"""The trunk's repository in the output directory: how it begins, its commits, its head and its checkout.

The branch is the truth. The files beside it are its checkout, which is brought up to
date after the branch has moved, and finished by the next call when a kill came between.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from parallel_orchestrator.records.errors import CannotGoOn, UsageError
from parallel_orchestrator.store.branch import TRUNK
from parallel_orchestrator.store.paths import RunDirectory
from parallel_orchestrator.system.files import disk_error, disk_faults_in, replace_by_lock
from parallel_orchestrator.trunk.changes.folder import Difference, add_to_folder, differences
from parallel_orchestrator.trunk.git.git import AUTHOR, Git, GitFailed
from parallel_orchestrator.trunk.git.objects import FILE, Entry, Objects, Tree
from parallel_orchestrator.trunk.git.safe_git_dir import CONFIG, check_safe_git_dir, create_safe_git_dir, safe_git_dir

BRANCH = TRUNK
PROJECT_FILE = "pyproject.toml"
"""Ours: it tells pytest where things are. No task owns it."""

PROJECT_TEXT = b"""\
[tool.pytest.ini_options]
pythonpath = ["src"]
testpaths = ["tests"]
"""

_COMMIT = re.compile("[0-9a-f]{40}")
_MAY_REFUSE = (0, 1, 128)
"""Exit codes of a git that was asked to change files, and finds others than it expected."""
_MARK = "The trunk of a Parallel Orchestrator run.\n"
_EXCLUDE = "/*\n!/src/\n!/tests/\n!/docs/\n!/README.md\n!/pyproject.toml\n__pycache__/\n*.pyc\n"


@dataclass(frozen=True)
class Commit:
    """A commit of the trunk and what its trailers say."""

    id: str
    trailers: Mapping[str, str]

    def number(self, trailer: str) -> int:
        """A trailer that is a number; 0 when it is absent."""
        value = self.trailers.get(trailer, "0")
        return int(value) if value.isdecimal() else 0


class Repository:
    """Commits, head and checkout. Whatever moves the head or the checkout is called within `alone`. For one thread."""

    def __init__(self, run: RunDirectory, git_dir: Path | None = None) -> None:
        self._run = run
        self.git = Git(run.git, run.root, git_dir=git_dir)
        self.objects = Objects(self.git)

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Hold merge.lock: no other process of the run, and no git of a killed one, moves the trunk meanwhile."""
        with held(self._run.merge_lock) as descriptor:
            self.git.inherited = (descriptor,)
            try:
                yield
            finally:
                self.git.inherited = ()

    def refuse_foreign(self) -> None:
        """Raise UsageError when the output directory holds a repository that is not ours."""
        if not (self._run.git.exists() or self._run.git.is_symlink()):
            return
        with contextlib.suppress(OSError, UnicodeDecodeError):
            if (self._run.git / "description").read_text() == _MARK and not self._run.git.is_symlink():
                return
        raise UsageError(
            f"{self._run.root} holds a git repository that is not a run's. Choose another output directory."
        )

    def create(self) -> None:
        """Make the repository with its first commit, by rename: what stands under its name is always whole."""
        if self._run.git.exists():
            self.ensure_safe_git_dir()
            return
        draft = self._run.git.with_name(".git-new")
        shutil.rmtree(draft, ignore_errors=True)
        git = Git(draft, self._run.root, self.git.inherited, git_dir=draft)
        draft.mkdir(mode=0o700)
        git("init", "--quiet", "--template=", "--object-format=sha1", "--initial-branch=main")
        for name, text in {"config": CONFIG, "description": _MARK, "info/exclude": _EXCLUDE}.items():
            (draft / name).parent.mkdir(exist_ok=True)
            (draft / name).write_text(text)
        (draft / "evidence").mkdir()
        objects = Objects(git)
        tree = objects.write_tree({PROJECT_FILE: Entry(FILE, objects.write("blob", PROJECT_TEXT))})
        first = git.text("commit-tree", tree, "-m", "Begin")
        git("update-ref", BRANCH, first)
        if not _COMMIT.fullmatch(first) or _text(draft / BRANCH) != f"{first}\n" or not objects.loose(first):
            raise did_nothing("commit-tree", self._run.git)
        create_safe_git_dir(draft)
        draft.rename(self._run.git)

    def ensure_safe_git_dir(self) -> None:
        """Make the view of a run that an earlier version began. For the run's owner alone."""
        if self._run.git.exists():
            with disk_faults_in(self._run.git, ours=True):
                create_safe_git_dir(self._run.git)

    def head(self) -> str:
        """The commit that the trunk stands at. Raises Tampered where a git call would."""
        check_safe_git_dir(self._run.git)
        name = (_text(self._run.git / BRANCH) or "").rstrip("\n")
        if self._loose_commit(name):
            return name
        commit = self.git.text("rev-parse", "--verify", f"{BRANCH}^{{commit}}")
        if not _COMMIT.fullmatch(commit):
            raise did_nothing("rev-parse", self._run.git)
        return commit

    def commit(
        self, tree: str, parent: str, subject: str, trailers: Mapping[str, object], *, durable: bool = False
    ) -> str:
        """Store a commit; the trunk does not move yet."""
        lines = "".join(f"{name}: {value}\n" for name, value in trailers.items())
        author = f"{AUTHOR} {int(time.time())} {time.strftime('%z')}"
        about = f"tree {tree}\nparent {parent}\nauthor {author}\ncommitter {author}\n\n{subject}\n\n{lines}"
        return self.objects.write("commit", about.encode(), durable=durable)

    def move(self, old: str, new: str) -> None:
        """Move the trunk from `old` to `new`; GitFailed when it does not stand at `old`. Within `alone`."""
        self._remove_stale_locks()
        branch = self._run.git / BRANCH
        if (_text(branch) or "").rstrip("\n") != old:
            self.git("update-ref", BRANCH, new, old)
            if self.head() != new:
                raise did_nothing("update-ref", self._run.git)
            return
        # As git does it, so that a git of somebody else's keeps out meanwhile.
        replace_by_lock(branch, f"{new}\n".encode())

    def advance(self, since: str) -> bool:
        """Write what differs between `since`, which is checked out, and the trunk. Other files may have been edited.

        False, and nothing is written, where one that differs was edited, or something else is checked out.
        """
        self._remove_stale_locks()
        return self.git.outcome("read-tree", "-m", "-u", since, BRANCH, accept=_MAY_REFUSE)[0] == 0

    def check_out(self) -> None:
        """Make the trunk's files in the output directory those of the trunk, whatever they hold now.

        `edits.check_out` does it for files that a person may have edited.
        """
        self._remove_stale_locks()
        self.git("read-tree", "--reset", "-u", BRANCH)

    def differences(self) -> list[Difference]:
        """The trunk's files that are missing in the output directory, or differ there."""
        return list(differences(self._run.root, self.tree(self.head())))

    def restore_missing(self) -> tuple[list[str], list[str]]:
        """Write those of the trunk's files that are gone; their paths, and those of files that differ.

        A file that differs may be a person's work, and stays. For the run's owner alone.
        """
        wrong, tree = self.differences(), self.tree(self.head())
        missing = [one.path for one in wrong if one.missing]
        add_to_folder(self.objects, self._run.root, {path: tree[path] for path in missing})
        return missing, [one.path for one in wrong if not one.missing]

    def restore_checkout(self) -> None:
        """`check_out`, and make sure of it. What differs is removed first: git may take it for unchanged.

        Raises GitFailed when files of the output directory still differ from the trunk's afterwards.
        """
        for wrong in self.differences():
            with contextlib.suppress(OSError):  # a folder, for instance: git reports it
                (self._run.root / wrong.path).unlink(missing_ok=True)
        self.check_out()
        if left := [wrong.path for wrong in self.differences()]:
            more = f" and {len(left) - 3} more" if len(left) > 3 else ""
            raise GitFailed(
                f"git read-tree said that all is well, but {', '.join(left[:3])}{more} in {self._run.root} "
                "are not as on the trunk. Look at the `git` on PATH and at the disk, then resume."
            )

    def log(self, head: str, since: str = "") -> list[Commit]:
        """The commits up to `head`, oldest first; those after `since` alone where that is one of them."""
        found: list[Commit] = []
        name = head
        while name and name != since:
            parsed = self._loose_commit(name)
            if parsed is None:
                return self._log_of_git(f"{since}..{head}" if since else head)
            commit, name = parsed
            found.append(commit)
        return found[::-1]

    def about(self, commit: str) -> Commit:
        """One commit."""
        parsed = self._loose_commit(commit)
        return parsed[0] if parsed else self._log_of_git(commit, "-1")[0]

    def _log_of_git(self, commits: str, *options: str) -> list[Commit]:
        output = self.git.text("log", "--first-parent", "--reverse", "-z", "--format=%H%n%B", *options, commits, "--")
        found = [_commit(record) for record in output.split("\0") if record]
        if not found and ".." not in commits:
            raise did_nothing("log", self._run.git)
        return found

    def _loose_commit(self, name: str) -> tuple[Commit, str] | None:
        """A commit and its first parent's name, empty for the first one's; None when git has to be asked."""
        kind, data = self.objects.loose(name) or ("", b"")
        if kind != "commit":
            return None
        head, _, message = data.decode(errors="replace").partition("\n\n")
        parents = [line.removeprefix("parent ") for line in head.split("\n") if line.startswith("parent ")]
        return _commit(f"{name}\n{message}"), next(iter(parents), "")

    def tree(self, commit: str) -> Tree:
        """The files of a commit."""
        return self.objects.read_tree(commit)

    def broken_files(self) -> dict[str, str]:
        """Small files of the repository that never change and are not as `create` made them; what they have to hold."""
        fixed = {"HEAD": f"ref: {BRANCH}\n", "config": CONFIG, "description": _MARK, "info/exclude": _EXCLUDE}
        return {name: text for name, text in fixed.items() if _text(self._run.git / name) != text}

    def remove_leftovers(self) -> None:
        """Remove what killed processes left half-written. Only while no other process of the run lives."""
        shutil.rmtree(self._run.git.with_name(".git-new"), ignore_errors=True)
        for leftover in (self._run.git / "objects").glob("tmp_obj_*"):
            leftover.unlink(missing_ok=True)

    def _remove_stale_locks(self) -> None:
        """Remove lock files that a killed git left. Within `alone` no git of ours can be using them."""
        heads = self._run.git / "refs" / "heads"
        for folder in (self._run.git, safe_git_dir(self._run.git), heads):
            for lock in folder.glob("*.lock"):
                lock.unlink(missing_ok=True)


def did_nothing(verb: str, repository: Path) -> GitFailed:
    """Git ended well, and what it was asked for is not there."""
    return GitFailed(
        f"git {verb} in {repository} ended with 0 and did not do what it was asked. "
        "Look at the `git` on PATH and at the disk, then resume."
    )


def _text(path: Path) -> str | None:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError):
        return None


def commit_subject(text: str) -> str:
    """`text` without what could forge a second line or a terminal command; for commit subjects."""
    printable = "".join(c if c.isprintable() else " " for c in text)
    return os.fsencode(" ".join(printable.split())).decode(errors="replace")[:200]


def _commit(record: str) -> Commit:
    name, _, message = record.strip("\n").partition("\n")
    _, _, last = message.rstrip("\n").rpartition("\n\n")
    pairs = (line.partition(": ") for line in last.splitlines())
    return Commit(name, {key: value for key, mark, value in pairs if mark})


@contextlib.contextmanager
def held(path: Path) -> Iterator[int]:
    """Wait for the kernel lock on `path` and hold it; gives the descriptor that carries it. Not re-entrant.

    It is free as soon as its holder is dead, and every child that was given the descriptor is, too.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise disk_error(path, error) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    except OSError as error:
        os.close(descriptor)
        raise CannotGoOn(f"cannot lock {path}: {error.strerror}. Put the output directory on a local disk.") from error
    try:
        yield descriptor
    finally:
        os.close(descriptor)  # the file stays: removing it would let two holders lock two files of one name
