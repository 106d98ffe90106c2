"""Checks every import of the program against the table in docs/architecture.md, and finds circles."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "parallel_orchestrator"
TOP = ("orchestrator", "planner_agent", "executor_agent", "demo")

ROW = re.compile(r"\| `([\w/]+)` \| [^|]+ \|([^|]*)\|")


def _table() -> dict[str, set[str] | None]:
    """Room or top file to the rooms that it may import; None: every one. From docs/architecture.md."""
    section = (ROOT / "docs/architecture.md").read_text().split("## Component relationships")[1].split("\n## ")[0]
    rows = {match[1]: match[2].strip() for match in map(ROW.match, section.splitlines()) if match}
    return {
        room: None if cell == "everything" else {room, *re.findall(r"`(\w+)`", cell)}
        for room, cell in rows.items()
        if "/" not in room
    }


MAY_IMPORT = _table()


def _modules() -> dict[str, Path]:
    paths = [*(ROOT / PACKAGE).rglob("*.py"), *(path for name in TOP if (path := ROOT / f"{name}.py").exists())]
    dotted = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in paths}
    return {name.removesuffix(".__init__"): path for name, path in dotted.items()}


MODULES = _modules()


def _imports(path: Path) -> Iterator[str]:
    """Our modules that a file imports, inside functions, too."""
    for node in ast.walk(ast.parse(path.read_text())):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import"
            submodules = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in MODULES else str(node.module) for name in submodules]
        yield from (name for name in names if name.split(".")[0] in (PACKAGE, *TOP))


def _room(module: str) -> str:
    parts = module.split(".")
    return parts[1] if parts[0] == PACKAGE and len(parts) > 1 else parts[0]


def test_every_import_is_in_the_table() -> None:
    assert {_room(module) for module in MODULES} == {*MAY_IMPORT}
    found = {(module, name) for module, path in MODULES.items() for name in _imports(path)}
    assert len(found) > 150
    allowed = {room: rooms if rooms is not None else {*MAY_IMPORT} for room, rooms in MAY_IMPORT.items()}
    assert sorted((m, n) for m, n in found if _room(n) not in allowed[_room(m)]) == []


def test_the_table_names_each_folder_once() -> None:
    folders = {path.parent.relative_to(ROOT / PACKAGE) for path in (ROOT / PACKAGE).rglob("*.py")}
    text = (ROOT / "docs/architecture.md").read_text()
    assert [str(folder) for folder in folders if str(folder) != "." and text.count(f"\n| `{folder}` |") != 1] == []


def test_no_module_imports_itself_by_way_of_others() -> None:
    graph = {module: set(_imports(path)) for module, path in MODULES.items()}
    TopologicalSorter(graph).prepare()  # CycleError names the cycle


def test_few_imports_stand_inside_functions() -> None:
    inside = {
        f"{module}:{node.lineno}"
        for module, path in MODULES.items()
        for function in ast.walk(ast.parse(path.read_text()))
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(function)
        if isinstance(node, ast.Import | ast.ImportFrom)
    }
    assert len(inside) <= 15, sorted(inside)


SLOW = ("anthropic", "httpx2", "rich", "uvicorn", "pydantic", "yaml")


@pytest.mark.parametrize("begun_by", ["import orchestrator", "orchestrator.py --help"])
def test_help_and_completion_wait_for_no_slow_import(begun_by: str) -> None:
    code = "import orchestrator"
    if begun_by.endswith("--help"):
        code += "\nsys.argv = ['orchestrator.py', '--help']\ntry: orchestrator.main()\nexcept SystemExit: pass"
    code = f"import sys\n{code}\nprint('loaded:', *(name for name in {SLOW!r} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1].split() == ["loaded:"]
