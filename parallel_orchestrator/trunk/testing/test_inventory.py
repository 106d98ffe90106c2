"""What a test run has to account for: the tests that the files define, and the files themselves.

pytest reports what ran. Code inside it can keep tests from running (a collection hook, a plugin, a
deleted name) or rewrite a test file before its turn comes. So the tests are counted in the source
before the run, and the source is compared after it.

Not seen: tests that are defined in other ways than a function or a method of a Test class, files that
are put back before the run ends, and whether a test tests anything (`proof` looks at what the tests run).
"""

from __future__ import annotations

import ast
import hashlib
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeGuard

from parallel_orchestrator.system.folders import files_below
from parallel_orchestrator.trunk.changes.folder import read_plain

RESERVED = frozenset(
    {"conftest.py", "pytest.ini", ".pytest.ini", "pytest.toml", ".pytest.toml", "tox.ini", "setup.cfg"}
    | {"sitecustomize.py", "usercustomize.py"}
)
"""Names of files that change how pytest or Python runs."""

_LARGEST = 5_000_000
_Defined = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class TestInventory:
    """A project's code before its tests run. Paths are relative to its folder."""

    files: dict[str, bytes]
    """Digest of each Python file and of each file that steers pytest."""
    tests: frozenset[str]
    """Ids of the test functions: file::function, file::Class::method."""

    def altered(self, folder: Path) -> list[str]:
        """Which of the files are others by now, or gone, and which were added that steer pytest."""
        now = {path: _digest(folder / path) for path in _code_files(folder)}
        changed = {path for path, digest in self.files.items() if now.get(path) != digest}
        added = {path for path in now.keys() - self.files.keys() if path.rpartition("/")[2] in RESERVED}
        return sorted(changed | added)

    def unaccounted(self, reported: set[str]) -> list[str]:
        """Tests of which none of these dotted names tells anything. A file reported as a whole tells of all in it."""
        return sorted(
            test
            for test in self.tests
            if _dotted(test) not in reported and _dotted(test.partition("::")[0]) not in reported
        )


def take_inventory(folder: Path) -> TestInventory:
    """Read the code in `folder`, the tests in its tests/."""
    files = {path: _digest(folder / path) for path in _code_files(folder)}
    held = {path: read_plain(folder / path, _LARGEST) or b"" for path in files if _holds_tests(path)}
    return TestInventory(
        files, frozenset(test for path, content in held.items() for test, _ in _tests_in(path, content))
    )


def defined_tests(path: str, content: bytes) -> dict[str, bytes]:
    """The test functions that a file defines: id to source, decorators included."""
    lines = content.splitlines()
    return {test: b"\n".join(lines[_first_line(node) - 1 : node.end_lineno]) for test, node in _tests_in(path, content)}


def _dotted(test: str) -> str:
    """A test's or file's name as JUnit spells it."""
    file, *names = test.split("::")
    return ".".join([file.removesuffix(".py").replace("/", "."), *names])


def _code_files(folder: Path) -> Iterator[str]:
    for path in files_below(folder):
        if path.suffix == ".py" or path.name in RESERVED or path.name == "pyproject.toml":
            yield path.relative_to(folder).as_posix()


def _digest(path: Path) -> bytes:
    return hashlib.sha256(read_plain(path, _LARGEST) or b"").digest()


def _holds_tests(path: str) -> bool:
    return path.startswith("tests/") and path.rpartition("/")[2].startswith("test_")


def _first_line(node: _Defined) -> int:
    return min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])


def _tests_in(path: str, content: bytes) -> Iterator[tuple[str, _Defined]]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            module = ast.parse(content)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return  # pytest reports it as a file that cannot be collected
    for node in module.body:
        if _is_test(node):
            yield f"{path}::{node.name}", node
        elif isinstance(node, ast.ClassDef) and node.name.startswith("Test") and _is_collected(node):
            yield from ((f"{path}::{node.name}::{below.name}", below) for below in node.body if _is_test(below))


def _is_test(node: ast.stmt) -> TypeGuard[_Defined]:
    """Whether pytest takes it for a test. Something named test_… can also be a fixture."""
    if not isinstance(node, _Defined) or not node.name.startswith("test_"):
        return False
    return not any("fixture" in name for decorator in node.decorator_list for name in _names(decorator))


def _is_collected(node: ast.ClassDef) -> bool:
    """Whether pytest surely looks for tests in it: what it inherits could tell it not to, as its own members can."""
    if not all(next(_names(base), "").endswith("TestCase") for base in node.bases):
        return False
    functions = {below.name for below in node.body if isinstance(below, _Defined)}
    assignments = (below for below in node.body if isinstance(below, ast.Assign))
    assigned = {name for below in assignments for target in below.targets for name in _names(target)}
    return not functions & {"__init__", "__new__"} and "__test__" not in assigned


def _names(expression: ast.expr) -> Iterator[str]:
    """The names in it, outermost first. Not by unparsing: that recurses, and what nests deep enough would end us."""
    for node in ast.walk(expression):
        match node:
            case ast.Name(id=name) | ast.Attribute(attr=name):
                yield name
