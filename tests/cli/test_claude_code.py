"""Which Claude Code is used, and what is said where there is none: before anything is made or paid for."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from tests.cli.test_answer import typed

WITHOUT_EXTRA = """
import importlib.util
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, *more: None if name == "claude_agent_sdk" else found(name, *more)
"""
RUN = ("Create a hello world function", "--replay", "simple", "--backend", "claude-code", "--output-dir", "run")


def _path(folder: Path) -> str:
    """The PATH of whoever has git and bwrap, and no `claude` but the one in `folder`."""
    folder.mkdir(exist_ok=True)
    places = [place for place in os.environ["PATH"].split(os.pathsep) if not (Path(place) / "claude").exists()]
    return os.pathsep.join([str(folder), *places])


@pytest.mark.parametrize("arguments", [RUN, ("plan", *RUN)])
def test_a_run_without_it_is_refused_before_anything_is_made(arguments: tuple[str, ...], tmp_path: Path) -> None:
    done = typed(*arguments, cwd=tmp_path, before=WITHOUT_EXTRA, PATH=_path(tmp_path / "bin"))
    assert done.returncode == 2
    assert "Claude Code was not found" in done.stderr
    assert "--backend api" in done.stderr
    assert not (tmp_path / "run").exists()


def test_a_script_of_its_name_is_refused_with_what_to_do(tmp_path: Path) -> None:
    path = _path(tmp_path / "bin")
    (tmp_path / "bin" / "claude").write_text("#!/usr/bin/env node\n")
    (tmp_path / "bin" / "claude").chmod(0o755)
    done = typed(*RUN, cwd=tmp_path, before=WITHOUT_EXTRA, PATH=path)
    assert done.returncode == 2
    assert "is a script" in done.stderr


def test_doctor_names_it_and_its_version_and_takes_no_login_for_a_key(tmp_path: Path) -> None:
    path = _path(tmp_path / "bin")
    shutil.copy("/bin/cat", tmp_path / "bin" / "claude")  # a native program that has a version
    around = {"PATH": path, "CLAUDE_CODE_OAUTH_TOKEN": "hidden-1", "HTTPS_PROXY": "http://127.0.0.1:9"}
    done = typed("doctor", "--json", cwd=tmp_path, before=WITHOUT_EXTRA, **around)
    assert "hidden-1" not in done.stdout
    checks = {check["name"]: check for check in json.loads(done.stdout)["result"]["checks"]}
    assert checks["claude"]["told"].startswith("cat from the PATH")
    assert (checks["key"]["level"], checks["key"]["told"]) == ("fault", "no key")
