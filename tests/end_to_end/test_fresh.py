"""A finished run shows its result and how to build it again; --fresh does so, and deletes nothing."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from parallel_orchestrator.records.errors import DirectoryHeld
from parallel_orchestrator.store.run_directory import set_aside
from parallel_orchestrator.store.run_lock import RunLock
from tests.end_to_end import harness

HELLO = "Create a hello world function"


@pytest.mark.long
def test_a_second_run_shows_the_result_and_fresh_builds_it_again_beside_the_first(tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = ("run", HELLO, "--replay", "simple", "--speed", "100", "--output-dir", str(out))
    first = harness.run(*command)
    assert "again:" not in first
    second = harness.run(*command)
    assert "is finished; nothing to do" in second
    assert "done: 1 of 1 tasks merged" in second
    (again,) = [line.split(maxsplit=1)[1] for line in second.splitlines() if line.startswith("  again:")]
    assert again.startswith(harness.typed("run", Path("--yes")))
    assert again.endswith(f"--output-dir {out} --fresh")
    assert "again:" not in harness.run("resume", str(out))

    kept = harness.fingerprint(out)
    third = harness.run(*command, "--fresh")
    assert f"the run that was in {out} is in {out}.1 now" in third
    assert harness.fingerprint(tmp_path / "out.1") == kept
    assert (
        json.loads((out / "scenario.json").read_text())["run"]
        != json.loads((tmp_path / "out.1" / "scenario.json").read_text())["run"]
    )
    assert f"{out}.2 now" in harness.run(*command, "--fresh")


def test_fresh_begins_where_nothing_is_and_never_takes_what_is_in_use(tmp_path: Path) -> None:
    set_aside(tmp_path / "nothing", print)
    out = tmp_path / "out"
    out.mkdir()
    (out / "scenario.json").write_text("{}")
    lock = RunLock.acquire(out / "run.lock", say=print)
    try:
        with pytest.raises(DirectoryHeld):
            set_aside(out, print)
    finally:
        lock.release()
    assert sorted(os.listdir(tmp_path)) == ["out"]  # noqa: PTH208 - names alone


def test_a_replay_says_whose_recording_it_is(tmp_path: Path) -> None:
    command = ("--replay", "simple", "--speed", "100", "--output-dir")
    said = harness.run("run", "Build a space ship", *command, str(tmp_path / "a"))
    assert f"recording 'simple' is of \"{HELLO}\", which is built; the words given here are not used" in said
    assert "not used" not in harness.run("run", f"{HELLO}.", *command, str(tmp_path / "b"))
