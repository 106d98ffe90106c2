"""The trunk's repository in the output directory: its creation, commits, head and checkout, and merge.lock.

The branch is the truth. The files in the output directory are its checkout. They are updated after the branch has
moved; when a kill comes between, the next call finishes the update.
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
from parallel_orchestrator.trunk.git.objects import FILE, Objects, Tree, TreeEntry
from parallel_orchestrator.trunk.git.safe_git_dir import CONFIG, check_safe_git_dir, create_safe_git_dir, safe_git_dir

BRANCH = TRUNK
PROJECT_FILE = "pyproject.toml"
"""Ours: it configures pytest. No task owns it."""

PROJECT_TEXT = b"""\
[tool.pytest.ini_options]
pythonpath = ["src"]
testpaths = ["tests"]
"""

_COMMIT = re.compile("[0-9a-f]{40}")
_MAY_REFUSE = (0, 1, 128)
"""Exit codes of a git that finds other files than it expected, and changes none."""
_MARK = "The trunk of a Parallel Orchestrator run.\n"
_EXCLUDE = "/*\n!/src/\n!/tests/\n!/docs/\n!/README.md\n!/pyproject.toml\n__pycache__/\n*.pyc\n"


@dataclass(frozen=True)
class Commit:
    """A commit of the trunk with its trailers."""

    id: str
    trailers: Mapping[str, str]

    def number(self, trailer: str) -> int:
        """Return a trailer that is a number; 0 when it is absent."""
        value = self.trailers.get(trailer, "0")
        return int(value) if value.isdecimal() else 0


class Repository:
    """Commits, head and checkout, for one thread. Callers move head and checkout only within `alone`."""

    def __init__(self, run: RunDirectory, git_dir: Path | None = None) -> None:
        self._run = run
        self.git = Git(run.git, run.root, git_dir=git_dir)
        self.objects = Objects(self.git)

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Hold merge.lock. Meanwhile neither a peer nor a git that outlived its killed parent moves the trunk."""
        with held(self._run.merge_lock) as descriptor:
            self.git.inherited = (descriptor,)
            try:
                yield
            finally:
                self.git.inherited = ()

    def refuse_foreign(self) -> None:
        """Raise UsageError when the output directory holds a repository that is not a run's."""
        if not (self._run.git.exists() or self._run.git.is_symlink()):
            return
        with contextlib.suppress(OSError, UnicodeDecodeError):
            if (self._run.git / "description").read_text() == _MARK and not self._run.git.is_symlink():
                return
        raise UsageError(
            f"{self._run.root} holds a git repository that is not a run's. Choose another output directory."
        )

    def create(self) -> None:
        """Create the repository with its first commit, by rename: under its name it is always complete."""
        if self._run.git.exists():
            self.ensure_safe_git_dir()
            return
        # Everything is made under another name first. A kill before the rename leaves `.git-new`, which the next owner
        # removes; there is never a half-made `.git` that a later start would take for a person's repository.
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
        tree = objects.write_tree({PROJECT_FILE: TreeEntry(FILE, objects.write("blob", PROJECT_TEXT))})
        first = git.text("commit-tree", tree, "-m", "Begin")
        git("update-ref", BRANCH, first)
        # Not the exit codes count but what is on disk: a broken git on PATH can end with 0 and do nothing.
        if not _COMMIT.fullmatch(first) or _text(draft / BRANCH) != f"{first}\n" or not objects.loose(first):
            raise did_nothing("commit-tree", self._run.git)
        create_safe_git_dir(draft)
        draft.rename(self._run.git)

    def ensure_safe_git_dir(self) -> None:
        """Create the safe git-dir of a run that an earlier version began. Only the run's owner calls it."""
        if self._run.git.exists():
            with disk_faults_in(self._run.git, ours=True):
                create_safe_git_dir(self._run.git)

    def head(self) -> str:
        """Return the commit at the head of the trunk. Raises Tampered as a git call would."""
        check_safe_git_dir(self._run.git)
        # The branch's file is read without a git process, on each submission. Git is asked when it is not the usual
        # loose ref with a loose commit: after a person's `git pack-refs` or `git gc`.
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
        """Store a commit without moving the trunk."""
        lines = "".join(f"{name}: {value}\n" for name, value in trailers.items())
        author = f"{AUTHOR} {int(time.time())} {time.strftime('%z')}"
        about = f"tree {tree}\nparent {parent}\nauthor {author}\ncommitter {author}\n\n{subject}\n\n{lines}"
        return self.objects.write("commit", about.encode(), durable=durable)

    def move(self, old: str, new: str) -> None:
        """Move the trunk from `old` to `new`, within `alone`. Raises GitFailed when its head is not `old`."""
        # First the stale locks, under merge.lock: a killed git can have left main.lock, which would block the move.
        self._remove_stale_locks()
        branch = self._run.git / BRANCH
        # Usually the branch is a loose file at `old`. Otherwise git compares and swaps, and reports a move by others.
        if (_text(branch) or "").rstrip("\n") != old:
            self.git("update-ref", BRANCH, new, old)
            if self.head() != new:
                raise did_nothing("update-ref", self._run.git)
            return
        # By main.lock, as git does it: a person's own git that updates the branch now waits or fails.
        replace_by_lock(branch, f"{new}\n".encode())

    def advance(self, since: str) -> bool:
        """Write the files that differ between `since`, which is checked out, and the trunk.

        Returns False and writes nothing when one of them was edited, or when something else is checked out.
        """
        self._remove_stale_locks()
        # Two-way merge: git compares index and files with `since` and refuses as a whole when one was edited. So a
        # person's edit between two merges is never overwritten here.
        return self.git.outcome("read-tree", "-m", "-u", since, BRANCH, accept=_MAY_REFUSE)[0] == 0

    def check_out(self) -> None:
        """Overwrite the trunk's files in the output directory. `edits.check_out` keeps a person's edits first."""
        self._remove_stale_locks()
        # --reset overwrites edited files, so callers copy them aside first (`edits.keep_edits`).
        self.git("read-tree", "--reset", "-u", BRANCH)

    def differences(self) -> list[Difference]:
        """Return the trunk's files that are missing in the output directory or differ there."""
        return list(differences(self._run.root, self.tree(self.head())))

    def restore_missing(self) -> tuple[list[str], list[str]]:
        """Write the trunk's files that are missing. Returns their paths, and those of files that differ.

        A file that differs may be a person's work and stays. Only the run's owner calls it.
        """
        differing, tree = self.differences(), self.tree(self.head())
        missing = [difference.path for difference in differing if difference.missing]
        add_to_folder(self.objects, self._run.root, {path: tree[path] for path in missing})
        return missing, [difference.path for difference in differing if not difference.missing]

    def restore_checkout(self) -> None:
        """Check out and verify. Removes differing files first, as git may take them for unchanged.

        Raises GitFailed when files of the output directory still differ afterwards.
        """
        for wrong in self.differences():
            with contextlib.suppress(OSError):  # a folder, for instance: git reports it
                (self._run.root / wrong.path).unlink(missing_ok=True)
        self.check_out()
        if left := [wrong.path for wrong in self.differences()]:
            more = f" and {len(left) - 3} more" if len(left) > 3 else ""
            raise GitFailed(
                f"git read-tree reported success, but {', '.join(left[:3])}{more} in {self._run.root} "
                "differ from the trunk. Look at the `git` on PATH and at the disk, then resume."
            )

    def log(self, head: str, since: str = "") -> list[Commit]:
        """Return the commits up to `head`, oldest first; only those after `since` when it is one of them."""
        commits: list[Commit] = []
        name = head
        while name and name != since:
            parsed = self._loose_commit(name)
            if parsed is None:
                # One packed commit in the chain: git reads the whole range, so that both ways give the same list.
                return self._log_of_git(f"{since}..{head}" if since else head)
            commit, name = parsed
            commits.append(commit)
        return commits[::-1]

    def about(self, commit: str) -> Commit:
        """Return one commit."""
        parsed = self._loose_commit(commit)
        return parsed[0] if parsed else self._log_of_git(commit, "-1")[0]

    def _log_of_git(self, commits: str, *options: str) -> list[Commit]:
        output = self.git.text("log", "--first-parent", "--reverse", "-z", "--format=%H%n%B", *options, commits, "--")
        logged = [_commit(record) for record in output.split("\0") if record]
        if not logged and ".." not in commits:
            raise did_nothing("log", self._run.git)
        return logged

    def _loose_commit(self, name: str) -> tuple[Commit, str] | None:
        """Return a commit and its first parent (empty for the first commit); None when only git can read it."""
        kind, data = self.objects.loose(name) or ("", b"")
        if kind != "commit":
            return None
        head, _, message = data.decode(errors="replace").partition("\n\n")
        parents = [line.removeprefix("parent ") for line in head.split("\n") if line.startswith("parent ")]
        return _commit(f"{name}\n{message}"), next(iter(parents), "")

    def tree(self, commit: str) -> Tree:
        """Return the files of a commit."""
        return self.objects.read_tree(commit)

    def broken_files(self) -> dict[str, str]:
        """Return the constant files of the repository that were changed, with their right content."""
        fixed = {"HEAD": f"ref: {BRANCH}\n", "config": CONFIG, "description": _MARK, "info/exclude": _EXCLUDE}
        return {name: text for name, text in fixed.items() if _text(self._run.git / name) != text}

    def remove_leftovers(self) -> None:
        """Remove half-written files of killed processes. Only while no other process of the run lives."""
        # Another process of the run could be writing such a file now, so only the owner calls this, before its workers.
        shutil.rmtree(self._run.git.with_name(".git-new"), ignore_errors=True)
        for leftover in (self._run.git / "objects").glob("tmp_obj_*"):
            leftover.unlink(missing_ok=True)

    def _remove_stale_locks(self) -> None:
        """Remove lock files of a killed git. Within `alone` no git of ours uses them: each git inherits merge.lock."""
        # index.lock, HEAD.lock, main.lock. A person's own git may hold one for a moment, too; losing it makes that git
        # fail with an error, while a stale one would stop the run for good.
        heads = self._run.git / "refs" / "heads"
        for folder in (self._run.git, safe_git_dir(self._run.git), heads):
            for lock in folder.glob("*.lock"):
                lock.unlink(missing_ok=True)


def did_nothing(verb: str, repository: Path) -> GitFailed:
    """Return the error for a git that reported success without doing its work."""
    return GitFailed(
        f"git {verb} in {repository} ended with 0 but did nothing. "
        "Look at the `git` on PATH and at the disk, then resume."
    )


def _text(path: Path) -> str | None:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError):
        return None


def commit_subject(text: str) -> str:
    """Return `text` as one printable line of at most 200 characters, for a commit's subject."""
    printable = "".join(c if c.isprintable() else " " for c in text)
    return os.fsencode(" ".join(printable.split())).decode(errors="replace")[:200]


def _commit(record: str) -> Commit:
    name, _, message = record.strip("\n").partition("\n")
    _, _, last = message.rstrip("\n").rpartition("\n\n")
    pairs = (line.partition(": ") for line in last.splitlines())
    return Commit(name, {key: value for key, mark, value in pairs if mark})


@contextlib.contextmanager
def held(path: Path) -> Iterator[int]:
    """Wait for the kernel lock on `path` and hold it. Yields the descriptor that carries it. Not re-entrant.

    The kernel frees it when the holder and every child that inherited the descriptor have closed it or died. So a git
    that outlives a killed holder keeps the lock until it ends, and the next holder never moves the trunk beside it.
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
        os.close(descriptor)  # the file stays: if it were removed, two holders could lock two files of one name
