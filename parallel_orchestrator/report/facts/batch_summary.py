"""What became of a batch: batch_summary.json for programs, batch_summary.md and a table for people."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from parallel_orchestrator.records.errors import OrchestratorError
from parallel_orchestrator.report.facts.spending import least_text, spent_text
from parallel_orchestrator.system.terminal_text import json_text, one_line

VERSION = 1

_WORST_FIRST = (2, 5, 4, 3, 1)
_LONGEST = 100


@dataclass(frozen=True)
class Ending:
    """What became of one scenario."""

    name: str
    folder: str
    summary: dict[str, Any] | None
    """What is kept of its summary (`kept`); None where nothing is known."""
    error: OrchestratorError | None = None

    @property
    def status(self) -> str:
        """`done`, `failed` or `stopped`."""
        return self.summary["status"] if self.summary and not self.error and self._settled() else "stopped"

    @property
    def why(self) -> str:
        """What stopped the scenario, or what of it failed; empty where neither happened."""
        return str(self.error or (self.summary or {}).get("why", ""))

    @property
    def exit_code(self) -> int:
        """What the scenario alone would have ended with."""
        if self.error:
            return self.error.exit_code
        return {"done": 0, "failed": 1}.get(self.status, 3)

    def _settled(self) -> bool:
        return self.summary is not None and self.summary["status"] in ("done", "failed")


_MONEY = ("cost_usd", "uncertain_cost_usd", "recorded_cost_usd", "unpriced_calls")
_KEPT = (
    *("status", "failed", "blocked", "total_tasks", "completed", "success_rate", "tests", *_MONEY),
    *("makespan_s", "work_s", "critical_path_s", "speedup"),
)


def kept(summary: dict[str, Any]) -> dict[str, Any]:
    """What a batch keeps of a scenario's summary: thousands of whole ones would be a lot to hold."""
    why = "; ".join(_failures(summary)) if summary["status"] == "failed" else ""
    return {name: summary[name] for name in _KEPT if name in summary} | {"why": why}


def _failures(summary: dict[str, Any]) -> Iterator[str]:
    """Which tasks failed, or else which checks: the first of each kind by name."""
    tasks = [task for task in summary["tasks"] if task["state"] == "failed"]
    if tasks:
        yield f"{tasks[0]['id']} failed: {_short(tasks[0]['reason'])}{_and_more(tasks)}"
        return  # the checks of a whole that lacks parts tell nothing more
    facts = (summary["tests"] or {}).get("facts", [])
    if facts:
        yield f"the tests of the whole failed: {_short(facts[0])}{_and_more(facts)}"
    commands = [check["command"] for check in summary["verify"] or [] if check["code"] != 0]
    if commands:
        yield f"verify failed: {_short(commands[0])}{_and_more(commands)}"
    fixes = [fix for fix in summary.get("fixes", []) if fix["state"] == "failed"]
    if fixes:
        yield f"{fixes[-1]['id']} failed: {_short(fixes[-1]['reason'])}"


def _and_more(found: Sequence[str]) -> str:
    return f" and {len(found) - 1} more" if len(found) > 1 else ""


def _short(text: str) -> str:
    line = text.partition("\n")[0]
    return line if len(line) <= _LONGEST else line[: _LONGEST - 1] + "…"


def batch_summary(
    endings: Sequence[Ending], executors: int, elapsed_s: float, code: int, why: str = ""
) -> dict[str, Any]:
    """The summary as a dict. `elapsed_s`, `code`: of this session. `why`: what stopped all of it."""
    scenarios = [_scenario(ending) for ending in endings]
    statuses = [scenario["status"] for scenario in scenarios]
    return {
        "version": VERSION,
        "executors": executors,
        "scenarios_total": len(scenarios),
        **{status: statuses.count(status) for status in ("done", "failed", "stopped")},
        "exit_code": code,
        "why": why,
        "elapsed_s": round(elapsed_s, 3),
        **{key: round(sum(one[key] for one in scenarios), 6) for key in _SUMMED},
        "scenarios": scenarios,
    }


_SUMMED = ("total_tasks", "completed", *_MONEY, "work_s")


def worst(codes: Iterable[int]) -> int:
    """The exit code of many scenarios: usage before held, budget, transient, failed, done."""
    found = set(codes)
    return next((code for code in _WORST_FIRST if code in found), 0)


def _scenario(ending: Ending) -> dict[str, Any]:
    summary = ending.summary or {}
    tests = summary.get("tests") or {}
    return {
        "name": ending.name,
        "folder": ending.folder,
        "status": ending.status,
        "why": ending.why,
        "exit_code": ending.exit_code,
        "failed": summary.get("failed", 0),
        "total_tasks": summary.get("total_tasks", 0),
        "completed": summary.get("completed", 0),
        "success_rate": summary.get("success_rate", 0.0),
        "tests_passed": tests.get("passed", 0),
        "tests_failed": tests.get("failed", 0),
        **{key: summary.get(key, 0) for key in _MONEY},
        "makespan_s": summary.get("makespan_s", 0.0),
        "work_s": summary.get("work_s", 0.0),
        "critical_path_s": summary.get("critical_path_s", 0.0),
        "speedup": summary.get("speedup"),
    }


def batch_text(summary: dict[str, Any]) -> str:
    """The summary as the JSON that the file holds."""
    return json_text(summary)


_HEAD = ("scenario", "status", "tasks", "tests", "cost", "time", "speedup")


def rows(summary: dict[str, Any]) -> list[tuple[str, ...]]:
    """The table's cells, a row a scenario."""
    return [
        (
            one["name"] if one["name"] == one["folder"] else one["folder"],
            one["status"],
            f"{one['completed']}/{one['total_tasks']}",
            f"{one['tests_passed']}" + (f" ({one['tests_failed']} failed)" if one["tests_failed"] else ""),
            least_text(one),
            f"{one['makespan_s']:.1f} s",
            f"{one['speedup']:.2f}" if one["speedup"] else "–",
        )
        for one in summary["scenarios"]
    ]


def batch_account(summary: dict[str, Any]) -> str:
    """The table as plain text, and the totals."""
    table = [_HEAD, *rows(summary)]
    widths = [max(len(row[column]) for row in table) for column in range(len(_HEAD))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table]
    lines += [f"{one['name']}: {one['why']}" for one in summary["scenarios"] if one["why"]]
    return "\n".join(map(one_line, [*lines, totals(summary)]))


def totals(summary: dict[str, Any]) -> str:
    """The batch in one line."""
    return (
        f"{summary['done']} of {summary['scenarios_total']} scenarios done, "
        f"{summary['completed']} of {summary['total_tasks']} tasks merged, {spent_text(summary)}; "
        f"this session took {summary['elapsed_s']:.1f} s with {summary['executors']} executors"
    )


def batch_page(summary: dict[str, Any]) -> str:
    """The summary as Markdown."""
    stopped = [f"Stopped: {one_line(summary['why'])}.", ""] if summary["why"] else []
    lines = ["# Batch", "", totals(summary) + ".", "", *stopped, _cells(_HEAD), _cells(["---"] * len(_HEAD))]
    lines += [_cells(row) for row in rows(summary)]
    whys = [f"- {one['name']}: {one_line(one['why'])}" for one in summary["scenarios"] if one["why"]]
    return "\n".join([*lines, *(["", *whys] if whys else [])]) + "\n"


def _cells(row: Sequence[str]) -> str:
    return "| " + " | ".join(one_line(cell).replace("|", "\\|") for cell in row) + " |"
