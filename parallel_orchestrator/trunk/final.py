"""The final checks of the whole: tests under coverage, verify commands, lines of code."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from parallel_orchestrator.records.command import RESULTS
from parallel_orchestrator.records.plan import OUR_DOCUMENTS, PROJECT_ROOTS
from parallel_orchestrator.store.paths import RunDirectory
from parallel_orchestrator.system.files import write_whole
from parallel_orchestrator.trunk.changes.folder import read_plain
from parallel_orchestrator.trunk.git.objects import LINK, Tree
from parallel_orchestrator.trunk.git.repository import Repository
from parallel_orchestrator.trunk.results import Coverage, FinalReport
from parallel_orchestrator.trunk.testing.testbench import NO_TESTS, PYTHON, PytestReport, TestBench, fed, may_hold_tests

_DATA = f"--data-file={RESULTS}/coverage.data"
_LARGEST_COVERAGE = 16_000_000


@dataclass(frozen=True)
class FinalChecks:
    """Checks copies of the trunk's head and never changes the trunk."""

    run: RunDirectory
    repository: Repository
    bench: TestBench

    def check(self, verify: Sequence[str]) -> FinalReport:
        """Test the head under coverage, then run each verify command in one fresh copy."""
        started = time.monotonic()
        # Read once: a person may commit meanwhile, and everything below is about this commit.
        head = self.repository.head()
        tree = self.repository.tree(head)
        report, coverage = self._test(tree)
        if report.why_red():
            report, coverage = self._test(tree)  # a flaky test is not worth a fix task
        return FinalReport(
            commit=head,
            tests=report.counts,
            facts=tuple(report.why_red()),
            coverage=coverage,
            verify=self.bench.verify(tree, verify),
            lines=self._lines(tree),
            seconds=time.monotonic() - started,
        )

    def _test(self, tree: Tree) -> tuple[PytestReport, Coverage | None]:
        if not may_hold_tests(tree):
            self._keep("final.junit.xml", NO_TESTS.junit)
            return NO_TESTS, None
        measured: list[bytes | None] = []

        def once() -> PytestReport:
            with self.bench.copy(tree) as (folder, results):
                report = self.bench.run_pytest(
                    folder, results, (*PYTHON, "coverage", "run", "--source=src", _DATA, "-m")
                )
                target = f"{RESULTS}/coverage.json"
                self.bench.run(folder, results, (*PYTHON, "coverage", "json", "-q", _DATA, "-o", target))
                measured[:] = [read_plain(results / "coverage.json", _LARGEST_COVERAGE)]
                return report

        report = fed(once)
        self._keep("final.junit.xml", report.junit)
        self._keep("coverage.json", measured[0] or b"")
        return report, _coverage(measured[0])

    def _lines(self, tree: Tree) -> dict[str, int]:
        own = {path: entry for path, entry in tree.items() if path not in OUR_DOCUMENTS}
        files = [path for path, entry in own.items() if path.partition("/")[0] in PROJECT_ROOTS and entry.mode != LINK]
        lines = Counter(dict.fromkeys(PROJECT_ROOTS, 0))
        for path, content in zip(files, self.repository.objects.blobs(tree[p].id for p in files), strict=True):
            if b"\0" not in content:
                lines[path.partition("/")[0]] += sum(1 for line in content.splitlines() if line.strip())
        return dict(lines)

    def _keep(self, name: str, content: bytes) -> None:
        if content:
            write_whole(self.run.evidence / name, content)


def _coverage(measured: bytes | None) -> Coverage | None:
    """Return the totals of coverage.py's report; None when they are implausible, as tests can forge them."""
    try:
        totals = json.loads(measured or b"")["totals"]
        covered, statements = totals["covered_lines"], totals["num_statements"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    plausible = type(covered) is type(statements) is int and 0 <= covered <= statements
    return Coverage(covered, statements) if plausible else None
