"""What makes a plan unusable, fault by fault."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from parallel_orchestrator.records.plan import MAX_TASKS, Plan, path_problem, plan_faults, shape_faults
from tests.records.plans import plan, task


def test_a_good_plan_has_no_faults_and_survives_json() -> None:
    good = plan(task(1), task(2, (1,)), task(3, (1, 2), estimated_effort="high"))
    assert plan_faults(good) == []
    assert Plan.model_validate_json(good.model_dump_json()) == good
    assert good.task("task_2").dependencies == ["task_1"]
    assert good.owner_of("src/part_3.py") == "task_3"
    assert good.owner_of("src/other.py") is None
    assert [node.weight for node in good.graph().nodes.values()] == [2.0, 2.0, 4.0]
    with pytest.raises(KeyError):
        good.task("task_4")


@pytest.mark.parametrize(
    ("faulty", "faults"),
    [
        (plan(), ["the plan has no tasks"]),
        (plan(task(1, id="Task-1")), ["task id 'Task-1' is not of the form task_1, task_2, …"]),
        (plan(task(1, id="task_0")), ["task id 'task_0' is not of the form task_1, task_2, …"]),
        (plan(task(1), task(2, id="task_1")), ["task id 'task_1' is used twice"]),
        (plan(task(1, name=" ")), ["'task_1' needs a name and a description"]),
        (plan(task(1, description="")), ["'task_1' needs a name and a description"]),
        (plan(task(1, (1,))), ["task_1 depends on itself"]),
        (plan(task(1, (7,))), ["task_1 depends on 'task_7', which is not in the plan"]),
        (
            plan(task(1), task(2, dependencies=["task-1"]), task(3, dependencies=["part 2"])),
            [
                "task_2 depends on 'task-1', which is not in the plan; did you mean task_1?",
                "task_3 depends on 'part 2', which is not in the plan; did you mean task_2?",
            ],
        ),
        (plan(task(1), task(2, (1, 1))), ["task_2 names a dependency twice"]),
        (plan(task(1, files=[])), ["task_1 owns no files"]),
        (plan(task(1, files=["src/a.py", "src/a.py"])), ["task_1 lists a file twice"]),
        (plan(task(1), packages=["--index-url=x"]), ["'--index-url=x' is no package requirement"]),
    ],
)
def test_each_fault_is_named(faulty: Plan, faults: list[str]) -> None:
    assert plan_faults(faulty)[: len(faults)] == faults


def test_a_cycle_is_named_from_its_first_task_to_itself() -> None:
    cyclic = plan(task(1), task(2, (1, 4)), task(3, (2,)), task(4, (3,)), task(5, (4,)))
    assert plan_faults(cyclic) == ["the dependencies form a cycle: task_2 -> task_4 -> task_3 -> task_2"]


def test_two_tasks_may_own_a_path_only_when_one_runs_after_the_other() -> None:
    shared: dict[str, Any] = {"files": ["src/shared.py"]}
    assert plan_faults(plan(task(1, **shared), task(2, (1,)), task(3, (2,), **shared))) == []
    unordered = plan(task(1), task(2, (1,), **shared), task(3, (1,), **shared))
    assert plan_faults(unordered) == ["task_2 and task_3 may run at once and both own src/shared.py"]


def test_paths_that_differ_in_case_alone_are_one_path() -> None:
    found = plan_faults(plan(task(1, files=["src/A.py"]), task(2, files=["src/a.py"])))
    assert found == ["task_1 and task_2 may run at once and both own src/a.py"]


BAD_PATHS = (
    *(
        "../x",
        "src/../x",
        "src/../../etc/passwd",
        "/etc/passwd",
        "src//a.py",
        "src/a.py/",
        "./src/a.py",
        "src",
        "",
        ".",
    ),
    *("setup.py", "README.md", "-rf", "src/-rf", "src/.git/config", ".git/hooks/x", "src/a b.py", "src/a\n.py"),
    *("src\\a.py", "src/ä.py", "src/\x00.py", "src/$(x).py", "src/" + "a" * 200, "tests/testing.py", "SRC/a.py"),
)


@pytest.mark.parametrize("path", BAD_PATHS)
def test_no_task_owns_such_a_path(path: str) -> None:
    assert path_problem(path)
    assert plan_faults(plan(task(1, files=[path]))) == [f"task_1 owns {path!r}: {path_problem(path)}"]


@pytest.mark.parametrize(
    "path", ["src/a.py", "src/a/b-c_d.e.py", "tests/test_a.py", "tests/conftest.py", "docs/a.md", "tests/data/testing"]
)
def test_such_paths_are_owned(path: str) -> None:
    assert path_problem(path) is None


@given(st.text(max_size=30).map(lambda tail: f"src/{tail}"))
def test_an_owned_path_never_leaves_the_project(path: str) -> None:
    if path_problem(path) is None:
        parts = path.split("/")
        assert parts[0] == "src"
        assert all(part and part[0] not in ".-" for part in parts)
        assert path.isascii()
        assert path.isprintable()


def test_a_plan_at_the_limit_of_tasks_is_good_and_one_beyond_it_is_none() -> None:
    full = plan(*(task(n, tuple(range(max(1, n - 20), n))) for n in range(1, MAX_TASKS + 1)))
    assert plan_faults(full) == []
    with pytest.raises(ValidationError, match=f"at most {MAX_TASKS} items after validation, not 10000"):
        plan(*(task(n, (n - 1,)) for n in range(1, 10_001)))


def test_a_package_requirement_is_judged_in_time_that_does_not_explode() -> None:
    for mark in "!=~<>*., -+":
        assert plan_faults(plan(task(1), packages=["a" + mark * 4000 + "@"]))


@pytest.mark.parametrize("package", ["requests", "requests>=2,<3", "a[b,c] == 1.0.*", "x~=1.4.2", "x!=1.3"])
def test_package_requirements(package: str) -> None:
    assert plan_faults(plan(task(1), packages=[package])) == []


@pytest.mark.parametrize("package", ["x @ http://a", "-r x", "../x", "", "./x", "git+https://a/b", "a;b"])
def test_addresses_paths_and_options_are_no_packages(package: str) -> None:
    assert plan_faults(plan(task(1), packages=[package])) == [f"{package!r} is no package requirement"]


@pytest.mark.parametrize(
    "changes",
    [{"priority": 0}, {"priority": "1"}, {"estimated_effort": "huge"}, {"files": "src/a.py"}, {"surprise": 1}],
)
def test_the_shape_is_strict(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        task(1, **changes)


@pytest.mark.parametrize(
    ("files", "owns"), [(["src/a.py"], True), (["src/a.css", "tests/test_a.py"], False), (["docs/a.md"], False)]
)
def test_who_owns_source_has_to_bring_a_test(files: list[str], owns: bool) -> None:
    assert task(1, files=files).owns_source() is owns


def test_faults_of_every_kind_are_found_together() -> None:
    faulty = plan(
        task(1, id="Task-1"),
        task(2, (3,), name=" "),
        task(3, (2,), files=["/etc/passwd"]),
        task(4, (9,), files=["src/both.py"]),
        task(5, files=["src/both.py", "src/json.py"]),
        packages=["-r x"],
    )
    assert plan_faults(faulty) == [
        "task id 'Task-1' is not of the form task_1, task_2, …",
        "'task_2' needs a name and a description",
        "task_4 depends on 'task_9', which is not in the plan",
        "the dependencies form a cycle: task_2 -> task_3 -> task_2",
        "'-r x' is no package requirement",
        f"task_3 owns '/etc/passwd': {path_problem('/etc/passwd')}",
        "task_4 and task_5 may run at once and both own src/both.py",
        "task_5 owns src/json.py: json is a module of Python's standard library, which it would hide; rename it",
    ]


def test_several_cycles_are_named_and_a_task_twice_is_no_second_fault() -> None:
    faulty = plan(task(1, (2,)), task(2, (1,)), task(3, (4,)), task(4, (3,)), task(4, (3,)))
    assert plan_faults(faulty)[0] == "task id 'task_4' is used twice"
    assert [fault for fault in plan_faults(faulty) if "cycle" in fault] == [
        "the dependencies form a cycle: task_1 -> task_2 -> task_1",
        "the dependencies form a cycle: task_3 -> task_4 -> task_3",
    ]


@pytest.mark.parametrize(
    "path",
    ["src/json.py", "src/json/__init__.py", "src/pytest/x.py", "src/calendar.py", "tests/string.py", "src/tests/a.py"],
)
def test_a_module_that_hides_another_is_a_fault_of_a_new_plan_alone(path: str) -> None:
    faulty = plan(task(1, files=[path]))
    (fault,) = plan_faults(faulty)
    assert fault.startswith(f"task_1 owns {path}: ")
    assert plan_faults(faulty, new=False) == []


def test_a_test_is_not_called_as_a_module_is() -> None:
    faulty = plan(task(1, files=["src/test_kit/__init__.py"]), task(2, files=["tests/test_kit.py"]))
    assert plan_faults(faulty) == [
        "task_2 owns tests/test_kit.py, which has the name of src/test_kit/__init__.py as a module; rename one of them"
    ]


@pytest.mark.parametrize(
    "path",
    ["src/shop/json.py", "src/json/data.txt", "docs/json.py", "tests/unit/json.py", "src/__init__.py", "src/jsons.py"],
)
def test_what_hides_nothing_is_good(path: str) -> None:
    assert plan_faults(plan(task(1, files=[path]))) == []


def test_faults_of_shape_name_the_task_and_what_was_probably_meant() -> None:
    text = plan(task(1), task(2)).model_dump_json()
    text = text.replace('"priority":1', '"priority":0', 1).replace('"estimated_effort":', '"estimate_effort":')
    with pytest.raises(ValidationError) as caught:
        Plan.model_validate_json(text)
    told = shape_faults(caught.value, text)
    assert "task_1.estimated_effort: is missing" in told
    assert "task_2.estimate_effort: no such field; did you mean estimated_effort?" in told
    assert any(fault.startswith("task_1.priority: ") for fault in told)
    with pytest.raises(ValidationError) as broken:
        Plan.model_validate_json("{")
    assert shape_faults(broken.value, "{", whole="answer")[0].startswith("answer: Invalid JSON")
