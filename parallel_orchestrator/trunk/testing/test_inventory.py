"""What a test run has to account for: the tests that the files define, and the files themselves.

pytest reports what ran. Code inside it can keep tests from running (a collection hook, a plugin, a deleted name) or
rewrite a test file before pytest reads it. So the tests are counted in the source before the run, and the source is
compared after it.

Not seen: tests that are neither a function nor a method of a Test class; files that are put back before the run ends;
whether a test tests anything (`proof` looks at what the tests run).
"""

from __future__ import annotations

import ast
import hashlib
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeGuard

from parallel_orchestrator.records.plan import Task
from parallel_orchestrator.system.folders import files_below
from parallel_orchestrator.trunk.changes.folder import read_plain
from parallel_orchestrator.trunk.git.objects import LINK, Objects, Tree

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
    """Digest of each Python file and of each file that configures pytest."""
    tests: frozenset[str]
    """Ids of the test functions: file::function, file::Class::method."""

    def altered(self, folder: Path) -> list[str]:
        """Return which files were changed or removed, and which files that configure pytest were added."""
        now = {path: _digest(folder / path) for path in _code_files(folder)}
        changed = {path for path, digest in self.files.items() if now.get(path) != digest}
        added = {path for path in now.keys() - self.files.keys() if path.rpartition("/")[2] in RESERVED}
        return sorted(changed | added)

    def unaccounted(self, reported: set[str]) -> list[str]:
        """Return the tests that are not among the reported dotted names. A reported file accounts for all its tests."""
        return sorted(
            test
            for test in self.tests
            if _dotted(test) not in reported and _dotted(test.partition("::")[0]) not in reported
        )


def take_inventory(folder: Path) -> TestInventory:
    """Return the inventory of a project's folder."""
    files = {path: _digest(folder / path) for path in _code_files(folder)}
    held = {path: read_plain(folder / path, _LARGEST) or b"" for path in files if _holds_tests(path)}
    return TestInventory(
        files, frozenset(test for path, content in held.items() for test, _ in _tests_in(path, content))
    )


def defined_tests(path: str, content: bytes) -> dict[str, bytes]:
    """Return the test functions that a file defines: id to source, with decorators."""
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
    """Whether pytest takes it for a test. A function named test_… can also be a fixture."""
    if not isinstance(node, _Defined) or not node.name.startswith("test_"):
        return False
    return not any("fixture" in name for decorator in node.decorator_list for name in _names(decorator))


def _is_collected(node: ast.ClassDef) -> bool:
    """Whether pytest surely collects tests from it: a base class or one of its members could prevent that."""
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


@dataclass(frozen=True)
class OwnFiles:
    """The Python files that the plan gives to a task, and those that the trunk does not have without it."""

    tests: frozenset[str]
    """Below tests/."""
    sources: frozenset[str]
    """Below src/."""


def own_files(task: Task, trunk: Tree, tree: Tree) -> OwnFiles:
    """Return a task's own files in `tree`, which was merged onto `trunk`."""
    own = [
        path
        for path, entry in tree.items()
        if path.endswith(".py") and entry.mode != LINK and (path in task.files or path not in trunk)
    ]
    return OwnFiles(
        tests=frozenset(path for path in own if path.startswith("tests/")),
        sources=frozenset(path for path in own if path.startswith("src/")),
    )


def new_tests(names: frozenset[str], own: OwnFiles, objects: Objects, trunk: Tree, tree: Tree) -> frozenset[str]:
    """Return which of the named tests are new with the task: in its own files, and absent or different on the trunk."""
    files = {_file(name) for name in names} & own.tests
    changed = sorted(path for path in files if path in trunk and trunk[path] != tree[path])
    contents = objects.blobs(side[path].id for path in changed for side in (trunk, tree))
    brought: set[str] = set()
    for path in changed:
        before, after = defined_tests(path, next(contents)), defined_tests(path, next(contents))
        brought.update(test for test, source in after.items() if before.get(test) != source)
    return frozenset(
        name for name in names if _file(name) in files and (_file(name) not in trunk or _function(name) in brought)
    )


def _file(name: str) -> str:
    return name.partition("::")[0]


def _function(name: str) -> str:
    """Return a test's name without its parameters."""
    file, colons, rest = name.partition("::")
    return file + colons + rest.partition("[")[0]
