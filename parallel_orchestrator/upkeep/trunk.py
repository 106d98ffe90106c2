"""The trunk's repository: what git finds wrong with it, and what can be put back from what lies around it."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from parallel_orchestrator.records.errors import CannotGoOn
from parallel_orchestrator.store.files import write_whole
from parallel_orchestrator.store.paths import RunDirectory
from parallel_orchestrator.trunk.checkout import Difference
from parallel_orchestrator.trunk.git import GitFailed
from parallel_orchestrator.trunk.repository import BRANCH, Commit, Repository
from parallel_orchestrator.trunk.view import Tampered, check_view, lend_view, make_view, view_of

_ANY_CODE = tuple(range(256))
_OBJECT = re.compile(rb"\b[0-9a-f]{40}\b")
_LOOSE = re.compile(rb"objects/([0-9a-f]{2})/([0-9a-f]{38})")
_LARGEST = 64_000_000


@dataclass
class Trunk:
    """What there is of a trunk."""

    faults: list[str] = field(default_factory=list)
    commits: list[Commit] | None = None
    """Oldest first; None when they cannot be read."""
    differences: list[Difference] = field(default_factory=list)
    """Files of the trunk that the output directory does not hold as the trunk does."""


def examine(run: RunDirectory) -> Trunk:
    """Look at a run's repository, changing nothing. One that is not there yet has no commits and no faults."""
    found = Trunk()
    if not run.git.exists():
        found.commits = []
        return found
    try:
        with opened(run) as repository:
            found.faults = [f"{name} is not as it was made" for name in repository.broken_files()]
            found.faults += _fsck(repository)
            found.commits = repository.log(repository.head())
            found.differences = repository.differences()
    except CannotGoOn as error:
        found.faults.append(_short(error))
    return found


@contextmanager
def opened(run: RunDirectory) -> Iterator[Repository]:
    """The repository, for reading. A run of an earlier version has no view of its own, and is lent one."""
    if view_of(run.git).exists():
        yield Repository(run)
        return
    with TemporaryDirectory(prefix="view-") as folder:
        lend_view(run.git, Path(folder))
        yield Repository(run, Path(folder))


def commits(run: RunDirectory) -> list[Commit]:
    """The trunk's commits, oldest first; none when there is no trunk yet. Raises GitFailed."""
    if not run.git.exists():
        return []
    with opened(run) as repository:
        return repository.log(repository.head())


def base_under(run: RunDirectory, workspace: Path, tree: str | None) -> str:
    """The newest commit all of whose files a tree has, or the workspace where the tree is unknown; else the first."""
    known = [commit.id for commit in commits(run)]
    with opened(run) as repository:
        try:
            there = set(repository.tree(tree) if tree else ())
        except GitFailed:
            tree = None
        if tree is None:
            there = {path.relative_to(workspace).as_posix() for path in workspace.rglob("*")}
        return next((commit for commit in reversed(known) if repository.tree(commit).keys() <= there), known[0])


def has_tree(run: RunDirectory, tree: str) -> bool:
    """Whether a tree and all that is in it can be read."""
    with opened(run) as repository:
        return _whole(repository, tree)


def _fsck(repository: Repository) -> list[str]:
    code, said = repository.git.outcome("fsck", "--no-dangling", "--no-progress", accept=_ANY_CODE)
    if not code:
        return []
    try:
        repository.git("fsck", "--no-dangling", "--no-progress")
    except GitFailed as error:
        return [" ".join([_short(error), *said.decode(errors="replace").splitlines()])[:1000]]
    return []


def _short(error: CannotGoOn) -> str:
    return " ".join(str(error).partition(". Nothing that")[0].split())


def mend(run: RunDirectory, known: list[str], keep: Callable[[Path], None]) -> Iterator[str]:
    """Put back what can be: each step as a sentence. `known`: commits that the queue names; `keep`: backs a file up."""
    yield from _mend_view(run, keep)
    repository = Repository(run)
    for name, text in repository.broken_files().items():
        keep(run.git / name)
        (run.git / name).parent.mkdir(exist_ok=True)
        write_whole(run.git / name, text)
        yield f".git/{name} is the same in every run and was written again"
    with repository.alone():
        yield from _mend_objects(run, repository, keep)
        yield from _mend_branch(run, repository, known, keep)
        yield from _mend_index(run, repository, keep)


def restore(run: RunDirectory, keep: Callable[[Path], None]) -> Iterator[str]:
    """Check the trunk out again, with a copy of each file that differs."""
    repository = Repository(run)
    repository.create()  # a run of an earlier version has no view
    with repository.alone():
        wrong = repository.differences()
        for one in wrong:
            keep(run.root / one.path)
        repository.restore_checkout()
    for one in wrong:
        yield f"{one.path} {'was gone' if one.missing else 'differed'}; it is as on the trunk again"


def _mend_view(run: RunDirectory, keep: Callable[[Path], None]) -> Iterator[str]:
    try:
        check_view(run.git)
    except Tampered:
        view = view_of(run.git)
        for path in view.iterdir():
            keep(path)
        shutil.rmtree(view)
        yield "git's view was changed, by an agent or by the disk; it is the same in every run and was made again"
    make_view(run.git)


def _mend_index(run: RunDirectory, repository: Repository, keep: Callable[[Path], None]) -> Iterator[str]:
    try:
        repository.git("ls-files", "--stage")
    except GitFailed:
        keep(run.git / "index")
        (run.git / "index").unlink(missing_ok=True)
        yield "git's index was damaged; it is made anew from the trunk"
    try:
        for one in repository.differences():
            keep(run.root / one.path)
        repository.restore_checkout()
    except GitFailed as error:
        yield f"the trunk's files cannot be checked out: {_short(error)}"


def _mend_objects(run: RunDirectory, repository: Repository, keep: Callable[[Path], None]) -> Iterator[str]:
    """Store lost blobs again from files of the output directory and the workspaces that have their very content."""
    wanted = {name for name in _named_by_fsck(repository) if not _readable(repository, name)}
    if not wanted:
        return
    for name in wanted:
        damaged = run.git / "objects" / name[:2] / name[2:]
        if damaged.exists():
            keep(damaged)
            damaged.unlink()
    found = set()
    for path in _files(run):
        found.add(repository.objects.write("blob", path.read_bytes(), durable=True))
        if wanted <= found:
            break
    for name in sorted(wanted):
        yield f"git object {name} " + ("was put back from a file here" if name in found else "is lost")


def _named_by_fsck(repository: Repository) -> set[str]:
    code, said = repository.git.outcome("fsck", "--no-dangling", "--no-progress", accept=_ANY_CODE)
    if not code:
        return set()
    try:
        repository.git("fsck", "--no-dangling", "--no-progress")
    except GitFailed as error:
        said += str(error).encode(errors="replace")
    loose = {(folder + rest).decode() for folder, rest in _LOOSE.findall(said)}
    return loose | {name.decode() for name in _OBJECT.findall(said)} - {"0" * 40}


def _readable(repository: Repository, name: str) -> bool:
    try:
        kind = repository.git.text("cat-file", "-t", name)
        repository.git("cat-file", kind, name)
    except GitFailed:
        return False
    return True


def _files(run: RunDirectory) -> Iterator[Path]:
    for top in [*run.root.glob("executor_*"), run.root]:
        for path in sorted(top.rglob("*") if top != run.root else _project(run)):
            if path.is_file() and not path.is_symlink() and path.stat().st_size <= _LARGEST:
                yield path


def _project(run: RunDirectory) -> Iterator[Path]:
    yield from (path for path in run.root.glob("*") if path.suffix in (".md", ".toml"))
    for name in ("src", "tests", "docs"):
        yield from (run.root / name).rglob("*")


def _mend_branch(
    run: RunDirectory, repository: Repository, known: list[str], keep: Callable[[Path], None]
) -> Iterator[str]:
    """Where the branch names nothing that can be read: the last whole commit that queue or objects know."""
    try:
        if _whole(repository, repository.head()):
            return
    except GitFailed:
        pass
    depth = {commit: len(_history(repository, commit)) for commit in {*known, *_commits(repository)}}
    for commit in sorted(depth, key=lambda name: depth[name], reverse=True):
        if depth[commit] and _whole(repository, commit):
            branch = run.git / BRANCH
            keep(branch)
            shutil.rmtree(branch) if branch.is_dir() else branch.unlink(missing_ok=True)
            write_whole(branch, commit + "\n")
            yield f"the branch names no whole commit; it now names {commit}, the last whole one"
            return
    yield "no whole commit is left; restore .git from a backup"


def _commits(repository: Repository) -> list[str]:
    code, listed = repository.git.outcome(
        "cat-file", "--batch-all-objects", "--batch-check=%(objecttype) %(objectname)", accept=_ANY_CODE
    )
    del code  # objects that cannot be read make it 1; the others are listed all the same
    return [line.split()[1] for line in listed.decode().splitlines() if line.startswith("commit ")]


def _history(repository: Repository, commit: str) -> list[str]:
    code, listed = repository.git.outcome("rev-list", "--first-parent", commit, "--", accept=_ANY_CODE)
    return [] if code else listed.decode().split()


def _whole(repository: Repository, name: str) -> bool:
    """Whether a commit or tree can be read with everything that it holds."""
    try:
        listed = repository.git("rev-list", "--objects", "--no-object-names", name, "--")
        if b" missing" in repository.git("cat-file", "--batch-check", feed=listed):
            return False
        repository.git("cat-file", "--batch", "--buffer", feed=listed)  # ends with an error at a damaged one
    except GitFailed:
        return False
    return True
