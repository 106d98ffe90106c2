"""What the code is held to, whatever it does: short functions, short files, small rooms."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from statistics import median

from tests.test_imports import MODULES, ROOT

FUNCTION_LINES = 60
MEDIAN_LINES = 6
FILE_LINES = 350
ROOM_FILES = 13


def functions() -> Iterator[tuple[str, int]]:
    """Every function and method with the lines of its signature and body, its docstring left out."""
    for module, path in MODULES.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno:
                documented = ast.get_docstring(node) is not None and len(node.body) > 1
                text = node.body[0] if documented else None
                docstring = text.end_lineno - text.lineno + 1 if text and text.end_lineno else 0
                yield f"{module}.{node.name}", node.end_lineno - node.lineno + 1 - docstring


def test_functions_are_short() -> None:
    lengths = list(functions())
    assert [(name, lines) for name, lines in lengths if lines > FUNCTION_LINES] == []
    assert median(lines for _, lines in lengths) <= MEDIAN_LINES


def test_files_are_short() -> None:
    lines = {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8").count("\n") for path in MODULES.values()}
    assert {path: count for path, count in lines.items() if count > FILE_LINES} == {}


def test_rooms_are_small() -> None:
    files = Counter(path.parent.relative_to(ROOT) for path in MODULES.values() if path.name != "__init__.py")
    assert {str(room): count for room, count in files.items() if count > ROOM_FILES} == {}
