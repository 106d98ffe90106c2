"""Packages of a plan: an own wheel installed into a run's venv, and seen by sandboxed commands."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from parallel_orchestrator.records.command import Command
from parallel_orchestrator.records.errors import UsageError
from parallel_orchestrator.sandbox.packages import install, missing
from parallel_orchestrator.sandbox.runner import PlainRunner, detect


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with one tiny wheel, and a pip that looks nowhere else."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    info = "tiny_thing-1.0.dist-info"
    with zipfile.ZipFile(folder / "tiny_thing-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("tiny_thing.py", "VALUE = 42\n")
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-thing\nVersion: 1.0\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def test_what_is_missing() -> None:
    assert missing(["pytest>=1", "no-such-distribution-anywhere", "coverage"]) == ["no-such-distribution-anywhere"]
    unmet = ["pytest<1", "pytest==0.0.1", "pytest[no-such-extra]", "coverage>=7, <7.1", "no requirement"]
    assert missing(unmet) == unmet
    assert missing(["pytest>=1,<1000", "PyTest", "coverage[toml]", "pytest~=9.0"]) == []


@pytest.mark.usefixtures("wheels")
@pytest.mark.parametrize("sandboxed", [True, False])
def test_commands_find_the_package_and_pytest(tmp_path: Path, sandboxed: bool) -> None:
    venv = install(["tiny-thing==1.0"], tmp_path / "run" / ".venv")
    if sandboxed:
        try:
            runner = detect("required", venv)
        except UsageError as error:
            pytest.skip(str(error))
    else:
        runner = PlainRunner(venv)
    (tmp_path / "work").mkdir()
    code = "import tiny_thing, pytest, coverage; print(tiny_thing.VALUE)"
    done = runner(Command(("python", "-c", code), tmp_path / "work", timeout_s=60))
    assert (done.code, done.output) == (0, "42\n")
    code = "import sys; print('coverage' in sys.modules)"
    measured = f"printf '[run]\\nsource = src\\n' > rc; COVERAGE_PROCESS_START=rc python -c \"{code}\" 2> /dev/null"
    done = runner(Command(("bash", "-c", measured), tmp_path / "work", timeout_s=60))
    assert (done.code, done.output) == (0, "True\n")


@pytest.mark.usefixtures("wheels")
def test_the_second_time_nothing_is_installed(tmp_path: Path) -> None:
    venv = install(["tiny-thing"], tmp_path / "run" / ".venv")
    before = (venv / "installed.json").stat().st_mtime_ns
    install(["tiny-thing"], venv)
    assert (venv / "installed.json").stat().st_mtime_ns == before


@pytest.mark.usefixtures("wheels")
def test_a_package_that_is_not_to_be_had(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot install the plan's packages: .*no-such-thing"):
        install(["no-such-thing"], tmp_path / "run" / ".venv")
    assert not (tmp_path / "run" / ".venv" / "installed.json").exists()
