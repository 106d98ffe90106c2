"""execution_summary.json as types, and what other documents share with it. docs/run-directory.md lists the fields.

A summary of another version loads where its fields have these types; fields that are unknown here are left out.
"""

from __future__ import annotations

from typing import Any, Literal

from msgspec import UNSET, Struct, UnsetType, to_builtins

from parallel_orchestrator.system.terminal_text import json_text


class JsonDocument(Struct, frozen=True, kw_only=True):
    """A JSON object."""

    def as_json(self) -> dict[str, Any]:
        """Return it as dicts and lists."""
        fields: dict[str, Any] = to_builtins(self)
        return fields

    def text(self) -> str:
        """Return it as its file holds it."""
        return json_text(self.as_json())


class Tokens(JsonDocument, frozen=True, kw_only=True):
    """Tokens by kind. `input` is uncached, as the API counts."""

    input: int = 0
    cache_write: int = 0
    cache_read: int = 0
    output: int = 0


class TestTotals(JsonDocument, frozen=True, kw_only=True):
    """Tests by how they ended."""

    __test__ = False

    passed: int = 0
    failed: int = 0
    skipped: int = 0


class WholeTests(JsonDocument, frozen=True, kw_only=True):
    """The tests of the final trunk."""

    total: int = 0
    passed: int = 0
    failed: int = 0
    skipped: int = 0
    facts: list[str] = []
    """Why they are not green."""


class VerifyCheck(JsonDocument, frozen=True, kw_only=True):
    """How one verify command ended."""

    command: str
    code: int
    output: str | UnsetType = UNSET


class CorrectionNote(JsonDocument, frozen=True, kw_only=True):
    """A verify command of the plan that a fix task replaced."""

    command: str
    replacement: str
    reason: str
    fix: str


class Final(JsonDocument, frozen=True, kw_only=True):
    """What the tests of the whole said, as the queue records it at a run's end."""

    green: bool | UnsetType = UNSET
    commit: str | UnsetType = UNSET
    lines_of_code: dict[str, int] | None = None
    tests: WholeTests | None = None
    coverage_percent: float | None = None
    verify: list[VerifyCheck] | None = None
    head: str | UnsetType = UNSET
    """Where the trunk stood afterwards."""


class TaskSummary(JsonDocument, frozen=True, kw_only=True):
    """One task. A model's word is none of `claimed`, `executed`, `verified` and `merged`."""

    id: str
    name: str
    state: str
    reason: str
    claimed: bool
    executed: bool
    verified: bool
    merged: bool
    executor: str | None
    attempt: int
    deaths: int
    started_s: float | None
    ended_s: float | None
    duration_s: float
    files_created: int
    model_calls: int
    tokens: Tokens
    cost_usd: float
    uncertain_cost_usd: float
    recorded_cost_usd: float
    unpriced_calls: int
    retries: int
    bought_again: int
    changed_bodies: int
    open_calls: int
    evidence: dict[str, Any]
    red: list[str] | UnsetType = UNSET
    """Of a fix task: a line for each fact that it was planned for."""

    @property
    def ended_early(self) -> str:
        """Why the conversation of a merged task ended before the model said that it had finished."""
        return str(self.evidence.get("ended_early", "")) if self.state == "merged" else ""


class PlanningSummary(JsonDocument, frozen=True, kw_only=True):
    """The planner's share."""

    complexity: str
    endpoint_s: float
    model_calls: int
    tokens: Tokens
    cost_usd: float
    uncertain_cost_usd: float
    recorded_cost_usd: float
    unpriced_calls: int
    retries: int
    bought_again: int
    changed_bodies: int
    open_calls: int


class Summary(JsonDocument, frozen=True, kw_only=True):
    """What a run did."""

    version: Literal[1] = 1
    run: str
    requirements: str
    status: Literal["done", "failed", "incomplete"]
    total_tasks: int
    completed: int
    failed: int
    blocked: int
    success_rate: float
    total_files_created: int
    green: bool | UnsetType = UNSET
    commit: str | UnsetType = UNSET
    lines_of_code: dict[str, int] | None = None
    tests: WholeTests | None = None
    coverage_percent: float | None = None
    verify: list[VerifyCheck] | None = None
    executors_used: int
    executors_started: int
    executors_budget: int
    sessions: int
    makespan_s: float
    work_s: float
    critical_path_s: float
    speedup: float | None
    utilisation: dict[str, float]
    model_calls: int
    tokens: Tokens
    cost_usd: float
    uncertain_cost_usd: float
    recorded_cost_usd: float
    unpriced_calls: int
    retries: int
    bought_again: int
    changed_bodies: int
    open_calls: int
    planning: PlanningSummary
    tasks: list[TaskSummary]
    fixes: list[TaskSummary] = []
    corrections: list[CorrectionNote] = []

    def succeeded(self) -> bool:
        """Whether everything is merged and green."""
        return self.status == "done"

    def is_red(self) -> bool:
        """Whether everything is merged and the whole is red all the same."""
        return self.status == "failed" and self.completed == self.total_tasks
