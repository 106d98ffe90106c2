"""What a killed process left in temporary folders is removed by the next one; what belongs to the living stays."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from parallel_orchestrator.agent.asroot import process_group
from parallel_orchestrator.agent.sandbox import clear_up
from parallel_orchestrator.store.scratch import marked, remove_orphans, scratch_folder

KILLED = """
import os, signal, sys, tempfile
from contextlib import ExitStack
from pathlib import Path
from parallel_orchestrator.agent.asroot import device_nodes, process_group
from parallel_orchestrator.gateway.sockets import listen, new_socket_directory
from parallel_orchestrator.store.scratch import scratch_folder

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
