"""What makes a whole green: its tests, and its verify commands, run in a copy of its tree."""

from __future__ import annotations

from collections.abc import Sequence

from parallel_orchestrator.trunk.git.objects import Tree
from parallel_orchestrator.trunk.results import VerifyResult
from parallel_orchestrator.trunk.testing.testbench import Report, TestBench


def run_verify(bench: TestBench, tree: Tree, commands: Sequence[str]) -> tuple[VerifyResult, ...]:
    """How each command ends, one after the other in one fresh copy of `tree`."""
    if not commands:
        return ()
    with bench.copy(tree) as (folder, results):
        found = [(command, bench.run(folder, results, ("bash", "-c", command))) for command in commands]
    return tuple(VerifyResult(command, done.code, done.output, done.timed_out, done.seconds) for command, done in found)


def why_red(report: Report) -> list[str]:
    """Why the tests of the whole are not green; empty when they are."""
    if report.red:
        return report.messages()
    return [] if report.counts.passed else ["No test passed."]
