"""Whose a directory is: new, the same run again, another run, or somebody else's files."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from parallel_orchestrator.records.errors import DamagedState, DirectoryHeld, UsageError
from parallel_orchestrator.records.scenario import Scenario
from parallel_orchestrator.store.paths import RunDirectory
from parallel_orchestrator.store.run_directory import OwnedRun, own, read_scenario, take_up


def _scenario(**fields: Any) -> Scenario:
    return Scenario(**{"run": "r1", "requirements": "Build it", "endpoint": "http://x", **fields})


def _own(directory: Path, said: list[str] | None = None, **fields: Any) -> OwnedRun:
    """Own it and let go again."""
    say = (said if said is not None else list[str]()).append
    owned = own(directory, _scenario(**fields), say)
    take_up(owned, say)
    owned.lock.release()
    return owned


def test_a_new_directory_is_made_private_and_keeps_its_scenario(tmp_path: Path) -> None:
    directory = tmp_path / "deep" / "out"
    owned = _own(directory)
    assert not owned.resumed
    assert directory.stat().st_mode & 0o777 == 0o700
    assert read_scenario(owned.run) == owned.scenario == _scenario()
    assert {path.name for path in directory.iterdir()} == {"run.lock", "scenario.json"}


def test_the_same_run_again_keeps_its_id_and_says_what_changed(tmp_path: Path) -> None:
    said: list[str] = []
    _own(tmp_path / "out")
    again = _own(tmp_path / "out", said, run="r2", max_cost_usd=2.5, sandbox="off")
    assert again.resumed
    assert again.scenario.run == "r1"
    assert said == ["max_cost_usd: None -> 2.5", "sandbox: 'auto' -> 'off'"]
    assert read_scenario(again.run) == again.scenario
    said.clear()
    _own(tmp_path / "out", said, run="r3", max_cost_usd=2.5, sandbox="off")
    assert said == []


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("requirements", "Build something else"),
        ("endpoint", "http://y"),
        ("planner_model", "m"),
        ("executor_model", "m"),
        ("plan_sha256", "ab"),
        ("planner_instructions", "brief"),
        ("verify", ["true"]),
    ],
)
def test_another_run_is_refused_and_the_field_named(field: str, value: Any, tmp_path: Path) -> None:
    owned = _own(tmp_path / "my out")
    owned.run.queue.touch()  # work has begun: until then the plan may be replaced
    before = owned.run.scenario.read_bytes()
    with pytest.raises(UsageError) as caught:
        _own(tmp_path / "my out", **{field: value})
    told = str(caught.value)
    assert f"its {field} is {getattr(_scenario(), field)!r}, not {value!r}" in told
    hint = " (--model changes its models)" if field.endswith("_model") else ""
    assert told.endswith(f"or go on as it is: parallel-orchestrator resume '{tmp_path}/my out'{hint}")
    assert owned.run.scenario.read_bytes() == before
    _own(tmp_path / "my out")  # and the lock is free again


def test_a_damaged_journal_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    said: list[str] = []
    run = _own(tmp_path / "out").run
    run.queue.write_bytes(b"no record\n")
    before = run.scenario.read_bytes()
    with pytest.raises(DamagedState, match="Nothing was changed"):
        _own(tmp_path / "out", said, max_cost_usd=2.5)
    assert run.scenario.read_bytes() == before
    assert said == []


def test_files_that_no_run_made_are_refused_and_not_touched(tmp_path: Path) -> None:
    for name in ("thesis.tex", "run.lock"):
        (tmp_path / name).write_text("mine")
    with pytest.raises(UsageError, match=r"holds files that no run made \(thesis.tex"):
        _own(tmp_path)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"thesis.tex": "mine", "run.lock": "mine"}


def test_an_empty_directory_is_taken(tmp_path: Path) -> None:
    assert not _own(tmp_path).resumed


def test_a_run_killed_before_its_scenario_was_there_begins_afresh(tmp_path: Path) -> None:
    (tmp_path / "run.lock").write_text('{"pid": 1')
    (tmp_path / "orchestrator.log").write_text("a line\n")
    (tmp_path / ".scenario.json.4711.tmp").write_text('{"ver')
    owned = _own(tmp_path, run="r9")
    assert not owned.resumed
    assert owned.scenario.run == "r9"
    assert (tmp_path / "orchestrator.log").read_text() == "a line\n"


def test_what_killed_writers_left_half_written_is_removed(tmp_path: Path) -> None:
    owned = _own(tmp_path / "out")
    owned.run.evidence.mkdir(parents=True)
    halves = (owned.run.root / ".execution_plan.json.7.tmp", owned.run.evidence / ".task_1.1.json.7.tmp")
    for half in (*halves, owned.run.root / "kept.tmp"):
        half.touch()
    _own(tmp_path / "out")
    assert [half.exists() for half in halves] == [False, False]
    assert (owned.run.root / "kept.tmp").exists()


def test_a_held_directory_is_refused(tmp_path: Path) -> None:
    held = own(tmp_path / "out", _scenario(), list[str]().append)
    with pytest.raises(DirectoryHeld, match=f"process {os.getpid()} "):
        _own(tmp_path / "out")
    held.lock.release()
    _own(tmp_path / "out")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b'{"version": 1}', b'{"version": 1, "run": 3}'])
def test_a_damaged_scenario_is_told_and_kept(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "scenario.json").write_bytes(content)
    with pytest.raises(DamagedState, match=r"scenario.json is damaged"):
        _own(tmp_path)
    assert (tmp_path / "scenario.json").read_bytes() == content


def test_a_scenario_of_another_version_is_refused(tmp_path: Path) -> None:
    fields = {**_scenario().model_dump(), "version": 2}
    (tmp_path / "scenario.json").write_text(json.dumps(fields))
    with pytest.raises(UsageError, match="has version 2; this program reads version 1"):
        _own(tmp_path)


@pytest.mark.parametrize("below", ["", "sub", "sub/sub"])
def test_a_file_in_the_way_is_told(below: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UsageError, match="is not a directory"):
        _own(tmp_path / "file" / below)


def test_the_paths_of_an_attempt() -> None:
    run = RunDirectory(Path("/out"))
    assert run.workspace(2, "task_3", 1) == Path("/out/executor_2/task_3")
    assert run.workspace(2, "task_3", 2) == Path("/out/executor_2/task_3.2")
    assert run.transcript(2, "task_3", 1) == Path("/out/executor_2/task_3.jsonl")
    assert run.transcript(2, "task_3", 2) == Path("/out/executor_2/task_3.2.jsonl")
