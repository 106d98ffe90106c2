"""The page for people: what models wrote stays text, charts have the shape that Mermaid reads, nothing is too big."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from parallel_orchestrator.report.facts.summary import summarize
from parallel_orchestrator.report.pages.summary_page import STEP_SUMMARY_BYTES, summary_page, write_page
from tests.records.plans import plan, task
from tests.report.runs import Story

NASTY = 'x"]; click a "javascript:alert(1)" <script>|```\n# end %% : , [a](b) \x1b[2J'


def _page(story: Story) -> str:
    return summary_page(story.state(), summarize(story.state(), None))


def test_states_and_names_are_shown_and_names_stay_text(tmp_path: Path) -> None:
    story = Story(tmp_path, plan(task(1), task(2, name=NASTY), task(3, (2,), name=NASTY)))
    assert (story.fail(NASTY, 2), story.merge(1)) == ("task_2", "task_1")
    text = _page(story)
    graph, gantt = re.findall(r"```mermaid\n(.*?)\n```", text, re.DOTALL)
    assert re.findall(r"  (task_\d)\[.*:::(\w+)", graph) == [
        ("task_1", "merged"),
        ("task_2", "failed"),
        ("task_3", "blocked"),
    ]
    assert "  task_2 --> task_3" in graph
    assert all(re.fullmatch(r'  task_\d\["[^"\[\]<>;`%]*"\]:::\w+', line) for line in graph.splitlines()[1:4])
    assert re.findall(r"    (task_\d) .*:(done|crit), \d+, \d+$", gantt, re.MULTILINE) == [
        ("task_1", "done"),
        ("task_2", "crit"),
    ]
    assert gantt.count("section executor") == 2
    assert all(line.count(":") == 1 for line in gantt.splitlines() if line.startswith("    "))
    assert "<script>" not in text.replace(re.findall(r"```text.*?```", text, re.DOTALL)[0], "")
    assert "\x1b" not in text
    assert text.count("```") == 6
    story.close()


def test_a_large_plan_is_shown_by_levels(tmp_path: Path) -> None:
    story = Story(tmp_path, plan(*(task(n, (1,) if n > 1 else ()) for n in range(1, 80))))
    story.merge()
    text = _page(story)
    assert '  level_1["level 1: 1 of 1 tasks merged"]:::merged' in text
    assert '  level_2["level 2: 0 of 78 tasks merged"]:::unfinished' in text
    assert "  level_1 --> level_2" in text
    story.close()


def test_the_step_summary_stays_below_its_limit_and_no_failure_is_passed_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = tmp_path / "step.md"
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(step))
    write_page(tmp_path / "page.md", lambda: "# One\n")
    assert (step.read_text(), (tmp_path / "page.md").read_text()) == ("# One\n\n", "# One\n")
    write_page(tmp_path / "page.md", lambda: "# Scenario\n", in_batch=True)
    assert (step.read_text(), (tmp_path / "page.md").read_text()) == ("# One\n\n", "# Scenario\n")
    for _ in range(3):
        write_page(tmp_path / "page.md", lambda: "é" * 400_000)
    assert step.stat().st_size <= STEP_SUMMARY_BYTES
    assert step.read_text().startswith("# One")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path))
    write_page(tmp_path / "page.md", lambda: "# Two\n")
    assert (tmp_path / "page.md").read_text() == "# Two\n"
    write_page(tmp_path / "page.md", lambda: str(1 // 0))
    write_page(tmp_path / "absent" / "page.md", lambda: "x")
