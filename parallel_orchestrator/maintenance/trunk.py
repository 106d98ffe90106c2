"""The trunk's repository: what is wrong with it, and what repair restores before it looks at the history."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from parallel_orchestrator.maintenance.history import History, project_tree
from parallel_orchestrator.maintenance.lost_commit import KnownCommit
from parallel_orchestrator.records.errors import CannotGoOn
from parallel_orchestrator.store.paths import RunDirectory
from parallel_orchestrator.system.files import write_whole
from parallel_orchestrator.trunk.changes.folder import Difference
from parallel_orchestrator.trunk.evidence import rename_evidence
from parallel_orchestrator.trunk.git.git import Git, GitFailed
from parallel_orchestrator.trunk.git.repository import Commit, Repository
from parallel_orchestrator.trunk.git.safe_git_dir import (
    Tampered,
    check_safe_git_dir,
    create_safe_git_dir,
    create_safe_git_dir_in,
    safe_git_dir,
)

_ANY_CODE = tuple(range(256))
_NAMED = re.compile(r"\b[0-9a-f]{40}\b|objects/[0-9a-f]{2}/[0-9a-f]{38}")
_DERIVED = ("info/commit-graph", "info/commit-graphs/commit-graph-chain", "pack/multi-pack-index")
"""Caches that git makes from other objects. They name lost objects too."""

Keep = Callable[[Path], None]
"""Copies a file into the backup before it changes."""


@dataclass
class TrunkState:
    """What git and the output directory say about a trunk."""

    faults: list[str] = field(default_factory=list)
    commits: list[Commit] | None = None
    """Oldest first; None when they cannot be read."""
    differences: list[Difference] = field(default_factory=list)
    """The trunk's files that are missing or different in the output directory."""


def examine(run: RunDirectory) -> TrunkState:
    """Look at a run's repository without changing it. One that does not exist yet has no commits and no faults."""
    state = TrunkState()
    if not run.git.exists():
        state.commits = []
        return state
    try:
        with opened(run) as repository:
            state.faults = [f"{name} is not as it was made" for name in repository.broken_files()]
            if complaint := _fsck(repository.git):
                state.faults.append(complaint[:1000])
            state.commits = repository.log(repository.head())
            state.differences = repository.differences()
    except CannotGoOn as error:
        state.faults.append(_short(error))
    return state


@contextmanager
def opened(run: RunDirectory) -> Iterator[Repository]:
    """The repository, for reading. Where an earlier version made no view of it, a temporary one is used."""
    if safe_git_dir(run.git).exists():
        yield Repository(run)
        return
    with TemporaryDirectory(prefix="view-") as folder:
        create_safe_git_dir_in(run.git, Path(folder))
        yield Repository(run, Path(folder))


def has_tree(run: RunDirectory, tree: str) -> bool:
    """Returns whether a tree and all that is in it can be read."""
    with opened(run) as repository:
        try:
            listed = repository.git("rev-list", "--objects", "--no-object-names", tree, "--")
            if b" missing" in repository.git("cat-file", "--batch-check", feed=listed):
                return False
            repository.git("cat-file", "--batch", "--buffer", feed=listed)  # fails at a damaged one
        except GitFailed:
            return False
    return True


def base_for(run: RunDirectory, workspace: Path) -> str:
    """Returns the newest commit whose files are all in the workspace, else the first commit."""
    there = {path.relative_to(workspace).as_posix() for path in workspace.rglob("*")}
    with opened(run) as repository:
        commits = [commit.id for commit in repository.log(repository.head())]
        return next((name for name in reversed(commits) if repository.tree(name).keys() <= there), commits[0])


def repair_trunk(run: RunDirectory, known: Sequence[KnownCommit], keep: Keep, renamed: dict[str, str]) -> Iterator[str]:
    """Repair what can be repaired; yields each step as a sentence.

    `known`: what the run's other files say of commits, oldest first. `renamed`: receives the commits that get new
    names, old to new.
    """
    yield from _restore_view(run, keep)
    repository = Repository(run)
    for name, text in repository.broken_files().items():
        keep(run.git / name)
        (run.git / name).parent.mkdir(exist_ok=True)
        write_whole(run.git / name, text)
        yield f".git/{name} was written again; it is the same in every run"
    with repository.alone():
        for name in _DERIVED:
            if (cache := run.git / "objects" / name).is_file():
                keep(cache)
                cache.unlink()
        yield from _unpack(run, repository, keep)
        yield from _restore_objects(run, repository, keep)
        yield from History(run, repository, known, keep, renamed).repair()
        for old, new in renamed.items():
            rename_evidence(run, old, repository.about(new))
        yield from _restore_index(run, repository, keep)


def check_out_again(run: RunDirectory, keep: Keep) -> Iterator[str]:
    """Check the trunk out again, with a copy of each file that differs."""
    repository = Repository(run)
    repository.ensure_safe_git_dir()
    with repository.alone():
        differences = _keep_differences(run, repository, keep)
        repository.restore_checkout()
    for one in differences:
        yield f"{one.path} {'was gone' if one.missing else 'differed'}; it is as on the trunk again"


def _keep_differences(run: RunDirectory, repository: Repository, keep: Keep) -> list[Difference]:
    differences = repository.differences()
    for one in differences:
        keep(run.root / one.path)
    return differences


def _restore_view(run: RunDirectory, keep: Keep) -> Iterator[str]:
    try:
        check_safe_git_dir(run.git)
    except Tampered:
        view = safe_git_dir(run.git)
        for path in view.iterdir():
            keep(path)
        shutil.rmtree(view)
        yield ".git/view was changed, by an agent or by the disk; it was made again and is the same in every run"
    create_safe_git_dir(run.git)


def _restore_index(run: RunDirectory, repository: Repository, keep: Keep) -> Iterator[str]:
    try:
        repository.git("ls-files", "--stage")
    except GitFailed:
        keep(run.git / "index")
        (run.git / "index").unlink(missing_ok=True)
        yield "git's index was damaged; it is rebuilt from the trunk"
    try:
        _keep_differences(run, repository, keep)
        repository.restore_checkout()
    except GitFailed as error:
        yield f"the trunk's files cannot be checked out: {_short(error)}"


def _unpack(run: RunDirectory, repository: Repository, keep: Keep) -> Iterator[str]:
    """Where git cannot use one of its packs, take every readable object out of them."""
    folder = run.git / "objects" / "pack"
    halves = {path.stem for path in folder.glob("*.pack")} ^ {path.stem for path in folder.glob("*.idx")}
    if not halves and not (any(folder.glob("*.pack")) and "pack" in _fsck(repository.git)):
        return
    for path in sorted(folder.iterdir()):
        keep(path)
        packed = path.read_bytes() if path.suffix == ".pack" else b""
        path.unlink()
        if packed:
            repository.git.outcome("unpack-objects", "-q", "-r", feed=packed, accept=_ANY_CODE)
    yield "git's packs were damaged; every object that can be read was taken out of them"


def _restore_objects(run: RunDirectory, repository: Repository, keep: Keep) -> Iterator[str]:
    """Store the files of index, output directory and workspaces again: content names an object, so lost ones return."""
    named = {match.removeprefix("objects/").replace("/", "") for match in _NAMED.findall(_fsck(repository.git))}
    lost = sorted(name for name in named - {"0" * 40} if not _is_readable(repository.git, name))
    if not lost:
        return
    for name in lost:
        damaged = run.git / "objects" / name[:2] / name[2:]
        if damaged.exists():
            keep(damaged)
            damaged.unlink()
    repository.git.outcome("write-tree", "--missing-ok", accept=_ANY_CODE)
    for folder in [run.root, *run.root.glob("executor_*/*/")]:
        repository.objects.write_tree(project_tree(repository.objects, folder))
    repository.objects.sync(lost)
    for name in lost:
        back = _is_readable(repository.git, name)
        yield f"git object {name} " + ("was restored from a file in the run directory" if back else "is lost")


def _fsck(git: Git) -> str:
    """Returns all that git finds wrong, in its words; empty when it finds nothing."""
    code, printed = git.outcome("fsck", "--no-dangling", "--no-progress", accept=_ANY_CODE)
    if not code:
        return ""
    try:
        git("fsck", "--no-dangling", "--no-progress")  # its standard error is in the exception
    except GitFailed as error:
        return " ".join([_short(error), *printed.decode(errors="replace").splitlines()])
    return ""


def _is_readable(git: Git, name: str) -> bool:
    try:
        git("cat-file", git.text("cat-file", "-t", name), name)
    except GitFailed:
        return False
    return True


def _short(error: CannotGoOn) -> str:
    return " ".join(str(error).partition(". Nothing that")[0].split())
