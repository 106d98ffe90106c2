"""Third-party packages that a plan asks for: installed once, before the executors start, into a venv of the run.

Only wheels are taken, so that installing runs no code of theirs. What commands run later may import it, and does so
in the sandbox. The network is used here and nowhere else; which index is pip's own configuration to say.
"""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path

from parallel_orchestrator.records.errors import UsageError
from parallel_orchestrator.store.files import write_json

_INSTALL_TIMEOUT_S = 900


def missing(packages: Sequence[str]) -> list[str]:
    """Those of the requirements whose distribution is not installed beside this program."""
    return [package for package in packages if not _installed(distribution(package))]


def distribution(package: str) -> str:
    """The name in a requirement such as `flask>=3`."""
    return re.split(r"[\s<>=!~\[;@]", package, maxsplit=1)[0]


def install(packages: Sequence[str], venv: Path) -> Path:
    """Make `venv` hold `packages` besides what this program runs with; `venv`. Does nothing the second time.

    Raises UsageError with pip's last words.
    """
    marker = venv / "installed.json"
    if not marker.exists():
        _run([sys.executable, "-m", "venv", "--clear", "--without-pip", str(venv)], "cannot make a venv")
        _see_ours(venv)
        python = str(venv / "bin" / "python")
        pip = [sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check"]
        _run([*pip, "install", "--quiet", "--only-binary=:all:", "--", *packages], "cannot install the plan's packages")
        write_json(marker, list(packages))
    return venv


def _see_ours(venv: Path) -> None:
    """Let the venv's Python find pytest and coverage where this program has them, after the venv's own packages."""
    ours = dict.fromkeys([sysconfig.get_path("purelib"), sysconfig.get_path("platlib")])
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    (venv / "lib" / version / "site-packages" / "orchestrator.pth").write_text("\n".join(ours) + "\n")


def _run(command: list[str], what: str) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=_INSTALL_TIMEOUT_S)
    except subprocess.CalledProcessError as error:
        said = "\n".join((error.stderr or error.stdout).strip().splitlines()[-3:])
        raise UsageError(f"{what}: {said}") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UsageError(f"{what}: {error}") from error


def _installed(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except (importlib.metadata.PackageNotFoundError, ValueError):
        return False
    return True
