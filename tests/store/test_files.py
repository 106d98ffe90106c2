"""Whole files: the old content or the new, at whatever moment the writer dies."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from parallel_orchestrator.records.errors import CannotGoOn
from parallel_orchestrator.store.files import disk_faults_in, write_all, write_json, write_whole

ENDLESS = """
import sys
from pathlib import Path
from parallel_orchestrator.store.files import write_whole
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
from parallel_orchestrator.store.files import write_whole
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
