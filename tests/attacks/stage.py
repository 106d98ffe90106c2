"""A stage for attacks: the real program runs over a model that misbehaves, beside files that nobody may touch.

    stage = Stage(tmp_path)
    seen = stage.play([bash("cat ../../secret.txt")])       # each list: one turn's tool calls, before honest work
    assert "No such file" in seen[0].content
    stage.assert_nothing_happened()

The run's output directory lies in `stage.parent`, with files beside it; their hash must not change. This process is
the subreaper of all that a run starts, so whatever was left running is a descendant of ours afterwards.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from parallel_orchestrator.sandbox import reaper
from tests.end_to_end import harness, scripted
from tests.fake_api import Answer, Block, Body, FakeApi, tool_use

Turn = list[Block]
"""The blocks of one answer of the model."""

REQUIREMENT = "Build a project of many parts"


@dataclass(frozen=True)
class Seen:
    """One tool result as the model saw it."""

    content: str
    is_error: bool


def bash(command: str) -> Block:
    """A call of the bash tool."""
    return tool_use(_next_id(), "bash", command=command)


def edit(**arguments: Any) -> Block:
    """A call of the text editor."""
    return tool_use(_next_id(), scripted.EDITOR, **arguments)


def create(path: str, text: str = "attacked\n") -> Block:
    """A call that writes a file."""
    return edit(command="create", path=path, file_text=text)


def _next_id(count: list[int] = [0]) -> str:  # noqa: B006 - a counter
    count[0] += 1
    return f"toolu_attack_{count[0]}"


class Stage:
    """A parent directory with things in it, and runs of the program inside it."""

    def __init__(self, tmp_path: Path) -> None:
        self.parent = tmp_path / "parent"
        self.out = self.parent / "out"
        self.parent.mkdir()
        (self.parent / "secret.txt").write_text("SECRET-OF-THE-PARENT\n")
        (self.parent / "out-twin").mkdir()
        (self.parent / "out-twin" / "file.txt").write_text("untouched\n")
        (self.parent / "program.sh").write_text("#!/bin/sh\n")
        (self.parent / "program.sh").chmod(0o755)
        self.before = fingerprint(self.parent, but=self.out)
        self.output = ""
        """What the program printed in the last run."""
        self.prefix: Sequence[str] = ()
        """The words before the program's command line: those that make it another user's."""
        ctypes.CDLL(None).prctl(reaper.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        self._processes = set(reaper.descendants(os.getpid()))

    def play(
        self,
        *turns: Turn,
        code: int = 0,
        options: Sequence[str] = (),
        plan: dict[str, Any] | None = None,
        honest: bool = True,
    ) -> list[Seen]:
        """Run one task whose model first takes `turns`, then does honest work; the results of all its tool calls.

        With `honest` false the model reports success right after `turns`. `code`: the exit code to expect.
        """
        planned = plan or scripted.plan([scripted.task(1, [])])
        with FakeApi(scripted.model(planned, attacker(turns, honest=honest)), task_of=scripted.task_of) as api:
            self.run(api, *options, code=code)
            return seen_by_model(api, "task_1")

    def run(self, api: FakeApi, *options: str, code: int = 0, variables: dict[str, str] | None = None) -> str:
        """Run the program over `api` into `self.out`; what it printed."""
        arguments = (REQUIREMENT, "--output-dir", str(self.out), *options)
        self.output = harness.run(*arguments, api=api, code=code, variables=variables, prefix=self.prefix)
        return self.output

    def run_python(self, api: FakeApi, *, code: int = 0, **settings: Any) -> str:
        """As `run`, by the Python API: it takes settings that the command line has no options for."""
        script = (
            "import json, sys; from orchestrator import ParallelOrchestrator as Program; "
            "done = Program(sys.argv[1], sys.argv[2], **json.loads(sys.argv[3]), yes=True).run(); "
            "sys.exit(done['status'] != 'done')"
        )
        command = [sys.executable, "-c", script, REQUIREMENT, str(self.out), json.dumps(settings)]
        done = subprocess.run(
            command,
            env=harness.environment(api.url),
            cwd=harness.ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        self.output = done.stdout
        assert done.returncode == code, self.output
        return self.output

    def summary(self) -> dict[str, Any]:
        """The run's summary."""
        return harness.summary(self.out)

    def assert_nothing_happened(self) -> None:
        """Fail unless everything beside the output directory is as it was, and no process is left."""
        assert fingerprint(self.parent, but=self.out) == self.before
        left = {pid for pid in reaper.descendants(os.getpid()) if pid not in self._processes and _has_memory(pid)}
        assert not left, [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in left]


def attacker(turns: Sequence[Turn], *, honest: bool = True) -> Callable[[Body], Answer | list[Block]]:
    """A builder of parts (`scripted.model`) that takes `turns` first."""

    def build(body: Body) -> Answer | list[Block]:
        before = scripted.answers_before(body)
        if before < len(turns):
            return turns[before]
        return scripted.build_part(body, before - len(turns) + 1 if honest else 4)

    return build


def seen_by_model(api: FakeApi, task: str) -> list[Seen]:
    """The results of all tool calls of a task, as its last request holds them."""
    asked = [request.body for request in api.requests if request.task == task]
    messages: list[Any] = max((body["messages"] for body in asked), key=len, default=[])
    blocks = [block for message in messages if isinstance(message["content"], list) for block in message["content"]]
    found = [block for block in blocks if block["type"] == "tool_result"]
    return [Seen(_text(block["content"]), bool(block.get("is_error"))) for block in found]


def _text(content: Any) -> str:
    return content if isinstance(content, str) else "".join(part.get("text", json.dumps(part)) for part in content)


def _has_memory(pid: int) -> bool:
    """Whether a process can still do something: one that has ended gives its memory back before it becomes a zombie."""
    try:
        return not Path(f"/proc/{pid}/statm").read_text().startswith("0 ")
    except OSError:
        return False


def fingerprint(folder: Path, but: Path | None = None) -> dict[str, str]:
    """Kind, mode, owner and content of everything below `folder`, by path; nothing of `but`."""
    found = {}
    for root, directories, files in os.walk(folder):
        directories[:] = [name for name in directories if Path(root, name) != but]
        for name in [*directories, *files]:
            path = Path(root, name)
            about = path.lstat()
            content = path.read_bytes() if stat.S_ISREG(about.st_mode) else b""
            target = str(path.readlink()) if path.is_symlink() else ""
            digest = hashlib.sha256(content).hexdigest()
            found[str(path.relative_to(folder))] = f"{about.st_mode:o} {about.st_uid} {target} {digest}"
    return found
