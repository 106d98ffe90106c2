"""Which Claude Code is used, and what is said where there is none: before anything is made or paid for."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from parallel_orchestrator.claude_code.login import find_login
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
    assert "Claude Code is not here" in done.stderr
    assert "--backend api" in done.stderr
    assert not (tmp_path / "run").exists()


def test_a_script_of_its_name_is_refused_with_what_to_do(tmp_path: Path) -> None:
    path = _path(tmp_path / "bin")
    (tmp_path / "bin" / "claude").write_text("#!/usr/bin/env node\n")
    (tmp_path / "bin" / "claude").chmod(0o755)
    done = typed(*RUN, cwd=tmp_path, before=WITHOUT_EXTRA, PATH=path)
    assert done.returncode == 2
    assert "is a script" in done.stderr


def test_doctor_names_it_its_version_and_the_login(tmp_path: Path) -> None:
    path = _path(tmp_path / "bin")
    shutil.copy("/bin/cat", tmp_path / "bin" / "claude")  # a native program that tells a version
    home = tmp_path / "config"
    home.mkdir()
    (home / ".credentials.json").write_text(json.dumps({"claudeAiOauth": {"accessToken": "hidden-1"}}))
    around = {"PATH": path, "CLAUDE_CONFIG_DIR": str(home), "HTTPS_PROXY": "http://127.0.0.1:9"}
    done = typed("doctor", "--json", cwd=tmp_path, before=WITHOUT_EXTRA, **around)
    checks = {check["name"]: check for check in json.loads(done.stdout)["result"]["checks"]}
    assert checks["claude"]["told"].startswith("cat from the PATH")
    assert "logged in by" in checks["claude"]["told"]
    assert "hidden-1" not in done.stdout
    # Without a key the login would pay, and what that breaks is said; with one it is no matter.
    assert checks["key"]["level"] == "note"
    assert "only --backend claude-code can run" in checks["key"]["told"]
    assert all(promise in checks["key"]["told"] for promise in ("the key (", "the budget (", "the resume ("))
    done = typed("doctor", "--json", cwd=tmp_path, before=WITHOUT_EXTRA, **around, ANTHROPIC_API_KEY="k" * 20)
    checks = {check["name"]: check for check in json.loads(done.stdout)["result"]["checks"]}
    assert (checks["key"]["level"], "login" in checks["key"]["told"]) == ("ok", False)


def test_a_login_is_found_without_reading_it_out(tmp_path: Path) -> None:
    assert find_login({"HOME": str(tmp_path)}) is None
    assert find_login({"HOME": str(tmp_path), "CLAUDE_CODE_OAUTH_TOKEN": "hidden"}) == "CLAUDE_CODE_OAUTH_TOKEN"
    (tmp_path / ".claude").mkdir()
    file = tmp_path / ".claude" / ".credentials.json"
    for held in ("no JSON", json.dumps({"mcpOAuth": {"server": {"accessToken": "hidden"}}})):
        file.write_text(held)
        assert find_login({"HOME": str(tmp_path)}) is None
    file.write_text(json.dumps({"claudeAiOauth": {"accessToken": "hidden"}}))
    assert find_login({"HOME": str(tmp_path), "CLAUDE_CONFIG_DIR": ""}) == str(file)
