"""What a person changed in the output directory: found, told from what a kill leaves, and never lost."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from parallel_orchestrator.trunk import Edits
from parallel_orchestrator.trunk.git.safe_git_dir import safe_git_dir
from tests.trunk.bench import ADD, TEST_ADD, Bench, merged, task, write

CALC = task(1, "src/calc.py", "tests/test_calc.py")
NONE = Edits([], [], [])


@pytest.fixture
def built(bench: Bench) -> Bench:
    """A trunk with one part."""
    merged(bench.offer(CALC, {"src/calc.py": ADD, "tests/test_calc.py": TEST_ADD}))
    return bench


def _commit(bench: Bench) -> None:
    bench.git("-c", "user.name=P", "-c", "user.email=p@example.org", "commit", "-qam", "Mine")


def test_a_checkout_has_no_edits_wherever_it_lies(built: Bench, tmp_path: Path) -> None:
    assert built.trunk.edits() == NONE
    copy = shutil.copytree(built.run.root, tmp_path / "copy", symlinks=True)
    assert Bench(copy).trunk.edits() == NONE
    built.git("-c", "user.name=P", "status")
    assert built.trunk.edits() == NONE


def test_a_repository_of_an_earlier_version_can_be_looked_at(built: Bench) -> None:
    built.git("repack", "-adq")
    shutil.rmtree(safe_git_dir(built.run.git))
    assert Bench(built.run.root).trunk.edits() == NONE


def test_changed_missing_and_new_files_are_told_apart(built: Bench) -> None:
    write(built.run.root, {"src/calc.py": "mine\n", "tests/test_calc.py": None, "src/new.py": "x\n"})
    write(built.run.root, {"src/__pycache__/calc.pyc": "x", "notes.txt": "x"})
    assert built.trunk.edits() == Edits(["src/calc.py"], ["tests/test_calc.py"], ["src/new.py"])


def test_a_staged_edit_is_an_edit_and_a_commit_is_none(built: Bench) -> None:
    write(built.run.root, {"src/calc.py": "mine\n"})
    built.git("add", "src/calc.py")
    assert built.trunk.edits().changed == ["src/calc.py"]
    _commit(built)
    assert built.trunk.edits() == NONE
    built.trunk.create()
    assert (built.run.root / "src/calc.py").read_text() == "mine\n"


@pytest.mark.parametrize("left", ["the old file", "nothing", "a part of the new file"])
def test_a_checkout_that_was_killed_leaves_no_edits(built: Bench, left: str) -> None:
    path, index = built.run.root / "src/calc.py", built.run.git / "index"
    old, old_index = path.read_bytes(), index.read_bytes()
    write(built.run.root, {"src/calc.py": ADD * 50})
    _commit(built)
    index.write_bytes(old_index)
    if left == "nothing":
        path.unlink()
    else:
        path.write_bytes(old if left == "the old file" else path.read_bytes()[:333])
    assert built.trunk.edits() == NONE
    built.trunk.create()
    assert path.read_text() == ADD * 50
    assert list(built.run.root.glob("edits-*")) == []


def test_a_merge_leaves_an_edit_and_copies_one_that_it_overwrites(built: Bench) -> None:
    text = task(2, "src/text.py", "tests/test_text.py")
    write(built.run.root, {"src/calc.py": "mine\n"})
    test = "def test_text():\n    import text\n"
    merged(built.offer(text, {"src/text.py": "A = 1\n", "tests/test_text.py": test}))
    assert (built.run.root / "src/calc.py").read_text() == "mine\n"
    assert (built.run.root / "src/text.py").exists()
    change = task(3, "docs/calc.md")
    merged(built.offer(change, {"docs/calc.md": "x\n", "src/calc.py": ADD + "\n"}))
    assert (built.run.root / "edits-1/src/calc.py").read_text() == "mine\n"
    assert (built.run.root / "src/calc.py").read_text() == ADD + "\n"
    assert built.trunk.edits() == NONE
