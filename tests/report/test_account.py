"""What a person is told of a plan, and at the end."""

from __future__ import annotations

from pathlib import Path

from parallel_orchestrator.report.facts.advice import advise
from parallel_orchestrator.report.facts.summary import summarize
from parallel_orchestrator.report.pages.summary_text import plan_text, summary_text
from tests.records.plans import plan, task
from tests.report.runs import CONTROL, ESCAPED, NASTY, Story


def test_a_plan_is_shown_escaped_as_a_tree(tmp_path: Path) -> None:
    small = plan(task(1, name=NASTY), task(2, (1,)), task(3), task(4, (2, 3)))
    shown = plan_text(small, tmp_path, advise(small, 5))
    assert not CONTROL.search(shown)
    lines = shown.splitlines()
    assert lines[0] == "simple: It is small."
    assert lines[2:6] == [
        f"task_1 {ESCAPED}  [medium]",
        "└─ task_2 Part 2  [medium]",
        "   └─ task_4 Part 4  [medium], also after task_3",
        "task_3 Part 3  [medium]",
    ]
    assert "critical path: task_1 -> task_2 -> task_4" in lines
    assert str(tmp_path / "execution_plan.json") in lines[-1]


def _lines(story: Story, directory: Path, **final: object) -> list[str]:
    tests = {"passed": 3, "failed": 1, "skipped": 0, "facts": ["test_x fails\nTraceback"]}
    printed = "\n".join(f"line {number} \x1b[2J" for number in range(20))
    checks = [{"command": "make\x1b[2J", "code": 0}, {"command": "false", "code": 1, "output": printed}]
    defaults = {"green": True, "tests": tests, "coverage_percent": 87.4, "verify": checks, "lines_of_code": {"src": 9}}
    shown = summary_text(summarize(story.state(), {**defaults, **final}), directory)
    assert not CONTROL.search(shown)
    return shown.splitlines()


def test_the_last_words_say_what_was_made_and_what_to_do(story: Story) -> None:
    for _ in range(4):
        story.merge()
    story.calls.buy("task_1", 1)
    lines = _lines(story, Path("/my out"))
    assert lines[0] == "done: 4 of 4 tasks merged (100%)"
    assert "  tests:    3 passed, 1 failed, 0 skipped, 87 % of src covered" in lines
    assert "  red:      test_x fails" in lines
    assert "  verify:   ok     make\\x1b[2J" in lines
    place = lines.index("  verify:   FAILED false (exit code 1)")
    assert lines[place + 1 : place + 9] == [f"            | line {number} \\x1b[2J" for number in range(12, 20)]
    assert "  made:     12 files; lines: src 9" in lines
    assert "  cost:     $0.50; 1 call, 110 tokens read, 5 written" in lines
    assert lines[-3:] == [
        "  where:    /my out",
        "  read:     /my out/README.md",
        "  next:     cd '/my out' && python -m pytest",
    ]


def test_after_a_whole_that_is_red_two_ways_on_are_named(story: Story) -> None:
    for _ in range(4):
        story.merge()
    lines = _lines(story, Path("/out"), green=False)
    assert lines[0] == "everything is merged, and the whole is red: 4 of 4 tasks merged (100%)"
    assert lines[-2:] == [
        "  next:     parallel-orchestrator retry /out",
        "  or:       correct it in /out, commit that there, then parallel-orchestrator resume /out",
    ]


def test_the_last_words_name_what_failed_and_how_to_retry(story: Story) -> None:
    story.merge()
    story.fail(NASTY)
    story.merge()
    lines = _lines(story, Path("/out"), tests=None, lines_of_code=None)
    assert lines[0] == "not all is done: 2 of 4 tasks merged (50%)"
    assert f"  failed: task_3 Part 3: {ESCAPED}" in lines
    assert f"  blocked: task_4 {ESCAPED}: task_3 failed" in lines
    assert lines[-1] == "  next:     parallel-orchestrator retry /out"


def test_after_a_limit_a_retry_is_told_with_a_higher_one(story: Story) -> None:
    story.fail("reached its limit of 4 turns")
    assert _lines(story, Path("/out"))[-1] == "  next:     parallel-orchestrator retry /out --max-turns 8"


def test_an_uncertain_cost_is_said_to_be_one(story: Story) -> None:
    story.merge()
    story.calls.answered(story.calls.begin("task_1", 1, bound=None), usd=None)
    story.calls.begin("task_1", 2, bound=3.0)
    (cost,) = (line for line in _lines(story, Path("/out")) if line.startswith("  cost:"))
    assert "≥ $0.00 (1 turn unpriced), up to $3.00 more for calls of unknown end or price" in cost
