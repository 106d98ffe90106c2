from __future__ import annotations

import hashlib
import json
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from parallel_orchestrator.records.plan import Plan

STUB = Path(__file__).with_name("stub_gateway.py")


class Gateway:
    """A stub gateway in a process of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.socket = folder / "s"
        self.process: subprocess.Popen[bytes] | None = None

    def will_reply(self, replies: dict[int, list[dict[str, Any]]]) -> None:
        (self.folder / "replies.json").write_text(json.dumps(replies))

    def start(self) -> None:
        self.stop()
        self.process = subprocess.Popen([sys.executable, "-S", str(STUB), str(self.folder)])
        while not self._listens():  # its socket is there a moment before it listens
            time.sleep(0.01)

    def _listens(self) -> bool:
        with socket.socket(socket.AF_UNIX) as connection:
            return connection.connect_ex(str(self.socket)) == 0

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
        self.socket.unlink(missing_ok=True)

    def asked(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / "asked.jsonl").read_text().splitlines()]


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    # pytest's own temporary paths are too long for a socket.
    folder = Path(tempfile.mkdtemp(prefix="gw"))
    started = Gateway(folder)
    yield started
    started.stop()
    shutil.rmtree(folder)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "executor_1" / "task_1"
    made.mkdir(parents=True)
    return made


class Trees:
    """Keeps and restores a folder by copying it. As with git, the same content has the same name."""

    def __init__(self, folder: Path, store: Path) -> None:
        self.folder, self.store = folder, store
        store.mkdir(exist_ok=True)

    def snapshot(self) -> str:
        held = [(str(path.relative_to(self.folder)), _content(path)) for path in sorted(self.folder.rglob("*"))]
        name = hashlib.sha256(repr(held).encode()).hexdigest()
        if not (self.store / name).exists():
            shutil.copytree(self.folder, self.store / f"{name}.part")
            (self.store / f"{name}.part").rename(self.store / name)
        return name

    def restore(self, tree: str) -> None:
        shutil.rmtree(self.folder)
        shutil.copytree(self.store / tree, self.folder)


def _content(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


@pytest.fixture
def plan() -> Plan:
    return Plan.model_validate(
        {
            "complexity": {"level": "simple", "reasoning": "", "key_features": [], "technical_components": []},
            "contract": "add(a, b) adds",
            "integration_notes": "be careful",
            "packages": [],
            "verify": [],
            "tasks": [_task("task_1", []), _task("task_2", ["task_1"])],
        }
    )


def _task(task_id: str, dependencies: list[str]) -> dict[str, Any]:
    return {
        "id": task_id,
        "name": f"the {task_id}",
        "description": f"build {task_id}",
        "priority": 1,
        "estimated_effort": "low",
        "dependencies": dependencies,
        "files": [f"src/{task_id}.py", f"tests/test_{task_id}.py"],
        "acceptance": [f"{task_id} works"],
        "integration_notes": "fits in",
    }


def files_below(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def wait_for(condition: Callable[[], bool], limit_s: float = 20) -> bool:
    """Whether the condition comes true; a limit for a test that would hang, no statement about speed."""
    end = time.monotonic() + limit_s
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.01)
    return False
