"""Third-party packages that a plan asks for, installed once into the run's venv before the executors start.

pip takes wheels only, so that an installation runs none of their code. Commands import them later, in the sandbox.
Installations are the only use of the network by commands. pip's own configuration names the index.
"""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Sequence
from pathlib import Path

from packaging.markers import Marker
from packaging.requirements import InvalidRequirement, Requirement

from parallel_orchestrator.records.errors import UsageError
from parallel_orchestrator.system.environment import clean_environment
from parallel_orchestrator.system.files import write_json

_INSTALL_TIMEOUT_S = 900
_MEASURE_CHILDREN = (
    'import os; os.getenv("COVERAGE_PROCESS_START") and __import__("coverage").process_startup(slug="pth")'
)


def missing(packages: Sequence[str]) -> list[str]:
    """Return the requirements that this program's environment does not meet: by name, version and extras.

    An invalid requirement counts as missing.
    """
    return [package for package in packages if not _is_met(package)]


def provide(packages: Sequence[str], venv: Path, *, allowed: bool, say: Callable[[str], None]) -> Path | None:
    """Install what is missing of a plan's packages. Returns the venv; None when nothing is. Raises UsageError."""
    wanted = missing(packages)
    if not wanted:
        return None
    if not allowed:
        raise UsageError(f"the plan needs {', '.join(wanted)}: allow it with --allow-install, or plan without")
    say(f"installing {', '.join(wanted)} …")
    return install(wanted, venv)


def install(packages: Sequence[str], venv: Path) -> Path:
    """Install `packages` into `venv`, in addition to this program's own. Does nothing the second time.

    Returns `venv`. Raises UsageError with the end of pip's output.
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
    """Let the venv's Python find this program's pytest and coverage, after the venv's own packages."""
    ours = dict.fromkeys([sysconfig.get_path("purelib"), sysconfig.get_path("platlib")])
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    # Python reads no .pth files in these folders, so this file has the line that measures the tests' child processes.
    lines = [*ours, _MEASURE_CHILDREN]
    (venv / "lib" / version / "site-packages" / "orchestrator.pth").write_text("\n".join(lines) + "\n")


def _run(command: list[str], what: str) -> None:
    try:
        subprocess.run(
            command,
            check=True,
            capture_output=True,
            text=True,
            timeout=_INSTALL_TIMEOUT_S,
            env=clean_environment(os.environ, network=True),
        )
    except subprocess.CalledProcessError as error:
        end = "\n".join((error.stderr or error.stdout).strip().splitlines()[-3:])
        raise UsageError(f"{what}: {end}") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UsageError(f"{what}: {error}") from error


def _is_met(package: str) -> bool:
    try:
        wanted = Requirement(package)
        installed = importlib.metadata.distribution(wanted.name)
    except (InvalidRequirement, importlib.metadata.PackageNotFoundError, ValueError):
        return False
    if not wanted.specifier.contains(installed.version, prereleases=True):
        return False
    return all(_is_met(needed) for extra in wanted.extras for needed in _of_extra(installed, extra))


def _of_extra(installed: importlib.metadata.Distribution, extra: str) -> list[str]:
    """Return what a distribution requires for one of its extras; an unmet requirement when it has no such extra."""
    if extra not in (installed.metadata.get_all("Provides-Extra") or []):
        return [f"{installed.metadata['Name']}=={installed.version}.no.{extra}"]
    listed = [Requirement(text) for text in installed.requires or ()]
    wanted = [needed for needed in listed if needed.marker and _holds(needed.marker, extra) > _holds(needed.marker, "")]
    return [f"{needed.name}{needed.specifier}" for needed in wanted]


def _holds(marker: Marker, extra: str) -> bool:
    return marker.evaluate({"extra": extra})
