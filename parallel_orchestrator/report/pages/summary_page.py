"""execution_summary.md: what a run did, for people: figures, tasks, the plan as a Mermaid graph, its Gantt chart.

The same page is appended to the file that $GITHUB_STEP_SUMMARY names. What models wrote is put in as text alone.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable
from pathlib import Path

from parallel_orchestrator.records.errors import OrchestratorError
from parallel_orchestrator.records.fix import FIX_NAME
from parallel_orchestrator.report.facts.documents import Summary, TaskSummary
from parallel_orchestrator.report.facts.summary import RunState
from parallel_orchestrator.report.pages.summary_text import summary_text
from parallel_orchestrator.system.files import write_whole
from parallel_orchestrator.system.terminal_text import one_line, page

log = logging.getLogger(__name__)

MAX_GRAPH_TASKS = 60
"""A larger plan is shown as levels in place of tasks."""

MAX_BARS = 300
"""Of the Gantt chart, the longest ones."""

STEP_SUMMARY_BYTES = 900_000
"""Of the whole file; GitHub refuses more than 1,024 kB."""

_CLASSES = """  classDef merged fill:#d3f0d8,stroke:#2e7d32,color:#111
  classDef failed fill:#f8d0d0,stroke:#b71c1c,color:#111
  classDef blocked fill:#f9e6b8,stroke:#8d6e00,color:#111
  classDef unfinished fill:#e4e4e4,stroke:#555,color:#111"""


def summary_page(state: RunState, summary: Summary) -> str:
    """The page as Markdown."""
    first = summary.requirements.strip().splitlines()[0]
    text = summary_text(summary, state.run.root)
    head = ["| task | state | executor | seconds | turns | cost |", "|---|---|---|--:|--:|--:|"]
    parts = [
        f"# {escaped(first[:200])}",
        f"```text\n{text.replace('```', chr(39) * 3)}\n```",
        "## Tasks",
        "\n".join([*head, *map(_row, [*summary.tasks, *summary.fixes])]),
        "## The plan",
        f"```mermaid\n{graph(state)}\n```",
    ]
    if state.timing.holds:
        parts += ["## Who worked when", f"```mermaid\n{gantt(state)}\n```"]
    return page("\n\n".join(parts) + "\n")


def _row(task: TaskSummary) -> str:
    reason = task.reason
    if task.state == "merged":
        reason = f"its conversation ended early: {task.ended_early}" if task.ended_early else ""
    why = f": {escaped(reason)[:300]}" if reason else ""
    cells = (
        f"{task.id} {escaped(task.name)}",
        f"{task.state}{why}",
        task.executor or "–",
        f"{task.duration_s:.1f}",
        str(task.model_calls),
        f"${task.cost_usd:.2f}",
    )
    return "| " + " | ".join(cells) + " |"


def escaped(text: str) -> str:
    """Text that Markdown and HTML take as nothing but text, on one line."""
    safe = one_line(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_{}\[\]()#+!|~$@])", r"\\\1", safe)


def _plain(text: str, length: int = 60) -> str:
    """Text for a Mermaid label: letters, digits and what its grammar leaves alone."""
    return re.sub(r"[^\w .,'/-]+|_{2,}", " ", one_line(text)).strip()[:length] or "-"


def graph(state: RunState) -> str:
    """The plan as a Mermaid flowchart, states as classes; its levels alone when there are many tasks."""
    tasks = state.plan.tasks
    if len(tasks) > MAX_GRAPH_TASKS:
        return _levels(state)
    lines = ["flowchart LR"]
    lines += [f'  {task.id}["{task.id} {_plain(task.name)}"]:::{_class(state, task.id)}' for task in tasks]
    lines += [f"  {before} --> {task.id}" for task in tasks for before in task.dependencies]
    lines += _fix_nodes(state)
    return "\n".join([*lines, _CLASSES])


def _fix_nodes(state: RunState) -> list[str]:
    """The fix tasks, each after all that nothing else follows."""
    needed = {before for task in state.plan.tasks for before in task.dependencies}
    last = [task.id for task in state.plan.tasks if task.id not in needed]
    lines = []
    for fix in state.queue_state.fixes:
        lines.append(f'  {fix}["{fix} {FIX_NAME}"]:::{_class(state, fix)}')
        lines += [f"  {before} --> {fix}" for before in last]
        last = [fix]
    return lines


def _class(state: RunState, task: str) -> str:
    word = state.queue_state.tasks[task].state.value
    return word if word in ("merged", "failed", "blocked") else "unfinished"


def _levels(state: RunState) -> str:
    nodes, depth = state.queue_state.graph.nodes, dict[str, int]()
    for task in state.queue_state.graph.order:
        depth[task] = 1 + max((depth[one] for one in nodes[task].dependencies), default=0)
    lines = ["flowchart LR"]
    for level in range(1, max(depth.values()) + 1):
        classes = [_class(state, task) for task, own in depth.items() if own == level]
        worst = next(word for word in ("failed", "blocked", "unfinished", "merged") if word in classes)
        merged = classes.count("merged")
        lines.append(f'  level_{level}["level {level}: {merged} of {len(classes)} tasks merged"]:::{worst}')
        lines += [f"  level_{level - 1} --> level_{level}"] if level > 1 else []
    return "\n".join([*lines, _CLASSES])


def gantt(state: RunState) -> str:
    """Who worked on what, when, as a Mermaid Gantt chart in milliseconds of the run's own clock."""
    longest = sorted(state.timing.holds, key=lambda hold: hold.seconds, reverse=True)[:MAX_BARS]
    lines = ["gantt", "  dateFormat x", "  axisFormat %M:%S"]
    for executor in sorted({hold.executor for hold in longest}):
        lines.append(f"  section executor {executor}")
        for hold in sorted((one for one in longest if one.executor == executor), key=lambda one: one.start):
            label = f"{hold.task} {_plain(state.name(hold.task), 40)}".replace(",", " ")
            kind = {"merged": "done, ", "failed": "crit, "}.get(hold.ending.value, "active, ")
            start, end = round(hold.start * 1000), max(round(hold.end * 1000), round(hold.start * 1000) + 1)
            lines.append(f"    {label} :{kind}{start}, {end}")
    return "\n".join(lines)


def write_page(path: Path, make: Callable[[], str], *, in_batch: bool = False) -> None:
    """Write a page for people, and append it to the step's summary. What cannot be written is logged, no more.

    `in_batch`: of a scenario, whose batch has a page of its own for the step's summary.
    """
    try:
        text = make()
        write_whole(path, text)
        if not in_batch:
            append_step_summary(text)
    except (OSError, OrchestratorError) as error:
        log.warning("%s could not be written: %s", path, error)
    except Exception:
        log.exception("%s could not be written", path)


def append_step_summary(text: str) -> None:
    """Append to the file that $GITHUB_STEP_SUMMARY names, as far as it has room. Raises OSError."""
    target = os.environ.get("GITHUB_STEP_SUMMARY")
    if not target:
        return
    path = Path(target)
    room = STEP_SUMMARY_BYTES - 1 - (path.stat().st_size if path.exists() else 0)
    if len(text.encode()) > room:
        text = text.partition("\n## The plan")[0] + "\n(the rest is in execution_summary.md)\n"
    data = text.encode()
    if len(data) > room:
        data = data[: max(0, room - 8)].decode(errors="ignore").encode()
    with path.open("ab") as file:
        file.write(data + b"\n" if data else b"")
