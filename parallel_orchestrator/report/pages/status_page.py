"""A status for a person: a few lines, then a row for each task or scenario, no wider than the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from parallel_orchestrator.report.facts.status import owner_text
from parallel_orchestrator.system.terminal_text import counted, one_line

_NARROWEST = 40
_MOST_FACTS, _WIDEST = 3, 300
_MOST_LINES = 8
"""Of what a failed command printed: the last ones."""


def status_page(status: dict[str, Any], width: int) -> str:
    """A run's or a batch's status in lines of at most `width` characters, but for paths and commands."""
    width = max(width, _NARROWEST)
    table = _task_rows(status) if status["kind"] == "run" else _scenario_rows(status)
    lines = [f"{status['state']}: {status['directory']}"]
    if status["kind"] == "run":
        lines.append(_cut(f"  what:     {' '.join(status['requirements'].split())}", width))
    lines.append(f"  owner:    {owner_text(status['owner'])}" if status["state"] != "done" else "")
    lines.append(f"  endpoint: {_trouble(status['endpoint_trouble'])}" if status.get("endpoint_trouble") else "")
    lines += [f"  tasks:    {_progress(status)}", f"  tests:    {_tests(status)}" if status.get("tests") else ""]
    lines += [_cut(line, width) for line in failure_lines(status.get("facts", ()), status.get("verify", ()))]
    lines += [_cut(line, width) for line in correction_lines(status.get("corrections", ()))]
    lines += [f"  cost:     {cost_text(status)}"]
    lines.append(f"  time:     {clock(status['elapsed_s'])}" if status.get("elapsed_s") else "")
    lines = [line for line in lines if line]
    if table:
        lines += ["", *_columns(table, width), ""]
    lines.append(f"  next:     {status['next']}")
    return "\n".join(map(one_line, lines))


def _progress(status: dict[str, Any]) -> str:
    tasks = status["tasks"]
    if status["kind"] == "batch":
        scenarios = status["scenarios"]
        others = [f"{count} {word}" for word, count in scenarios.items() if word not in ("total", "done") and count]
        told = f"{scenarios.get('done', 0)} of {scenarios['total']} scenarios done"
        return f"{', '.join([told, *others])}; {tasks['merged']} of {tasks['total']} tasks merged"
    if not tasks["total"]:
        return "not planned yet"
    others = [f"{tasks[word]} {word}" for word in ("claimed", "ready", "waiting", "failed", "blocked") if tasks[word]]
    return ", ".join([f"{tasks['merged']} of {tasks['total']} merged", *others])


def _trouble(trouble: dict[str, Any]) -> str:
    coming = f"next in {clock(trouble['next_s'])}" if trouble["next_s"] else "the next is under way"
    now = f"{trouble['what']}; try {trouble['tries']} failed, {coming}"
    return f"{now}, giving up in {clock(trouble['gives_up_s'])}"


def _tests(status: dict[str, Any]) -> str:
    tests = status["tests"]
    skipped = f", {tests['skipped']} skipped" if tests["skipped"] else ""
    when = "" if status["state"] in ("done", "failed") else ", after the last merge"
    return f"{tests['passed']} passed, {tests['failed']} failed{skipped}{when}"


def failure_lines(facts: Sequence[str], verify: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Why a whole is red: what its tests say, each command that failed, and the end of what that printed."""
    for fact in facts[:_MOST_FACTS]:
        yield f"  red:      {fact.strip().partition(chr(10))[0]}"
    for check in verify:
        if check["code"]:
            yield f"  verify:   FAILED {check['command']} (exit code {check['code']})"
            yield from (
                f"            | {line[:_WIDEST]}" for line in check["output"].rstrip().splitlines()[-_MOST_LINES:]
            )


def correction_lines(corrections: Sequence[dict[str, str]]) -> Iterator[str]:
    """Which commands of the plan fix tasks have corrected, and why."""
    for one in corrections:
        yield f"  corrected: {one['command']}"
        yield f"            by {one['fix']}, to: {one['replacement']}"
        yield f"            because: {one['reason']}"


def cost_text(money: dict[str, Any]) -> str:
    """What was spent so far."""
    text = f"${money['cost_usd']:.2f}"
    if money.get("max_cost_usd") is not None:
        text += f" of at most ${money['max_cost_usd']:.2f}"
    if money["uncertain_cost_usd"]:
        text += f", up to ${money['uncertain_cost_usd']:.2f} more for calls whose end is unknown"
    if money["unpriced_calls"]:
        text = f"at least {text} ({counted(int(money['unpriced_calls']), 'call')} without a known price)"
    if money["recorded_cost_usd"]:
        text += f" (when recorded: ${money['recorded_cost_usd']:.2f})"
    return f"{text}; {counted(int(money['model_calls']), 'call')}"


def clock(seconds: float) -> str:
    """Seconds as 4.2 s, 3:05 or 1:02:09."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _task_rows(status: dict[str, Any]) -> list[tuple[str, ...]]:
    """The last cell is the one that is cut where there is not room enough."""
    return [
        (task["id"], task["state"], clock(task["seconds"]) if task["seconds"] else "", _task_text(task))
        for task in [*status["task_list"], *status["fix_list"]]
    ]


def _task_text(task: dict[str, Any]) -> str:
    if task["executor"]:
        return f"executor {task['executor']}: {task['doing']}"
    why = f": {task['why']}" if task["why"] and task["state"] in ("failed", "blocked", "ready") else ""
    attempt = f" (attempt {task['attempt']})" if task["attempt"] > 1 else ""
    return f"{task['name']}{attempt}{why}"


def _scenario_rows(status: dict[str, Any]) -> list[tuple[str, ...]]:
    return [
        (
            one["folder"],
            one["state"],
            f"{one['tasks']['merged']}/{one['tasks']['total']}" if one["tasks"]["total"] else "",
            f"${one['cost_usd']:.2f}",
            clock(one["elapsed_s"]) if one["elapsed_s"] else "",
            one["why"] or (f"{one['tests']['passed']} tests passed" if one["tests"] else ""),
        )
        for one in status["scenario_list"]
    ]


def _columns(rows: Sequence[tuple[str, ...]], width: int) -> list[str]:
    widths = [max(len(one_line(row[column])) for row in rows) for column in range(len(rows[0]) - 1)]
    return [
        _cut(
            "  " + "  ".join([*(one_line(c).ljust(w) for c, w in zip(row, widths, strict=False)), one_line(row[-1])]),
            width,
        )
        for row in rows
    ]


def _cut(text: str, width: int) -> str:
    text = text.rstrip()
    return text if len(text) <= width else text[: width - 1] + "…"
