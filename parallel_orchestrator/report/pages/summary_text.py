"""Short texts for a person: notices before a run, its result afterwards."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator
from pathlib import Path

from parallel_orchestrator.records.journals.transcript import ConversationEnded, TranscriptRecord
from parallel_orchestrator.records.lifecycle import SETTLED, TaskState
from parallel_orchestrator.records.plan import Plan
from parallel_orchestrator.report.facts.advice import Advice
from parallel_orchestrator.report.facts.documents import Summary, TaskSummary
from parallel_orchestrator.report.facts.spending import calls_text, read_ledger
from parallel_orchestrator.report.facts.status import next_command
from parallel_orchestrator.report.live.snapshot import short_count
from parallel_orchestrator.report.pages.advice_page import advice_lines, tree_lines
from parallel_orchestrator.report.pages.status_page import correction_lines, failure_lines
from parallel_orchestrator.store.journal import read_each
from parallel_orchestrator.store.paths import RunDirectory
from parallel_orchestrator.store.queue.queue_state import QueueState, TaskStatus
from parallel_orchestrator.store.record_parser import TRANSCRIPT
from parallel_orchestrator.system.invocation import command
from parallel_orchestrator.system.terminal_text import counted, one_line

_ORIGIN = re.compile(r"^origin: {0,9}[\"']?(written|exported)\b", re.MULTILINE)
_HEAD = 100_000
"""Characters of a recording in which its origin and its requirement are looked for."""
_LIMITS = {
    "--max-turns": re.compile(r"reached its limit of (\d+) turns"),
    "--task-timeout": re.compile(r"reached its limit of ([\d.]+) minutes"),
}
"""What a failed task's reason (agent/turns.py) says of a limit, and the option that raises it."""


def replay_note(recording: Path, speed: float, requirement: str) -> str:
    """Return the notice of a replay: no live model is asked, and what was recorded is built."""
    head = _head(recording)
    found, recorded = _ORIGIN.search(head), _recorded_for(head)
    origin = {
        "written": "its answers were written by hand, no model is asked",
        "exported": "the answers of an earlier run, no model is asked",
    }.get(found[1] if found else "", "no model is asked")
    foreign = recorded and _words(recorded) != _words(requirement)
    whose = f" is of {_quoted(recorded)}, which is built; the words given here are not used" if foreign else ""
    pace = "" if speed == 1 else f", {speed:g} times as fast as recorded"
    return f"recording {recording.stem!r}{whose}: {origin}{pace}; costs nothing"


def no_cap_note(most_usd: float | None) -> str:
    """What is said before a run without a cap is planned. `most_usd`: of the planner's answers, where that is known."""
    bound = "" if most_usd is None else f" and costs at most ${most_usd:.2f} of output"
    return (
        f"no --max-cost is given. The plan comes first{bound}; then you see an estimate and are asked. "
        "Ctrl-C stops; what is planned by then is kept"
    )


def estimate_question(advice: Advice) -> str:
    """What building the plan may cost, and whether to do that without a cap."""
    size = f"{short_count(advice.tokens)} tokens"
    cost = f"about {size}; the model's price is not known"
    if advice.cost_usd:
        cost = "${:.2f}-${:.2f}".format(*advice.cost_usd) + f" (about {size})"
    return f"estimate: {cost}. It is not a limit: this run has no --max-cost. Build it?"


def reuse_note(run: RunDirectory, queue_state: QueueState) -> str:
    """What a resume reuses, what it continues, and why: in one line."""
    ledger = read_ledger(run.ledger)
    done = [task for task, status in queue_state.tasks.items() if status.state is TaskState.MERGED]
    turns_of = {
        task: ledger.turns(task, status.attempt)
        for task, status in queue_state.tasks.items()
        if status.state not in SETTLED
    }
    begun = {task: turns for task, turns in turns_of.items() if turns}
    spent = ledger.total()
    parts = [counted(len(done), "task")]
    parts += [f"{counted(turns, 'turn')} of {task}" for task, turns in begun.items()]
    parts.append(f"${spent.usd:.2f}" if not spent.recorded_usd else f"{counted(spent.calls, 'recorded answer')}")
    continued = [_continued(run, task, turns, queue_state.tasks[task]) for task, turns in begun.items()]
    fresh = [task for task, turns in turns_of.items() if not turns]
    continued += [f"{counted(len(fresh), 'task')} to begin"] if fresh else []
    return f"resuming: reusing {', '.join(parts)}; {'; '.join(continued) or 'nothing left to do but the last tests'}"


def _continued(run: RunDirectory, task: str, turns: int, status: TaskStatus) -> str:
    path = run.transcript(status.folder, task, status.attempt)
    records = read_each(path, TRANSCRIPT) if status.folder else iter(())
    handed_in = any(_is_hand_in(record) for record in deque(records, maxlen=1))
    how = "is handed in again" if handed_in else f"goes on from turn {turns + 1}"
    return f"{task} {how}" + (f" ({_cut(status.why, 80)})" if status.why else "")


def _is_hand_in(record: TranscriptRecord) -> bool:
    return isinstance(record, ConversationEnded) and record.kind == "submitted"


def plan_text(plan: Plan, directory: Path, advice: Advice, *, spends: bool = True) -> str:
    """A plan for a person: its tasks, what follows from what, what it will take, how many executors it is worth."""
    complexity = plan.complexity
    lines = [f"{complexity.level}: {complexity.reasoning}", "", *tree_lines(plan), "", *advice_lines(advice, spends)]
    lines.append(f"the plan is in {directory / 'execution_plan.json'}; running the same requirement there uses it")
    return "\n".join(map(one_line, lines))


def summary_text(summary: Summary, directory: Path) -> str:
    """What was made, where, and what to do next."""
    lines = [headline(summary), *_tested(summary)]
    lines += failure_lines(summary.tests.facts if summary.tests else (), summary.verify or ())
    lines += correction_lines(summary.corrections)
    lines += [_fix_line(fix) for fix in summary.fixes]
    if summary.lines_of_code:
        count = ", ".join(f"{kind} {number}" for kind, number in summary.lines_of_code.items())
        lines.append(f"  made:     {summary.total_files_created} files; lines: {count}")
    lines.append(f"  time:     {_time(summary)}")
    lines.append(f"  cost:     {_cost(summary)}")
    lines += [
        f"  {task.state}: {task.id} {task.name}: {task.reason}"
        for task in summary.tasks
        if task.state in ("failed", "blocked")
    ]
    lines += [
        f"  merged:   {task.id} {task.name}, whose conversation ended early: {task.ended_early}"
        for task in summary.tasks
        if task.ended_early
    ]
    lines.append(f"  where:    {directory}")
    if summary.succeeded():
        lines.append(f"  read:     {directory / 'README.md'}")
    lines.append(f"  next:     {next_command(summary.status, directory)}{_with_more(summary)}")
    if summary.is_red():
        lines.append(f"  or:       correct it in {directory}, commit that there, then {command('resume', directory)}")
    return "\n".join(map(one_line, lines))


def _tested(summary: Summary) -> Iterator[str]:
    if tests := summary.tests:
        covered = summary.coverage_percent
        shown = f", {covered:.0f} % of src covered" if covered is not None else ""
        yield f"  tests:    {tests.passed} passed, {tests.failed} failed, {tests.skipped} skipped{shown}"
    for check in summary.verify or []:
        if check.code == 0:
            yield f"  verify:   ok     {_cut(check.command, 60)}"


def _with_more(summary: Summary) -> str:
    """Options that give twice as much of what failed tasks ran out of; another attempt would run out of it as well."""
    reasons = [task.reason for task in [*summary.tasks, *summary.fixes] if task.state == "failed"]
    found = {option: [float(m[1]) for why in reasons if (m := limit.search(why))] for option, limit in _LIMITS.items()}
    return "".join(f" {option} {2 * max(limits):g}" for option, limits in found.items() if limits)


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def headline(summary: Summary) -> str:
    """How it ended, in a sentence."""
    done = f"{summary.completed} of {summary.total_tasks} tasks merged ({summary.success_rate:.0%})"
    words = {"done": "done", "failed": "not all is done", "incomplete": "stopped before the end"}
    return f"{'everything is merged, and the whole is red' if summary.is_red() else words[summary.status]}: {done}"


def _fix_line(fix: TaskSummary) -> str:
    why = f": {fix.reason}" if fix.reason and fix.state != "merged" else ""
    return f"  fix:      {fix.id} {fix.state}{why}"


def _time(summary: Summary) -> str:
    if not summary.speedup:
        return "no task was worked on"
    return (
        f"{summary.makespan_s:.1f} s, executors: {summary.executors_used}; {summary.work_s:.1f} s of work, "
        f"{summary.speedup:.2f} times as fast as one after the other"
    )


def _cost(summary: Summary) -> str:
    tokens = summary.tokens
    read = tokens.input + tokens.cache_read + tokens.cache_write
    return f"{calls_text(summary, summary.model_calls)}, {read} tokens read, {tokens.output} written"


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.casefold())


def _quoted(text: str) -> str:
    first = one_line(" ".join(text.split()))
    return f'"{first}"' if len(first) <= 100 else f'"{first[:99]}…"'


def _recorded_for(head: str) -> str:
    """The requirement that a recording was made for; empty where its head does not say."""
    import yaml

    block = re.search(r"^requirement:.*(?:\n(?:[ \t].*)?)*", head, re.MULTILINE)
    try:
        return str(yaml.safe_load(block[0])["requirement"]) if block else ""
    except (yaml.YAMLError, RecursionError, ValueError, TypeError):
        return ""


def _head(recording: Path) -> str:
    """The text of the recording before its answers."""
    with recording.open(encoding="utf-8") as file:
        return file.read(_HEAD).partition("\nanswers:")[0]
