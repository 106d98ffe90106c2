"""Whether a task's own tests run its code: which lines they ran, of those that an import does not run.

Importing a module proves nothing: `import calc` with `assert True` does it. Lines count that run only when the module
is used: lines inside functions, and lines below `if __name__ == "__main__"`. Stubs have no such lines: bodies of
`...`, `pass` or `raise NotImplementedError`. A file without any such line only has to be imported.

`line_recorder` records the lines inside the process that runs the tests, so hostile tests can forge them.
"""

from __future__ import annotations

import ast
import json
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from parallel_orchestrator.records.journals.evidence import LinesRun, OwnCoverageFound
from parallel_orchestrator.trunk.changes.folder import read_plain
from parallel_orchestrator.trunk.git.objects import Objects, Tree
from parallel_orchestrator.trunk.testing.test_inventory import OwnFiles

LARGEST_RECORD = 16_000_000
"""Bytes of a recorder's file."""
_MOST_NAMED = 20
_LONGEST_DOUBT = 200
_NOT_CALLED = (
    "Your tests run no line inside the functions of {files}: importing a module proves nothing. "
    "Add tests of yours, under tests/, that call what these files define and check what it returns or does."
)
_NOT_IMPORTED = "No test imports {files}. Add tests of yours, under tests/, that import them and check what is there."

_Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Ran:
    """What a task's own tests ran. Paths are relative to the project."""

    lines: Mapping[str, frozenset[int]] = field(default_factory=dict)
    imported: frozenset[str] = frozenset()
    """Files that a test or a conftest imported."""
    doubt: str = ""
    """Why the tests may have run more; empty when they did not."""


NOTHING_RAN = Ran()


@dataclass(frozen=True)
class Share:
    """How much of one file a task's own tests ran."""

    path: str
    lines: int
    """Statements that an import does not run."""
    run: int
    imported: bool


@dataclass(frozen=True)
class OwnCoverage:
    """What a task's own tests run of its source files."""

    files: tuple[Share, ...]
    """The files that hold code."""
    doubt: str = ""
    """Why they may run more; empty when they do not."""

    def as_evidence(self) -> OwnCoverageFound:
        """For the evidence of a merge."""
        return OwnCoverageFound({share.path: LinesRun(share.lines, share.run) for share in self.files}, self.doubt)


def parse_record(record: bytes | None) -> Ran:
    """Return what a recorder wrote. It may be forged; a malformed record becomes a doubt."""
    try:
        data = json.loads(record or b"")
        lines = {str(path): frozenset(n for n in numbers if type(n) is int) for path, numbers in data["lines"].items()}
        return Ran(lines, frozenset(map(str, data["imported"])), str(data["doubt"])[:_LONGEST_DOUBT])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return Ran(doubt="it could not be measured")


def own_coverage(ran: Ran, own: OwnFiles, objects: Objects, tree: Tree) -> OwnCoverage:
    """Return what `ran` says about the task's source files."""
    paths = sorted(own.sources)
    contents = objects.blobs(tree[path].id for path in paths)
    shares = (_share(path, content, ran) for path, content in zip(paths, contents, strict=True))
    return OwnCoverage(tuple(share for share in shares if share), ran.doubt)


def unproven(coverage: OwnCoverage) -> list[str]:
    """Return what the tests still have to prove; empty when they run, or may run, any of the task's code."""
    files = coverage.files
    waiting = [share.path for share in files if share.lines]
    if coverage.doubt or any(share.run for share in files) or not files:
        return []
    if waiting:
        return [_NOT_CALLED.format(files=_named(waiting))]
    paths = [share.path for share in files]
    return [] if any(share.imported for share in files) else [_NOT_IMPORTED.format(files=_named(paths))]


def _named(paths: list[str]) -> str:
    more = [f"{len(paths) - _MOST_NAMED} more"] if len(paths) > _MOST_NAMED else []
    return ", ".join(paths[:_MOST_NAMED] + more)


def _share(path: str, content: bytes, ran: Ran) -> Share | None:
    """Return None for a file without code."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            module = ast.parse(content)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    if not any(map(_is_code, module.body)):
        return None
    spans, seen = _waiting(module), ran.lines.get(path, frozenset())
    run = sum(any(line in seen for line in span) for span in spans)
    return Share(path, len(spans), run, path in ran.imported or bool(seen))


def _waiting(module: ast.Module) -> list[range]:
    """Return the lines of each statement that an import of the module does not run."""
    functions = [node for node in ast.walk(module) if isinstance(node, _Function) and not _is_stub(node)]
    guards = [node for node in module.body if isinstance(node, ast.If) and _is_main_guard(node)]
    spans = {_span(statement) for owner in (*functions, *guards) for statement in _below(owner) if _is_code(statement)}
    return sorted(spans, key=lambda span: span.start)


def _below(owner: _Function | ast.If) -> Iterator[ast.stmt]:
    for child in owner.body:
        yield from (node for node in ast.walk(child) if isinstance(node, ast.stmt))


def _span(statement: ast.stmt) -> range:
    """Return its lines without those of the statements inside it."""
    last = statement.end_lineno or statement.lineno
    inside = [node.lineno for node in getattr(statement, "body", []) if isinstance(node, ast.stmt)]
    return range(statement.lineno, max(statement.lineno, min([last, *(line - 1 for line in inside)])) + 1)


def _is_code(statement: ast.stmt) -> bool:
    """Whether it runs anything; docstrings, `...` and declarations do not."""
    if isinstance(statement, ast.Expr):
        return not isinstance(statement.value, ast.Constant)
    return not isinstance(statement, ast.Pass | ast.Global | ast.Nonlocal) and not (
        isinstance(statement, ast.AnnAssign) and statement.value is None
    )


def _is_stub(function: _Function) -> bool:
    """Whether it only waits to be overridden."""
    body = [statement for statement in function.body if _is_code(statement)]
    if not body:
        return True
    raised = body[0].exc if isinstance(body[0], ast.Raise) else None
    named = raised.func if isinstance(raised, ast.Call) else raised
    return isinstance(named, ast.Name) and named.id == "NotImplementedError"


def _is_main_guard(statement: ast.If) -> bool:
    if not isinstance(statement.test, ast.Compare):
        return False
    sides = [statement.test.left, *statement.test.comparators]
    return any(isinstance(side, ast.Name) and side.id == "__name__" for side in sides)


_SUFFIX = "_lines"
"""The recorder's module is named after the canary, with this suffix. `prewarmed_pytest` looks for it."""


def add_recorder(folder: Path, name: str, own: OwnFiles | None) -> tuple[str, ...]:
    """Add the line recorder to the project in `folder`. Returns pytest's arguments for it; empty when not needed."""
    if not own or not own.sources or not own.tests or _shadows_coverage(folder):
        return ()
    (folder / f"{name}{_SUFFIX}.py").write_text(f"{_source()}\n\nTESTS = {tuple(sorted(own.tests))!r}\n")
    return ("-p", f"{name}{_SUFFIX}")


def read_record(folder: Path, results: Path, name: str) -> Ran:
    """Return what the recorder saw, if one was added."""
    if (folder / f"{name}{_SUFFIX}.py").exists():
        return parse_record(read_plain(results / f"{name}.json", LARGEST_RECORD))
    return Ran(doubt="the project has a module named coverage") if _shadows_coverage(folder) else Ran()


def _shadows_coverage(folder: Path) -> bool:
    """Whether the project has a module named coverage: with the recorder, its tests would import the wrong one."""
    places = (folder / root / name for root in ("src", "tests") for name in ("coverage", "coverage.py"))
    return any(place.exists() for place in places)


@cache
def _source() -> str:
    return Path(__file__).with_name("line_recorder.py").read_text()
