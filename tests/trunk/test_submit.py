"""The merge queue: what lands, what comes back, and with which facts."""

from __future__ import annotations

import fcntl
from pathlib import Path
from xml.etree import ElementTree

import pytest

from parallel_orchestrator.records.command import Command, CommandResult
from parallel_orchestrator.records.errors import CannotGoOn, StaleClaim
from parallel_orchestrator.trunk import Conflict, Rejected, Submission, TestsFailed, Trunk
from tests.trunk.bench import ADD, TEST_ADD, Bench, Claim, merged, plan, run_plainly, task, write

CALC = task(1, "src/calc.py", "tests/test_calc.py")
ALONE = "assert not pathlib.Path('src/extra.py').exists()"
TEXT = task(2, "src/text.py", "tests/test_text.py")
SHOUT = "def shout(text):\n    return text.upper() + '!'\n"
TEST_SHOUT = "from text import shout\n\n\ndef test_shout():\n    assert shout('a') == 'A!'\n"


def test_two_tasks_merge_in_turn(bench: Bench) -> None:
    claim = Claim()
    base = bench.trunk.head()
    first = merged(bench.offer(CALC, {"src/calc.py": ADD, "tests/test_calc.py": TEST_ADD}, base=base, claim=claim))
    second = merged(bench.offer(TEXT, {"src/text.py": SHOUT, "tests/test_text.py": TEST_SHOUT}, base=base))
    assert claim.merged_with == [first.evidence]
    assert first.evidence.as_json()["tests"] == {"passed": 1, "failed": 0, "skipped": 0, "added": 1}
    assert second.evidence.as_json()["tests"] == {"passed": 2, "failed": 0, "skipped": 0, "added": 1}
    assert second.evidence.as_json()["tested"] == "merged and tested"
    assert bench.subjects() == ["Begin", "task_1: Part 1", "task_2: Part 2"]
    assert (bench.run.root / "src/calc.py").read_text() == ADD
    assert (bench.run.root / "src/text.py").read_text() == SHOUT
    suite = ElementTree.fromstring((bench.run.evidence / "task_2.1.junit.xml").read_bytes()).find("testsuite")
    assert suite is not None
    assert (suite.get("tests"), suite.get("failures"), len(suite.findall("testcase"))) == ("2", "0", 2)
    assert bench.git("status", "--porcelain") == ""
    bench.git("fsck", "--strict")


def test_conflict_comes_back_with_markers_and_its_resolution_lands(bench: Bench) -> None:
    bench.offer(CALC, {"src/calc.py": ADD, "tests/test_calc.py": TEST_ADD})
    base = bench.trunk.head()
    both = plan(CALC, TEXT)
    first = task(3, "docs/a.md")
    merged(bench.offer(first, {"docs/a.md": "a", "src/calc.py": ADD + "# theirs\n"}, base=base))
    other = {"src/calc.py": ADD + "# mine\n", "src/text.py": SHOUT, "tests/test_text.py": TEST_SHOUT, "notes": "x"}
    result = bench.offer(TEXT, other, base=base, among=both)
    assert isinstance(result, Conflict)
    assert result.facts == ("CONFLICT (content): Merge conflict in src/calc.py",)
    assert result.head == bench.trunk.head()
    folder = bench.run.workspace(2, "task_2", 1)
    bench.trunk.restore(folder, result.tree)
    marked = (folder / "src/calc.py").read_text()
    assert "<<<<<<< the trunk\n# theirs\n=======\n# mine\n>>>>>>> your change\n" in marked
    assert (folder / "notes").read_text() == "x"

    unresolved = bench.submit(TEXT, result.head, among=both)
    assert isinstance(unresolved, Rejected)
    assert "src/calc.py still has conflict markers" in unresolved.facts[0]

    (folder / "src/calc.py").write_text(ADD + "# theirs\n# mine\n")
    evidence = merged(bench.submit(TEXT, result.head, among=both)).evidence.as_json()
    assert evidence["also_changed"] == ["src/calc.py"]
    assert evidence["left_out"] == ["notes"]
    assert (bench.run.root / "src/calc.py").read_text() == ADD + "# theirs\n# mine\n"
    assert not (bench.run.root / "notes").exists()


def test_clean_merge_that_is_red_as_a_whole(bench: Bench) -> None:
    bench.offer(CALC, {"src/calc.py": ADD, "tests/test_calc.py": TEST_ADD})
    base = bench.trunk.head()
    changes = task(3, "docs/a.md")
    merged(bench.offer(changes, {"docs/a.md": "a", "src/extra.py": "LIMIT = 1\n"}, base=base))
    broken = {
        "src/text.py": SHOUT,
        "tests/test_text.py": f"import pathlib\n\n\ndef test_alone():\n    {ALONE}\n",
    }
    head = bench.trunk.head()
    result = bench.offer(TEXT, broken, base=base)
    assert isinstance(result, TestsFailed)
    assert len(result.facts) == 1
    assert result.facts[0].startswith("tests/test_text.py::test_alone failed:")
    assert result.head == head == bench.trunk.head()
    folder = bench.run.workspace(2, "task_2", 1)
    bench.trunk.restore(folder, result.tree)
    assert (folder / "src/extra.py").exists()
    (folder / "tests/test_text.py").write_text(TEST_SHOUT)
    merged(bench.submit(TEXT, result.head))


def moody(switch: Path, *, once: bool) -> str:
    """A test that fails while `switch` is there; with `once`, it takes it away."""
    return f"""import pathlib\n\n\ndef test_moody():
    switch = pathlib.Path({str(switch)!r})
    there = switch.exists()
    if there and {once}:
        switch.unlink()
    assert not there\n"""


def test_flaky_test_of_the_trunk_is_not_held_against_the_task(bench: Bench, tmp_path: Path) -> None:
    switch = tmp_path / "switch"
    merged(bench.offer(CALC, {"src/calc.py": ADD, "tests/test_calc.py": TEST_ADD + moody(switch, once=True)}))
    switch.touch()
    result = merged(bench.offer(TEXT, {"src/text.py": SHOUT, "tests/test_text.py": TEST_SHOUT}))
    assert result.evidence.as_json()["flaky"] == ["tests/test_calc.py::test_moody"]
    assert result.evidence.as_json()["tests"] == {"passed": 3, "failed": 0, "skipped": 0, "added": 1}


def test_what_was_red_before_is_not_held_against_the_task(bench: Bench, tmp_path: Path) -> None:
    switch = tmp_path / "switch"
    merged(bench.offer(CALC, {"src/calc.py": ADD, "tests/test_calc.py": TEST_ADD + moody(switch, once=False)}))
    switch.touch()
    result = merged(bench.offer(TEXT, {"src/text.py": SHOUT, "tests/test_text.py": TEST_SHOUT}))
    assert result.evidence.as_json()["red_before"] == ["tests/test_calc.py::test_moody"]
    assert result.evidence.as_json()["tests"] == {"passed": 2, "failed": 1, "skipped": 0, "added": 1}


def test_stale_claim_leaves_the_trunk_where_it_is(bench: Bench) -> None:
    head = bench.trunk.head()
    claim = Claim(stale=True)
    with pytest.raises(StaleClaim):
        bench.offer(CALC, {"src/calc.py": ADD, "tests/test_calc.py": TEST_ADD}, claim=claim)
    assert bench.trunk.head() == head
    assert not (bench.run.root / "src").exists()
    assert claim.merged_with == []


def test_testing_keeps_others_out_and_finding_out_who_is_to_blame_does_not(bench: Bench, tmp_path: Path) -> None:
    locked: list[bool] = []

    def busy(command: Command) -> CommandResult:
        """While anything is tested, somebody else tries to move the trunk."""
        with bench.run.merge_lock.open() as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                locked.append(False)
            except BlockingIOError:
                locked.append(True)
        if not locked[-1]:
            bench.trunk.publish({"README.md": b"%d" % len(locked)}, "Move")
        return run_plainly(command)

    switch = tmp_path / "switch"
    merged(bench.offer(CALC, {"src/calc.py": ADD, "tests/test_calc.py": TEST_ADD + moody(switch, once=True)}))
    switch.touch()
    base = bench.trunk.head()
    folder = bench.workspace(TEXT)
    write(folder, {"src/text.py": SHOUT, "tests/test_text.py": TEST_SHOUT})
    trunk = Trunk(bench.run, busy)
    merged(trunk.submit(Submission(TEXT, plan(TEXT), 1, 1, base, folder, TEXT.name), Claim()))
    assert locked == [True, False, True]
    assert bench.subjects() == ["Begin", "task_1: Part 1", "Move", "task_2: Part 2"]


def test_a_missing_workspace_stops_the_run_not_the_task(bench: Bench) -> None:
    with pytest.raises(CannotGoOn, match="cannot read the workspace"):
        bench.submit(CALC, bench.trunk.head())


def test_a_file_and_a_folder_of_one_name_conflict(bench: Bench) -> None:
    base = bench.trunk.head()
    merged(bench.offer(task(3, "docs/a/b.md"), {"docs/a/b.md": "b"}, base=base))
    result = bench.offer(task(4, "docs/a"), {"docs/a": "a"}, base=base)
    assert isinstance(result, Conflict)
    assert "docs/a" in result.facts[0]
    assert base not in result.facts[0]


def test_twins_that_meet_in_the_merge_conflict(bench: Bench) -> None:
    base = bench.trunk.head()
    merged(bench.offer(task(3, "docs/a.md"), {"docs/a.md": "a"}, base=base))
    result = bench.offer(task(4, "docs/b.md"), {"docs/b.md": "b", "docs/A.md": "A"}, base=base)
    assert isinstance(result, Conflict)
    assert result.facts == ("docs/A.md and docs/a.md are the same path on many systems. Keep one of them.",)


def test_changes_to_different_places_of_one_file_merge(bench: Bench) -> None:
    lines = [f"line {n}\n" for n in range(20)]
    base = merged(bench.offer(task(3, "docs/a.md"), {"docs/a.md": "".join(lines)})).commit
    merged(bench.offer(task(4, "docs/b.md"), {"docs/b.md": "", "docs/a.md": "".join(["top\n", *lines])}, base=base))
    merged(bench.offer(task(5, "docs/c.md"), {"docs/c.md": "", "docs/a.md": "".join([*lines, "end\n"])}, base=base))
    assert (bench.run.root / "docs/a.md").read_text() == "".join(["top\n", *lines, "end\n"])


def test_work_that_ended_early_is_not_merged_without_a_file_of_its_own(bench: Bench) -> None:
    first, again = task(1, "docs/page.md"), task(2, "docs/page.md", dependencies=["task_1"])
    merged(bench.offer(first, {"docs/page.md": "# Page\n"}))
    base, folder = bench.trunk.head(), bench.workspace(again)
    attempt = (again, plan(first, again), 1, 1, base, folder)
    offer = Submission(*attempt, title=again.name, ended_early="reached its limit of 3 turns")
    write(folder, {"docs/notes.md": "# To do\n"})
    assert bench.trunk.submit(offer, Claim()) == Rejected((), nothing=True)
    assert bench.trunk.head() == base
    write(folder, {"docs/page.md": "# Page\n\nMore.\n"})
    evidence = merged(bench.trunk.submit(offer, Claim())).evidence.as_json()
    assert evidence["ended_early"] == "reached its limit of 3 turns"
