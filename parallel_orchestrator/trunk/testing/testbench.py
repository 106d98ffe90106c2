"""Our own pytest run of a tree in a scratch copy, and what it proves.

The result counts only if all of these fit together: the exit code, the report, pytest's summary line (`junit`), a
canary (our test that has to fail), and the tests and files that are there (`test_inventory`). Tests that leave the
process early, patch the reporting or deselect everything also remove the canary, and prove nothing.

Not proven: code that runs inside pytest and knows all this can still lie about itself, and a test that asserts nothing
passes.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from parallel_orchestrator.records.command import (
    RESULTS,
    Command,
    CommandResult,
    CommandRunner,
    Prewarm,
    PrewarmedRunner,
)
from parallel_orchestrator.system import redact
from parallel_orchestrator.system.files import disk_faults_in
from parallel_orchestrator.system.folders import scratch_folder
from parallel_orchestrator.system.memory import ROOM
from parallel_orchestrator.trunk.changes.folder import read_plain, write_folder
from parallel_orchestrator.trunk.git.objects import Objects, Tree
from parallel_orchestrator.trunk.git.repository import PROJECT_FILE
from parallel_orchestrator.trunk.results import TestCounts, VerifyResult
from parallel_orchestrator.trunk.testing.junit import (
    LARGEST_REPORT,
    Case,
    CaseEnding,
    contradicts,
    count,
    parse,
    without,
)
from parallel_orchestrator.trunk.testing.proof import NOTHING_RAN, Ran, add_recorder, read_record
from parallel_orchestrator.trunk.testing.test_inventory import OwnFiles, take_inventory

logger = logging.getLogger(__name__)

PYTHON = ("python", "-m")
WHOLE_RUN = "the test run itself"
"""Stands for a run that broke off, so that no single test can be named."""

_FLAGS = (
    *("-q", "--no-header", "--tb=short", "-p", "no:cacheprovider", "-c", PROJECT_FILE, "--rootdir=."),
    *("--continue-on-collection-errors", "-o", "junit_family=xunit1", "-o", "junit_logging=no"),
)
_CANARY = 'def {name}():\n    assert False, "this test has to fail"\n'
_TAIL = 2_000
_MOST_MESSAGES = 20
_UNRUN = (
    "{test} is defined and did not run: a hook, a plugin or other code prevented it. "
    "Make it run and pass. If it is not a test, rename it."
)


@dataclass(frozen=True)
class PytestReport:
    """One run of the tests of one tree."""

    cases: tuple[Case, ...]
    broken: str = ""
    """Why the whole run proves nothing; empty when it does."""
    unrun: tuple[str, ...] = ()
    """Ids of tests that are defined and missing in the report."""
    junit: bytes = b""
    seconds: float = 0.0
    starved: bool = False
    """Memory ran out meanwhile, so a failure proves nothing."""
    memory: int = 0
    """Most bytes that the run was seen to use."""
    ran: Ran = NOTHING_RAN
    """What the task's own tests ran of its code, if that was recorded."""

    @property
    def counts(self) -> TestCounts:
        """Count the tests by how they ended."""
        by = count(list(self.cases))
        return TestCounts(by[CaseEnding.PASSED], by[CaseEnding.FAILED], by[CaseEnding.SKIPPED])

    @property
    def red(self) -> frozenset[str]:
        """Ids of the tests that failed."""
        failed = {case.id for case in self.cases if case.ending is CaseEnding.FAILED}
        return frozenset({*failed, *self.unrun, *([WHOLE_RUN] if self.broken else [])})

    def messages(self, known: frozenset[str] = frozenset(), how: str = "failed") -> list[str]:
        """Describe each failure except the ids in `known`; at most 20 of each kind."""
        texts = [self.broken] if self.broken and WHOLE_RUN not in known else []
        failed = [case for case in self.cases if case.ending is CaseEnding.FAILED and case.id not in known]
        texts += [f"{case.id} {how}:\n{case.message}" for case in failed[:_MOST_MESSAGES]]
        texts += [f"{len(failed) - _MOST_MESSAGES} more tests failed."] * (len(failed) > _MOST_MESSAGES)
        unrun = [test for test in self.unrun if test not in known]
        return texts + [_UNRUN.format(test=test) for test in unrun[:_MOST_MESSAGES]]

    def ended_in(self, files: list[str], ending: CaseEnding) -> int:
        """Count the tests in these files with that ending."""
        return sum(case.ending is ending and case.file in files for case in self.cases)

    def why_red(self) -> list[str]:
        """Return why a whole with these tests is not green; empty when it is."""
        if self.red:
            return self.messages()
        return [] if self.counts.passed else ["No test passed."]


NO_TESTS = PytestReport((), junit=b'<?xml version="1.0" encoding="utf-8"?><testsuites />')
"""The report on a tree without test files."""


def may_hold_tests(tree: Tree) -> bool:
    """Whether pytest could find a test or a configuration in it."""
    return any(path.startswith("tests/") and path.endswith(".py") for path in tree)


@dataclass(frozen=True)
class TestBench:
    """Runs the tests of trees of one repository."""

    __test__ = False

    objects: Objects
    runner: CommandRunner
    timeout_s: float
    prewarm: Prewarm | None = None
    """Starts a pytest that waits for the next `test`. None: each one is started when it is needed."""
    _waiting: list[_Waiting] = field(default_factory=list, init=False)

    def prepare(self) -> None:
        """Start a pytest that waits for the next `test`."""
        if self.prewarm and not self._waiting:
            with ExitStack() as resources:
                folder, results = resources.enter_context(_scratch())
                run = resources.enter_context(closing(self.prewarm(self._command(folder, results, PYTHON))))
                self._waiting.append(_Waiting(folder, results, run, resources.pop_all()))

    def close(self) -> None:
        """End what was prepared and not used."""
        while self._waiting:
            self._waiting.pop().resources.close()

    def test(self, tree: Tree, own: OwnFiles | None = None) -> PytestReport:  # noqa: PT028 - no test function
        """Run all tests of `tree` in a copy. With `own`, record what its tests run of its sources."""
        return NO_TESTS if not may_hold_tests(tree) else fed(lambda: self._test(tree, own))

    def _test(self, tree: Tree, own: OwnFiles | None) -> PytestReport:
        if not self._waiting:
            with self.copy(tree) as (folder, results):
                return self.run_pytest(folder, results, PYTHON, own=own)
        # The waiting pytest has imported everything but the project: the copy is written only now, into its folder.
        prepared = self._waiting.pop()
        with prepared.resources:
            write_folder(self.objects, prepared.folder, tree)
            return self.run_pytest(prepared.folder, prepared.results, PYTHON, prepared.run, own=own)

    @contextmanager
    def copy(self, tree: Tree) -> Iterator[tuple[Path, Path]]:
        """Make a scratch copy of `tree` and an empty folder for results. Removes both afterwards."""
        with _scratch() as (folder, results):
            write_folder(self.objects, folder, tree)
            yield folder, results

    def run_pytest(
        self,
        folder: Path,
        results: Path,
        launcher: tuple[str, ...],
        run: CommandRunner | None = None,
        own: OwnFiles | None = None,
    ) -> PytestReport:
        """Run pytest once in `folder`. `launcher`: the interpreter's command line up to its -m."""
        # The tests cannot know the names of canary and report beforehand. The canary lies among the tests, because a
        # conftest.py changes only the reports of tests below its folder.
        name = f"test_canary_{secrets.token_hex(8)}"
        with disk_faults_in(folder):
            (folder / "tests").mkdir(exist_ok=True)
            (folder / "tests" / f"{name}.py").write_text(_CANARY.format(name=name))
            recorder = add_recorder(folder, name, own)
        # After the canary and the recorder are added, so that changes to them are noticed, too.
        before = take_inventory(folder)
        junit = f"{name}.xml"
        flags = (*_FLAGS, *recorder, f"--junitxml={RESULTS}/{junit}")
        command = self._command(folder, results, launcher, *flags, "tests")
        result = (run or self.runner)(command)
        # A resumed conversation must read the same text, so the random names are removed.
        output = result.output.replace(f"{folder}/", "").replace(name, "test_canary")[-_TAIL:]
        # Everything in these folders may have been written by the tests: bounded, no link, no pipe.
        written = read_plain(results / junit, LARGEST_REPORT)
        report = redact.foreign(written.replace(f"{folder}/".encode(), b"")) if written is not None else b""
        cases = parse(report)
        broken = _breakage(result, cases, name, self.timeout_s) or _tampering(before.altered(folder), name)
        project = tuple(case for case in cases or () if name not in case.id)
        fault = f"{broken}\nLast output:\n{output}" if broken else ""
        unrun = () if broken else tuple(before.unaccounted({case.dotted for case in cases or ()}))
        kept = without(report, name) if cases is not None else report
        ran = read_record(folder, results, name)
        made = PytestReport(project, fault, unrun, kept, result.seconds, memory=result.memory, ran=ran)
        return replace(made, starved=result.starved and bool(made.red))

    def run(self, folder: Path, results: Path, argv: tuple[str, ...]) -> CommandResult:
        """Run any command in a scratch copy, within the time limit of tests."""
        return fed(lambda: self.runner(Command(argv, folder, self.timeout_s, results)))

    def verify(self, tree: Tree, commands: Sequence[str]) -> tuple[VerifyResult, ...]:
        """Run each command in one fresh copy of `tree`, one after the other."""
        if not commands:
            return ()
        with self.copy(tree) as (folder, results):
            ended = [(command, self.run(folder, results, ("bash", "-c", command))) for command in commands]
        return tuple(VerifyResult(command, end.code, end.output, end.timed_out, end.seconds) for command, end in ended)

    def _command(self, folder: Path, results: Path, launcher: tuple[str, ...], *arguments: str) -> Command:
        return Command((*launcher, "pytest", *arguments), folder, self.timeout_s, results)


Run = TypeVar("Run", PytestReport, CommandResult)


def fed(run: Callable[[], Run]) -> Run:
    """Return `run()`, repeated with no other command running when memory ran out.

    Raises OutOfMemory when memory runs out again.
    """
    result = run()
    if not result.starved:
        return result
    logger.warning("memory ran out in a test run; it is repeated with nothing else running")
    with ROOM.alone():
        result = run()
    if result.starved:
        raise ROOM.exhausted("the tests of the merged project", result.memory)
    return result


@dataclass(frozen=True)
class _Waiting:
    """A pytest that waits, with folders that are still empty."""

    folder: Path
    results: Path
    run: PrewarmedRunner
    resources: ExitStack


@contextmanager
def _scratch() -> Iterator[tuple[Path, Path]]:
    """Make two empty folders, for a project and its results. Removes both afterwards."""
    with scratch_folder("merge-") as scratch:
        folder, results = scratch / "project", scratch / "results"
        folder.mkdir()
        results.mkdir()
        yield folder, results


def _breakage(result: CommandResult, cases: list[Case] | None, canary: str, limit_s: float) -> str:
    """Return why a run proves nothing; empty when it does. The canary makes a good run end with 1."""
    if result.timed_out:
        return f"The tests ran longer than {limit_s:g} s and were stopped. Find the test that hangs or is slow."
    ended = f"pytest ended with {result.code}"
    if cases is None:
        return f"{ended} before it wrote its report: a test, or code that it imports, ended the process. Remove that."
    return _forgery(result, cases, canary, ended)


def _forgery(result: CommandResult, cases: list[Case], canary: str, ended: str) -> str:
    """Return what is contradictory in a report; empty when nothing is."""
    endings = [case.ending for case in cases if canary in case.id]
    if not endings:
        return f"{ended} and did not run every test: code in the project removes tests from the run. Remove that code."
    if endings != [CaseEnding.FAILED]:
        return (
            f"{ended}, and a test that must fail was not reported as failed: code in the project changes the reports."
        )
    if result.code != 1:
        return f"{ended} although a test failed: code in the project changes its exit code. Remove that code."
    if contradicts(result.output, cases):
        return (
            f"{ended}, and its report differs from its output: code in the project writes the report or hides output."
        )
    return ""


def _tampering(altered: list[str], canary: str) -> str:
    """Return why tests that changed the project's code prove nothing; empty when they changed none."""
    if not altered:
        return ""
    paths = ", ".join("a test that must fail" if canary in path else path for path in altered[:_MOST_MESSAGES])
    return f"The tests changed code while they ran: {paths}. Let tests write only to tmp_path."
