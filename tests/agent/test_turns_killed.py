"""kill -9 at every point of the loop, in a real process; going on gives the same messages and the same files."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

from parallel_orchestrator.agent.model_client import Answer
from parallel_orchestrator.agent.prompt import opening
from parallel_orchestrator.agent.tools.toolbox import ToolBox
from parallel_orchestrator.agent.transcript import Transcript, read
from parallel_orchestrator.agent.turns import AgentContext, Limits, StopKind, take_turns
from parallel_orchestrator.records.errors import ContextFull
from parallel_orchestrator.records.plan import Plan
from parallel_orchestrator.sandbox.runner import PlainRunner
from parallel_orchestrator.store import journal
from parallel_orchestrator.system.files import write_all
from tests.agent.conftest import Trees, files_below
from tests.agent.test_turns import bash, create, text


def insert(tool_id: str, line: str) -> dict[str, Any]:
    arguments = {"command": "insert", "path": "log", "insert_line": 0, "insert_text": f"{line}\n"}
    return {"type": "tool_use", "id": tool_id, "name": "str_replace_based_edit_tool", "input": arguments}


# No change but the first may be made twice: it would be seen.
ANSWERS: list[Any] = [
    ([text("begin"), create("a", "src/x.py", "1\n"), create("b", "log", ""), insert("c", "x")], "tool_use"),
    ([bash("d", "cut off")], "max_tokens"),
    ([bash("e", "cat log src/x.py >> log2"), insert("f", "y")], "tool_use"),
    ([insert("g", "z")], "tool_use"),
    ContextFull("the prompt is too long"),
    ([insert("h", "new conversation")], "tool_use"),
    ([], "end_turn"),
]
FILES = {"src/x.py": b"1\n", "log": b"new conversation\nz\ny\nx\n", "log2": b"x\n1\n"}


class Fuse:
    """Kills this process with signal 9 when it has been touched for the n-th time."""

    def __init__(self, touches: int) -> None:
        self.left = touches

    def touch(self) -> None:
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def around(self, function: Any) -> Any:
        def guarded(*args: Any, **named: Any) -> Any:
            self.touch()
            value = function(*args, **named)
            self.touch()
            return value

        return guarded


class Attempt:
    """One attempt, with what must survive a kill beside it."""

    def __init__(self, root: Path, plan: Plan) -> None:
        self.folder, self.path, self.asked, self.plan = root / "work", root / "t.jsonl", root / "asked", plan
        self.folder.mkdir(parents=True)
        self.trees = Trees(self.folder, root / "trees")

    def ask(self, request: dict[str, Any], /, *, turn: int, phase: str, phase_turn: int) -> Answer:
        digest = hashlib.sha256(json.dumps(request).encode()).hexdigest()
        with self.asked.open("a") as file:
            file.write(f"{turn} {digest}\n")
        # The refusal is no answer, and takes no turn.
        answer = ANSWERS[turn - 1 if phase == "work" else turn]
        if isinstance(answer, ContextFull):
            raise answer
        content, stop = answer
        return Answer(content, stop, {}, "m", 1.0, 0.0)

    def run(self, fuse: Fuse) -> None:
        transcript = Transcript(self.path)
        if transcript.is_new:
            task = self.plan.task("task_1")
            start = opening(requirement="Build it", plan=self.plan, task=task, model="m", profile="anthropic")
            transcript.begin(start, base="b", run="r", task_id="task_1", attempt=1)
        tools = ToolBox(self.folder, PlainRunner())
        tools.run = fuse.around(tools.run)  # type: ignore[method-assign]
        context = AgentContext(
            fuse.around(self.ask), tools, fuse.around(self.trees.snapshot), fuse.around(self.trees.restore)
        )
        if take_turns(transcript, context, Limits(50, 3600)).restartable:
            transcript.restart("it was too long", base="b2", tree=self.trees.snapshot())
            assert take_turns(transcript, context, Limits(3, 3600)).kind is StopKind.FINISHED
        transcript.close()

    def run_and_die(self, touches: int) -> bool:
        """In a child that dies at the n-th point; False when it came to the end before."""
        child = os.fork()
        if child == 0:
            fuse = Fuse(touches)
            # Before and after each record reaches the disk.
            vars(journal)["write_all"] = fuse.around(write_all)
            self.run(fuse)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status) or os.waitstatus_to_exitcode(status) == 0
        return os.WIFSIGNALED(status)


def test_every_point(tmp_path: Path, plan: Plan) -> None:
    golden = Attempt(tmp_path / "golden", plan)
    golden.run(Fuse(0))
    messages, files = read(golden.path).messages, files_below(golden.folder)
    assert files == FILES
    point = 1
    while True:
        attempt = Attempt(tmp_path / f"killed{point}", plan)
        died = attempt.run_and_die(point)
        if not died:
            break
        # A second kill at the first thing that a resume does, on every third point.
        if point % 3 == 0:
            attempt.run_and_die(2)
        attempt.run(Fuse(0))
        assert read(attempt.path).messages == messages, f"point {point}"
        assert files_below(attempt.folder) == files, f"point {point}"
        # The same turn was asked for with the same bytes, so the ledger would have answered.
        asked = dict.fromkeys(attempt.asked.read_text().splitlines())
        assert list(asked) == list(dict.fromkeys(golden.asked.read_text().splitlines())), f"point {point}"
        shutil.rmtree(tmp_path / f"killed{point}")
        point += 1
    assert point > 40


def test_a_damaged_workspace_is_made_whole_before_pending_tools(tmp_path: Path, plan: Plan) -> None:
    attempt = Attempt(tmp_path / "a", plan)
    # Dies after the first tool of the first turn.
    reached = 0
    for point in range(1, 40):
        shutil.rmtree(tmp_path / "a")
        attempt = Attempt(tmp_path / "a", plan)
        attempt.run_and_die(point)
        if (attempt.folder / "src/x.py").exists():
            reached = point
            break
    assert reached
    (attempt.folder / "src/x.py").write_text("half written")
    (attempt.folder / "log").write_text("left over\n")
    attempt.run(Fuse(0))
    assert files_below(attempt.folder) == FILES
