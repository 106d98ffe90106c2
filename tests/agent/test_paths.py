from __future__ import annotations

import contextlib
import os
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parallel_orchestrator.agent.tools.workspace_paths import PathRefused, Workspace, open_beneath, split


@pytest.fixture(params=[True, False], ids=["openat2", "walk"])
def workspace(folder: Path, request: pytest.FixtureRequest) -> Iterator[Workspace]:
    if request.param and sys.platform != "linux":
        pytest.skip("only Linux has openat2")
    opened = Workspace(folder, in_one_step=request.param)
    yield opened
    opened.close()


@pytest.fixture
def outside(folder: Path) -> Path:
    """A neighbour's folder with a secret; nothing in it may be read or changed."""
    made = folder.parent / "task_10"
    made.mkdir()
    (made / "secret").write_text("secret")
    return made


REFUSED = {
    "is empty": [""],
    "could lead out": ["..", "../x", "a/..", "a/../../x", "/workspace/../x"],
    "is outside": [
        *("/etc/x", "//etc/x", "/workspace2/x", "/workspacex", "/workspace-twin/x"),
        *("/proc/self/root/etc", "/dev/fd/0", "/dev/null"),
    ],
    "cannot be printed": ["a\0b", "a\nb", "a\x1b[2J", "a\u202eb", "\ud800", ".g\u200cit/config"],
    "longer than 1000 characters": ["x/" * 2500, "a" * 5000],
    "longer than 240 bytes": ["a" * 241, "ä" * 121, "deep/" + "a" * 241 + "/x"],
    "version control": [".git", ".git/config", "a/.GIT/hooks/x"],
    "something else on other systems": [
        *("~/.bashrc", "~root/x", "file:///etc/passwd", "C:\\x", "C:x", "a.txt:stream", "..\\x", "\\\\host\\share"),
        *("CON", "src/nul.txt", "com1", "a.", "a ", "b /c", "...", ".. /x"),
    ],
}


@pytest.mark.parametrize(("why", "path"), [(why, path) for why, paths in REFUSED.items() for path in paths])
def test_refused_paths(why: str, path: str) -> None:
    with pytest.raises(PathRefused, match=why) as caught:
        split(path)
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize(
    ("path", "names"),
    [
        ("src/a.py", ("src", "a.py")),
        ("./src//a.py", ("src", "a.py")),
        ("/workspace/src/a.py", ("src", "a.py")),
        ("/workspace", ()),
        (".", ()),
        ("docs/größe.md", ("docs", "größe.md")),
        (".gitignore", (".gitignore",)),
    ],
)
def test_accepted_paths(path: str, names: tuple[str, ...]) -> None:
    assert split(path) == names


@given(st.text(max_size=60))
def test_split_gives_plain_names_or_refuses(path: str) -> None:
    with contextlib.suppress(PathRefused):
        for name in split(path):
            assert name not in ("", ".", "..")
            assert "/" not in name
            assert "\0" not in name


def test_links_are_not_followed(workspace: Workspace, folder: Path, outside: Path) -> None:
    (folder / "file").symlink_to(outside / "secret")
    (folder / "dir").symlink_to(outside)
    (folder / "chain").symlink_to("dir")
    (folder / "relative").symlink_to("../task_10/secret")
    (folder / "inner").symlink_to("real")
    (folder / "real").mkdir()
    for path in ("file", "dir/secret", "chain/secret", "relative", "inner/x"):
        with pytest.raises(PathRefused, match="link"):
            workspace.read(path, 100)
        with pytest.raises(PathRefused, match="link"):
            workspace.write(path, b"changed")
    assert (outside / "secret").read_text() == "secret"
    assert [path.name for path in outside.iterdir()] == ["secret"]
    assert not workspace.is_directory("dir")


def test_dangling_link_is_not_written_through(workspace: Workspace, folder: Path, outside: Path) -> None:
    (folder / "new").symlink_to(outside / "new")
    (folder / "newdir").symlink_to(outside / "newdir")
    for path in ("new", "newdir/x"):
        with pytest.raises(PathRefused, match="link"):
            workspace.write(path, b"x")
    assert [path.name for path in outside.iterdir()] == ["secret"]


def test_hard_links_are_neither_read_nor_written(workspace: Workspace, folder: Path, outside: Path) -> None:
    os.link(outside / "secret", folder / "hard")
    with pytest.raises(PathRefused, match="hard link"):
        workspace.read("hard", 100)
    with pytest.raises(PathRefused, match="hard link"):
        workspace.write("hard", b"changed")
    assert (outside / "secret").read_text() == "secret"


@pytest.mark.timeout(30)  # what waits for the other end of a FIFO waits for ever
def test_special_files_are_refused_without_waiting(workspace: Workspace, folder: Path) -> None:
    os.mkfifo(folder / "special")
    _assert_refused(workspace, "special", "not a regular file")
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as listener:
        (folder / "special").unlink()
        with contextlib.chdir(folder):  # a socket's path has at most 107 bytes
            listener.bind("special")
        _assert_refused(workspace, "special", "not a regular file|No such device")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes device nodes")
def test_devices_are_refused(workspace: Workspace, folder: Path) -> None:
    os.mknod(folder / "zero", stat.S_IFCHR | 0o666, os.makedev(1, 5))
    _assert_refused(workspace, "zero", "not a regular file")


def _assert_refused(workspace: Workspace, path: str, why: str) -> None:
    with pytest.raises(PathRefused, match=why):
        workspace.read(path, 100)
    with pytest.raises(PathRefused, match="not a regular file"):
        workspace.write(path, b"x")


def test_a_file_that_others_may_write_is_replaced_not_written_into(workspace: Workspace, folder: Path) -> None:
    (folder / "file").write_text("old")
    with (folder / "file").open() as held:
        workspace.write("file", b"new")
        assert held.read() == "old"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has openat2")
def test_openat2_stays_beneath(folder: Path, outside: Path) -> None:
    (folder / "a/b").mkdir(parents=True)
    (folder / "inner").symlink_to("a")
    (folder / "outer").symlink_to(outside)
    root, system = os.open(folder, os.O_RDONLY), os.open("/", os.O_RDONLY)
    try:
        opened = open_beneath(root, ("a", "b"))
        assert opened is not None, "this kernel has no openat2"
        assert os.path.samestat(os.fstat(opened), (folder / "a/b").stat())
        os.close(opened)
        for names in (("inner",), ("inner", "b"), ("outer",), ("..",), ("a", "..", ".."), ("absent",)):
            assert open_beneath(root, names) is None, names
        assert open_beneath(system, ("proc", "self", "cwd")) is None
    finally:
        os.close(root)
        os.close(system)


def test_unreadable_entries_name_no_host_path(workspace: Workspace, folder: Path) -> None:
    (folder / "plain").write_text("x")
    for path in ("absent/deep/x", "plain/x", "plain/"):
        with pytest.raises(PathRefused) as caught:
            workspace.read(path, 100)
        assert str(folder.parent) not in str(caught.value)


@pytest.mark.parametrize("tries", [1_500, pytest.param(25_000, marks=pytest.mark.thorough)])
@pytest.mark.parametrize("exchanged", ["directory", "leaf"])
def test_swapping_for_a_link_never_leads_out(
    workspace: Workspace, folder: Path, outside: Path, exchanged: str, tries: int
) -> None:
    """Reads and writes against a process that swaps what the path names for a link and back.

    However the two share the processor, it goes on until there were so many tries and swaps, and reads that were
    refused beside such that were not. The bound is for a machine on which the swapper never gets a turn.
    """
    target = outside if exchanged == "directory" else outside / "secret"
    swapped = folder / "d" if exchanged == "directory" else folder / "d" / "secret"
    (folder / "d").mkdir()
    (folder / "d/secret").write_text("own")
    with swapping(swapped, target) as links:
        done = read = 0
        deadline = time.monotonic() + 120
        while done < tries or links() < 200 or not 0 < read < done:
            read += _read_and_write(workspace, 100)
            done += 100
            assert time.monotonic() < deadline, f"{done} tries, {read} reads, {links()} swaps"
    assert (outside / "secret").read_text() == "secret"
    assert [path.name for path in outside.iterdir()] == ["secret"]


def _read_and_write(workspace: Workspace, tries: int) -> int:
    read = 0
    for number in range(tries):
        with contextlib.suppress(PathRefused):
            assert workspace.read("d/secret", 100) != b"secret"
            read += 1
        with contextlib.suppress(PathRefused):
            workspace.write("d/secret" if number % 2 else f"d/made{number % 7}", b"own")
    return read


SWAPPER = """
import os, shutil, sys
from contextlib import suppress
swapped, target, aside, parent = *sys.argv[1:4], os.getppid()
links = 0
while os.getppid() == parent:
    # The writer makes what it misses, so any of these may find the place taken.
    with suppress(OSError):
        os.rename(swapped, aside)
    with suppress(OSError):
        os.symlink(target, swapped)
        links += 1
        os.unlink(swapped)
    with suppress(OSError):
        os.rename(aside, swapped)
    shutil.rmtree(aside, ignore_errors=True)
    with suppress(OSError):
        os.unlink(aside)
    if links % 100 == 0:
        print(links, flush=True)
"""


@contextlib.contextmanager
def swapping(swapped: Path, target: Path) -> Iterator[Callable[[], int]]:
    """A process that makes `swapped` a link to `target` and back, again and again; how often it did, at least."""
    aside = swapped.parents[1] / "aside"
    with tempfile.TemporaryFile("w+") as counts:
        swapper = subprocess.Popen(
            [sys.executable, "-ISc", SWAPPER, str(swapped), str(target), str(aside)], stdout=counts
        )
        try:
            yield lambda: int(counts.seek(0) or (counts.read().split() or ["0"])[-1])
        finally:
            swapper.kill()
            swapper.wait()
