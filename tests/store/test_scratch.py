"""What a killed process left in temporary folders is removed by the next one; what belongs to the living stays."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from parallel_orchestrator.records.command import Command
from parallel_orchestrator.records.errors import CannotGoOn
from parallel_orchestrator.sandbox import root_isolation
from parallel_orchestrator.sandbox.root_isolation import process_group
from parallel_orchestrator.sandbox.runner import PlainRunner, clear_up, runner_for
from parallel_orchestrator.system.folders import marked, remove_orphans, scratch_folder

KILLED = """
import os, signal, sys, tempfile
from contextlib import ExitStack
from pathlib import Path
from parallel_orchestrator.sandbox.root_isolation import device_nodes, process_group
from parallel_orchestrator.gateway.config import listen, new_socket_directory
from parallel_orchestrator.system.folders import scratch_folder

with ExitStack() as stack:
    merge = stack.enter_context(scratch_folder("merge-"))
    (merge / "project").mkdir()
    (merge / "project" / "module.py").touch()
    listen(new_socket_directory() / "gateway.sock")
    stack.enter_context(device_nodes())
    stack.enter_context(process_group(10))
    print(*os.listdir(tempfile.gettempdir()))
    print(*stack.enter_context(process_group(10))[-1:], flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="who made it is only known on Linux")
def test_what_the_killed_left_is_removed_and_what_the_living_have_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    (tmp_path / "merge-somebody-elses").mkdir()
    with scratch_folder("merge-") as ours, process_group(10) as group:
        environment = {**os.environ, "TMPDIR": str(tmp_path)}
        command = [sys.executable, "-c", KILLED]
        root = Path(__file__).resolve().parents[2]
        done = subprocess.run(command, env=environment, cwd=root, capture_output=True, text=True, check=False)
        assert done.returncode == -9, done.stderr
        left, groups = done.stdout.splitlines()
        assert len(left.split()) >= 4
        clear_up()
        assert {path.name for path in tmp_path.iterdir()} == {"merge-somebody-elses", ours.name}
        assert not any(Path(name).parent.exists() for name in groups.split())
        assert all(Path(name).exists() for name in group[-1:])


def test_only_proof_of_death_counts(tmp_path: Path) -> None:
    mine = marked("merge-")
    pid, birth, namespace = mine.removeprefix("merge-").rstrip("-").split(".")
    kept = [f"{mine}a", f"merge-{pid}.{birth}.1-a", f"other-{pid}.1.{namespace}-a", f"merge-{pid}.1-a"]
    for name in (*kept, f"merge-{pid}.1.{namespace}-a", f"merge-3fffff.{birth}.{namespace}-a"):
        (tmp_path / name).mkdir()
    assert remove_orphans(tmp_path) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(kept)


def test_a_temporary_folder_that_is_gone_is_named_and_stops_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    with pytest.raises(CannotGoOn, match=f"cannot make a temporary folder: {tmp_path}/gone does not exist.*resume"):
        scratch_folder("merge-").__enter__()
    with pytest.raises(CannotGoOn, match="TMPDIR"):
        PlainRunner()(Command(("true",), tmp_path, 10))
    if os.geteuid() == 0 and shutil.which("bwrap"):  # which has nodes of its own there
        with pytest.raises(CannotGoOn, match="TMPDIR"):
            runner_for("required")(Command(("true",), tmp_path, 10))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes control groups")
def test_an_old_empty_group_of_another_namespace_is_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    with process_group(10) as entered:
        if not entered:
            pytest.skip("no control group can be made here")
        parent = Path(entered[-1]).parent.parent
        group = parent / f"command-{os.getpid():x}.1.1-leftover"
        busy = parent / f"command-{os.getpid():x}.1.1-inhabited"
        for one in (group, busy):
            one.mkdir()
        with subprocess.Popen(["sleep", "60"]) as sleeper:
            (busy / "cgroup.procs").write_text(str(sleeper.pid))
            clear_up()
            assert group.exists()  # its maker may be about to enter it
            monkeypatch.setattr(root_isolation, "_ENTERED_S", -1.0)
            clear_up()
            assert (group.exists(), busy.exists()) == (False, True)
            sleeper.kill()
        clear_up()
        assert not busy.exists()
