from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from parallel_orchestrator.agent.tools.editor import LISTING_LIMIT, VIEW_LIMIT, WRITE_LIMIT, Editor
from parallel_orchestrator.agent.tools.workspace_paths import Workspace
from parallel_orchestrator.messages_api.tool_calls import ToolFault

Run = Callable[..., str]


@pytest.fixture
def run(folder: Path) -> Iterator[Run]:
    workspace = Workspace(folder)
    editor = Editor(workspace)
    yield lambda command, path=".", **more: editor.run({"command": command, "path": path, **more})
    workspace.close()


def test_create_makes_parents_and_overwrites(run: Run, folder: Path) -> None:
    assert run("create", "src/app/core.py", file_text="a\nb\n") == "Wrote src/app/core.py (2 lines)."
    assert run("create", "/workspace/src/app/core.py", file_text="c") == "Wrote /workspace/src/app/core.py (1 line)."
    assert (folder / "src/app/core.py").read_bytes() == b"c"


def test_create_keeps_the_executable_bit(run: Run, folder: Path) -> None:
    (folder / "run.sh").write_text("old")
    (folder / "run.sh").chmod(0o755)
    run("create", "run.sh", file_text="new")
    assert (folder / "run.sh").stat().st_mode & 0o777 == 0o755
    run("create", "plain.txt", file_text="")
    assert (folder / "plain.txt").stat().st_mode & 0o777 == 0o644


def test_text_made_to_be_found_everywhere_costs_no_more_than_a_look(run: Run, folder: Path) -> None:
    (folder / "many").write_text("a" * 9_000_000)
    with pytest.raises(ToolFault, match="100 times or more in many"):
        run("str_replace", "many", old_str="a" * 50_000, new_str="b")


def test_names_that_are_no_text_are_shown_and_harm_nothing(run: Run, folder: Path) -> None:
    for name in (b"\xff\xfe.py", b"new\nline", b"\x1b[2J"):
        Path(os.fsdecode(bytes(folder) + b"/" + name)).touch()
    shown = run("view")
    assert shown.count(".py") == 1
    assert "line" in shown


def test_create_leaves_no_temporary_file(run: Run, folder: Path) -> None:
    run("create", "a.txt", file_text="x")
    assert [path.name for path in folder.iterdir()] == ["a.txt"]


def test_view_numbers_lines(run: Run, folder: Path) -> None:
    (folder / "a.txt").write_text("one\ntwo\n\x0cthree")
    assert run("view", "a.txt") == "     1\tone\n     2\ttwo\n     3\t\x0cthree"
    assert run("view", "a.txt", view_range=[2, 2]) == "     2\ttwo"
    assert run("view", "a.txt", view_range=[2, -1]) == "     2\ttwo\n     3\t\x0cthree"
    assert run("view", "a.txt", view_range=[3, 99]) == "     3\t\x0cthree"


def test_view_of_an_empty_file_says_so(run: Run, folder: Path) -> None:
    (folder / "a.txt").touch()
    assert run("view", "a.txt") == "a.txt is empty"


@pytest.mark.parametrize("wanted", [[0, 1], [3, 3], [2, 1], [1], "1-2", [1, "2"], [True, 2]])
def test_view_range_errors(run: Run, folder: Path, wanted: Any) -> None:
    (folder / "a.txt").write_text("one\ntwo\n")
    with pytest.raises(ToolFault, match="view_range"):
        run("view", "a.txt", view_range=wanted)


def test_long_view_is_cut_at_a_line(run: Run, folder: Path) -> None:
    (folder / "a.txt").write_text("x" * 99 + "\n" + "y" * 99 + "\n" + "z\n" * VIEW_LIMIT)
    seen = run("view", "a.txt")
    assert len(seen) < VIEW_LIMIT + 200
    assert seen.splitlines()[-1].startswith("... this view of a.txt ends")


def test_listing_is_two_levels_deep_without_hidden_and_caches(run: Run, folder: Path) -> None:
    for name in ("src/app/deep/x.py", ".hidden/x", "src/__pycache__/a.pyc", "tests/test_a.py", ".env"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    (folder / "link").symlink_to("/etc")
    lines = run("view", ".").splitlines()[1:]
    assert lines == ["link (not a regular file)", "src/", "src/app/", "tests/", "tests/test_a.py"]
    assert run("view", "src").splitlines()[1:] == ["src/app/", "src/app/deep/"]


def test_listing_of_very_many_files_is_cut(run: Run, folder: Path) -> None:
    for number in range(LISTING_LIMIT + 5):
        (folder / f"{number}").touch()
    lines = run("view", ".").splitlines()
    assert len(lines) == LISTING_LIMIT + 2
    assert "only the first" in lines[-1]


def test_listing_of_an_empty_directory(run: Run) -> None:
    assert run("view", "/workspace").splitlines()[1:] == ["(none)"]


def test_str_replace_shows_what_came_of_it(run: Run, folder: Path) -> None:
    (folder / "a.py").write_text("".join(f"line {n}\n" for n in range(1, 21)))
    seen = run("str_replace", "a.py", old_str="line 10\n", new_str="ten\nand a half\n")
    assert (folder / "a.py").read_text().splitlines()[8:12] == ["line 9", "ten", "and a half", "line 11"]
    assert "    10\tten\n    11\tand a half" in seen
    assert "line 5" not in seen


def test_str_replace_without_new_str_deletes(run: Run, folder: Path) -> None:
    (folder / "a.py").write_text("keep\ndrop\n")
    run("str_replace", "a.py", old_str="drop\n")
    assert (folder / "a.py").read_text() == "keep\n"


def test_str_replace_wants_exactly_one_match(run: Run, folder: Path) -> None:
    (folder / "a.py").write_text("x\ny\nx\n")
    with pytest.raises(ToolFault, match=r"2 times in a.py \(lines 1, 3\)"):
        run("str_replace", "a.py", old_str="x", new_str="z")
    with pytest.raises(ToolFault, match="not found"):
        run("str_replace", "a.py", old_str="absent", new_str="z")
    with pytest.raises(ToolFault, match="empty"):
        run("str_replace", "a.py", old_str="", new_str="z")
    assert (folder / "a.py").read_text() == "x\ny\nx\n"


def test_overlapping_matches_count(run: Run, folder: Path) -> None:
    (folder / "a.txt").write_text("aaa")
    with pytest.raises(ToolFault, match="2 times"):
        run("str_replace", "a.txt", old_str="aa", new_str="b")


@pytest.mark.parametrize(
    ("before", "line", "added", "after"),
    [
        ("a\nb\n", 0, "top", "top\na\nb\n"),
        ("a\nb\n", 1, "mid\n", "a\nmid\nb\n"),
        ("a\nb\n", 2, "end", "a\nb\nend"),
        ("a\nb", 2, "end\n", "a\nb\nend\n"),
        ("", 0, "all\n", "all\n"),
        ("a\r\nb\r\n", 1, "c\r\n", "a\r\nc\r\nb\r\n"),
    ],
)
def test_insert(run: Run, folder: Path, before: str, line: int, added: str, after: str) -> None:
    (folder / "a.txt").write_bytes(before.encode())
    run("insert", "a.txt", insert_line=line, insert_text=added)
    assert (folder / "a.txt").read_bytes().decode() == after


@pytest.mark.parametrize("line", [-1, 3, "1", None, True, 1.0])
def test_insert_line_errors(run: Run, folder: Path, line: Any) -> None:
    (folder / "a.txt").write_text("a\nb\n")
    with pytest.raises(ToolFault, match="from 0"):
        run("insert", "a.txt", insert_line=line, insert_text="x")


def test_binary_and_large_files_are_refused(run: Run, folder: Path) -> None:
    (folder / "a.bin").write_bytes(b"\xff\xfe")
    (folder / "b.bin").write_bytes(b"a\0b")
    for name in ("a.bin", "b.bin"):
        with pytest.raises(ToolFault, match="not UTF-8 text"):
            run("view", name)
    with pytest.raises(ToolFault, match="the editor writes up to"):
        run("create", "big.txt", file_text="x" * (WRITE_LIMIT + 1))
    with (folder / "sparse").open("wb") as file:
        file.truncate(2**30)
    with pytest.raises(ToolFault, match="larger than"):
        run("view", "sparse")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"path": "a"}, "command is missing"),
        ({"command": "undo_edit", "path": "a"}, "view, create, str_replace, insert"),
        ({"command": "view"}, "path is missing"),
        ({"command": "view", "path": 3}, "path must be a string, not int"),
        ({"command": "view", "path": "absent"}, "does not exist"),
        ({"command": "create", "path": "a"}, "file_text is missing"),
        ({"command": "create", "path": "."}, "project root"),
        ({"command": "create", "path": "dir"}, "is a directory"),
        ({"command": "create", "path": "file/x", "file_text": ""}, "not a directory"),
        ({"command": "view", "path": "dir", "view_range": [1, 2]}, "is a directory"),
        ({"command": "insert", "path": "file", "insert_line": 0}, "insert_text is missing"),
    ],
)
def test_wrong_calls_are_explained(folder: Path, arguments: dict[str, Any], told: str) -> None:
    (folder / "dir").mkdir()
    (folder / "file").write_text("x\n")
    workspace = Workspace(folder)
    with pytest.raises(ToolFault, match=told):
        Editor(workspace).run({"file_text": "x", **arguments} if arguments.get("path") in (".", "dir") else arguments)
    workspace.close()
