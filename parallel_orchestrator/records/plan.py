"""A plan: how a requirement is split into tasks, and the faults that make one unusable."""

from __future__ import annotations

import contextlib
import difflib
import json
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, FailFast, Field, ValidationError

from parallel_orchestrator.records.errors import as_predicate, did_you_mean
from parallel_orchestrator.records.graph import TaskGraph, TaskNode

MAX_TASKS = 200
"""More tasks than this in one plan are refused: no requirement of this tool's size needs them."""

MAX_FILES = 100
"""Of one task."""

MAX_FAULTS_TOLD, MAX_FAULT = 30, 500
"""The most faults that are reported of a plan, and characters of each."""

PROJECT_ROOTS = ("src", "tests", "docs")
"""The top folders in which tasks own files. All else in a run's directory is ours."""

OUR_DOCUMENTS = ("docs/execution_plan.json", "docs/execution_summary.json")
"""Copies of plan and summary that a finished project carries."""

TASK_ID = re.compile(r"task_[1-9][0-9]{0,3}")
EFFORT_WEIGHT = {"low": 1.0, "medium": 2.0, "high": 4.0}
"""Relative durations until observed times replace them; an estimate, not a measurement."""

_REQUIREMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(\[[A-Za-z0-9,._-]+\])?\s*([<>=!~]=?=?\s*[A-Za-z0-9.*+-]+,?\s*)*")
"""A distribution's name with extras and versions; no URLs, paths or options."""
_OF_PYTEST = frozenset({"pytest", "_pytest", "py", "pluggy", "iniconfig", "packaging", "coverage"})
"""What the tests of the project are run with."""
_TAKEN = (sys.stdlib_module_names | _OF_PYTEST) - {"__main__"}
_LONGEST_WORD = 60
"""Characters of a wrong name that are compared."""
_SAFE_SEGMENT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]*")


Texts = Annotated[list[str], FailFast()]
"""A list that reports only its first wrong item, so that a million wrong items are refused as quickly."""


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Complexity(_Record):
    """What the planner thinks of the requirement's size."""

    level: Literal["simple", "medium", "complex"]
    reasoning: str
    key_features: Texts
    technical_components: Texts


class Task(_Record):
    """One piece of work for one executor."""

    id: str
    name: str
    description: str
    """What to build and how, specific enough to work from alone."""
    priority: int = Field(ge=1)
    """1 is the highest. Breaks ties between equally long remaining paths."""
    estimated_effort: Literal["low", "medium", "high"]
    dependencies: Texts
    files: Texts = Field(max_length=MAX_FILES)
    """Paths that this task owns, under src/, tests/ or docs/."""
    acceptance: Texts
    integration_notes: str

    def owns_source(self) -> bool:
        """Whether the task owns Python under src/, and so has to add a passing test."""
        return any(path.startswith("src/") and path.endswith(".py") for path in self.files)


class Plan(_Record):
    """The planner's answer, checked. `execution_plan.json` is this model as JSON."""

    complexity: Complexity
    contract: str
    """Shared interfaces: modules, public signatures, data shapes, conventions."""
    integration_notes: str
    packages: Texts
    """Third-party packages that the project needs."""
    verify: Texts
    """Shell commands that prove the whole, run once on the final trunk."""
    tasks: list[Task] = Field(max_length=MAX_TASKS)

    def task(self, task_id: str) -> Task:
        """The task of that id. KeyError when there is none."""
        for task in self.tasks:
            if task.id == task_id:
                return task
        raise KeyError(task_id)

    def graph(self) -> TaskGraph:
        """The plan's shape without its texts, for scheduling and the queue."""
        return TaskGraph(
            TaskNode(t.id, tuple(t.dependencies), EFFORT_WEIGHT[t.estimated_effort], t.priority) for t in self.tasks
        )

    def owner_of(self, path: str) -> str | None:
        """The id of the task that owns `path`, if one does."""
        return next((task.id for task in self.tasks if path in task.files), None)


def shortened(faults: list[str]) -> list[str]:
    """The first of the faults, each in short as it may quote what a model wrote, and how many more there are."""
    reported = [
        fault if len(fault) <= MAX_FAULT else fault[: MAX_FAULT - 1] + "…" for fault in faults[:MAX_FAULTS_TOLD]
    ]
    return [*reported, f"… and {len(faults) - len(reported)} more"] if len(faults) > len(reported) else reported


def plan_faults(plan: Plan, *, new: bool = True) -> list[str]:
    """Everything that makes a well-formed plan unusable, one sentence each, for a person and for the planner.

    Faults of every kind are found together: what one of them leaves open, such as the order of tasks on a cycle, the
    other checks leave out. `new`: no work began on the plan; only then names of modules are checked.
    """
    packages = [f"{p!r} is no package requirement" for p in plan.packages if not _REQUIREMENT.fullmatch(p)]
    if not plan.tasks:
        return ["the plan has no tasks", *packages]
    first = {task.id: task for task in reversed(plan.tasks)}
    graph, cycles = _acyclic({task.id: task for task in plan.tasks if first[task.id] is task})
    on_a_cycle = {task for cycle in cycles for task in cycle}
    return [
        *_id_faults(plan.tasks),
        *_dependency_faults(plan.tasks),
        *("the dependencies form a cycle: " + " -> ".join(cycle) for cycle in cycles),
        *packages,
        *_file_faults(plan.tasks),
        *_ownership_faults([task for name, task in first.items() if name not in on_a_cycle][::-1], graph),
        *(module_faults(plan.tasks) if new else []),
    ]


def _acyclic(tasks: Mapping[str, Task]) -> tuple[TaskGraph, list[list[str]]]:
    """The graph of the dependencies that there are, without those that close a cycle; and the cycles."""
    edges = {name: {one for one in task.dependencies if one in tasks and one != name} for name, task in tasks.items()}
    cycles: list[list[str]] = []
    while True:
        graph = TaskGraph(TaskNode(name, tuple(sorted(edges[name])), 1.0) for name in tasks)
        if not (cycle := graph.cycle()) or len(cycles) >= MAX_FAULTS_TOLD:
            return graph, cycles
        cycles.append(cycle)
        edges[cycle[0]].discard(cycle[1])


def _id_faults(tasks: list[Task]) -> list[str]:
    faults: list[str] = []
    seen: set[str] = set()
    for task in tasks:
        if not TASK_ID.fullmatch(task.id):
            faults.append(f"task id {task.id!r} is not of the form task_1, task_2, …")
        if task.id in seen:
            faults.append(f"task id {task.id!r} is used twice")
        seen.add(task.id)
        if not task.name.strip() or not task.description.strip():
            faults.append(f"{task.id!r} needs a name and a description")
    return faults


def _dependency_faults(tasks: list[Task]) -> list[str]:
    known = {task.id for task in tasks}
    faults: list[str] = []
    for task in tasks:
        for dependency in task.dependencies:
            if dependency == task.id:
                faults.append(f"{task.id} depends on itself")
            elif dependency not in known:
                meant = _meant(dependency, tasks)
                faults.append(f"{task.id} depends on {dependency!r}, which is not in the plan{meant}")
        if len(set(task.dependencies)) != len(task.dependencies):
            faults.append(f"{task.id} names a dependency twice")
    return faults


def _meant(word: str, tasks: Iterable[Task]) -> str:
    """A question after the id of the task that a wrong id may mean: one that is written nearly so, or has that name."""
    ids = {task.id.casefold(): task.id for task in tasks} | {task.name.casefold(): task.id for task in tasks}
    short = word[:_LONGEST_WORD].casefold()
    if re.fullmatch(r"task_[0-9]+", short):  # written as ids are: a number that is not there resembles all of them
        return ""
    near = difflib.get_close_matches(short, ids, 1)
    return f"; did you mean {ids[near[0]]}?" if near else ""


def shape_faults(
    error: ValidationError, text: str | None = None, *, data: Any = None, whole: str = "file"
) -> list[str]:
    """What keeps a value from being a plan, one sentence each: tasks by their id, near names of fields named.

    `text`: the value as JSON, or `data`: as it is. `whole`: what it is called itself.
    """
    if data is None and text is not None:
        with contextlib.suppress(ValueError, RecursionError):  # what is wrong with it, the error says
            data = json.loads(text)
    return [_shape_fault(fault, data, whole) for fault in error.errors(include_url=False)]


def _shape_fault(fault: Any, data: Any, whole: str) -> str:
    where = list(fault["loc"])
    if where[:1] == ["tasks"] and len(where) > 1:
        where[:2] = [_id_of(data, where[1])]
    message = as_predicate(str(fault["msg"]))
    if fault["type"] == "extra_forbidden":
        model: type[BaseModel] = Task if fault["loc"][0] == "tasks" else Complexity
        known = (model if len(fault["loc"]) > 1 else Plan).model_fields
        message = "no such field" + did_you_mean(str(where[-1]), known)
    elif fault["type"] == "missing":
        message = "is missing"
    return f"{'.'.join(map(str, where)) or whole}: {message}"


def _id_of(data: Any, number: Any) -> str:
    """The id of a task by its number in the list; the place where it has none."""
    try:
        name = data["tasks"][number]["id"]
    except (KeyError, IndexError, TypeError):
        name = None
    return name if isinstance(name, str) and TASK_ID.fullmatch(name) else f"tasks.{number}"


def module_faults(tasks: Iterable[Task]) -> list[str]:
    """Modules that would hide one of Python's own or of pytest's from the whole project, or be hidden by it."""
    faults: list[str] = []
    modules: dict[str, str] = {}
    """Importable from src/: each with the path that it has there."""
    files = [
        (task.id, path) for task in tasks for path in task.files if path.endswith(".py") and not path_problem(path)
    ]
    for task, path in files:
        root, name = path.split("/")[0], _module(path)
        if root == "src":
            modules.setdefault(name, path)
        nested = path.count("/") > 1
        if name in _TAKEN and not (root == "tests" and nested) and root != "docs":
            whose = "pytest" if name in _OF_PYTEST else "Python's standard library"
            faults.append(f"{task} owns {path}: {name} is a module of {whose}, which it would hide; rename it")
        elif root == "src" and name in ("tests", "conftest"):
            faults.append(f"{task} owns {path}: {name} is what the tests are called; rename it")
    for task, path in files:
        if path.startswith("tests/") and (same := modules.get(path.rpartition("/")[2][:-3])):
            faults.append(f"{task} owns {path}, which has the name of {same} as a module; rename one of them")
    return faults


def _module(path: str) -> str:
    """The module or package of a Python file that is imported from the root of its folder."""
    return path.split("/")[1].removesuffix(".py")


def _file_faults(tasks: Iterable[Task]) -> list[str]:
    faults = []
    for task in tasks:
        if not task.files:
            faults.append(f"{task.id} owns no files")
        if len(set(task.files)) != len(task.files):
            faults.append(f"{task.id} lists a file twice")
        for path in task.files:
            problem = path_problem(path)
            if problem:
                faults.append(f"{task.id} owns {path!r}: {problem}")
    return faults


def path_problem(path: str) -> str | None:
    """Why a task may not own `path`, or None. Paths are relative, with forward slashes."""
    parts = PurePosixPath(path).parts
    if not parts or path != "/".join(parts) or parts[0] not in PROJECT_ROOTS or len(parts) < 2:
        return "not a file under src/, tests/ or docs/"
    if not all(_SAFE_SEGMENT.fullmatch(part) for part in parts) or len(path) > 200:
        return "only letters, digits, _, - and . are allowed in its names, none starting with . or -"
    if path in OUR_DOCUMENTS:
        return "the orchestrator writes this file itself"
    name = parts[-1]
    if parts[0] == "tests" and name.endswith(".py") and name.startswith("test") and not name.startswith("test_"):
        return "Python tests are named test_*.py"
    return None


def _ownership_faults(tasks: list[Task], graph: TaskGraph) -> list[str]:
    owners: dict[str, list[str]] = {}
    faults = []
    for task in tasks:
        for path in {path.casefold(): None for path in task.files}:
            earlier = owners.setdefault(path, [])
            # One fault for each task and path: all pairs of a file that everybody owns would be very many.
            if other := next((known for known in earlier if not graph.ordered(known, task.id)), None):
                faults.append(f"{other} and {task.id} may run at once and both own {path}")
            earlier.append(task.id)
    return faults
