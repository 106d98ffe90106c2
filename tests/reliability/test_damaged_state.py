"""Damaged state files: what a kill leaves is cut off and said, everything else stops the run and is kept."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parallel_orchestrator.maintenance.check import check
from parallel_orchestrator.records.errors import DamagedState
from parallel_orchestrator.store.journal import Journal, encode
from parallel_orchestrator.store.paths import RunDirectory
from parallel_orchestrator.store.run_directory import cut_torn_tails
from parallel_orchestrator.store.salvage import salvage
from tests.end_to_end import harness
from tests.journals import ITEMS, read_all
from tests.reliability.runs import (
    Change,
    answers,
    bought_since,
    damage,
    flipped,
    journals,
    lines,
    repaired,
    transcript,
    unpack,
)


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interrupted run that nobody may change."""
    return unpack(tmp_path_factory.mktemp("pristine"), "interrupted")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """An interrupted run: task_1 merged, task_2 in its first repair round, task_3 not begun."""
    return unpack(tmp_path, "interrupted")


# Torn tails


@pytest.mark.parametrize("kind", [0, 1, 2], ids=["queue", "ledger", "transcript"])
def test_a_journal_cut_at_every_byte_of_its_last_two_records_keeps_every_whole_record(
    kind: int, pristine: Path, tmp_path: Path
) -> None:
    source = journals(pristine)[kind]
    target = tmp_path / source.relative_to(pristine)
    target.parent.mkdir(exist_ok=True)
    text = lines(source)[-1]
    whole = source.read_bytes() + encode(len(lines(source)) + 1, {"kind": "submitted", "reason": "ü€𝄞 cut within"})
    first = len(source.read_bytes()) - len(text)
    ends = [first, len(source.read_bytes()), len(whole)]
    for cut in range(first, len(whole) + 1):
        target.write_bytes(whole[:cut])
        said: list[str] = []
        cut_torn_tails(RunDirectory(tmp_path), said.append)
        kept = max(end for end in ends if end <= cut)
        assert target.read_bytes() == whole[:kept]
        assert len(said) == (kept != cut)
        assert all(f"cut off {cut - kept} bytes" in line and str(target.name) in line for line in said)


def test_torn_tails_are_cut_off_and_said_and_the_run_resumes_without_buying_again(run: Path, tmp_path: Path) -> None:
    answered = set(answers(run))
    ledger, queue, talk = run / "ledger.jsonl", run / "queue.jsonl", transcript(run)
    whole = lines(ledger)
    last_answer = max(place for place, line in enumerate(whole) if b'"kind":"answer"' in line)
    ledger.write_bytes(b"".join(whole[:last_answer]) + whole[last_answer][: len(whole[last_answer]) // 2])
    queue.write_bytes(queue.read_bytes() + encode(7, {"task": "tösk"})[:17] + b"\0" * 5000)  # mid UTF-8, then zeros
    talk.write_bytes(b"".join(lines(talk)[:-1]) + lines(talk)[-1][:-1])  # the newline alone is missing
    assert {note.file for note in check(run).notes} >= {"queue.jsonl", "ledger.jsonl"}
    before = last_answer
    output = harness.run("resume", str(run), "--speed", "100")
    log = (run / "orchestrator.log").read_text()
    for path in (ledger, queue, talk):
        assert output.count(f"{path.relative_to(run)}: cut off ") == 1
        assert log.count(f"{path}: cut off ") == 1
    assert max(answers(run).values()) == 1
    # The answer that was cut off the ledger is in the transcript: it is not asked for again.
    assert {(task, 1, turn) for task, turn in bought_since(run, before)} & answered == set()
    assert harness.tree(run) == harness.tree(unpack(tmp_path, "finished"))
    report = check(run)
    assert report.findings == []
    assert any(note.file == "ledger.jsonl" and "they are not bought again" in note.what for note in report.notes)


# Damage before the end, or that no kill can have left

CHANGES: dict[str, Change] = {
    "a flipped bit": lambda ls: [*ls[:2], flipped(ls[2]), *ls[3:]],
    "a flipped bit in the last record": lambda ls: [*ls[:-1], flipped(ls[-1])],
    "the last newline altered": lambda ls: [*ls[:-1], flipped(ls[-1], len(ls[-1]) - 1)],
    "zeros in the middle": lambda ls: [*ls[:3], b"\0" * len(ls[3]), *ls[4:]],
    "zeros within the last line": lambda ls: [*ls[:-1], ls[-1][:20] + b"\0" * 20 + ls[-1][40:]],
    "a record lost": lambda ls: [*ls[:2], *ls[3:]],
    "a record twice": lambda ls: [*ls[:3], *ls[2:]],
    "the last record twice": lambda ls: [*ls, ls[-1]],
    "two records swapped": lambda ls: [*ls[:2], ls[3], ls[2], *ls[4:]],
    "the first record lost": lambda ls: ls[1:],
    "an empty object in the middle": lambda ls: [*ls[:3], b"{}\n", *ls[3:]],
    "several lines garbled": lambda ls: [*ls[:2], flipped(ls[2]), flipped(ls[3]), *ls[4:]],
}


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("kind", range(3), ids=["queue", "ledger", "transcript"])
def test_damage_is_located_and_kept_and_repair_brings_the_run_back(kind: int, name: str, run: Path) -> None:
    path, answered = journals(run)[kind], answers(run)
    line, offset = damage(path, CHANGES[name])
    damaged, others = path.read_bytes(), {other: other.read_bytes() for other in journals(run)}
    whole = salvage(run / "ledger.jsonl").records
    left = {(r["task"], r["attempt"], r["turn"]) for r in whole if r["kind"] == "answer"}
    with pytest.raises(DamagedState, match=rf"damaged at line {line}, byte {offset}: .*Nothing was changed.*repair "):
        cut_torn_tails(RunDirectory(run), list[str]().append)
    assert {other: other.read_bytes() for other in journals(run)} == others
    findings = [finding for finding in check(run).findings if finding.file == str(path.relative_to(run))]
    assert findings
    assert all("repair" in finding.fix for finding in findings)
    said = repaired(run)
    assert any(step.startswith(f"{path.relative_to(run)}: ") for step in said)
    assert (run / "repair-1" / path.relative_to(run)).read_bytes() == damaged
    assert answers(run).keys() == left, "every answer that can be read is kept"
    assert left == answered.keys() or kind == 1
    assert max(answers(run).values()) == 1
    states = {move["task"]: move["state"] for move in harness.moves(run)}
    assert (states["task_1"], states.get("task_3")) == ("merged", None)
    assert states["task_2"] in ("queued", "repair", "claimed")
    assert repaired(run) == [f"nothing was changed in {run}"]
    assert not (run / "repair-2").exists()


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_any_altered_byte_of_any_journal_is_noticed_or_is_a_torn_tail(data: st.DataObject, pristine: Path) -> None:
    source = data.draw(st.sampled_from(journals(pristine)))
    whole = source.read_bytes()
    place, mask = data.draw(st.integers(0, len(whole) - 1)), data.draw(st.integers(1, 255))
    copy = pristine.parent / "altered.jsonl"
    copy.write_bytes(whole[:place] + bytes([whole[place] ^ mask]) + whole[place + 1 :])
    journal = Journal(copy, ITEMS)
    try:
        records = journal.read_new()
    except DamagedState:
        return
    finally:
        journal.close()
    # Not noticed can only be what looks like a half-written last record.
    assert len(records) == len(lines(source)) - 1
    assert place == len(whole) - 1


@pytest.mark.parametrize("kind", [0, 1, 2], ids=["queue", "ledger", "transcript"])
def test_resume_refuses_a_damaged_journal_and_touches_nothing(kind: int, run: Path) -> None:
    path = journals(run)[kind]
    line, offset = damage(path, CHANGES["a flipped bit" if kind else "a flipped bit in the last record"])
    if kind:  # a half-written record in the journal that is read first is not even cut off
        with (run / "queue.jsonl").open("ab") as queue:
            queue.write(b'{"seq":')
    before = harness.fingerprint(run)
    output = harness.run("resume", str(run), "--max-cost", "5", "--max-turns", "30", code=1)
    assert f"error: {path} is damaged at line {line}, byte {offset}: expected record {line}, found " in output
    assert harness.typed("repair", run) in output
    assert "Traceback" not in output
    assert harness.fingerprint(run) == before
    assert f"{path} is damaged at line {line}" in (run / "orchestrator.log").read_text()


def test_all_three_journals_damaged_at_once_are_repaired_and_the_run_completes(run: Path, tmp_path: Path) -> None:
    answered = set(answers(run))
    damage(run / "queue.jsonl", lambda ls: [*ls[:1], b"\0" * 80 + b"\n", *ls[3:]])
    damage(run / "ledger.jsonl", lambda ls: [*ls[:5], flipped(ls[5]), flipped(ls[6]), *ls[7:]])
    # Of the transcript: an answer, the results after it, and the facts that were sent back.
    kinds = [json.loads(line)["kind"] for line in lines(transcript(run))]
    gone = {4, 6, kinds.index("repair")}
    damage(transcript(run), lambda ls: [flipped(line) if n in gone else line for n, line in enumerate(ls)])
    output = harness.run("repair", str(run))
    assert f"{run} is repaired; what was changed is kept in repair-1/" in output
    assert "the attempt resumes after turn 1; 5 later answers will be replayed" in " ".join(output.split())
    assert harness.run("check", str(run)).endswith("(interrupted): clean\n")
    kept, written = set(answers(run)), len(read_all(run / "ledger.jsonl"))
    assert answered - kept == {("task_2", 1, 1)}
    harness.run("resume", str(run), "--speed", "100")
    # Turns 5 and 6 follow on results that name a time, so their requests may differ; those before are the same bytes.
    bought = {turn for task, turn in bought_since(run, written) if task == "task_2"}
    assert bought <= {5, 6, 7}
    assert harness.tree(run) == harness.tree(unpack(tmp_path, "finished"))
    assert harness.summary(run)["status"] == "done"
    assert check(run).findings == []


# Records that are whole and do not fit


def test_records_that_fit_nothing_stop_the_run_with_their_line(run: Path) -> None:
    pristine = {path: path.read_bytes() for path in journals(run)}
    queue, ledger, talk = journals(run)
    move = {"state": "claimed", "attempt": 1, "executor": 1, "at": 0.0, "mono": 0.0}
    call = {"task": "task_2", "attempt": 1, "turn": 9, "at": 0.0}
    cases = {
        (queue, "'task_9' is not in the plan"): {"task": "task_9", **move},
        (queue, "task_1 cannot go from merged to claimed"): {"task": "task_1", **move},
        (queue, "Invalid enum value 'asleep'"): {"task": "task_1", **move, "state": "asleep"},
        (ledger, "Object missing required field `phase`"): {"kind": "answer", "call": 99, **call},
        (talk, "Object missing required field `phase`"): {"kind": "answer", "turn": 7},
    }
    for (path, why), fields in cases.items():
        number = len(lines(path)) + 1
        path.write_bytes(pristine[path] + encode(number, fields))
        output = harness.run("resume", str(run), code=1)
        assert why in output
        assert f"line {number}" in output
        assert harness.typed("repair", run) in output
        assert "Traceback" not in output
        assert any(finding.file == str(path.relative_to(run)) for finding in check(run).findings)
        path.write_bytes(pristine[path])
        shutil.rmtree(run / "repair-1", ignore_errors=True)


# The files that are no journals


def test_empty_and_newer_files_are_refused_by_name_or_made_again(run: Path, tmp_path: Path) -> None:
    for name in ("scenario.json", "execution_plan.json"):
        path = run / name
        whole = path.read_text()
        newer = json.dumps({"version": 2, **{k: v for k, v in json.loads(whole).items() if k != "version"}})
        for content, code, told in (("\0" * 50, 1, ""), ("{}", 1, ""), (newer, 2, "has version 2; this")):
            path.write_text(content)
            output = harness.run("resume", str(run), code=code)
            assert f"{path} " in output
            assert told in output
            assert "Traceback" not in output
            assert path.read_text() == content
        path.write_text(whole)
    finished = unpack(tmp_path, "finished")
    before = set(answers(finished))
    for content in ("", "{}", '{"version": 2, "status": "done"}'):
        (finished / "execution_summary.json").write_text(content)
        assert [finding.file for finding in check(finished).findings] == ["execution_summary.json"]
    assert "done: 3 of 3 tasks merged" in harness.run("resume", str(finished))
    assert set(answers(finished)) == before
    assert check(finished).findings == []
