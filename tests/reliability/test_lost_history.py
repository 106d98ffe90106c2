"""Objects of the trunk that are lost: repair never leaves fewer readable files than there were, and the run goes on."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from parallel_orchestrator.maintenance import history
from parallel_orchestrator.maintenance.check import check
from tests.end_to_end import harness
from tests.journals import read_all
from tests.reliability.runs import answers, flipped, moves, repaired, transcript, unpack

NAMES = ("Begin", "task_1", "task_2", "task_3", "Describe the project")


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    """A run that has ended: five commits."""
    return unpack(tmp_path, "finished")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run that was killed: task_1 merged, task_2 in its first repair round, task_3 not begun."""
    return unpack(tmp_path, "interrupted")


def _git(run: Path, *arguments: str) -> str:
    command = ["git", f"--git-dir={run / '.git'}", "-c", "core.bare=true", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def _commits(run: Path) -> list[str]:
    return _git(run, "log", "--reverse", "--format=%H", "main").split()


def _stored(run: Path, name: str) -> Path:
    return run / ".git/objects" / name[:2] / name[2:]


def _lose(run: Path, name: str) -> None:
    _stored(run, name).unlink()


def _spoil(run: Path, name: str) -> None:
    _stored(run, name).chmod(0o600)
    _stored(run, name).write_bytes(flipped(_stored(run, name).read_bytes()))


def _product(run: Path) -> dict[str, bytes]:
    tops = [run / name for name in ("src", "tests", "docs", "README.md", "pyproject.toml")]
    files = [path for top in tops for path in ([top] if top.is_file() else top.rglob("*")) if path.is_file()]
    return {path.relative_to(run).as_posix(): path.read_bytes() for path in files if "__pycache__" not in path.parts}


def _nothing_can_be_guessed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "rebuild_commit", lambda *_: False)


Damage = Callable[[Path, str], None]


@pytest.mark.parametrize("damage", [_lose, _spoil])
@pytest.mark.parametrize("place", range(5), ids=NAMES)
def test_a_lost_commit_is_made_again_byte_for_byte(finished: Path, place: int, damage: Damage) -> None:
    before, commits, product = harness.fingerprint(finished), _commits(finished), _product(finished)
    damage(finished, commits[place])
    assert check(finished).findings
    said = repaired(finished)
    assert f"commit {commits[place]} was rebuilt byte for byte" in said
    assert _commits(finished) == commits
    assert _product(finished) == product
    assert {name for name in before if name.startswith(("src/", "docs/"))} <= harness.fingerprint(finished).keys()


@pytest.mark.thorough
@pytest.mark.parametrize("place", range(5), ids=NAMES)
def test_where_a_commit_cannot_be_made_again_the_history_is_with_the_same_files(
    finished: Path, place: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    _nothing_can_be_guessed(monkeypatch)
    commits, product = _commits(finished), _product(finished)
    _lose(finished, commits[place])
    said = repaired(finished)
    assert any("commits were written again on what is left" in step for step in said)
    assert _product(finished) == product
    now = _commits(finished)
    assert len(now) == 5
    assert now[:place] == commits[:place]
    assert not set(now[place:]) & set(commits)
    assert [commit["state"] for commit in moves(finished)].count("merged") == 3
    assert repaired(finished) == [f"nothing was changed in {finished}"]


def test_a_run_whose_history_was_made_again_is_finished_by_resume_and_buys_nothing(
    finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _nothing_can_be_guessed(monkeypatch)
    bought, project = answers(finished), harness.tree(finished)
    _lose(finished, _commits(finished)[2])
    repaired(finished)
    assert "done: 3 of 3 tasks merged" in harness.run("resume", str(finished))
    assert harness.tree(finished) == project
    assert answers(finished) == bought
    assert check(finished).findings == []


@pytest.mark.thorough
@pytest.mark.parametrize("damage", [_lose, _spoil])
@pytest.mark.parametrize("path", ["", "src", "tests", "src/part_1.py"])
@pytest.mark.parametrize("place", [1, 3, 4])
def test_a_lost_tree_or_file_comes_back(finished: Path, place: int, path: str, damage: Damage) -> None:
    commits, product = _commits(finished), _product(finished)
    damage(finished, _git(finished, "rev-parse", f"{commits[place]}:{path}"))
    repaired(finished)
    assert _product(finished) == product
    assert len(_commits(finished)) == 5


def test_a_file_of_the_history_alone_that_is_nowhere_costs_no_other_file(finished: Path) -> None:
    commits, product = _commits(finished), _product(finished)
    own = ["-c", "user.name=A", "-c", "user.email=a@b"]
    shown = finished / "src/part_1.py"
    for text in ("OLD = 1\n", "NEW = 2\n"):
        shown.write_text(text)
        subprocess.run(["git", "-C", str(finished), *own, "commit", "-qam", "Mine"], check=True)
    _lose(finished, _git(finished, "rev-parse", "main~1:src/part_1.py"))
    said = repaired(finished)
    assert any(step.startswith("src/part_1.py of commit ") for step in said)
    assert _product(finished) == {**product, "src/part_1.py": b"NEW = 2\n"}
    assert _commits(finished)[:5] == commits


def test_a_file_of_the_newest_commit_that_is_nowhere_costs_no_other_file(finished: Path) -> None:
    product = _product(finished)
    name = _git(finished, "rev-parse", "main:src/part_1.py")
    for path in finished.rglob("part_1.py"):
        path.unlink()
    _lose(finished, name)
    said = repaired(finished)
    assert any(step.startswith("src/part_1.py of commit ") and "nothing takes its place" in step for step in said)
    del product["src/part_1.py"]
    assert _product(finished) == product


@pytest.mark.parametrize("stale", [None, 0, 2])
def test_a_branch_that_is_lost_or_old_names_the_newest_commit_again(finished: Path, stale: int | None) -> None:
    commits, product = _commits(finished), _product(finished)
    branch = finished / ".git/refs/heads/main"
    if stale is None:
        branch.unlink()
    else:
        branch.write_text(commits[stale] + "\n")
    repaired(finished)
    assert _commits(finished) == commits
    assert _product(finished) == product


def test_resume_names_repair_where_the_branch_is_older_than_its_checkout(run: Path) -> None:
    commits, product = _commits(run), _product(run)
    (run / ".git/refs/heads/main").write_text(commits[0] + "\n")
    output = harness.run("resume", str(run), code=1)
    assert "the branch main is older than its checkout, it lacks the merge of task_1" in output
    assert harness.typed("repair", run) in output
    assert "uncommitted edits" not in output
    repaired(run)
    assert _commits(run) == commits
    assert _product(run) == product


@pytest.mark.thorough
@pytest.mark.parametrize("how", ["lost", "its index lost", "spoilt"])
def test_a_pack_that_is_lost_or_damaged(finished: Path, how: str) -> None:
    product = _product(finished)
    commits = _commits(finished)
    subprocess.run(["git", "-C", str(finished), "gc", "-q", "--prune=now"], check=True)
    (pack,) = (finished / ".git/objects/pack").glob("*.pack")
    pack.chmod(0o600)
    if how == "lost":
        pack.unlink()
    elif how == "spoilt":
        pack.write_bytes(flipped(pack.read_bytes()))
    else:
        pack.with_suffix(".idx").unlink()
    repaired(finished)
    assert _product(finished) == product
    assert len(_commits(finished)) == len(commits)


def test_several_losses_at_once(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _nothing_can_be_guessed(monkeypatch)
    commits, product = _commits(finished), _product(finished)
    trees = [_git(finished, "rev-parse", f"{commit}^{{tree}}") for commit in commits]
    for name in (commits[1], commits[3], trees[2], _git(finished, "rev-parse", "main:docs")):
        _lose(finished, name)
    (finished / ".git/refs/heads/main").unlink()
    (finished / ".git/index").unlink()
    repaired(finished)
    assert _product(finished) == product
    assert len(_commits(finished)) == 5


def test_an_attempt_whose_base_is_lost_goes_on_from_one_with_the_same_files(
    run: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    _nothing_can_be_guessed(monkeypatch)
    path = transcript(run)
    base = [record["base"] for record in read_all(path) if "base" in record][-1]
    assert base in _commits(run)
    product = _product(run)
    _lose(run, base)
    assert any(finding.file.endswith("task_2.jsonl") for finding in check(run).findings)
    said = repaired(run)
    assert any("the commit that it started from is lost" in step for step in said)
    assert _product(run) == product
    harness.run("resume", str(run), "--speed", "100")
    assert harness.tree(run) == harness.tree(unpack(tmp_path / "other", "finished"))
    assert max(answers(run).values()) == 1
