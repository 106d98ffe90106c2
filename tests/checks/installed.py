"""Builds the wheel, installs it as a reader of README.md does, and runs a demo outside the checkout: `make installed`.

Once by `pip install` into a new environment, once by `uv tool install`. Needs a package index, so no test does it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).resolve().parents[2]


def main() -> None:
    """Both ways; prints a line for each."""
    with TemporaryDirectory(prefix="installed-") as temporary:
        folder = Path(temporary)
        _call([sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--wheel-dir", str(folder), str(ROOT)])
        (wheel,) = folder.glob("*.whl")
        for name, install in {"pip": _with_pip, "uv": _with_uv}.items():
            command = install(folder / name, wheel)
            _demo(command, folder / f"work with {name}")
            print(f"{name}: {wheel.name} installed, demo built outside the checkout")


def _with_pip(folder: Path, wheel: Path) -> Path:
    _call([sys.executable, "-m", "venv", str(folder)])
    _call([str(folder / "bin" / "python"), "-m", "pip", "install", "-q", str(wheel)])
    return folder / "bin" / "parallel-orchestrator"


def _with_uv(folder: Path, wheel: Path) -> Path:
    _call([sys.executable, "-m", "venv", str(folder)])
    _call([str(folder / "bin" / "python"), "-m", "pip", "install", "-q", "uv"])
    places = {"UV_TOOL_DIR": str(folder / "tools"), "UV_TOOL_BIN_DIR": str(folder / "commands")}
    _call(
        [str(folder / "bin" / "uv"), "tool", "install", "-q", "--python", sys.executable, str(wheel)], variables=places
    )
    return folder / "commands" / "parallel-orchestrator"


def _demo(command: Path, folder: Path) -> None:
    folder.mkdir()
    _call([str(command), "run", "--config", "demo.yaml", "--only", "simple", "--speed", "100"], cwd=folder)
    summary = json.loads((folder / "outputs" / "demo-simple" / "execution_summary.json").read_text(encoding="utf-8"))
    if summary["status"] != "done":
        raise SystemExit(f"{command}: the demo ended as {summary['status']}")


def _call(command: list[str], *, cwd: Path | None = None, variables: dict[str, str] | None = None) -> None:
    """Run a command without the checkout's environment; its output only when it fails."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("ANTHROPIC", "PYTHON"))}
    done = subprocess.run(
        command, cwd=cwd, env={**kept, **(variables or {})}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")


if __name__ == "__main__":
    main()
