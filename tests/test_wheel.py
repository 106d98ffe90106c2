"""The wheel: what is in it, and that the installed command runs the demo from anywhere."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MODULES = {"orchestrator.py", "planner_agent.py", "executor_agent.py"}


def _pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built of this tree without a network."""
    folder = tmp_path_factory.mktemp("wheel")
    _pip("wheel", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", str(folder), str(ROOT))
    (built,) = folder.iterdir()
    return built


def _names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as content:
        return {name for name in content.namelist() if ".dist-info/" not in name}


def test_it_holds_the_program_and_nothing_else(wheel: Path) -> None:
    package = {path.relative_to(ROOT).as_posix() for path in (ROOT / "parallel_orchestrator").rglob("*.py")}
    data = {name for name in _names(wheel) if name.startswith("parallel_orchestrator/")} - package
    assert _names(wheel) == MODULES | package | data
    recordings = {f"parallel_orchestrator/recordings/{name}.yaml" for name in ("demo", "simple", "medium", "complex")}
    schema = "parallel_orchestrator/recordings/scenarios.schema.json"  # which the first line of demo.yaml names
    assert recordings | {schema, "parallel_orchestrator/gateway/endpoints/prices.json"} <= data
    assert not [name for name in data if name.endswith((".pyc", ".log", ".jsonl", ".tmp"))]


def test_it_says_what_it_needs(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as content:
        (information,) = (name for name in content.namelist() if name.endswith(".dist-info/METADATA"))
        text = content.read(information).decode()
        scripts = content.read(information.replace("METADATA", "entry_points.txt")).decode()
    assert "Requires-Python: >=3.11" in text
    assert "License-Expression: Apache-2.0" in text
    assert "parallel-orchestrator = orchestrator:main" in scripts


def test_the_installed_command_runs_the_demo_from_anywhere(wheel: Path, tmp_path: Path) -> None:
    installed, elsewhere = tmp_path / "installed", tmp_path / "somewhere else"
    elsewhere.mkdir()
    _pip("install", "--no-deps", "--no-index", "--target", str(installed), str(wheel))
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("ANTHROPIC", "PYTHON"))}
    environment["PYTHONPATH"] = str(installed)
    where = "import orchestrator, parallel_orchestrator as p; print(orchestrator.__file__, p.__file__)"
    found = subprocess.run(
        [sys.executable, "-c", where], cwd=elsewhere, env=environment, capture_output=True, text=True, check=True
    )
    assert all(Path(path).is_relative_to(installed) for path in found.stdout.split())

    command = [str(installed / "bin" / "parallel-orchestrator"), "run", "--config", "demo.yaml", "--only", "simple"]
    done = subprocess.run(
        [*command, "--speed", "100", "--output-dir", "hello"],
        cwd=elsewhere,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "1 of 1 tasks merged (100%)" in done.stdout
    assert [path.name for path in elsewhere.iterdir()] == ["hello"]
    assert json.loads((elsewhere / "hello" / "execution_summary.json").read_text())["status"] == "done"
