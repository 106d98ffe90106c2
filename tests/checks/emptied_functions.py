"""Empty every function of a project, one at a time, and see which tests notice.

    python tests/checks/emptied_functions.py PROJECT [--jobs 2]

PROJECT holds src/ and tests/. In a copy of it, the body of each function and method under src/ is
replaced by ``return None`` (its docstring stays), and pytest runs all tests. Two things are faults:
a function that no test misses, and a test that misses no function. Exit code 0 without faults, 1
with them, 2 if the project's tests do not pass to begin with.

A test gets credit only where it failed by itself: a run that cannot be collected, or that takes too
long, shows that a function was missed, but not by whom. Not covered: lambdas and module-level code.
pytest runs without its plugins, which halves the time.
"""

import argparse
import ast
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

PARTS = ("src", "tests", "docs")
"""The folders of a project that its tests may need; files beside them are copied too."""

LEAST_SECONDS = 30.0
"""The shortest time that a run may take, however quick the first one was."""

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Function:
    """One function or method, and its file as it would be without its body."""

    path: Path
    line: int
    name: str
    emptied: bytes

    def __str__(self) -> str:
        """Say where it is, as an editor understands it."""
        return f"{self.path}:{self.line} {self.name}"


@dataclass(frozen=True)
class Run:
    """What one run of the tests came to."""

    tests: frozenset[str]
    failed: frozenset[str]
    exit_code: int


def functions_of(project: Path) -> list[Function]:
    """Return each function under src/ that has a body to lose."""
    found = []
    for file in sorted(project.glob("src/**/*.py")):
        source = file.read_bytes()
        for name, node in _definitions(ast.parse(source)):
            if body := _body(node):
                emptied = _without(source, body)
                found.append(Function(file.relative_to(project), node.lineno, name, emptied))
    return found


def _definitions(parent: ast.AST, prefix: str = "") -> Iterator[tuple[str, FunctionNode]]:
    """Walk all functions, nested ones too, with their qualified names."""
    for node in ast.iter_child_nodes(parent):
        name = prefix
        if isinstance(node, FunctionNode | ast.ClassDef):
            name = f"{prefix}{node.name}."
        if isinstance(node, FunctionNode):
            yield name.removesuffix("."), node
        yield from _definitions(node, name)


def _body(node: FunctionNode) -> list[ast.stmt]:
    """Return the statements after the docstring, or none if they already do nothing."""
    body = node.body if ast.get_docstring(node) is None else node.body[1:]
    return [] if all(_does_nothing(statement) for statement in body) else body


def _does_nothing(statement: ast.stmt) -> bool:
    match statement:
        case ast.Pass() | ast.Expr(ast.Constant()) | ast.Return(None | ast.Constant(None)):
            return True
    return False


def _without(source: bytes, body: list[ast.stmt]) -> bytes:
    """Return the source with these statements replaced by ``return None``."""
    first, last = body[0], body[-1]
    # A decorated definition starts at its first decorator, in the column of its `def`.
    decorators: list[ast.expr] = getattr(first, "decorator_list", [])
    start = min([first.lineno, *(decorator.lineno for decorator in decorators)]) - 1
    lines = source.splitlines(keepends=True)
    before = b"".join(lines[:start]) + lines[start][: first.col_offset]
    # The parser gives every statement an end; its type says that it might not.
    end_line, end_column = last.end_lineno or last.lineno, last.end_col_offset or 0
    after = lines[end_line - 1][end_column:] + b"".join(lines[end_line:])
    return before + b"return None" + after


def copy_project(project: Path, target: Path) -> Path:
    """Copy what the tests need, and nothing of what a run leaves beside it."""
    target.mkdir()
    for entry in project.iterdir():
        if entry.name in PARTS:
            skip = shutil.ignore_patterns("__pycache__")
            shutil.copytree(entry, target / entry.name, ignore=skip)
        elif entry.is_file():
            shutil.copy2(entry, target)
    return target


def run_tests(project: Path, seconds: float | None = None) -> Run:
    """Run all tests of a project, for so many seconds at most."""
    report = project / "report.xml"
    report.unlink(missing_ok=True)
    command = [sys.executable, "-m", "pytest", "-q", "--tb=no", "-p", "no:cacheprovider"]
    command += ["-o", "addopts=", "-o", f"pythonpath={project / 'src'}", f"--junit-xml={report}"]
    with subprocess.Popen(
        [*command, "tests"],
        cwd=project,
        env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as pytest:
        try:
            exit_code = pytest.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(pytest.pid, signal.SIGKILL)
            return Run(frozenset(), frozenset(), pytest.wait())
    cases = list(ET.parse(report).iter("testcase")) if report.exists() else []
    names = {case: f"{case.get('classname')}::{case.get('name')}" for case in cases}
    failed = {names[case] for case in cases if {"failure", "error"} & {part.tag for part in case}}
    return Run(frozenset(names.values()), frozenset(failed), exit_code)


def run_without(function: Function, copies: SimpleQueue[Path], seconds: float) -> Run:
    """Run the tests in a free copy of the project in which one function is empty."""
    copy = copies.get()
    file = copy / function.path
    whole = file.read_bytes()
    try:
        file.write_bytes(function.emptied)
        return run_tests(copy, seconds)
    finally:
        file.write_bytes(whole)
        copies.put(copy)


def check(project: Path, jobs: int) -> int:
    """Check one project, print what was found, and return the exit code."""
    functions = functions_of(project)
    with tempfile.TemporaryDirectory() as scratch:
        copies: SimpleQueue[Path] = SimpleQueue()
        for job in range(jobs):
            copies.put(copy_project(project, Path(scratch, str(job))))
        start = time.monotonic()
        first = run_tests(copy_project(project, Path(scratch, "first")))
        if first.exit_code or not first.tests:
            print(f"The tests of {project} do not pass as they are.", file=sys.stderr)
            return 2
        limit = max(LEAST_SECONDS, 10 * (time.monotonic() - start))
        with ThreadPoolExecutor(jobs) as pool:
            runs = list(pool.map(lambda function: run_without(function, copies, limit), functions))
    unmissed = [str(each) for each, run in zip(functions, runs, strict=True) if not run.exit_code]
    idle = sorted(first.tests.difference(*(run.failed for run in runs)))
    print(f"{len(functions)} functions emptied, {len(first.tests)} tests.")
    _list("Functions that no test misses", unmissed)
    _list("Tests that miss no function", idle)
    return 1 if unmissed or idle else 0


def _list(title: str, lines: list[str]) -> None:
    print(f"{title}: {len(lines) or 'none'}")
    for line in lines:
        print(f"  {line}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Find untested functions and idle tests.")
    parser.add_argument("project", type=Path, help="folder with src/ and tests/")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time (default: %(default)s)")
    arguments = parser.parse_args()
    sys.exit(check(arguments.project.resolve(), arguments.jobs))
