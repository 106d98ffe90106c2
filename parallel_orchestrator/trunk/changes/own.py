"""Which files of a merged tree are a task's own, and which of its tests are new with it."""

from __future__ import annotations

from dataclasses import dataclass

from parallel_orchestrator.records.plan import Task
from parallel_orchestrator.trunk.git.objects import LINK, Objects, Tree
from parallel_orchestrator.trunk.testing.test_inventory import defined_tests


@dataclass(frozen=True)
class OwnFiles:
    """The Python files that the plan gives to a task, and those that the trunk does not have without it."""

    tests: frozenset[str]
    """Below tests/."""
    sources: frozenset[str]
    """Below src/."""


def own_files(task: Task, trunk: Tree, tree: Tree) -> OwnFiles:
    """A task's own files in `tree`; `trunk` is what it is merged onto."""
    own = [
        path
        for path, entry in tree.items()
        if path.endswith(".py") and entry.mode != LINK and (path in task.files or path not in trunk)
    ]
    return OwnFiles(
        tests=frozenset(path for path in own if path.startswith("tests/")),
        sources=frozenset(path for path in own if path.startswith("src/")),
    )


def new_tests(names: frozenset[str], own: OwnFiles, objects: Objects, trunk: Tree, tree: Tree) -> frozenset[str]:
    """Those of the tests named that come with the task: in a file of its own, and not on the trunk as they are."""
    files = {_file(name) for name in names} & own.tests
    changed = sorted(path for path in files if path in trunk and trunk[path] != tree[path])
    contents = objects.blobs(side[path].id for path in changed for side in (trunk, tree))
    brought: set[str] = set()
    for path in changed:
        before, after = defined_tests(path, next(contents)), defined_tests(path, next(contents))
        brought.update(test for test, source in after.items() if before.get(test) != source)
    return frozenset(
        name for name in names if _file(name) in files and (_file(name) not in trunk or _function(name) in brought)
    )


def _file(name: str) -> str:
    return name.partition("::")[0]


def _function(name: str) -> str:
    """A test's name without its parameters."""
    file, colons, rest = name.partition("::")
    return file + colons + rest.partition("[")[0]
