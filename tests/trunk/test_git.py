"""Nothing that a tree, a person's configuration or the surroundings hold can make git run something or go elsewhere."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from parallel_orchestrator.records.errors import UsageError
from parallel_orchestrator.trunk.git.git import Git, GitFailed, require
from parallel_orchestrator.trunk.git.safe_git_dir import Tampered
from tests.trunk.bench import ADD, TEST_ADD, Bench, merged, task, write

CALC = task(1, "src/calc.py", "tests/test_calc.py")
GOOD = {"src/calc.py": ADD, "tests/test_calc.py": TEST_ADD}


def _exercise(bench: Bench, extra: dict[str, str | bytes | None] | None = None) -> None:
    """Every kind of call: create, workspace, snapshot, a real merge, publish, recover."""
    bench.trunk.create()
    base = bench.trunk.head()
    merged(bench.offer(CALC, {**GOOD, **(extra or {})}, base=base))
    notes = task(2, "docs/notes.md")
    merged(bench.offer(notes, {"docs/notes.md": "n"}, base=base))
    folder = bench.run.workspace(2, "task_2", 1)
    bench.trunk.restore(folder, bench.trunk.snapshot(folder))
    bench.trunk.publish({"README.md": b"read me"}, "Readme")
    assert len(bench.trunk.recover()) == 2
    assert (bench.run.root / "README.md").read_bytes() == b"read me"
    assert (bench.run.root / "docs/notes.md").read_text() == "n"


def _marker_script(folder: Path) -> tuple[Path, Path]:
    """A program that leaves a mark when something runs it."""
    marker, script = folder / "ran", folder / "evil.sh"
    script.write_text(f"#!/bin/sh\necho $0 $@ >> '{marker}'\ncat\nexit 1\n")
    script.chmod(0o755)
    return marker, script


def _evil_settings(script: Path) -> str:
    hooks = script.parent / "hooks"
    hooks.mkdir(exist_ok=True)
    for hook in ("post-checkout", "reference-transaction", "post-index-change", "pre-commit", "post-commit"):
        (hooks / hook).write_text(script.read_text())
        (hooks / hook).chmod(0o755)
    return f"""
[core]
    fsmonitor = {script}
    hooksPath = {hooks}
    attributesFile = {script.parent}/attributes
    autocrlf = true
    pager = {script}
    editor = {script}
    sshCommand = {script}
[commit]
    gpgSign = true
[gpg]
    program = {script}
[filter "evil"]
    clean = {script}
    smudge = {script}
    process = {script}
    required = true
[diff]
    external = {script}
[diff "evil"]
    textconv = {script}
[merge "evil"]
    driver = {script} %A
[alias]
    read-tree = !{script}
    log = !{script}
[user]
    name = Somebody Else
[init]
    templateDir = {script.parent}
    defaultBranch = elsewhere
[log]
    showSignature = true
"""


def test_a_persons_configuration_has_no_effect(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    marker, script = _marker_script(tmp_path)
    (tmp_path / "attributes").write_text("* filter=evil diff=evil merge=evil\n")
    (tmp_path / ".gitconfig").write_text(_evil_settings(script) + "[i18n]\n    commitEncoding = latin1\n")
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_AUTHOR_DATE"):
        monkeypatch.setenv(name, "nonsense")
    for name in ("GIT_EXTERNAL_DIFF", "GIT_SSH_COMMAND", "GIT_EDITOR"):
        monkeypatch.setenv(name, str(script))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / ".gitconfig"))
    bench = Bench(tmp_path / "out")
    _exercise(bench)
    assert not marker.exists()
    assert "latin1" not in Git(bench.run.git, bench.run.root).text("cat-file", "commit", "main")
    assert Git(bench.run.git, bench.run.root).text("log", "-1", "--format=%an %cn") == (
        "Parallel Orchestrator Parallel Orchestrator"
    )


def test_what_a_workspace_holds_runs_nothing(bench: Bench, tmp_path: Path) -> None:
    marker, script = _marker_script(tmp_path)
    folder = bench.workspace(CALC)
    base = bench.trunk.head()
    subprocess.run(["git", "init", "-q", folder], check=True)
    (folder / ".git/config").write_text(_evil_settings(script))
    write(folder, {**GOOD, ".gitattributes": "* filter=evil diff=evil merge=evil\n"})
    bench.trunk.snapshot(folder)
    merged(bench.submit(CALC, base))
    (folder / ".git").rename(tmp_path / "moved")
    (folder / ".git").write_text(f"gitdir: {tmp_path}/moved\n")
    bench.trunk.restore(folder, bench.trunk.snapshot(folder))
    assert not marker.exists()


def test_a_configuration_with_hooks_in_the_repository_itself_has_no_effect(bench: Bench, tmp_path: Path) -> None:
    marker, script = _marker_script(tmp_path)
    with (bench.run.git / "config").open("a") as config:
        config.write(_evil_settings(script))
    (bench.run.git / "info/attributes").write_text("* filter=evil diff=evil merge=evil\n")
    (bench.run.git / "hooks").mkdir()
    (bench.run.git / "hooks/reference-transaction").write_text(script.read_text())
    (bench.run.git / "hooks/reference-transaction").chmod(0o755)
    _exercise(bench)
    assert not marker.exists()


@pytest.mark.parametrize("name", ["config", "HEAD", "info", "config.worktree", "objects"])
def test_a_view_that_is_not_ours_is_refused_and_can_be_made_anew(bench: Bench, name: str) -> None:
    path = bench.run.git / "view" / name
    path.unlink(missing_ok=True)
    path.write_text("[alias]\n")
    with pytest.raises(Tampered, match="view was tampered with"):
        bench.trunk.head()
    shutil.rmtree(bench.run.git / "view")
    _exercise(bench)


def test_output_directory_inside_another_repository(tmp_path: Path) -> None:
    outer = tmp_path / "outer"
    subprocess.run(["git", "init", "-q", outer], check=True)
    (outer / ".gitattributes").write_text("* text eol=crlf\n")
    _exercise(Bench(outer / "out"))
    status = subprocess.run(["git", "-C", outer, "log"], capture_output=True, text=True, check=False)
    assert "does not have any commits" in status.stderr


def test_path_with_spaces_and_unicode(tmp_path: Path) -> None:
    _exercise(Bench(tmp_path / "a b" / "日本 'ü\" $HOME"))


def test_line_endings_and_attributes_change_no_byte(bench: Bench) -> None:
    mixed = b"a\r\nb\nc\r\n$Id$\n"
    _exercise(bench, {"docs/mixed.txt": mixed})
    assert (bench.run.root / "docs/mixed.txt").read_bytes() == mixed


def test_failures_say_what_and_where(tmp_path: Path) -> None:
    with pytest.raises(GitFailed, match=r"git rev-parse in .*nowhere"):
        Git(tmp_path / "nowhere", tmp_path).text("rev-parse", "HEAD")


@pytest.mark.parametrize(
    ("program", "message"),
    [
        (None, "git was not found on PATH"),
        ("#!/bin/sh\necho git version 2.37.9\n", "git 2.38 or newer is needed; found git version 2.37.9"),
        ("#!/bin/sh\nexit 1\n", "found no version"),
    ],
)
def test_git_that_cannot_be_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str | None, message: str
) -> None:
    if program:
        (tmp_path / "git").write_text(program)
        (tmp_path / "git").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match=message):
        require()
    assert os.environ["PATH"] == str(tmp_path)
