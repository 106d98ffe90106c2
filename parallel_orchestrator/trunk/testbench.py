"""Our own pytest call over a tree, in a scratch copy, and what it proves.

The verdict comes from the report and the exit code together, and from a canary: a test
of ours that has to fail. Tests that leave the process early, that patch the reporting,
or that deselect everything take the canary along and prove nothing. Code that runs
inside pytest can still lie about itself: this is what the tests reported, no more.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from parallel_orchestrator.records.command import RESULTS, Command, CommandRunner, Finished
from parallel_orchestrator.trunk.folder import read_plain, write_folder
from parallel_orchestrator.trunk.junit import LARGEST_REPORT, Case, Ending, count, parse, without
from parallel_orchestrator.trunk.objects import Objects, Tree
from parallel_orchestrator.trunk.repository import PROJECT_FILE
from parallel_orchestrator.trunk.results import TestCounts

PYTHON = ("python", "-m")
WHOLE_RUN = "the test run itself"
"""Stands for a run that broke off, where no single test can be named."""

_FLAGS = (
    *("-q", "--no-header", "--tb=short", "-p", "no:cacheprovider", "-c", PROJECT_FILE, "--rootdir=."),
    *("--continue-on-collection-errors", "-o", "junit_family=xunit1", "-o", "junit_logging=no"),
)
_CANARY = 'def {name}():\n    assert False, "this test has to fail"\n'
_TAIL = 2_000
_MOST_MESSAGES = 20


@dataclass(frozen=True)
class Report:
    """One run of the tests of one tree."""

    cases: tuple[Case, ...]
    broken: str = ""
    """Why the run as a whole proves nothing; empty when it does."""
    junit: bytes = b""
    seconds: float = 0.0

    @property
    def counts(self) -> TestCounts:
        """How many tests ended how."""
        by = count(list(self.cases))
        return TestCounts(by[Ending.PASSED], by[Ending.FAILED], by[Ending.SKIPPED])

    @property
    def red(self) -> frozenset[str]:
        """Ids of what failed."""
        failed = {case.id for case in self.cases if case.ending is Ending.FAILED}
        return frozenset(failed | {WHOLE_RUN} if self.broken else failed)

    def messages(self, known: frozenset[str] = frozenset()) -> list[str]:
        """What failed and how, one text each, without the ids in `known`; a flood of them is cut short."""
        texts = [self.broken] if self.broken and WHOLE_RUN not in known else []
        failed = [case for case in self.cases if case.ending is Ending.FAILED and case.id not in known]
        texts += [f"{case.id} failed:\n{case.message}" for case in failed[:_MOST_MESSAGES]]
        return texts + [f"{len(failed) - _MOST_MESSAGES} more tests failed."] * (len(failed) > _MOST_MESSAGES)

    def passed_in(self, files: list[str]) -> int:
        """Passing tests in these files."""
        return sum(case.ending is Ending.PASSED and case.file in files for case in self.cases)


@dataclass(frozen=True)
class TestBench:
    """Runs the tests of trees of one repository."""

    __test__ = False

    objects: Objects
    runner: CommandRunner
    timeout_s: float

    def test(self, tree: Tree) -> Report:
        """Run all tests of `tree` in a copy of its own."""
        with self.copy(tree) as (folder, results):
            return self.run_pytest(folder, results, PYTHON)

    @contextmanager
    def copy(self, tree: Tree) -> Iterator[tuple[Path, Path]]:
        """A scratch copy of `tree`, and an empty folder beside it for results. Both are gone afterwards."""
        with TemporaryDirectory(prefix="merge-", ignore_cleanup_errors=True) as scratch:
            folder, results = Path(scratch, "project"), Path(scratch, "results")
            results.mkdir()
            write_folder(self.objects, folder, tree)
            yield folder, results

    def run_pytest(self, folder: Path, results: Path, launcher: tuple[str, ...]) -> Report:
        """One pytest run in `folder`, started by `launcher`: the interpreter up to its -m."""
        # Nothing that the tests can know beforehand names the canary or the report. The canary sits among
        # them, because what a conftest.py does to reports it does to those below its own folder only.
        name = f"test_canary_{secrets.token_hex(8)}"
        (folder / "tests").mkdir(exist_ok=True)
        (folder / "tests" / f"{name}.py").write_text(_CANARY.format(name=name))
        junit = f"{name}.xml"
        finished = self.run(folder, results, (*launcher, "pytest", *_FLAGS, f"--junitxml={RESULTS}/{junit}", "tests"))
        # Scratch names differ from run to run, and are nobody's business.
        output = finished.output.replace(f"{folder}/", "").replace(name, "test_canary")[-_TAIL:]
        written = read_plain(results / junit, LARGEST_REPORT)
        report = written.replace(f"{folder}/".encode(), b"") if written is not None else b""
        cases = parse(report)
        broken = _breakage(finished, cases, name, self.timeout_s)
        own = tuple(case for case in cases or () if name not in case.id)
        told = f"{broken} Last output:\n{output}" if broken else ""
        return Report(own, told, without(report, name) if cases is not None else report, finished.seconds)

    def run(self, folder: Path, results: Path, argv: tuple[str, ...]) -> Finished:
        """Any command in a scratch copy, within the time limit of tests."""
        return self.runner(Command(argv, folder, self.timeout_s, results))


def _breakage(finished: Finished, cases: list[Case] | None, canary: str, limit_s: float) -> str:
    """Why a run proves nothing; empty when it does. With the canary in it, a run that went well ends with 1."""
    if finished.timed_out:
        return f"The tests did not end within {limit_s:g} s and were stopped."
    if cases is None:
        return f"pytest ended with {finished.code} before it wrote its report."
    endings = [case.ending for case in cases if canary in case.id]
    if not endings:
        return f"pytest ended with {finished.code} and did not run all tests that it was given."
    if finished.code != 1 or endings != [Ending.FAILED]:
        return f"pytest ended with {finished.code}, and a test that has to fail was not reported as failed."
    return ""
