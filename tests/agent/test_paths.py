from __future__ import annotations

import contextlib
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parallel_orchestrator.agent.paths import PathRefused, Workspace, split


@pytest.fixture
def workspace(folder: Path) -> Iterator[Workspace]:
    opened = Workspace(folder)
    yield opened
    opened.close()


@pytest.fixture
def outside(folder: Path) -> Path:
    """A neighbour's folder with a secret; nothing in it may be read or changed."""
    made = folder.parent / "task_10"
    made.mkdir()
    (made / "secret").write_text("secret")
    return made


@pytest.mark.parametrize(
    "path",
    [
        *(
            "",
            "../x",
            "/etc/x",
            "a/../../x",
            "a/..",
            "..",
            "~/.bashrc",
            "~root/x",
            "file:///etc/passwd",
            "a\0b",
            "a" * 241,
        ),
        *("x/" * 2500, "C:\\x", "..\\x", "CON", "nul.txt", "com1", "a.", "a ", "b /c", "a\nb", "a\x1b[2J", "a\u202eb"),
        *(
            "/workspace2/x",
            "/workspacex",
            "//etc/x",
            ".git/config",
            "a/.GIT/hooks/x",
            "/proc/self/root/etc",
            "/dev/fd/0",
        ),
        "\ud800",
    ],
)
def test_refused_paths(path: str) -> None:
    with pytest.raises(PathRefused):
        split(path)


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


def test_hard_link_is_not_written(workspace: Workspace, folder: Path, outside: Path) -> None:
    os.link(outside / "secret", folder / "hard")
    with pytest.raises(PathRefused, match="hard link"):
        workspace.write("hard", b"changed")
    assert (outside / "secret").read_text() == "secret"


def test_special_files_are_refused_without_waiting(workspace: Workspace, folder: Path) -> None:
    os.mkfifo(folder / "fifo")
    with pytest.raises(PathRefused, match="not a regular file"):
        workspace.read("fifo", 100)
    with pytest.raises(PathRefused, match="not a regular file"):
        workspace.write("fifo", b"x")


def test_unreadable_entries_name_no_host_path(workspace: Workspace, folder: Path) -> None:
    (folder / "plain").write_text("x")
    for path in ("absent/deep/x", "plain/x", "plain/"):
        with pytest.raises(PathRefused) as caught:
            workspace.read(path, 100)
        assert str(folder.parent) not in str(caught.value)


@pytest.mark.parametrize("exchanged", ["directory", "leaf"])
def test_swapping_for_a_link_never_leads_out(workspace: Workspace, folder: Path, outside: Path, exchanged: str) -> None:
    """10,000 tries in all, against a thread that swaps what the path names for a link and back."""
    target = outside if exchanged == "directory" else outside / "secret"
    swapped = folder / "d" if exchanged == "directory" else folder / "d" / "secret"
    (folder / "d").mkdir()
    (folder / "d/secret").write_text("own")
    stop = threading.Event()
    links = 0

    def swap() -> None:
        nonlocal links
        aside = folder / "aside"
        while not stop.is_set():
            # The writer makes what it misses, so any of these may find the place taken.
            with contextlib.suppress(OSError):
                swapped.rename(aside)
            with contextlib.suppress(OSError):
                swapped.symlink_to(target)
                links += 1
                swapped.unlink()
            with contextlib.suppress(OSError):
                aside.rename(swapped)
            shutil.rmtree(aside, ignore_errors=True)
            aside.unlink(missing_ok=True)

    swapper = threading.Thread(target=swap)
    swapper.start()
    read = 0
    for number in range(2_500):
        with contextlib.suppress(PathRefused):
            assert workspace.read("d/secret", 100) != b"secret"
            read += 1
        with contextlib.suppress(PathRefused):
            workspace.write("d/secret" if number % 2 else f"d/made{number % 7}", b"own")
    stop.set()
    swapper.join()
    assert read
    assert links > 100
    assert (outside / "secret").read_text() == "secret"
    assert [path.name for path in outside.iterdir()] == ["secret"]
