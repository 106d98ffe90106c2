"""Folders that an agent could write to are looked through and cleared away, whatever was left in them."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from parallel_orchestrator.system.folders import empty_folder, files_below, open_folder, scratch_folder

USER = 65534
DEEP = 1_100
"""Folders in one another: more than this process may hold open at once, and deeper than Python recurses."""


def nest(folder: Path, depth: int = DEEP) -> None:
    """Folders in one another, with a file in the innermost."""
    inner = os.open(folder, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("deeper", dir_fd=inner)
        outer, inner = inner, os.open("deeper", os.O_RDONLY, dir_fd=inner)
        os.close(outer)
    os.close(os.open("bottom.py", os.O_WRONLY | os.O_CREAT, dir_fd=inner))
    os.close(inner)


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that an ordinary user can reach and owns."""
    with scratch_folder("place-") as folder:
        os.chown(folder, USER if os.geteuid() == 0 else -1, -1)
        yield folder


def as_user(act: Callable[[], None]) -> None:
    """Do it as a user whom the modes of files hold; fail when it fails."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            if os.geteuid() == 0:
                os.setuid(USER)
            act()
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_however_deep_a_folder_is_it_can_be_emptied_and_looked_through(pit: Path) -> None:
    nest(pit)
    (pit / "a.py").touch()
    assert Path("a.py") in [path.relative_to(pit) for path in files_below(pit)]
    empty_folder(pit)
    assert list(pit.iterdir()) == []


def test_a_scratch_folder_is_gone_whatever_was_put_there() -> None:
    with scratch_folder("test-") as folder:
        nest(folder)
        (folder / "link").symlink_to("/")
        os.mkfifo(folder / "pipe")
        assert folder.stat().st_mode & 0o777 == 0o700
    assert not folder.exists()


def test_folders_without_any_rights_are_removed_by_their_owner(place: Path) -> None:
    def act() -> None:
        (place / "shut/inner/more").mkdir(parents=True)
        (place / "shut/inner/more/file").touch()
        for folder in ("shut/inner/more", "shut/inner", "shut", "."):
            (place / folder).chmod(0)
        os.close(open_folder(place))
        empty_folder(place)

    as_user(act)
    assert list(place.iterdir()) == []


def test_what_a_link_points_to_keeps_its_mode_and_its_content(place: Path) -> None:
    """Python's own TemporaryDirectory gives rights to the target of a link in a folder that may not be written."""
    with tempfile.TemporaryDirectory() as name:
        victim = Path(name, "victim")
        victim.write_text("theirs")
        os.chown(victim, USER if os.geteuid() == 0 else -1, -1)
        Path(name).chmod(0o755)
        victim.chmod(0o604)

        def act() -> None:
            (place / "shut").mkdir()
            (place / "shut/link").symlink_to(victim)
            (place / "shut").chmod(0o500)
            empty_folder(place)

        as_user(act)
        assert list(place.iterdir()) == []
        assert (victim.read_text(), victim.stat().st_mode & 0o777) == ("theirs", 0o604)


def test_a_link_is_neither_emptied_nor_looked_through(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real/file.py").touch()
    (tmp_path / "place").mkdir()
    (tmp_path / "place/link").symlink_to("../real")
    (tmp_path / "place/file.py").symlink_to("../real/file.py")
    with pytest.raises(NotADirectoryError):
        empty_folder(tmp_path / "place/link")
    assert list(files_below(tmp_path / "place")) == []
    empty_folder(tmp_path / "place")
    assert (tmp_path / "real/file.py").exists()
