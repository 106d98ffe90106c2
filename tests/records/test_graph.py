"""The graph's figures against brute force."""

from __future__ import annotations

from itertools import combinations, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parallel_orchestrator.records.graph import TaskGraph, TaskNode, choose_executors
from tests.records.plans import graph


@st.composite
def graphs(draw: st.DrawFn, most: int = 8) -> TaskGraph:
    """Acyclic graphs of up to `most` tasks, their plan order shuffled."""
    count = draw(st.integers(1, most))
    nodes = []
    for number in range(count):
        before = draw(st.sets(st.integers(0, number - 1))) if number else set()
        weight = draw(st.sampled_from([1.0, 2.0, 4.0]))
        nodes.append(TaskNode(str(number), tuple(map(str, sorted(before))), weight))
    return TaskGraph(draw(st.permutations(nodes)))


def _reaches(g: TaskGraph, later: str, earlier: str) -> bool:
    return any(d == earlier or _reaches(g, d, earlier) for d in g.nodes[later].dependencies)


def _longest(g: TaskGraph, task: str) -> float:
    return g.nodes[task].weight + max((_longest(g, s) for s in g.nodes if task in g.nodes[s].dependencies), default=0.0)


def test_the_critical_path_goes_first_to_last() -> None:
    g = graph("a", "b*4<a", "c<a", "d*2<b,c", "e<c")
    assert g.critical_path() == ["a", "b", "d"]
    assert g.remaining() == {"a": 7.0, "b": 6.0, "c": 3.0, "d": 2.0, "e": 1.0}
    assert g.critical_path({"a": 1, "b": 1, "c": 9, "d": 1, "e": 5}) == ["a", "c", "e"]


def test_the_longest_path_comes_first_then_priority_then_the_order_of_the_plan() -> None:
    g = graph("a", "b!0", "c*2", "d<a", "e")
    assert list(g.places(g.planned)) == ["a", "c", "b", "d", "e"]
    assert g.places({**g.planned, "e": 9.0}) == {"e": 0, "a": 1, "c": 2, "b": 3, "d": 4}


@pytest.mark.parametrize(
    ("edges", "width"),
    [(("a", "b<a", "c<b"), 1), (("a", "b", "c"), 3), (("a", "b<a", "c<a", "d<b,c"), 2), (("a", "b", "c<a", "d<a"), 3)],
)
def test_the_width_is_the_most_that_can_run_at_once(edges: tuple[str, ...], width: int) -> None:
    assert graph(*edges).width() == width


@given(graphs())
def test_width_order_and_paths_agree_with_brute_force(g: TaskGraph) -> None:
    tasks = list(g.nodes)
    assert g.cycle() == []
    assert sorted(g.order) == sorted(tasks)
    assert all(g.order.index(d) < g.order.index(t) for t in tasks for d in g.nodes[t].dependencies)
    related = {(a, b): _reaches(g, a, b) or _reaches(g, b, a) for a, b in combinations(tasks, 2)}
    assert all(g.ordered(a, b) is related[a, b] for a, b in related)
    antichains = (
        size
        for size in range(1, len(tasks) + 1)
        if any(not any(related[pair] for pair in combinations(c, 2)) for c in combinations(tasks, size))
    )
    assert g.width() == max(antichains)
    assert g.remaining() == {task: _longest(g, task) for task in tasks}
    path = g.critical_path()
    assert sum(g.nodes[task].weight for task in path) == max(g.remaining().values())
    assert all(earlier in g.nodes[later].dependencies for earlier, later in pairwise(path))


@given(graphs(12), st.integers(1, 12))
def test_the_makespan_keeps_to_its_bounds(g: TaskGraph, executors: int) -> None:
    work, longest = sum(node.weight for node in g.nodes.values()), max(g.remaining().values())
    makespan = g.makespan(executors)
    assert max(work / executors, longest) - 1e-9 <= makespan <= work / executors + longest + 1e-9  # Graham 1966
    assert g.makespan(1) == work
    assert g.makespan(g.width()) == longest


@given(graphs(12), st.integers(1, 12))
def test_the_choice_is_the_fewest_within_5_percent_of_the_best(g: TaskGraph, budget: int) -> None:
    choice = choose_executors(g, budget)
    best = g.makespan(min(budget, g.width()))
    assert 1 <= choice.executors <= min(budget, g.width())
    assert g.makespan(choice.executors) <= best * 1.05
    assert all(g.makespan(fewer) > best * 1.05 for fewer in range(1, choice.executors))


@pytest.mark.parametrize(
    ("edges", "budget", "executors", "reason"),
    [
        (("a",), 5, 1, "1 task: 1 executor"),
        (("a", "b<a"), 5, 1, "2 tasks, width 1: 1 of 5 executors"),
        (("a", "b", "c"), 2, 2, "3 tasks, width 3: 2 of 2 executors"),
        (
            ("a*4", "b", "c", "d"),
            5,
            2,
            "4 tasks, width 4: 2 of 5 executors (more would end less than 5 % sooner)",
        ),
    ],
)
def test_the_choice_says_why(edges: tuple[str, ...], budget: int, executors: int, reason: str) -> None:
    choice = choose_executors(graph(*edges), budget)
    assert (choice.executors, choice.reason) == (executors, reason)


@given(graphs(), st.data())
def test_a_cycle_is_a_cycle(g: TaskGraph, data: st.DataObject) -> None:
    first, last = g.order[0], data.draw(st.sampled_from(g.order))
    closed = [
        TaskNode(n.id, (*n.dependencies, last), 1.0) if n.id == first else TaskNode(n.id, n.dependencies, 1.0)
        for n in g.nodes.values()
    ]
    found = TaskGraph(closed).cycle()
    depends = {node.id: node.dependencies for node in closed}
    if first == last or _reaches(g, last, first):
        assert found[0] == found[-1]
        assert len(set(found)) == len(found) - 1
        assert all(later in depends[earlier] for earlier, later in pairwise(found))
    else:
        assert found == []
