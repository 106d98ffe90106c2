"""A plan and what it is expected to take, for a person."""

from __future__ import annotations

from parallel_orchestrator.records.plan import Plan
from parallel_orchestrator.report.facts.advice import SECONDS_PER_EFFORT, USAGE_PER_EFFORT, Advice
from parallel_orchestrator.report.live.snapshot import clock, short_count
from parallel_orchestrator.report.pages.wrapping import aligned
from parallel_orchestrator.system.terminal_text import one_line


def advice_lines(advice: Advice, spends: bool) -> list[str]:
    """The advice for a person. `spends`: a live model will be paid; a replay costs nothing."""
    rows = [("executors", "expected time", "speedup", "")]
    for one in advice.choices:
        low, high = map(clock, one.range_s())
        mark = "<- recommended" if one.executors == advice.recommended else ""
        rows.append((f"{one.executors}", f"{low}-{high}", f"{one.speedup:.2f}", mark))
    lines = [f"critical path: {' -> '.join(advice.path)}", f"width: {advice.width}", "", *aligned(rows, right=(0, 2))]
    cost = "no price is known for the model" if advice.cost_usd is None else "${:.2f}-${:.2f}".format(*advice.cost_usd)
    if not spends:
        cost = f"nothing, as it is a replay; with a live model {cost}"
    lines.append(f"cost: {cost} (about {short_count(advice.tokens)} tokens), with any number of executors")
    lines.append(
        f"These are estimates: {SECONDS_PER_EFFORT:g} s and {sum(USAGE_PER_EFFORT.values())} tokens a unit of effort "
        "(low 1, medium 2, high 4), the mean of the shipped recordings, and their spread; planning and the time of "
        "tests are not in them"
    )
    return [*lines, "", advice.reason]


def tree_lines(plan: Plan) -> list[str]:
    """The plan as a tree: each task below that of its dependencies which ends last; further ones are named."""
    graph = plan.graph()
    ends: dict[str, float] = {}
    for task in graph.order:
        node = graph.nodes[task]
        ends[task] = node.weight + max((ends[one] for one in node.dependencies), default=0.0)
    below: dict[str, list[str]] = {}
    for task in graph.nodes:
        parent = max(graph.nodes[task].dependencies, key=lambda one: ends[one], default="")
        below.setdefault(parent, []).append(task)
    lines: list[str] = []
    stack = [(task, "", "") for task in reversed(below.get("", []))]
    while stack:
        task, own, further = stack.pop()
        said, behind = plan.task(task), graph.nodes[task].dependencies
        others = [one for one in behind if one != max(behind, key=lambda one: ends[one])]
        also = f", also after {', '.join(others)}" if others else ""
        lines.append(one_line(f"{own}{task} {said.name}  [{said.estimated_effort}]{also}"))
        children = below.get(task, [])
        for place, child in reversed(list(enumerate(children))):
            last = place == len(children) - 1
            stack.append((child, further + ("└─ " if last else "├─ "), further + ("   " if last else "│  ")))
    return lines
