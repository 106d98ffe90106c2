"""Make the run directories that later versions must still read: `python -m tests.reliability.make_golden`.

Once for each release. Writes `golden/VERSION/`: the recording `model.yaml`, and as archives the directory of a run
that finished and of one that was killed: one task merged, one sent back for repair, one not begun.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import signal
import subprocess
import tarfile
import tempfile
from pathlib import Path

from tests.end_to_end import harness, scripted
from tests.fake_api import Block, Body, FakeApi, text, tool_use
from tests.journals import read_all

GOLDEN = Path(__file__).parent / "golden"
REQUIREMENT = "Build a project of three parts"
PLAN = scripted.plan([scripted.task(1, []), scripted.task(2, []), scripted.task(3, [1, 2])])
WRONG = "import part_2\n\n\ndef test_value():\n    assert part_2.value() == 3\n"
RIGHT = WRONG.replace("3", "2")


def build(body: Body) -> list[Block]:
    """Build a part; that of task_2 comes with a wrong test, which it mends when it is sent back."""
    turn, mine = scripted.answers_before(body) + 1, scripted.task_of(body) == "task_2"
    if not mine or turn in (2, 4):
        return scripted.build_part(body, turn)
    test = {"command": "create", "path": "tests/test_part_2.py"}
    if turn == 1:
        blocks = scripted.build_part(body, 1)
        blocks[2]["input"]["file_text"] = WRONG
        return blocks
    if turn == 3:
        return [tool_use("toolu_2_3", "bash", command="ls src")]
    if turn == 5:
        return [tool_use("toolu_2_5", scripted.EDITOR, **test, file_text=RIGHT)]
    return [tool_use("toolu_2_6", "bash", command="ls tests")] if turn == 6 else [text("The test is right now.")]


def record(folder: Path) -> Path:
    """The recording: what the scripted model answers, each answer after 0.4 s."""
    recording = folder / "model.yaml"
    with FakeApi(scripted.model(PLAN, build)) as api:
        harness.run(REQUIREMENT, "--output-dir", str(folder / "live"), api=api)
    harness.run("export", str(folder / "live"), "--recording", str(recording))
    lines = recording.read_text().splitlines()
    latency = "latency_s: 0.4"
    recording.write_text(
        "".join(f"{_indent(line)}{latency}\n" if "latency_s:" in line else f"{line}\n" for line in lines)
    )
    return recording


def _indent(line: str) -> str:
    return line[: len(line) - len(line.lstrip())]


def finish(folder: Path, recording: Path) -> None:
    """A run to its end."""
    harness.run(REQUIREMENT, "--output-dir", str(folder / "finished"), "--replay", str(recording), "--speed", "100")


def interrupt(folder: Path, recording: Path) -> None:
    """A run that is killed, all of it, when task_1 is merged and task_2 is two turns into its repair."""
    run = folder / "interrupted"

    def far_enough() -> bool:
        merged = (
            any(move["state"] == "merged" for move in harness.moves(run)) if (run / "queue.jsonl").exists() else False
        )
        records = [r for path in run.glob("executor_*/task_2.jsonl") for r in read_all(path)]
        return merged and sum(r["kind"] == "answer" for r in records) >= 6 and records[-1]["kind"] == "results"

    with harness.started(REQUIREMENT, "--output-dir", str(run), "--replay", str(recording)) as process:
        harness.wait_until(far_enough)
        os.killpg(process.pid, signal.SIGKILL)


def pack(run: Path, archive: Path) -> None:
    """A run directory as an archive, without machine paths."""
    scenario = json.loads((run / "scenario.json").read_text())
    (run / "scenario.json").write_text(json.dumps({**scenario, "replay": "model.yaml"}, indent=2) + "\n")
    for cache in run.rglob("__pycache__"):
        subprocess.run(["rm", "-r", str(cache)], check=True)
    with tarfile.open(archive, "w:xz") as tar:
        tar.add(run, arcname=run.name)


def main() -> None:
    """Make them for the version that is installed."""
    target = GOLDEN / importlib.metadata.version("parallel-orchestrator")
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        recording = record(folder)
        finish(folder, recording)
        interrupt(folder, recording)
        (target / "model.yaml").write_bytes(recording.read_bytes())
        for run in ("finished", "interrupted"):
            pack(folder / run, target / f"{run}.tar.xz")
    print(target, sum(file.stat().st_size for file in target.iterdir()), "bytes")


if __name__ == "__main__":
    main()
