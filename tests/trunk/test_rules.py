"""What a submission may hold and touch: each rule by a workspace that breaks it."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from parallel_orchestrator.trunk import Rejected
from parallel_orchestrator.trunk.changes.rules import LARGEST_FILE, MOST_FILES, case_collisions
from parallel_orchestrator.trunk.git.git import Git
from tests.trunk.bench import ADD, TEST_ADD, Bench, merged, plan, task, write

CALC = task(1, "src/calc.py", "tests/test_calc.py")
NOTES = task(2, "docs/notes.md")
LATER = task(3, "src/later.py", "tests/test_later.py")
PLAN = plan(CALC, NOTES, LATER)
GOOD = {"src/calc.py": ADD, "tests/test_calc.py": TEST_ADD}


def _refused(bench: Bench, mess: Callable[[Path], object]) -> tuple[str, ...]:
    """The facts when CALC's good work is submitted with `mess` made in its workspace."""
    head = bench.trunk.head()
    folder = bench.workspace(CALC)
    write(folder, GOOD)
    mess(folder)
    result = bench.submit(CALC, head, among=PLAN)
    assert isinstance(result, Rejected), result
    assert bench.trunk.head() == head
    return result.facts


def _link(source: str, target: str) -> Callable[[Path], None]:
    return lambda folder: (folder / source).symlink_to(target)


def _file(name: str, content: str | bytes = "x") -> Callable[[Path], None]:
    return lambda folder: write(folder, {name: content})


def _socket(folder: Path) -> None:
    here = Path.cwd()
    os.chdir(folder)  # the path of a socket may not be long
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("src/sock")
    os.chdir(here)


@pytest.mark.parametrize(
    ("mess", "fact"),
    [
        (lambda f: subprocess.run(["git", "init", "-q", f / "src"], check=True), "src/.git is a git repository"),
        (_file("src/sub/.git", "gitdir: /tmp/x"), "src/sub/.git is a git repository"),
        (_file("src/.GIT/config"), "src/.GIT is a git repository"),
        (_file("src/.gitmodules"), "src/.gitmodules is a control file of git"),
        (_file("docs/.gitattributes", "* filter=x"), "docs/.gitattributes is a control file of git"),
        (_link("src/a.py", "/etc/passwd"), "src/a.py is a link"),
        (_link("src/a.py", "nowhere"), "src/a.py is a link"),
        (_link("docs", "/etc"), "docs is a link"),
        (lambda f: os.mkfifo(f / "src/pipe"), "src/pipe is neither a file nor a folder"),
        (_socket, "src/sock is neither a file nor a folder"),
        (_file("src/Calc.py"), "src/Calc.py and src/calc.py are the same path"),
        (_file("src/git~1"), "src/git~1 has a name that does not work everywhere"),
        (_file("src/a\nb.py"), "src/a\\nb.py has a name"),
        (_file("src/a\x1b[2J.py"), "src/a\\x1b[2J.py has a name"),
        (_file("src/dot."), "src/dot. has a name"),
        (_file("tests/conftest.py", ""), "tests/conftest.py has a name that changes how Python or pytest runs"),
        (_file("src/sitecustomize.py", ""), "src/sitecustomize.py has a name that changes"),
        (_file("src/usercustomize.py", ""), "src/usercustomize.py has a name that changes"),
        (_file("src/x.pth"), "src/x.pth has a name that changes"),
        (_file("src/a.dist-info/entry_points.txt"), "src/a.dist-info/entry_points.txt has a name that changes"),
        (_file("src/.claude/settings.json", "{}"), "src/.claude/settings.json makes a tool run commands"),
        (_file("docs/.GitHub/workflows/x.yml"), "docs/.GitHub/workflows/x.yml makes a tool run commands"),
        (_file("tests/pytest.ini"), "tests/pytest.ini has a name that changes"),
        (_file("tests/tox.ini"), "tests/tox.ini has a name that changes"),
        (_file("src/setup.cfg"), "src/setup.cfg has a name that changes"),
        (lambda f: os.truncate(_touch(f / "src/big.bin"), LARGEST_FILE + 1), "src/big.bin is 5000001 bytes long"),
        (lambda f: os.truncate(_touch(f / "src/calc.py"), 2**30), "src/calc.py is 1073741824 bytes long"),
        (lambda f: write(f, {f"docs/{n}": "" for n in range(MOST_FILES)}), "2002 files were written"),
        (_file("src/calc.py", "def f(:\n"), "src/calc.py:1: "),
        (_file("src/calc.py", b"a = 1\0"), "src/calc.py:1: source code string cannot contain null bytes"),
        (_file("src/calc.py", "-" * 400_000 + "1"), "src/calc.py:1: nested too deeply"),
        (_file("src/calc.py", "x=1\n" * 125_001), "src/calc.py has 500004 bytes; at most 500000 are accepted"),
        (lambda f: write(f, {f"src/{n}.py": "#" * 400_000 for n in range(13)}), "520"),
        (_file("docs/data.toml", "a" + ".a" * 5_000 + " = 1"), "docs/data.toml:1: line 1 has more than 200 dots"),
        (_file("src/data.json", '{\n"a": }'), "src/data.json:2: Expecting value"),
        (_file("docs/data.toml", "a = "), "docs/data.toml:1: "),
        (lambda f: (f / "src/calc.py").unlink(), "src/calc.py is missing. Your task owns it"),
        (_file("src/later.py", ""), "src/later.py belongs to task_3"),
        (_file("tests/test_later.py", ""), "tests/test_later.py belongs to task_3"),
    ],
)
def test_what_is_refused(bench: Bench, mess: Callable[[Path], object], fact: str) -> None:
    assert any(found.startswith(fact) for found in _refused(bench, mess)), _refused(bench, mess)


def _touch(path: Path) -> Path:
    path.touch()
    return path


def test_a_root_that_is_a_file_is_refused(bench: Bench) -> None:
    assert "docs must be a folder. Remove the file." in _refused(bench, _file("docs"))


def test_names_that_are_not_text_are_refused_and_shown(bench: Bench) -> None:
    facts = _refused(bench, lambda f: Path(os.fsdecode(bytes(f / "src") + b"/\xff")).touch())
    assert facts[0].startswith("src/\\xff has a name")
    facts[0].encode()


def test_nothing_written_is_refused(bench: Bench) -> None:
    result = bench.offer(CALC, {"scratch.txt": "x", "src/__pycache__/calc.pyc": "x"}, among=PLAN)
    assert isinstance(result, Rejected)
    assert result.facts[0].startswith("You wrote nothing")


def test_files_of_others_on_the_trunk(bench: Bench) -> None:
    merged(bench.offer(CALC, GOOD, among=PLAN))
    base = bench.trunk.head()
    changed = {"docs/notes.md": "n", "tests/test_calc.py": TEST_ADD + "# weaker\n"}
    assert _facts(bench, changed, base) == [
        "tests/test_calc.py was changed, and your task does not own it. Restore it; add tests to your own files."
    ]
    deleted = {"docs/notes.md": "n", "tests/test_calc.py": None, "src/calc.py": None}
    assert _facts(bench, deleted, base) == [
        "src/calc.py was deleted, and your task does not own it. Restore it.",
        "tests/test_calc.py was deleted, and your task does not own it. Restore it.",
    ]
    allowed = {"docs/notes.md": "n", "src/calc.py": ADD + "# documented\n", "tests/test_more.py": TEST_ADD}
    evidence = merged(bench.offer(NOTES, allowed, among=PLAN, base=base)).evidence.as_json()
    assert evidence["also_changed"] == ["src/calc.py"]
    assert evidence["unplanned"] == ["tests/test_more.py"]
    assert evidence["not_checked"] == ["docs/notes.md"]
    assert evidence["files"]["created"] == {"count": 2, "paths": ["docs/notes.md", "tests/test_more.py"]}
    assert evidence["files"]["changed"] == {"count": 1, "paths": ["src/calc.py"]}


def _facts(bench: Bench, files: Mapping[str, str | bytes | None], base: str) -> list[str]:
    result = bench.offer(NOTES, files, among=PLAN, base=base)
    assert isinstance(result, Rejected)
    return list(result.facts)


def test_a_conftest_that_the_plan_gives_is_taken(bench: Bench) -> None:
    fixtures = task(4, "tests/conftest.py")
    merged(bench.offer(fixtures, {"tests/conftest.py": "import pytest\n"}))
    result = bench.offer(NOTES, {"docs/notes.md": "n", "tests/conftest.py": "\n"}, among=PLAN)
    assert isinstance(result, Rejected)


def test_what_lies_outside_the_project_is_left_out(bench: Bench) -> None:
    folder = bench.workspace(CALC)
    base = bench.trunk.head()
    write(folder, GOOD | {"pyproject.toml": "[tool.pytest.ini_options]\naddopts = '-k nothing'\n", "try.py": "1"})
    write(folder, {".claude/settings.json": "{}", "Src/x.py": "", "src/__pycache__/a.pyc": "", "conftest.py": ""})
    subprocess.run(["git", "init", "-q", folder], check=True)
    os.mkfifo(folder / "pipe")
    evidence = merged(bench.submit(CALC, base)).evidence.as_json()
    assert evidence["left_out"] == [
        *(".claude/settings.json", ".git", "Src/x.py", "conftest.py", "pipe", "pyproject.toml", "try.py"),
    ]
    assert sorted(bench.git("ls-tree", "-r", "--name-only", "main").split()) == ["pyproject.toml", *sorted(GOOD)]
    assert "-k nothing" not in (bench.run.root / "pyproject.toml").read_text()


def test_modes_are_normal(bench: Bench) -> None:
    folder = bench.workspace(CALC)
    write(folder, GOOD)
    (folder / "src/calc.py").chmod(0o6777)
    merged(bench.submit(CALC, bench.trunk.head()))
    assert (bench.run.root / "src/calc.py").stat().st_mode & 0o7000 == 0
    assert bench.git("ls-tree", "main", "src/calc.py").startswith("100755")
    # As it is stored: what git shows, it has put in order itself.
    assert Git(bench.run.git, bench.run.root)("cat-file", "tree", "main:src").startswith(b"100755 calc.py")


def test_case_collisions_are_found_by_folder_and_by_form() -> None:
    assert case_collisions(["src/Pkg/a.py", "src/pkg/b.py"]) == [("src/Pkg", "src/pkg")]
    assert case_collisions(["src/é", "src/e\u0301"]) == [("src/e\u0301", "src/é")]
    assert case_collisions(["src/a", "src/b/a", "docs/a"]) == []
