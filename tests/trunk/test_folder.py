"""Workspaces: opened at a commit, stored and brought back."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from parallel_orchestrator.records.errors import CannotGoOn, TaskLimit
from parallel_orchestrator.trunk.changes import folder as folders
from parallel_orchestrator.trunk.changes.folder import read_plain
from tests.store.test_folders import nest
from tests.trunk.bench import ADD, TEST_ADD, Bench, merged, task, tree_of, write

CALC = task(1, "src/calc.py", "tests/test_calc.py")
NAMES = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=20).filter(
    lambda name: (
        name not in {".", ".."} and name.casefold() != ".git" and not name.endswith(".pyc") and "cache" not in name
    )
)


def test_open_workspace_is_exactly_the_commit(bench: Bench) -> None:
    merged(bench.offer(CALC, {"src/calc.py": ADD, "tests/test_calc.py": TEST_ADD}))
    folder = bench.run.workspace(9, "task_9", 1)
    write(folder, {"old/file": "x", "src/calc.py": "old", "src/calc.pyc": "x"})
    (folder / "src/gone").mkdir(mode=0)
    before = folder.stat().st_ino
    bench.trunk.open_workspace(folder, bench.trunk.head())
    assert set(tree_of(folder)) == {"pyproject.toml", "src", "src/calc.py", "tests", "tests/test_calc.py"}
    assert folder.stat().st_ino == before


@pytest.mark.parametrize(
    ("limit", "reason"), [("MOST_MEMBERS", "more than 9 files and folders"), ("MOST_BYTES", "larger than 0 MiB")]
)
def test_a_workspace_has_its_limits(bench: Bench, monkeypatch: pytest.MonkeyPatch, limit: str, reason: str) -> None:
    folder = bench.workspace(CALC)
    monkeypatch.setattr(folders, limit, 9)
    write(folder, {f"a/{number}": "x" for number in range(3)})
    (folder / "pyproject.toml").unlink()
    bench.trunk.snapshot(folder)
    write(folder, {f"b/{number}": "x" for number in range(7)})
    with pytest.raises(TaskLimit, match=reason):
        bench.trunk.snapshot(folder)


def test_all_snapshots_of_a_workspace_together_have_a_limit(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = bench.workspace(CALC)
    monkeypatch.setattr(folders, "MOST_STORED", 3_000_000)
    for _ in range(2):
        write(folder, {"junk": os.urandom(1_400_000)})
        bench.trunk.snapshot(folder)
    bench.trunk.snapshot(folder)
    write(folder, {"junk": os.urandom(1_400_000)})
    with pytest.raises(TaskLimit, match="the states of its workspace take more than"):
        bench.trunk.snapshot(folder)
    other = bench.run.workspace(1, "task_2", 1)
    bench.trunk.open_workspace(other, bench.trunk.head())
    write(other, {"more": os.urandom(1_400_000)})
    bench.trunk.snapshot(other)


@pytest.mark.usefixtures("pit")
def test_a_workspace_however_deep_is_stored_and_brought_back(bench: Bench) -> None:
    folder = bench.workspace(CALC)
    tree = bench.trunk.snapshot(folder)
    before = tree_of(folder)
    nest(folder)
    bench.trunk.snapshot(folder)
    bench.trunk.restore(folder, tree)
    assert tree_of(folder) == before


def test_a_workspace_that_is_a_link_is_neither_read_nor_emptied(bench: Bench, tmp_path: Path) -> None:
    folder = bench.workspace(CALC)
    tree = bench.trunk.snapshot(folder)
    shutil.rmtree(folder)
    write(tmp_path / "precious", {"file": "kept"})
    folder.symlink_to(tmp_path / "precious")
    with pytest.raises(CannotGoOn):
        bench.trunk.snapshot(folder)
    with pytest.raises(CannotGoOn):
        bench.trunk.restore(folder, tree)
    assert (tmp_path / "precious/file").read_text() == "kept"


def test_round_trip(bench: Bench, tmp_path: Path) -> None:
    folder = bench.workspace(CALC)
    write(folder, {"run.sh": "#!/bin/sh\n", "empty": "", "a b/é\n\t\"'": "x", "-rf": "y", "big": b"ab" * 2_000_000})
    write(folder, {"sort/a.b": "", "sort/a/c": "", "sort/a0": "", ".hidden/x": "1"})
    (folder / "run.sh").chmod(0o755)
    Path(os.fsdecode(bytes(folder) + b"/\xff\xfe")).write_text("bytes")
    (folder / "nothing/in/here").mkdir(parents=True)
    (folder / "dangling").symlink_to("../../outside")
    (folder / "to_folder").symlink_to("a b")
    before = tree_of(folder)
    tree = bench.trunk.snapshot(folder)
    assert bench.trunk.snapshot(folder) == tree
    write(folder, {"new": "x", "empty": "filled"})
    (folder / "to_folder").unlink()
    bench.trunk.restore(folder, tree)
    assert tree_of(folder) == before
    other = tmp_path / "other"
    bench.trunk.restore(other, tree)
    assert tree_of(other) == before
    bench.git("fsck", "--strict")


def test_snapshot_leaves_out_caches_repositories_and_special_files(bench: Bench) -> None:
    folder = bench.workspace(CALC)
    tree = bench.trunk.snapshot(folder)
    write(folder, {"__pycache__/a": "", ".pytest_cache/b": "", ".mypy_cache/c": "", "a.pyc": "", ".git/hooks/x": ""})
    os.mkfifo(folder / "pipe")
    assert bench.trunk.snapshot(folder) == tree


def test_snapshot_does_not_follow_links(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret/key").write_text("canary")
    folder = bench.workspace(CALC)
    (folder / "way").symlink_to(tmp_path / "secret")
    tree = bench.trunk.snapshot(folder)
    assert "way/key" not in bench.git("ls-tree", "-r", "--name-only", tree)
    bench.trunk.restore(folder, tree)
    (folder / "way/key").write_text("changed by the link's owner")
    bench.trunk.restore(folder, tree)
    assert (tmp_path / "secret/key").exists()


def test_snapshot_ids_are_those_of_git(bench: Bench) -> None:
    folder = bench.workspace(CALC)
    write(folder, {"a/b/c": "x", "a.b": "y", "a0": "z", "large": os.urandom(3_000_000)})
    tree = bench.trunk.snapshot(folder)
    index = f"--work-tree={folder}"
    os.environ["GIT_INDEX_FILE"] = str(bench.run.root / "test.index")
    try:
        bench.git(f"--git-dir={bench.run.git}", index, "add", "-A", "--force", str(folder))
        assert bench.git(f"--git-dir={bench.run.git}", index, "write-tree") == tree
    finally:
        del os.environ["GIT_INDEX_FILE"]


def test_snapshot_reads_what_was_packed_since(bench: Bench) -> None:
    folder = bench.workspace(CALC)
    write(folder, {"a": "x"})
    tree = bench.trunk.snapshot(folder)
    bench.git("repack", "-a", "-d", "-k", "-q")
    bench.git("prune-packed")
    bench.trunk.restore(folder, tree)
    assert bench.trunk.snapshot(folder) == tree


def test_snapshot_of_many_files_is_quick_when_little_changed(bench: Bench) -> None:
    folder = bench.workspace(CALC)
    write(folder, {f"src/{n}.py": f"{n}" for n in range(500)})
    started = time.monotonic()
    first = bench.trunk.snapshot(folder)
    whole = time.monotonic() - started
    again = []
    for _ in range(5):
        started = time.monotonic()
        assert bench.trunk.snapshot(folder) == first
        again.append(time.monotonic() - started)
    assert min(again) < whole


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(NAMES, st.binary(max_size=40), max_size=6))
def test_any_names_and_contents_round_trip(bench: Bench, tmp_path: Path, files: dict[str, bytes]) -> None:
    folder = bench.workspace(CALC)
    write(folder, {name: content for name, content in files.items() if len(os.fsencode(name)) < 200})
    before = tree_of(folder)
    bench.trunk.restore(tmp_path / "copy", bench.trunk.snapshot(folder))
    assert tree_of(tmp_path / "copy") == before


def test_read_plain_reads_only_plain_files(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("text")
    (tmp_path / "link").symlink_to("file")
    os.mkfifo(tmp_path / "pipe")
    assert read_plain(tmp_path / "file", 10) == b"text"
    assert read_plain(tmp_path / "file", 3) is None
    assert read_plain(tmp_path / "link", 10) is None
    assert read_plain(tmp_path / "pipe", 10) is None
    assert read_plain(tmp_path / "absent", 10) is None
    assert read_plain(tmp_path, 10) is None
