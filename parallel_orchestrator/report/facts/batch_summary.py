"""batch_summary.json: what became of a batch, from the summaries of its runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from msgspec import structs

from parallel_orchestrator.records.errors import OrchestratorError
from parallel_orchestrator.report.facts.documents import JsonDocument, Summary, WholeTests
from parallel_orchestrator.report.facts.spending import MONEY

_WORST_FIRST = (2, 5, 4, 3, 1)
_LONGEST = 100


class ScenarioSummary(JsonDocument, frozen=True, kw_only=True):
    """One scenario of a batch. Of a run that has no plan yet, little is known."""

    name: str = ""
    folder: str = ""
    status: Literal["done", "failed", "stopped"] = "stopped"
    why: str = ""
    exit_code: int = 0
    failed: int = 0
    total_tasks: int = 0
    completed: int = 0
    success_rate: float = 0.0
    tests_passed: int = 0
    tests_failed: int = 0
    cost_usd: float = 0
    uncertain_cost_usd: float = 0
    recorded_cost_usd: float = 0
    unpriced_calls: float = 0
    makespan_s: float = 0.0
    work_s: float = 0.0
    critical_path_s: float = 0.0
    speedup: float | None = None


class BatchSummary(JsonDocument, frozen=True, kw_only=True):
    """What became of a batch."""

    version: Literal[1] = 1
    executors: int
    scenarios_total: int
    done: int
    failed: int
    stopped: int
    exit_code: int
    """Of this session, as `elapsed_s` is."""
    why: str
    elapsed_s: float
    total_tasks: int
    completed: int
    cost_usd: float
    uncertain_cost_usd: float
    recorded_cost_usd: float
    unpriced_calls: float
    work_s: float
    scenarios: list[ScenarioSummary]


@dataclass(frozen=True)
class ScenarioEnding:
    """What became of one scenario."""

    name: str
    folder: str
    summary: ScenarioSummary | None
    """What `kept` keeps of its summary; None where nothing is known."""
    error: OrchestratorError | None = None

    @property
    def status(self) -> Literal["done", "failed", "stopped"]:
        """How it ended; a resume can continue what is `stopped`."""
        return "stopped" if self.error or self.summary is None else self.summary.status

    @property
    def why(self) -> str:
        """What stopped the scenario, or what of it failed; empty where neither happened."""
        return str(self.error or (self.summary.why if self.summary else ""))

    @property
    def exit_code(self) -> int:
        """The exit code that the scenario alone would have had."""
        return self.error.exit_code if self.error else {"done": 0, "failed": 1, "stopped": 3}[self.status]

    def line(self) -> ScenarioSummary:
        """Return it as the batch's summary lists it."""
        own = {name: getattr(self, name) for name in ("name", "folder", "status", "why", "exit_code")}
        return structs.replace(self.summary or ScenarioSummary(), **own)


def kept(summary: Summary) -> ScenarioSummary:
    """Return what a batch keeps of a summary: thousands of whole ones would need too much memory."""
    tests = summary.tests or WholeTests()
    own = {name: getattr(summary, name) for name in ScenarioSummary.__struct_fields__ if hasattr(summary, name)}
    own["status"] = "stopped" if summary.status == "incomplete" else summary.status
    why = "; ".join(_failures(summary)) if summary.status == "failed" else ""
    return ScenarioSummary(**own, why=why, tests_passed=tests.passed, tests_failed=tests.failed)


def _failures(summary: Summary) -> Iterator[str]:
    """Which tasks failed, or else which checks: the first of each kind by name."""
    tasks = [task for task in summary.tasks if task.state == "failed"]
    if tasks:
        yield f"{tasks[0].id} failed: {_short(tasks[0].reason)}{_and_more(tasks)}"
        return  # the checks of a whole that lacks parts say nothing more
    facts = summary.tests.facts if summary.tests else []
    if facts:
        yield f"the tests of the whole failed: {_short(facts[0])}{_and_more(facts)}"
    commands = [check.command for check in summary.verify or [] if check.code != 0]
    if commands:
        yield f"verify failed: {_short(commands[0])}{_and_more(commands)}"
    fixes = [fix for fix in summary.fixes if fix.state == "failed"]
    if fixes:
        yield f"{fixes[-1].id} failed: {_short(fixes[-1].reason)}"


def _and_more(found: Sequence[object]) -> str:
    return f" and {len(found) - 1} more" if len(found) > 1 else ""


def _short(text: str) -> str:
    line = text.partition("\n")[0]
    return line if len(line) <= _LONGEST else line[: _LONGEST - 1] + "…"


def batch_summary(
    endings: Sequence[ScenarioEnding], executors: int, elapsed_s: float, code: int, why: str = ""
) -> BatchSummary:
    """Return the summary. `elapsed_s`, `code`: of this session. `why`: what stopped all of it."""
    scenarios = [ending.line() for ending in endings]
    statuses = Counter(scenario.status for scenario in scenarios)
    return BatchSummary(
        executors=executors,
        scenarios_total=len(scenarios),
        done=statuses["done"],
        failed=statuses["failed"],
        stopped=statuses["stopped"],
        exit_code=code,
        why=why,
        elapsed_s=round(elapsed_s, 3),
        **{key: round(sum(getattr(one, key) for one in scenarios), 6) for key in _SUMMED},
        scenarios=scenarios,
    )


_SUMMED = ("total_tasks", "completed", *MONEY, "work_s")


def worst(codes: Iterable[int]) -> int:
    """The exit code of many scenarios: usage comes before held, budget, transient, failed, done."""
    found = set(codes)
    return next((code for code in _WORST_FIRST if code in found), 0)
