"""`repair` cuts a damaged transcript or ledger, and says first what that costs to buy again."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from parallel_orchestrator.agent.transcript import fold
from parallel_orchestrator.maintenance.check import check
from parallel_orchestrator.maintenance.repair import repair
from parallel_orchestrator.store.journal import encode, read_each
from parallel_orchestrator.store.record_parser import TRANSCRIPT
from tests.end_to_end import harness, scripted
from tests.fake_api import Answer, FakeApi
from tests.journals import Record, read_all
from tests.reliability.runs import answers, flipped, lines, repaired, transcript, unpack


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run that was killed: task_1 merged, task_2 two turns into its first repair round, task_3 not begun."""
    return unpack(tmp_path, "interrupted")


def _rewrite(path: Path, records: list[Record]) -> None:
    bodies = ({k: v for k, v in record.items() if k != "seq"} for record in records)
    path.write_bytes(b"".join(encode(seq, body) for seq, body in enumerate(bodies, 1)))


def _price(ledger: Path, **prices: Any) -> None:
    """Give every record of the ledger that has one of these fields this value."""
    _rewrite(ledger, [{**r, **{k: v for k, v in prices.items() if k in r}} for r in read_all(ledger)])


def _spoil(path: Path, *places: int) -> None:
    path.write_bytes(b"".join(flipped(line) if n in places else line for n, line in enumerate(lines(path))))


def _kinds(path: Path) -> list[str]:
    return [record["kind"] for record in read_all(path)]


def test_what_a_cut_transcript_costs_is_said_before_it_is_cut(run: Path) -> None:
    path = transcript(run)
    _price(run / "ledger.jsonl", usd=0.25)
    _spoil(path, 4)  # the answer of turn 2
    price = (
        "the attempt resumes after turn 1; 5 later answers will be replayed where the request comes out the same, "
        "and otherwise bought again for up to $1.25"
    )
    (finding,) = check(run).findings
    assert finding.what.endswith(price)
    damaged = path.read_bytes()
    said: list[tuple[str, bytes]] = []
    report = repair(run, lambda text: said.append((text, path.read_bytes())))
    assert report.findings == []
    (content,) = [content for text, content in said if price in text]
    assert content == damaged
    assert _kinds(path) == ["start", "answer", "tree"]
    conversation = fold(read_each(path, TRANSCRIPT))
    assert (conversation.turns, conversation.tree) == (1, read_all(path)[-1]["tree"])
    assert (run / "repair-1" / path.relative_to(run)).read_bytes() == damaged


def test_an_answer_that_neither_file_can_price_is_counted_as_such(run: Path) -> None:
    path, ledger = transcript(run), run / "ledger.jsonl"
    _price(ledger, usd=0.25)
    _rewrite(ledger, [r for r in read_all(ledger) if (r["task"], r["turn"]) != ("task_2", 3)])
    _spoil(path, 4)
    assert "5 later answers" in check(run).findings[0].what
    assert check(run).findings[0].what.endswith("for up to $1.00 and 1 of unknown price")


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, FakeApi]]:
    """A run of one task whose budget ended after three turns, and its endpoint. Nobody may change the directory."""
    run = tmp_path_factory.mktemp("stopped") / "run"
    answer = partial(Answer, usage={"input_tokens": 50_000, "output_tokens": 20_000})
    script = scripted.model(scripted.plan([scripted.task(1, [])]), lambda body: answer(scripted.build_part(body)))
    with FakeApi(script, task_of=scripted.task_of) as api:
        harness.run("Build one part", "--max-cost", "1.5", "--output-dir", str(run), api=api, code=4)
        yield run, api


@pytest.mark.parametrize("place", range(10))
def test_answers_after_the_damage_are_replayed(place: int, stopped: tuple[Path, FakeApi], tmp_path: Path) -> None:
    original, api = stopped
    run = shutil.copytree(original, tmp_path / "run", symlinks=True)
    path = transcript(run, "task_1")
    assert _kinds(path) == ["start", *["answer", "tree", "results"] * 3]
    _spoil(path, place)
    repaired(run)
    assert (run / "repair-1" / path.relative_to(run)).exists()
    assert path.exists() == (place > 2)
    before = len(api.requests)
    assert "done: 1 of 1 tasks merged" in harness.run("resume", str(run), "--max-cost", "9", api=api)
    assert [request.turn for request in api.requests[before:]] == [4]


def test_an_attempt_whose_workspace_is_lost_resumes_from_an_earlier_one(run: Path) -> None:
    path = transcript(run)
    assert _kinds(path)[-5:] == ["tree", "results", "answer", "tree", "results"]
    path.write_bytes(b"".join(lines(path)[:-1]))
    kinds, tree = _kinds(path), read_all(path)[-1]["tree"]
    (run / ".git/objects" / tree[:2] / tree[2:]).unlink()
    (what,) = [finding.what for finding in check(run).findings if finding.file.endswith("task_2.jsonl")]
    assert f"the workspace's tree {tree} cannot be read from .git; the attempt resumes after turn 5" in what
    repaired(run)
    assert _kinds(path) == kinds[:-3]


def test_an_attempt_that_has_ended_keeps_every_record_that_fits(tmp_path: Path) -> None:
    finished = unpack(tmp_path, "finished")
    path, bought = transcript(finished, "task_1"), answers(finished)
    kinds = _kinds(path)
    _spoil(path, kinds.index("results"))
    assert "nothing is bought again" in check(finished).findings[0].what
    repaired(finished)
    kinds.remove("results")
    assert _kinds(path) == kinds
    assert "nothing left to do" in harness.run("resume", str(finished))
    assert answers(finished) == bought
    assert check(finished).findings == []


def test_what_a_cut_ledger_costs_is_said_before_it_is_cut(run: Path) -> None:
    ledger = run / "ledger.jsonl"
    _price(ledger, bound_usd=0.5)
    places = {(r["kind"], r["task"], r["turn"]): n for n, r in enumerate(read_all(ledger))}
    _spoil(ledger, places["answer", "plan", 1], places["answer", "task_2", 2])
    damaged = ledger.read_bytes()
    losses = [
        "2 records cannot be read and will be cut",
        "plan attempt 1 turn 1 has no answer here and counts as up to $0.50; buying it again costs as much",
        "task_2 attempt 1 turn 2 has no answer here and counts as up to $0.50; the transcript has it",
    ]
    (finding,) = check(run).findings
    assert all(loss in finding.what for loss in losses)
    said: list[tuple[str, bytes]] = []
    assert repair(run, lambda text: said.append((text, ledger.read_bytes()))).findings == []
    for loss in losses:
        assert (f"ledger.jsonl: {loss}", damaged) in said
    assert answers(run).keys().isdisjoint({("plan", 1, 1), ("task_2", 1, 2)})
    harness.run("resume", str(run), "--speed", "100")
    assert max(answers(run).values()) == 1
