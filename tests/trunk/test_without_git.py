"""What is read and merged in this process is what git itself says."""

from __future__ import annotations

import itertools
import subprocess
from pathlib import Path

import pytest

from parallel_orchestrator.trunk.changes.merge import merge
from parallel_orchestrator.trunk.git.objects import FILE, Tree, TreeEntry
from parallel_orchestrator.trunk.git.repository import Repository
from tests.trunk.bench import Bench


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    bench = Bench(tmp_path / "out")
    bench.trunk.create()
    return Repository(bench.run)


def _blob(repository: Repository, text: str) -> TreeEntry:
    return TreeEntry(FILE, repository.objects.write("blob", text.encode()))


def _commit(repository: Repository, tree: Tree, parent: str) -> str:
    return repository.commit(repository.objects.write_tree(tree), parent, "a commit", {"Task": "task_1", "Attempt": 2})


def test_a_merge_by_path_is_gits_for_every_way_in_which_two_sides_change_a_path(repository: Repository) -> None:
    contents = {name: _blob(repository, f"{name}\n") for name in ("old", "ours", "theirs")}
    states: dict[str | None, TreeEntry | None] = {None: None}
    states.update(contents)
    sides: dict[str, Tree] = {"base": {}, "ours": {}, "theirs": {}}
    for number, chosen in enumerate(itertools.product([None, "old"], [None, "old", "ours"], [None, "old", "theirs"])):
        before, our, their = chosen
        if before not in (our, their) and our != their:
            continue  # both changed it: git's to merge
        for side, state in zip(sides, chosen, strict=True):
            if (entry := states[state]) is not None:
                sides[side][f"src/folder_{number}/file"] = entry
    base = _commit(repository, sides["base"], repository.head())
    head, theirs = _commit(repository, sides["ours"], base), _commit(repository, sides["theirs"], base)
    by_git = repository.git.text("merge-tree", "--write-tree", head, theirs)
    merged = merge(repository, sides["theirs"], base, head)
    assert merged.conflicts == ()
    assert repository.objects.write_tree(merged.tree) == by_git


def test_a_file_where_the_other_side_made_a_folder_is_gits_to_tell(repository: Repository) -> None:
    entry = _blob(repository, "x\n")
    base = repository.head()
    head = _commit(repository, {"src/part": entry}, base)
    assert merge(repository, {"src/part/file": entry}, base, head).conflicts


def test_commits_trees_and_the_head_read_loose_are_those_that_git_reads_packed(repository: Repository) -> None:
    tree = {"src/a b/ü.py": _blob(repository, "1"), "docs/page.md": _blob(repository, "2")}
    first = _commit(repository, tree, repository.head())
    second = _commit(repository, {**tree, "src/c.py": _blob(repository, "3")}, first)
    repository.move(repository.head(), second)
    loose = (repository.head(), repository.log(second), repository.log(second, since=first), repository.tree(second))
    contents = list(repository.objects.blobs(entry.id for entry in repository.tree(second).values()))
    assert loose[0] == second
    assert [commit.id for commit in loose[2]] == [second]
    assert repository.about(second).number("Attempt") == 2
    # A person's own git, with which they may do that at any time.
    subprocess.run(["git", "-C", repository.git.work_tree, "gc", "--quiet", "--prune=now"], check=True)
    assert repository.objects.loose(second) is None
    assert (repository.head(), repository.log(second), repository.log(second, since=first)) == loose[:3]
    assert repository.tree(second) == loose[3]
    assert list(repository.objects.blobs(entry.id for entry in loose[3].values())) == contents
    third = _commit(repository, tree, second)
    repository.move(second, third)
    assert repository.git.text("rev-parse", "main") == repository.head() == third


def test_an_object_that_is_not_what_its_name_says_is_not_believed(repository: Repository) -> None:
    good, bad = _blob(repository, "good"), _blob(repository, "bad")
    folder = repository.git.repository / "objects"
    target = folder / good.id[:2] / good.id[2:]
    target.chmod(0o644)
    target.write_bytes((folder / bad.id[:2] / bad.id[2:]).read_bytes())
    assert repository.objects.loose(good.id) is None
    target.write_bytes(b"no zlib")
    assert repository.objects.loose(good.id) is None
    assert repository.objects.loose(bad.id) == ("blob", b"bad")
