"""Run directories to damage: those of released versions, unpacked, and what must hold of them afterwards."""

from __future__ import annotations

import json
import shutil
import tarfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from parallel_orchestrator.maintenance.repair import repair
from tests.journals import Record, read_all

GOLDEN = Path(__file__).parent / "golden"
VERSIONS = sorted(path.name for path in GOLDEN.iterdir())
LATEST = VERSIONS[-1]

Lines = list[bytes]
Change = Callable[[Lines], Lines]


def unpack(folder: Path, name: str, version: str = LATEST) -> Path:
    """The `finished` or `interrupted` run of a version, in `folder`."""
    with tarfile.open(GOLDEN / version / f"{name}.tar.xz") as tar:
        tar.extractall(folder, filter="data")
    shutil.copy(GOLDEN / version / "model.yaml", folder)
    run = folder / name
    scenario = json.loads((run / "scenario.json").read_text())
    (run / "scenario.json").write_text(json.dumps({**scenario, "replay": str(folder / "model.yaml")}, indent=2) + "\n")
    return run


def transcript(run: Path, task: str = "task_2") -> Path:
    """The transcript of a task's first attempt."""
    (found,) = run.glob(f"executor_*/{task}.jsonl")
    return found


def journals(run: Path) -> list[Path]:
    """One of each kind."""
    return [run / "queue.jsonl", run / "ledger.jsonl", transcript(run)]


def lines(path: Path) -> Lines:
    """The lines of a journal, newlines included."""
    return path.read_bytes().splitlines(keepends=True)


def flipped(line: bytes, place: int | None = None) -> bytes:
    """A line with one bit altered, in its middle unless said otherwise."""
    place = len(line) // 2 if place is None else place
    return line[:place] + bytes([line[place] ^ 1]) + line[place + 1 :]


def damage(path: Path, change: Change) -> tuple[int, int]:
    """Change a journal's lines; line and byte of the first difference's line."""
    before = lines(path)
    after = change(before)
    path.write_bytes(b"".join(after))
    same = next((n for n, (old, new) in enumerate(zip(before, after, strict=False)) if old != new), len(before))
    return same + 1, sum(map(len, before[:same]))


def answers(run: Path) -> Counter[tuple[str, int, int]]:
    """How often each turn was answered."""
    records = read_all(run / "ledger.jsonl")
    return Counter((r["task"], r["attempt"], r["turn"]) for r in records if r["kind"] == "answer")


def bought_since(run: Path, before: int) -> set[tuple[str, int]]:
    """Task and turn of each try that the ledger's records after the first `before` announce."""
    records = read_all(run / "ledger.jsonl")[before:]
    return {(r["task"], r["turn"]) for r in records if r["kind"] == "intent"}


def repaired(run: Path) -> list[str]:
    """Repair a run, which has to be clean afterwards; what was said."""
    said: list[str] = []
    report = repair(run, said.append)
    assert report.findings == [], said
    return said


def moves(run: Path) -> list[Record]:
    """The queue's task moves."""
    return [record for record in read_all(run / "queue.jsonl") if "task" in record]
