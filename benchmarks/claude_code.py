"""Claude Code as an executor's tools: its start, its memory, and what a tool call takes beside the other back end.

python -m benchmarks claude-code

No model is asked: what is measured is what the program costs besides. Calls are `true` by bash and a file of one line.
"""

from __future__ import annotations

import re
import statistics
import tempfile
import time
import uuid
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.contestants import NotMeasured
from parallel_orchestrator.agent.tools.toolbox import ToolBox
from parallel_orchestrator.claude_code.binary import find
from parallel_orchestrator.claude_code.session import START_S, ClaudeCodeSession, SessionSettings
from parallel_orchestrator.claude_code.tool_runner import TOOLS, ClaudeCodeTools
from parallel_orchestrator.messages_api.tool_calls import BASH, EDITOR, ToolCall
from parallel_orchestrator.records.errors import UsageError
from parallel_orchestrator.sandbox import reaper
from parallel_orchestrator.sandbox.runner import detect

NAME = "claude-code"
MODEL = "claude-opus-5-5"
AT_ONCE = (1, 3, 8)
CALLS = 20
_MIB = 1024


def run(quick: bool = False, repeat: int = 5) -> dict[str, Any]:
    """Starts and calls, `repeat` times each. `quick`: small ones, whose figures say nothing."""
    try:
        program = find()
    except UsageError as error:
        raise NotMeasured(str(error)) from error
    rounds = 1 if quick else repeat
    starts = {str(n): [_starts(n) for _ in range(rounds)] for n in (AT_ONCE[:1] if quick else AT_ONCE)}
    calls = [_calls(2 if quick else CALLS) for _ in range(rounds)]
    return {"version": program.version, "starts": starts, "calls": calls}


def table(results: dict[str, Any]) -> str:
    """The figures as Markdown."""
    lines = [
        f"Claude Code {results['version']}, each in its sandbox, waiting for the model's first answer:",
        "",
        "| at once | seconds until all have asked | memory of each, shared pages divided (PSS) |",
        "|---|---|---|",
    ]
    for count, samples in results["starts"].items():
        seconds, memory = ([sample[name] for sample in samples] for name in ("seconds", "pss_mib"))
        lines.append(f"| {count} | {_told(seconds, 1)} | {_told(memory, 0)} MiB |")
    lines += [
        "",
        "A tool call, from the model's answer to the request that brings its result, without snapshot or model:",
        "",
        "| call | Claude Code | Messages API's own tools |",
        "|---|---|---|",
    ]
    for name in ("bash", "write"):
        mine, other = ([1000 * sample[f"{name}_{side}_s"] for sample in results["calls"]] for side in ("claude", "api"))
        lines.append(f"| {name} | {_told(mine, 0)} ms | {_told(other, 0)} ms |")
    return "\n".join(lines)


def _told(samples: list[float], digits: int) -> str:
    low, middle, high = min(samples), statistics.median(samples), max(samples)
    return f"{middle:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def _session(folder: Path, number: int) -> ClaudeCodeSession:
    workspace = folder / f"task_{number}"
    workspace.mkdir(exist_ok=True)
    setting = SessionSettings(MODEL, uuid.uuid4(), TOOLS, "You build one part.", 1000)
    return ClaudeCodeSession(detect("required"), find(), workspace, folder / f"task_{number}.claude", setting)


def _starts(count: int) -> dict[str, float]:
    """So many started together."""
    with tempfile.TemporaryDirectory(prefix="claude-") as name, ExitStack() as ending:
        sessions = [_session(Path(name), number) for number in range(count)]
        before = set(reaper.descendants(1))
        began = time.monotonic()
        for session in sessions:
            ending.callback(session.kill)
            session.start("Build it.")
        for session in sessions:
            session.next_request(START_S)
        seconds = time.monotonic() - began
        return {"seconds": seconds, "pss_mib": _pss_mib(set(reaper.descendants(1)) - before) / count}


def _pss_mib(processes: set[int]) -> float:
    """Of those that are a Claude Code, together."""
    found = 0
    for pid in processes:
        try:
            if b"--output-format" in Path(f"/proc/{pid}/cmdline").read_bytes():
                rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
                found += int(re.search(r"^Pss:\s+(\d+)", rollup, re.MULTILINE)[1])  # type: ignore[index]  # always there
        except OSError:
            continue
    return found / _MIB


def _calls(count: int) -> dict[str, float]:
    """Seconds of a call, with either."""
    with tempfile.TemporaryDirectory(prefix="claude-") as name:
        session = _session(Path(name), 1)
        claude = ClaudeCodeTools(session, MODEL)
        tools = ToolBox(Path(name) / "task_1", detect("required"))
        try:
            claude.opening("Build it.", "anthropic")
            return {
                "bash_claude_s": _mean(count, claude, "Bash", lambda _: {"command": "true"}),
                "bash_api_s": _mean(count, tools, BASH, lambda _: {"command": "true"}),
                "write_claude_s": _mean(count, claude, "Write", _written),
                "write_api_s": _mean(count, tools, EDITOR, _created),
            }
        finally:
            claude.close()


def _written(number: int) -> dict[str, Any]:
    return {"file_path": f"/workspace/w{number}.py", "content": "x = 1\n"}


def _created(number: int) -> dict[str, Any]:
    return {"command": "create", "path": f"c{number}.py", "file_text": "x = 1\n"}


def _mean(count: int, tools: ClaudeCodeTools | ToolBox, tool: str, arguments: Callable[[int], dict[str, Any]]) -> float:
    began = time.monotonic()
    for number in range(count):
        call = ToolCall(f"toolu_{tool}_{number}", tool, arguments(number))
        (result,) = tools.run_all([call], lambda doing: None)
        if result.is_error:
            raise NotMeasured(result.content)
    return (time.monotonic() - began) / count
