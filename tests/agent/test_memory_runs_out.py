"""A command that the kernel killed for lack of memory, for real: what it says, and what becomes of its turn."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from parallel_orchestrator.agent.tools.toolbox import ToolBox
from parallel_orchestrator.agent.turns import AgentContext, _run_all
from parallel_orchestrator.messages_api.tool_calls import BASH, ToolCall
from parallel_orchestrator.records.command import Command, CommandResult
from parallel_orchestrator.records.errors import OutOfMemory
from parallel_orchestrator.sandbox.resource_monitor import ResourceLimits
from parallel_orchestrator.sandbox.runner import PlainRunner
from parallel_orchestrator.trunk.testing import testbench
from parallel_orchestrator.trunk.testing.testbench import PytestReport, fed
from tests.agent.runners import sh
from tests.starving import MIB, can_starve, small_group

pytestmark = pytest.mark.skipif(not can_starve(), reason="no control group for memory can be made here")

HOARD = "python -c 'x = [b\"x\" * 2**20 for _ in range(256)]'"


@pytest.fixture
def group() -> Iterator[Path]:
    with small_group() as made:
        yield made


def _starving(group: Path) -> str:
    return f"echo $$ > {group}/cgroup.procs; exec {HOARD}"


def test_the_kernel_s_kill_is_told_from_other_ends(group: Path, tmp_path: Path) -> None:
    done = sh(PlainRunner(), tmp_path, _starving(group))
    assert (done.code, done.starved, done.timed_out) == (137, True, False)
    own = sh(PlainRunner(limits=ResourceLimits(memory=64 * MIB)), tmp_path, f"{HOARD}; sleep 5")
    assert "its processes used more than 64 MiB of memory" in own.output
    assert not own.starved
    assert sh(PlainRunner(), tmp_path, "python -c 'import time; x = b\"x\" * 2**27; time.sleep(.5)'").memory > 100 * MIB


def _context(folder: Path, restored: list[str]) -> AgentContext:
    def never(*_: object, **__: object) -> object:
        raise AssertionError("nothing is asked")

    box = ToolBox(folder, PlainRunner(), 60.0, None)
    return AgentContext(ask=never, tools=box, snapshot=lambda: "tree", restore=restored.append)  # type: ignore[arg-type]


def _calls(*scripts: str) -> Sequence[ToolCall]:
    return [ToolCall(f"call_{number}", BASH, {"command": script}) for number, script in enumerate(scripts)]


def test_a_turn_whose_command_was_killed_is_repeated_on_its_tree(group: Path, tmp_path: Path) -> None:
    folder, mark, restored = tmp_path / "work", tmp_path / "mark", list[str]()
    folder.mkdir()
    once = f"test -e {mark} && echo second || {{ touch {mark}; {_starving(group)}; }}"
    results = _run_all(_calls("echo first", once), _context(folder, restored), "tree")
    assert [result.content for result in results] == ["first", "second"]
    assert restored == ["tree"]


def test_a_turn_whose_command_is_killed_again_stops_the_run(group: Path, tmp_path: Path) -> None:
    with pytest.raises(OutOfMemory, match="an agent's command for lack of memory, also when it ran alone") as raised:
        _run_all(_calls(_starving(group)), _context(tmp_path, []), "tree")
    assert raised.value.exit_code == 3


def test_killed_tests_are_no_verdict(group: Path, tmp_path: Path) -> None:
    done: list[CommandResult] = []

    def run(script: str) -> Callable[[], CommandResult]:
        def once() -> CommandResult:
            done.append(PlainRunner()(Command(("bash", "-c", script if not done else "exit 1"), tmp_path, 60)))
            return done[-1]

        return once

    assert fed(run(_starving(group))).code == 1  # red, and this time it is believed
    assert [finished.starved for finished in done] == [True, False]


def test_tests_that_are_killed_again_stop_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OutOfMemory, match=r"the tests of the merged project .* 2 GiB, and 1 at once"):
        fed(lambda: PytestReport((), starved=True, memory=2 * 2**30))
    assert testbench.fed is fed
