"""Third-party packages that a plan asks for: installed once, before the executors start, into a venv of the run.

Only wheels are taken, so that installing runs no code of theirs. What commands run later may import it, and does so
in the sandbox. The network is used here and nowhere else; which index is pip's own configuration to say.
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
    """Those of the requirements that what is installed beside this program does not meet: by name, version, extras.

    What is no requirement at all counts as missing.
    """
    return [package for package in packages if not _is_met(package)]


def provide(packages: Sequence[str], venv: Path, *, allowed: bool, say: Callable[[str], None]) -> Path | None:
    """`venv` with what is missing here of a plan's packages; None when nothing is. Raises UsageError, as `install`."""
    wanted = missing(packages)
    if not wanted:
        return None
    if not allowed:
        raise UsageError(f"the plan needs {', '.join(wanted)}: allow it with --allow-install, or plan without")
    say(f"installing {', '.join(wanted)} …")
    return install(wanted, venv)


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
    # Python reads no .pth file in our folders, so the line that measures the tests' child processes stands here.
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
        said = "\n".join((error.stderr or error.stdout).strip().splitlines()[-3:])
        raise UsageError(f"{what}: {said}") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UsageError(f"{what}: {error}") from error


def _is_met(package: str) -> bool:
    try:
        wanted = Requirement(package)
        found = importlib.metadata.distribution(wanted.name)
    except (InvalidRequirement, importlib.metadata.PackageNotFoundError, ValueError):
        return False
    if not wanted.specifier.contains(found.version, prereleases=True):
        return False
    return all(_is_met(needed) for extra in wanted.extras for needed in _of_extra(found, extra))


def _of_extra(found: importlib.metadata.Distribution, extra: str) -> list[str]:
    """What a distribution requires because of one of its extras; itself, unmet, when it has no such extra."""
    if extra not in (found.metadata.get_all("Provides-Extra") or []):
        return [f"{found.metadata['Name']}=={found.version}.no.{extra}"]
    listed = [Requirement(text) for text in found.requires or ()]
    wanted = [needed for needed in listed if needed.marker and _holds(needed.marker, extra) > _holds(needed.marker, "")]
    return [f"{needed.name}{needed.specifier}" for needed in wanted]


def _holds(marker: Marker, extra: str) -> bool:
    return marker.evaluate({"extra": extra})
