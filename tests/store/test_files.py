"""Whole files: the old content or the new, at whatever moment the writer dies."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from parallel_orchestrator.records.errors import CannotGoOn
from parallel_orchestrator.system.files import (
    disk_faults_in,
    replace_by_lock,
    sync_all,
    write_all,
    write_json,
    write_whole,
)

ENDLESS = """
import sys
from pathlib import Path
from parallel_orchestrator.system.files import write_whole
print("writing", flush=True)
number = 0
while True:
    number += 1
    write_whole(Path(sys.argv[1]), f"{sys.argv[2]}.{number}\\n" * 50_000)
"""


def test_a_writer_killed_at_any_moment_leaves_a_whole_file(tmp_path: Path) -> None:
    target = tmp_path / "plan.json"
    write_whole(target, "0\n" * 50_000)
    seen = set()
    for round_ in range(8):
        with subprocess.Popen(
            [sys.executable, "-c", ENDLESS, str(target), str(round_)], stdout=subprocess.PIPE
        ) as process:
            assert process.stdout
            process.stdout.readline()
            time.sleep(0.005 + 0.003 * round_)
            process.send_signal(signal.SIGKILL)
        lines = target.read_text().splitlines()
        assert len(lines) == 50_000
        assert len(set(lines)) == 1
        seen.add(lines[0])
    assert len(seen) > 1


def test_what_is_written_is_private_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    target = tmp_path / "x.json"
    write_json(target, {"naïve": [1]})
    assert json.loads(target.read_text()) == {"naïve": [1]}
    assert "naïve" in target.read_text()
    write_whole(target, b"\x00\xff")
    assert target.read_bytes() == b"\x00\xff"
    assert target.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [target]


REFUSED = """
import resource, sys
from pathlib import Path
from parallel_orchestrator.records.errors import CannotGoOn
from parallel_orchestrator.system.files import write_whole
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    write_whole(Path(sys.argv[1]), "new" * 1000)
except CannotGoOn as error:
    print(error)
"""


def test_a_disk_that_refuses_keeps_the_old_content(tmp_path: Path) -> None:
    target = tmp_path / "x"
    write_whole(target, "old")
    done = subprocess.run([sys.executable, "-c", REFUSED, str(target)], capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"cannot write {target}: File too large (")
    assert "MiB free there" in done.stdout
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(CannotGoOn, match=r"cannot write .*/none/x: No such file or directory \(\d+ MiB free"):
        write_whole(tmp_path / "none" / "x", "")


def test_short_writes_are_gone_on_with(tmp_path: Path) -> None:
    read, write = os.pipe()
    data, got = bytes(range(256)) * 2000, bytearray()

    def drain() -> None:
        while part := os.read(read, 5000):
            got.extend(part)

    thread = threading.Thread(target=drain)
    thread.start()
    write_all(write, data)
    os.close(write)
    thread.join()
    os.close(read)
    assert bytes(got) == data


@pytest.mark.parametrize(
    ("number", "ours", "told"),
    [(errno.EIO, False, True), (errno.ENOSPC, True, True), (errno.EACCES, True, True), (errno.EACCES, False, False)],
)
def test_what_a_disk_refuses_is_told_with_path_and_free_space(
    number: int, ours: bool, told: bool, tmp_path: Path
) -> None:
    place = tmp_path / "not there yet" / "file"
    with pytest.raises(CannotGoOn if told else PermissionError) as nameless, disk_faults_in(place, ours=ours):
        raise OSError(number, os.strerror(number))
    with pytest.raises(CannotGoOn if told else PermissionError), disk_faults_in(tmp_path, ours=ours):
        raise OSError(number, os.strerror(number), str(place))
    if told:
        assert f"cannot write {place}: {os.strerror(number)} (" in str(nameless.value)
        assert "MiB free there" in str(nameless.value)


def test_a_file_is_replaced_by_its_lock_and_not_over_somebody_elses(tmp_path: Path) -> None:
    target, lock = tmp_path / "head", tmp_path / "head.lock"
    target.write_text("old")
    replace_by_lock(target, b"new")
    assert (target.read_text(), lock.exists()) == ("new", False)
    lock.write_text("somebody is at it")
    with pytest.raises(CannotGoOn, match=f"cannot write {lock}: File exists"):
        replace_by_lock(target, b"newer")
    assert (target.read_text(), lock.read_text()) == ("new", "somebody is at it")


def test_all_that_is_to_be_durable_is_waited_for(tmp_path: Path) -> None:
    files = [tmp_path / str(number) for number in range(40)]
    for file in files:
        file.touch()
    sync_all(files)
    with pytest.raises(CannotGoOn, match=f"cannot write {tmp_path / 'gone'}: No such file"):
        sync_all([*files, tmp_path / "gone"])


TRACED = """
import sys
from pathlib import Path
from parallel_orchestrator.system.files import replace_by_lock, write_whole_all
folder = Path(sys.argv[1])
if sys.argv[2] == "lock":
    replace_by_lock(folder / "head", b"new")
else:
    write_whole_all({folder / "a": "1", folder / "b": "2"})
"""


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
@pytest.mark.parametrize(
    ("how", "before", "names"),
    [("lock", {"head.lock"}, ["head"]), ("whole", {".a.PID.tmp", ".b.PID.tmp"}, ["a", "b"])],
)
def test_content_is_on_disk_before_it_has_its_name_and_the_name_before_it_returns(
    how: str, before: set[str], names: list[str], tmp_path: Path
) -> None:
    trace = tmp_path / "trace"
    folder = tmp_path / "there"
    folder.mkdir()
    command = ["strace", "-f", "-y", "-o", str(trace), "-e", "trace=fsync,rename", sys.executable, "-c", TRACED]
    subprocess.run([*command, str(folder), how], check=True, cwd=Path(__file__).parents[2])
    calls = re.findall(r"(fsync|rename)\((?:\d+<([^>]+)>|\"([^\"]+)\", \"([^\"]+)\")", trace.read_text())
    told = [
        (call, re.sub(r"\.\d+\.tmp", ".PID.tmp", Path(synced or old).name), Path(new).name)
        for call, synced, old, new in calls
    ]
    renames = [place for place, (call, *_) in enumerate(told) if call == "rename"]
    assert {name for _, name, _ in told[: renames[0]]} == before
    assert [new for _, _, new in told[renames[0] : renames[-1] + 1]] == names
    assert told[renames[-1] + 1 :] == [("fsync", "there", "")]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount")
def test_a_refusal_names_the_file_system_and_says_when_it_has_no_inode(tmp_path: Path) -> None:
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m,nr_inodes=5", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("no file system can be mounted here")
    try:
        for number in range(4):
            (folder / str(number)).touch()
        with pytest.raises(CannotGoOn, match=rf"no inode is free on the file system at {folder}, so it takes no new"):
            write_whole(folder / "more", "text")
        for number in range(3):
            (folder / str(number)).unlink()
        with pytest.raises(CannotGoOn, match=rf"MiB free there, on the file system at {folder}\)"):
            write_whole(folder / "more", "x" * 2**21)
    finally:
        subprocess.run(["umount", str(folder)], check=True)
