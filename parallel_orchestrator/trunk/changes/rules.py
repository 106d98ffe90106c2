"""What a submission may hold, and whose files it may change. Each broken rule is a sentence that says what to do."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator

from parallel_orchestrator.records.fix import FixTask
from parallel_orchestrator.records.plan import PROJECT_ROOTS, Plan, Task
from parallel_orchestrator.trunk.changes.change import Change, in_project, shown
from parallel_orchestrator.trunk.changes.syntax import has_conflict_markers, is_source, parse_fault
from parallel_orchestrator.trunk.git.objects import LINK
from parallel_orchestrator.trunk.testing.test_inventory import RESERVED

LARGEST_FILE = 5_000_000
"""Bytes."""
MOST_FILES = 2_000
MOST_SOURCE = 5_000_000
"""Bytes of all code that one submission changes; each file is parsed."""
_MOST_FACTS = 40

_GIT_NAMES = frozenset({".git", ".gitmodules", ".gitattributes"})
_TOOL_NAMES = frozenset(
    {".claude", ".codex", ".cursor", ".gemini", ".vscode", ".idea", ".devcontainer", ".github", ".gitlab", ".husky"}
    | {".envrc", ".mcp.json", ".pre-commit-config.yaml", ".pre-commit-hooks.yaml", ".gitlab-ci.yml"}
)
"""Names that make a tool run commands for a person who opens the project."""
_PACKAGE_DATA = (".pth", ".egg-link", ".dist-info", ".egg-info")
_UNPORTABLE = re.compile(r'[\\:*?"<>|]|[. ]$|^git~\d+$', re.IGNORECASE)


def broken_rules(change: Change, task: Task, plan: Plan) -> tuple[str, ...]:
    """Return every reason why the change is refused; none when it may be merged. A fix task owns the whole project."""
    unsupported = {path: what for path, what in change.unsupported.items() if in_project(path)}
    whole = isinstance(task, FixTask)
    if not whole and not change.written and not change.deleted and not unsupported:
        return ("You wrote nothing: no file under src/, tests/ or docs/ differs from the state that you started from.",)
    facts = [
        *(
            f"{shown(path)} is {what}. Remove it; only plain files are merged."
            for path, what in sorted(unsupported.items())
        ),
        *_hostile(change, task),
        *([] if whole else [*_ownership(change, task, plan), *_missing(change, task)]),
        *_content(change),
    ]
    more = len(facts) - _MOST_FACTS
    return (*facts[:_MOST_FACTS], f"… and {more} more.") if more > 0 else tuple(facts)


def has_work(change: Change, task: Task) -> bool:
    """Whether the task wrote or deleted one of its own files; any file, when it owns none."""
    touched = {*change.written, *change.deleted}
    return bool(touched & set(task.files) if task.files else touched)


def unplanned(change: Change, task: Task) -> list[str]:
    """Return the new files that the task does not own."""
    return [path for path in change.created if path not in task.files]


def also_changed(change: Change, task: Task) -> list[str]:
    """Return the trunk's files that the task changed and does not own."""
    return [path for path in change.changed if path not in task.files]


def case_collisions(paths: Iterable[str]) -> list[tuple[str, str]]:
    """Return pairs of paths that are the same path on systems that ignore case or Unicode form."""
    spelling: dict[str, str] = {}
    pairs: dict[tuple[str, str], None] = {}
    for path in sorted(paths):
        parts = path.split("/")
        for depth in range(1, len(parts) + 1):
            prefix = "/".join(parts[:depth])
            first = spelling.setdefault(unicodedata.normalize("NFC", prefix).casefold(), prefix)
            if first != prefix:
                pairs[first, prefix] = None
    return list(pairs)


def collision_fact(first: str, second: str) -> str:
    """Return the sentence about one pair."""
    return f"{shown(first)} and {shown(second)} are the same path on many systems. Keep one of them."


def _hostile(change: Change, task: Task) -> Iterator[str]:
    if len(change.written) > MOST_FILES:
        yield f"{len(change.written)} files were written; at most {MOST_FILES} are merged. Remove generated files."
    for path in change.written:
        if problem := _problem(path, change, task):
            yield f"{shown(path)} {problem}"
    for first, second in case_collisions(change.project):
        yield collision_fact(first, second)


def _problem(path: str, change: Change, task: Task) -> str | None:
    return _form_problem(path, change) or _name_problem(path, task)


def _name_problem(path: str, task: Task) -> str | None:
    parts = path.split("/")
    if any(part.casefold() in _GIT_NAMES for part in parts):
        return "is a control file of git. Remove it."
    if any(_UNPORTABLE.search(part) or not part.isprintable() for part in parts):
        return "has a name that does not work everywhere. Use letters, digits, _, - and . in names."
    if any(part.casefold() in _TOOL_NAMES for part in parts):
        return "makes a tool run commands when a person opens the project. Remove it."
    if _is_reserved(parts) and not (parts[-1] == "conftest.py" and path in task.files):
        return "has a name that changes how Python or pytest runs, and your task does not own it. Remove it."
    return "must be a folder. Remove the file." if path in PROJECT_ROOTS else None


def _form_problem(path: str, change: Change) -> str | None:
    if change.project[path].mode == LINK:
        return "is a link. Write a plain file in its place; only plain files are merged."
    size = change.sizes[path]
    if size > LARGEST_FILE:
        return f"is {size} bytes long; at most {LARGEST_FILE} are merged. Remove it or make it smaller."
    return None


def _is_reserved(parts: list[str]) -> bool:
    return parts[-1].casefold() in RESERVED or any(part.casefold().endswith(_PACKAGE_DATA) for part in parts)


def _ownership(change: Change, task: Task, plan: Plan) -> Iterator[str]:
    for path in change.created:
        owner = plan.owner_of(path)
        if owner is not None and path not in task.files:
            yield f"{shown(path)} belongs to {owner}, whose work you do not have. Remove it and do not rely on it."
    for path in change.changed:
        if path.startswith("tests/") and path not in task.files:
            yield f"{shown(path)} was changed, and your task does not own it. Restore it; add tests to your own files."
    for path in change.deleted:
        if path not in task.files:
            yield f"{shown(path)} was deleted, and your task does not own it. Restore it."


def _missing(change: Change, task: Task) -> Iterator[str]:
    for path in task.files:
        if path not in change.project:
            yield f"{path} is missing. Your task owns it and must create it."


def _content(change: Change) -> Iterator[str]:
    source = sum(len(content) for path, content in change.content.items() if is_source(path))
    if source > MOST_SOURCE:
        yield f"{source} bytes of code were written; at most {MOST_SOURCE} are merged. Remove generated code."
        return
    for path, content in change.content.items():
        if has_conflict_markers(content):
            yield f"{shown(path)} still has conflict markers. Resolve them."
        elif fault := parse_fault(path, content):
            yield f"{shown(fault)}. Fix it."
