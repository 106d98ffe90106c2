"""README.md of the result: what the tasks documented, in plan order, made into one page.

A task documents its part in a Markdown file of its own under docs/: a title, a paragraph of what it
is, and where there is something to start, a section `## Run` with the commands.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from parallel_orchestrator.records.lifecycle import TaskState
from parallel_orchestrator.records.plan import Task
from parallel_orchestrator.report.summary import RunState
from parallel_orchestrator.store.folders import files_below
from parallel_orchestrator.store.plain import one_line, page
from parallel_orchestrator.store.replica import Replica

_FENCES = ("```", "~~~")
_HTML = re.compile(r"(`+[^`]*`+)|<(?=[a-zA-Z/!?])(?!https?:)")
"""The beginning of a tag or a comment; code in a line, which is shown as it is, comes first."""


@dataclass(frozen=True)
class Document:
    """What one task wrote about its part."""

    path: str
    title: str
    lead: str
    """Its first paragraph."""
    run: str
    """The body of its section on running, empty without one."""


def read_document(path: str, text: str) -> Document:
    """The parts of a document that the README takes over. Headings inside fenced code do not count."""
    sections: list[tuple[str, list[str]]] = [("", [])]
    fenced = False
    for line in text.splitlines():
        fenced ^= line.lstrip().startswith("```")
        if not fenced and re.match(r"#{1,6} ", line):
            sections.append((line, []))
        else:
            sections[-1][1].append(line)
    title = next((head.lstrip("#").strip() for head, _ in sections if head.startswith("# ")), path)
    body = "\n".join(next((lines for head, lines in sections if head.startswith("# ")), sections[0][1]))
    run = next((lines for head, lines in sections if re.fullmatch(r"##+ (Run|Running|Usage|How to run)\s*", head)), [])
    lead = body.strip().split("\n\n")[0].strip()
    return Document(path, _ended(title), _part(path, lead), _part(path, "\n".join(run).strip()))


def _part(path: str, text: str) -> str:
    """`text` of the document `path` as a part of our page: its links lead on, and it ends where it ends."""
    return _ended(_from_root(path, text))


def _ended(text: str) -> str:
    """`text` with its fence closed and HTML shown as text: nothing of it hides what follows, or runs."""
    lines, fence = [], ""
    for line in text.splitlines():
        mark = line.lstrip()[:3]
        if mark == fence or (not fence and mark in _FENCES):
            fence = "" if fence else mark
        lines.append(line if fence else _HTML.sub(lambda found: found[1] or "&lt;", line))
    return "\n".join([*lines, *([fence] if fence else [])])


def _from_root(path: str, text: str) -> str:
    """`text` of the document `path` with its relative links made relative to the project's root."""

    def moved(match: re.Match[str]) -> str:
        return f"]({posixpath.normpath(posixpath.join(posixpath.dirname(path), match.group(1)))})"

    return re.sub(r"\]\((?![a-z]+:|[#/])([^)\s]+)\)", moved, text)


def read_documents(root: Path) -> dict[str, str]:
    """The Markdown files under docs/ of a project, by path; no link is followed."""
    pages = sorted(page for page in files_below(root / "docs") if page.suffix == ".md")
    return {page.relative_to(root).as_posix(): page.read_text(encoding="utf-8", errors="replace") for page in pages}


def build_readme(state: RunState, documents: Mapping[str, str]) -> str:
    """The page. `documents` maps each path under docs/ on the trunk to its text."""
    plan, replica, requirement = state.plan, state.replica, state.scenario.requirements
    merged = [task for task in plan.tasks if replica.tasks[task.id].state is TaskState.MERGED]
    written = {task.id: _documents(task, documents) for task in merged}
    title = _title(requirement)
    parts = [f"# {title}"] + [requirement.strip()] * (requirement.strip().rstrip(".") != title)
    missing = [task for task in plan.tasks if task not in merged]
    if missing:
        told = (f"- {task.name} ({replica.tasks[task.id].why or 'not done'})" for task in missing)
        listed = "\n".join(one_line(_ended(line)) for line in told)
        parts.append(f"**Not everything was built.** Missing:\n\n{listed}")
    leads = [document.lead for task in merged for document in written[task.id] if document.lead]
    parts += ["## What it is", *leads] if leads else []
    runs = [(document.title, document.run) for task in merged for document in written[task.id] if document.run]
    parts += ["## How to run it", *(f"**{title}**\n\n{run}" for title, run in runs)] if runs else []
    needed = _listed(["Python 3.11 or newer", "pytest", *plan.packages])
    parts.append(
        "## How to test it\n\n```sh\npython -m pytest\n```\n\n"
        f"Needs {needed}. `src/` is the import root; `pyproject.toml` tells pytest so."
    )
    rows = "\n".join(_row(task, replica, written[task.id]) for task in merged)
    parts.append(f"## Its parts\n\n| part | built by | files | more |\n|---|---|---|---|\n{rows}")
    parts.append(
        "The plan is in [docs/execution_plan.json](docs/execution_plan.json), what was checked "
        "in [docs/execution_summary.json](docs/execution_summary.json)."
    )
    return page("\n\n".join(parts) + "\n")


def _listed(names: list[str]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}"


def _title(requirement: str) -> str:
    first = requirement.strip().splitlines()[0].strip().rstrip(".")
    return first if len(first) <= 90 else first[:87].rsplit(" ", 1)[0] + " …"


def _documents(task: Task, documents: Mapping[str, str]) -> list[Document]:
    own = [path for path in task.files if path.startswith("docs/") and path.endswith(".md") and path in documents]
    return [read_document(path, documents[path]) for path in own]


def _row(task: Task, replica: Replica, documents: list[Document]) -> str:
    files = ", ".join(f"`{path}`" for path in task.files if not path.startswith("docs/"))
    links = ", ".join(f"[{document.title}]({document.path})" for document in documents)
    cells = (_ended(task.name), f"executor_{replica.tasks[task.id].folder}", files, links)
    return "| " + " | ".join(one_line(cell.replace("\n", " ")).replace("|", "\\|") for cell in cells) + " |"
