"""README.md of the result: what the tasks documented, in plan order, made into one page.

A task documents its part in a Markdown file of its own under docs/: a title, a paragraph of what it
is, and where there is something to start, a section `## Run` with the commands.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from parallel_orchestrator.records.graph import TaskGraph, TaskNode
from parallel_orchestrator.records.lifecycle import TaskState
from parallel_orchestrator.records.plan import Task
from parallel_orchestrator.report.facts.summary import RunState
from parallel_orchestrator.report.pages import markdown
from parallel_orchestrator.store.queue.queue_state import QueueState
from parallel_orchestrator.system.folders import files_below
from parallel_orchestrator.system.terminal_text import one_line, page

if TYPE_CHECKING:
    from markdown_it.tree import SyntaxTreeNode

_RUN = re.compile(r"Run|Running|Usage|How to run")
"""Headings of the section that says how to start something."""
_LONGEST_HEADING = 70
"""Characters of a requirement that can be a title."""
_LONGEST_TITLE = 200
"""Bytes."""


@dataclass(frozen=True)
class TaskPage:
    """What one task wrote about its part."""

    path: str
    title: str
    lead: str
    """Its first paragraph."""
    run: str
    """The body of its section on running, empty without one."""


def read_document(path: str, text: str) -> TaskPage:
    """The parts of a document that the README takes over, each bounded. Nothing in them hides what follows."""
    sections = [_Section()]
    for node in markdown.blocks(text):
        if node.type == "heading":
            sections.append(_Section(int(node.tag[1:]), markdown.words(node.children[0])))
        else:
            sections[-1].body.append(node)
    titled = next((one for one in sections if one.level == 1), None)
    title = titled.title if titled and len(titled.title.encode()) <= _LONGEST_TITLE else ""
    run = next((one for one in sections if one.level > 1 and _RUN.fullmatch(one.title)), _Section())
    move, rest = markdown.moved_from(path), f"The rest is too long for this page: {markdown.link('read it', path)}."
    cut = len(text) > markdown.LONGEST_TEXT and run is sections[-1]
    return TaskPage(
        path,
        title or markdown.phrase(path),
        markdown.bounded((titled or sections[0]).body[:1], move, rest),
        markdown.bounded(run.body, move, rest, more=cut),
    )


@dataclass
class _Section:
    """A heading and the blocks below it, up to the next heading. Level 0 is the text before all headings."""

    level: int = 0
    title: str = ""
    body: list[SyntaxTreeNode] = field(default_factory=list)


def read_documents(root: Path) -> dict[str, str]:
    """The Markdown files under docs/ of a project, by path, as far as they are looked at; no link is followed."""
    pages = sorted(page for page in files_below(root / "docs") if page.suffix == ".md")
    return {page.relative_to(root).as_posix(): _beginning(page) for page in pages}


def _beginning(file: Path) -> str:
    with file.open(encoding="utf-8", errors="replace") as text:
        return text.read(markdown.LONGEST_TEXT + 1)


def build_readme(state: RunState, documents: Mapping[str, str]) -> str:
    """The page: what the project is and how to run it, then its tests and parts, at last what was asked for.

    It begins with the top layer: the part that the others were built for. `documents` maps each path under docs/ on
    the trunk to its text.
    """
    plan, queue_state, requirement = state.plan, state.queue_state, state.scenario.requirements
    merged = [task for task in plan.tasks if queue_state.tasks[task.id].state is TaskState.MERGED]
    written = {task.id: _documents(task, documents) for task in merged}
    top = _top(merged, written)
    others = [document for task in merged for document in written[task.id] if document is not top]
    parts = [f"# {top.title if top else markdown.phrase(_title(requirement))}"]
    missing = [task for task in plan.tasks if task not in merged]
    if missing:
        lines = (f"{task.name} ({queue_state.tasks[task.id].why or 'not done'})" for task in missing)
        listed = "\n".join(f"- {markdown.phrase(one_line(line))}" for line in lines)
        parts.append(f"**Not everything was built.** Missing:\n\n{listed}")
    parts += [top.lead] if top and top.lead else []
    runs = [f"**{document.title}**\n\n{document.run}" for document in others if document.run]
    parts += ["## How to run it", *([top.run] if top else []), *runs] if top or runs else []
    needed = _listed(["Python 3.11 or newer", "pytest", *map(markdown.phrase, plan.packages)])
    parts.append(
        "## How to test it\n\n```sh\npython -m pytest\n```\n\n"
        f"Needs {needed}. `src/` is the import root; `pyproject.toml` tells pytest so."
    )
    parts += ["## What it is made of", *(document.lead for document in others if document.lead)]
    rows = "\n".join(_row(task, queue_state, written[task.id]) for task in merged)
    parts.append(f"| part | built by | files | more |\n|---|---|---|---|\n{rows}")
    parts += ["## What was asked for", _requirement(requirement)]
    parts.append(
        "The plan is in [docs/execution_plan.json](docs/execution_plan.json), what was checked "
        "in [docs/execution_summary.json](docs/execution_summary.json)."
    )
    return page("\n\n".join(parts) + "\n")


def _top(merged: Sequence[Task], written: Mapping[str, Sequence[TaskPage]]) -> TaskPage | None:
    """What the part says that is started and that most others were built for; None where no part can be started.

    That is the part with the longest chain of dependencies below it. Parts without source, such as tests, do not count.
    """
    names = {task.id for task in merged}
    below = {task.id: tuple(one for one in task.dependencies if one in names) for task in merged}
    depth: dict[str, int] = {}
    for name in TaskGraph(TaskNode(task, after, 1.0) for task, after in below.items()).order:
        depth[name] = 1 + max((depth[one] for one in below[name]), default=0)
    best, found = 0, None
    for task in merged:
        for document in written[task.id]:
            startable = document.run and document.title != markdown.phrase(document.path) and task.owns_source()
            if startable and depth[task.id] >= best:
                best, found = depth[task.id], document
    return found


def _listed(names: list[str]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}"


def _title(requirement: str) -> str:
    """The requirement as a title: its first line without marks of a heading; of a long one the first clause."""
    first = requirement.strip().splitlines()[0].strip().lstrip("#").strip().rstrip(".") or "Project"
    if len(first) <= _LONGEST_HEADING:
        return first
    clause = re.split(r"[.,;:(](?:\s|$)", first, maxsplit=1)[0].strip()
    if len(clause) <= _LONGEST_HEADING:
        return clause
    cut = clause[:_LONGEST_HEADING]
    return f"{cut.rsplit(' ', 1)[0]} …" if " " in cut else f"{cut}…"


def _requirement(text: str) -> str:
    rest = f"The rest is too long for this page: {markdown.link('read it', 'docs/execution_summary.json')}."
    more = len(text) > markdown.LONGEST_TEXT
    return markdown.bounded(markdown.blocks(text.strip()), lambda target: target, rest, more=more)


def _documents(task: Task, documents: Mapping[str, str]) -> list[TaskPage]:
    own = [path for path in task.files if path.startswith("docs/") and path.endswith(".md") and path in documents]
    return [read_document(path, documents[path]) for path in own]


def _row(task: Task, queue_state: QueueState, documents: list[TaskPage]) -> str:
    files = ", ".join(f"`{path}`" for path in task.files if not path.startswith("docs/"))
    links = ", ".join(markdown.link(document.title, document.path) for document in documents)
    name = markdown.phrase(one_line(task.name.replace("\n", " ")))
    cells = (name, f"executor_{queue_state.tasks[task.id].folder}", files, links)
    return "| " + " | ".join(one_line(cell).replace("|", "\\|") for cell in cells) + " |"
