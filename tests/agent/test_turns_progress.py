"""Loops that are longer than one call, or that vary without getting anywhere, end; work that repeats itself goes on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from parallel_orchestrator.agent.transcript import Conversation, fold, read
from parallel_orchestrator.agent.turns import MAX_STALE_TURNS, Limits, StopKind, should_stop
from parallel_orchestrator.records.plan import Plan
from parallel_orchestrator.store.journal import read_each
from parallel_orchestrator.store.record_parser import TRANSCRIPT
from tests.agent.test_turns import DONE, Block, Script, Setting, bash, create

TURNS = 3 * MAX_STALE_TURNS


@pytest.fixture
def setting(folder: Path, tmp_path: Path, plan: Plan) -> Setting:
    return Setting(folder, tmp_path, plan)


def _loop(call: Callable[[int], Block]) -> list[tuple[list[Block], str | None] | Exception]:
    return [([call(n)], "tool_use") for n in range(TURNS)]


def _view(tool_id: str, path: str) -> Block:
    arguments = {"command": "view", "path": path}
    return {"type": "tool_use", "id": tool_id, "name": "str_replace_based_edit_tool", "input": arguments}


@pytest.mark.parametrize(
    "call",
    [
        lambda n: bash(f"t{n}", ["echo a", "echo b", "ls"][n % 3]),
        lambda n: bash(f"t{n}", f"true # try {n}"),
        lambda n: bash(f"t{n}", f"echo '1 failed in 0.0{n}s'; : {n}"),
        lambda n: create(f"t{n}", "x", "ab"[n % 2]),
        lambda n: _view(f"t{n}", "a" if n % 2 else "b"),
    ],
    ids=["three in turn", "other arguments", "other times", "there and back", "only looking"],
)
def test_a_loop_ends(setting: Setting, call: Callable[[int], Block]) -> None:
    (setting.folder / "a").write_text("one\n")
    (setting.folder / "b").write_text("two\n")
    ended = setting.run(Script(*_loop(call)))
    assert ended.kind is StopKind.STOPPED
    assert (
        ended.reason == f"makes no progress: no file changed and no result was new in {MAX_STALE_TURNS} turns in a row"
    )
    assert read(setting.path).turns <= MAX_STALE_TURNS + 4
    assert setting.run(Script()) == ended


@pytest.mark.parametrize(
    "call",
    [
        lambda n: create(f"t{n}", "x", f"{n}"),
        lambda n: bash(f"t{n}", f"echo {n} > x") if n % 2 else bash(f"t{n}", "echo 1 failed"),
        lambda n: bash(f"t{n}", f"echo result {'abcdefghij'[n // 10]}{'abcdefghij'[n % 10]}"),
        lambda n: bash(f"t{n}", "echo the same") if n % MAX_STALE_TURNS else create(f"t{n}", "x", f"{n}"),
    ],
    ids=["writing", "change and test", "looking around", "one change among many looks"],
)
def test_work_that_repeats_itself_goes_on(setting: Setting, call: Callable[[int], Block]) -> None:
    calls = [([call(n), _view(f"v{n}", ".")], "tool_use") for n in range(TURNS)]
    assert setting.run(Script(*calls, DONE)).kind is StopKind.FINISHED


def test_every_prefix_of_a_transcript_gives_the_verdict_that_was_given_then(setting: Setting) -> None:
    """Whoever goes on after a kill decides as the killed one would have."""
    setting.run(Script(*_loop(lambda n: bash(f"t{n}", ["echo a", "echo b"][n % 2]))))
    records = list(read_each(setting.path, TRANSCRIPT))
    steps, limits = Conversation(), Limits(turns=50, seconds=3600)
    verdicts = []
    for number, record in enumerate(records, start=1):
        steps.apply(record)
        if steps.calls:
            continue  # it is asked when all calls have their results
        verdicts.append(should_stop(steps, limits))
        assert should_stop(fold(records[:number]), limits) == verdicts[-1]
    assert [v.kind for v in verdicts if v] == [StopKind.STOPPED]
    assert verdicts[-1]


def test_a_repair_begins_anew(setting: Setting) -> None:
    setting.run(Script(*_loop(lambda n: bash(f"t{n}", f"true {n}"))))
    transcript = setting.open()
    transcript.repair("the tests are red", base="base1", tree=setting.trees.snapshot())
    transcript.close()
    assert setting.run(Script(([bash("again", "true")], "tool_use"), DONE)).kind is StopKind.FINISHED
