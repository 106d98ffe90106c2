"""The trunk's repository: what git finds wrong with it, and what can be put back from what lies around it."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from parallel_orchestrator.maintenance.guesses import KnownCommit
from parallel_orchestrator.maintenance.history import History
from parallel_orchestrator.records.errors import CannotGoOn, TaskLimit
from parallel_orchestrator.records.lifecycle import TaskState
from parallel_orchestrator.records.plan import PROJECT_ROOTS
from parallel_orchestrator.store.paths import RunDirectory
from parallel_orchestrator.store.queue.queue_state import Replica
from parallel_orchestrator.system.files import write_whole
from parallel_orchestrator.trunk.changes.folder import read_folder
from parallel_orchestrator.trunk.evidence import rename_evidence
from parallel_orchestrator.trunk.git.checkout import Difference
from parallel_orchestrator.trunk.git.git import GitFailed
from parallel_orchestrator.trunk.git.objects import FILE, Entry, Tree
from parallel_orchestrator.trunk.git.repository import PROJECT_FILE, Commit, Repository
from parallel_orchestrator.trunk.git.safe_git_dir import Tampered, check_view, lend_view, make_view, view_of

_ANY_CODE = tuple(range(256))
_OBJECT = re.compile(rb"\b[0-9a-f]{40}\b")
_LOOSE = re.compile(rb"objects/([0-9a-f]{2})/([0-9a-f]{38})")
_LARGEST = 64_000_000
_DERIVED = ("info/commit-graph", "info/commit-graphs/commit-graph-chain", "pack/multi-pack-index")
"""What git makes from other objects to be quicker. It names them also when they are lost."""
_OURS = (PROJECT_FILE, "README.md")
"""Files outside the project's folders that a commit of the trunk may hold."""


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


def is_behind(trunk: Trunk, replica: Replica | None) -> bool:
    """Whether the queue has merges that no commit of the trunk brings."""
    there = {commit.trailers.get("Task") for commit in trunk.commits or ()}
    tasks = replica.tasks.items() if replica else ()
    return any(status.state is TaskState.MERGED and task not in there for task, status in tasks)


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


def mend(
    run: RunDirectory, known: Sequence[KnownCommit], keep: Callable[[Path], None], renamed: dict[str, str]
) -> Iterator[str]:
    """Repair what can be repaired; yields each step as a sentence. `keep` backs a file up before it changes.

    `known`: what the run's other files say of commits, oldest first. `renamed`: takes the commits that get other names.
    """
    yield from _mend_view(run, keep)
    repository = Repository(run)
    for name, text in repository.broken_files().items():
        keep(run.git / name)
        (run.git / name).parent.mkdir(exist_ok=True)
        write_whole(run.git / name, text)
        yield f".git/{name} is the same in every run and was written again"
    with repository.alone():
        for name in _DERIVED:
            if (cache := run.git / "objects" / name).is_file():
                keep(cache)
                cache.unlink()
        yield from _unpack(run, repository, keep)
        yield from _mend_objects(run, repository, keep)
        yield from History(run, repository, known, keep, renamed).mend()
        for old, new in renamed.items():
            rename_evidence(run, old, repository.about(new))
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
        yield "git's index was damaged; it is rebuilt from the trunk"
    try:
        for one in repository.differences():
            keep(run.root / one.path)
        repository.restore_checkout()
    except GitFailed as error:
        yield f"the trunk's files cannot be checked out: {_short(error)}"


def _unpack(run: RunDirectory, repository: Repository, keep: Callable[[Path], None]) -> Iterator[str]:
    """Where git cannot use one of its packs, take every object out of them that can be read."""
    folder = run.git / "objects" / "pack"
    halves = {path.stem for path in folder.glob("*.pack")} ^ {path.stem for path in folder.glob("*.idx")}
    if not halves and not (b"pack" in _told_by_fsck(repository) and any(folder.glob("*.pack"))):
        return
    for path in sorted(folder.iterdir()):
        keep(path)
        packed = path.read_bytes() if path.suffix == ".pack" else b""
        path.unlink()
        if packed:
            repository.git.outcome("unpack-objects", "-q", "-r", feed=packed, accept=_ANY_CODE)
    yield "git's packs were damaged; what can be read of them was taken out of them"


def _mend_objects(run: RunDirectory, repository: Repository, keep: Callable[[Path], None]) -> Iterator[str]:
    """Store lost objects again from the index, the output directory and the workspaces: content gives them names."""
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
    if not wanted <= found:
        _store_trees(run, repository)
    for name in sorted(wanted):
        back = name in found or _readable(repository, name)
        yield f"git object {name} " + ("was put back from a file here" if back else "is lost")


def _store_trees(run: RunDirectory, repository: Repository) -> None:
    """Store the trees of everything that lies here: a lost one among them is there again then."""
    repository.git.outcome("write-tree", "--missing-ok", accept=_ANY_CODE)
    own = {path: entry for path, entry in _tree_of(repository, run.root, only=_OURS).items() if "/" not in path}
    folders = [run.root / name for name in PROJECT_ROOTS]
    for workspace in run.root.glob("executor_*/*"):
        if workspace.is_dir():
            tree = _tree_of(repository, workspace)
            project = {path: entry for path, entry in tree.items() if path.partition("/")[0] in PROJECT_ROOTS}
            repository.objects.write_tree(project | own)
            folders += [workspace / name for name in PROJECT_ROOTS]
    for folder in folders:
        if folder.is_dir():
            _tree_of(repository, folder)


def _tree_of(repository: Repository, folder: Path, only: Collection[str] = ()) -> Tree:
    """What a folder, or some files in it, is as a tree; all of it is stored."""
    if only:
        there = [folder / name for name in only if (folder / name).is_file()]
        return {path.name: Entry(FILE, repository.objects.write("blob", path.read_bytes())) for path in there}
    try:
        entries = read_folder(repository.objects, folder).entries
    except (CannotGoOn, TaskLimit):
        return {}
    repository.objects.write_tree(entries)
    return entries


def _named_by_fsck(repository: Repository) -> set[str]:
    said = _told_by_fsck(repository)
    loose = {(folder + rest).decode() for folder, rest in _LOOSE.findall(said)}
    return loose | {name.decode() for name in _OBJECT.findall(said)} - {"0" * 40}


def _told_by_fsck(repository: Repository) -> bytes:
    """All that git finds wrong, in its words; empty when it finds nothing."""
    code, said = repository.git.outcome("fsck", "--no-dangling", "--no-progress", accept=_ANY_CODE)
    if not code:
        return b""
    try:
        repository.git("fsck", "--no-dangling", "--no-progress")
    except GitFailed as error:
        said += str(error).encode(errors="replace")
    return said


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
