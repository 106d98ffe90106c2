"""A status for a person: a few lines, then a row for each task or scenario, no wider than the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from parallel_orchestrator.report.facts.batch_status import BatchStatus
from parallel_orchestrator.report.facts.documents import CorrectionNote, TestTotals, VerifyCheck
from parallel_orchestrator.report.facts.spending import calls_text
from parallel_orchestrator.report.facts.status import RunStatus, TaskCounts, TaskStatusLine, TroubleStatus
from parallel_orchestrator.report.pages.wrapping import aligned
from parallel_orchestrator.system.terminal_text import one_line

_NARROWEST = 40
_MOST_FACTS, _WIDEST = 3, 300
_MOST_LINES = 8
"""Of what a failed command printed: the last ones."""


def status_page(status: RunStatus | BatchStatus, width: int) -> str:
    """A run's or a batch's status in lines of at most `width` characters, but for paths and commands."""
    width = max(width, _NARROWEST)
    lines = [f"{status.state}: {status.directory}"]
    if isinstance(status, RunStatus):
        lines.append(_cut(f"  what:     {' '.join(status.requirements.split())}", width))
    if status.state != "done":
        lines.append(f"  owner:    {status.owner or 'nobody'}")
    if isinstance(status, RunStatus):
        lines += _run_lines(status, width)
        rows = _task_rows(status)
    else:
        lines.append(f"  tasks:    {_batch_progress(status)}")
        rows = _scenario_rows(status)
    lines.append(f"  cost:     {calls_text(status, status.model_calls)}")
    if isinstance(status, RunStatus):
        if status.max_cost_usd is not None:
            lines[-1] += f", of at most ${status.max_cost_usd:.2f}"
        if status.elapsed_s:
            lines.append(f"  time:     {clock(status.elapsed_s)}")
    if rows:
        lines += ["", *(f"  {line}" for line in aligned(rows, width - 2)), ""]
    lines.append(f"  next:     {status.next}")
    return "\n".join(map(one_line, lines))


def _run_lines(status: RunStatus, width: int) -> Iterator[str]:
    if status.endpoint_trouble:
        yield f"  endpoint: {_trouble(status.endpoint_trouble)}"
    yield f"  tasks:    {_progress(status.tasks)}"
    if status.tests:
        when = "" if status.state in ("done", "failed") else ", after the last merge"
        yield f"  tests:    {_tests(status.tests)}{when}"
    for line in (*failure_lines(status.facts, status.verify), *correction_lines(status.corrections)):
        yield _cut(line, width)


def _batch_progress(status: BatchStatus) -> str:
    counts, tasks = status.scenarios, status.tasks
    others = [f"{count} {word}" for word, count in counts.items() if word not in ("total", "done") and count]
    done = f"{counts.get('done', 0)} of {counts.get('total', 0)} scenarios done"
    return f"{', '.join([done, *others])}; {tasks.merged} of {tasks.total} tasks merged"


def _progress(tasks: TaskCounts) -> str:
    if not tasks.total:
        return "not planned yet"
    others = {name: getattr(tasks, name) for name in ("claimed", "ready", "waiting", "failed", "blocked")}
    return ", ".join(
        [f"{tasks.merged} of {tasks.total} merged", *(f"{count} {word}" for word, count in others.items() if count)]
    )


def _trouble(trouble: TroubleStatus) -> str:
    coming = f"next in {clock(trouble.next_s)}" if trouble.next_s else "the next is under way"
    return f"{trouble.what}; try {trouble.tries} failed, {coming}, giving up in {clock(trouble.gives_up_s)}"


def _tests(tests: TestTotals) -> str:
    skipped = f", {tests.skipped} skipped" if tests.skipped else ""
    return f"{tests.passed} passed, {tests.failed} failed{skipped}"


def failure_lines(facts: Sequence[str], verify: Iterable[VerifyCheck]) -> Iterator[str]:
    """Why a whole is red: what its tests say, each command that failed, and the end of what that printed."""
    for fact in facts[:_MOST_FACTS]:
        yield f"  red:      {fact.strip().partition(chr(10))[0]}"
    for check in verify:
        if check.code:
            yield f"  verify:   FAILED {check.command} (exit code {check.code})"
            printed = (check.output or "").rstrip().splitlines()[-_MOST_LINES:]
            yield from (f"            | {line[:_WIDEST]}" for line in printed)


def correction_lines(corrections: Iterable[CorrectionNote]) -> Iterator[str]:
    """Which commands of the plan fix tasks have corrected, and why."""
    for one in corrections:
        yield f"  corrected: {one.command}"
        yield f"            by {one.fix}, to: {one.replacement}"
        yield f"            because: {one.reason}"


def clock(seconds: float) -> str:
    """Seconds as 4.2 s, 3:05 or 1:02:09."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _task_rows(status: RunStatus) -> list[tuple[str, ...]]:
    """The last cell is the one that is cut where there is not room enough."""
    return [
        (task.id, task.state, clock(task.seconds) if task.seconds else "", _task_text(task))
        for task in [*status.task_list, *status.fix_list]
    ]


def _task_text(task: TaskStatusLine) -> str:
    if task.executor:
        return f"executor {task.executor}: {task.doing}"
    why = f": {task.why}" if task.why and task.state in ("failed", "blocked", "ready") else ""
    attempt = f" (attempt {task.attempt})" if task.attempt > 1 else ""
    return f"{task.name}{attempt}{why}"


def _scenario_rows(status: BatchStatus) -> list[tuple[str, ...]]:
    return [
        (
            one.folder,
            one.state,
            f"{one.tasks.merged}/{one.tasks.total}" if one.tasks.total else "",
            f"${one.cost_usd:.2f}",
            clock(one.elapsed_s) if one.elapsed_s else "",
            one.why or (f"{one.tests.passed} tests passed" if one.tests else ""),
        )
        for one in status.scenario_list
    ]


def _cut(text: str, width: int) -> str:
    text = text.rstrip()
    return text if len(text) <= width else text[: width - 1] + "…"
