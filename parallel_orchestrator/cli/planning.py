"""What is planned and not built: one requirement, or each scenario of a batch, told with what it will take."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from parallel_orchestrator.cli.answer import Answer
from parallel_orchestrator.cli.going_on import told_how_to_go_on
from parallel_orchestrator.records.errors import OrchestratorError
from parallel_orchestrator.report.facts.advice import advise
from parallel_orchestrator.report.facts.batch_summary import worst
from parallel_orchestrator.report.pages.summary_text import plan_account
from parallel_orchestrator.run.cost import Budget
from parallel_orchestrator.run.manifest import folder_of, require_place
from parallel_orchestrator.run.runner import STOPS_EVERYTHING
from parallel_orchestrator.store.paths import BatchDirectory, RunDirectory

if TYPE_CHECKING:
    from parallel_orchestrator.cli.starts import Start, Story
    from parallel_orchestrator.config.options import Options


def plan_one(start: Start, options: Options) -> Answer:
    """Plan one requirement, and tell what to expect of the plan."""
    story = start(options)
    with told_how_to_go_on(story.settled.directory):
        return _planned(story, story.settled.scenario.max_executors)


def plan_all(
    start: Start, options: Mapping[str, Options], folder: Path, executors: int, max_cost: float | None
) -> Answer:
    """Plan every scenario where the batch will find its plan, one after the other; what stops one stops no other.

    `executors`: of the batch. `max_cost` holds for all of them together.
    """
    batch = BatchDirectory(folder.absolute())
    require_place(batch)
    stories = {name: start(one) for name, one in options.items()}
    for story in stories.values():
        story.check_files()
    folders = {name: batch.root / folder_of(batch, name, story.settled.scenario) for name, story in stories.items()}
    budget = Budget.of(batch, max_cost)
    budget.require_prices(story.settled.scenario for story in stories.values())
    answers: dict[str, Answer] = {}
    for name, one in options.items():
        one.output_dir = folders[name]
        try:
            answers[name] = _planned(start(one), executors, budget)
        except OrchestratorError as error:
            answers[name] = _not_planned(folders[name], error)
            if isinstance(error, STOPS_EVERYTHING):
                break
        budget.count(RunDirectory(folders[name]))
    return _together(answers)


def _planned(story: Story, executors: int, budget: Budget | None = None) -> Answer:
    """Plan it, for at most so many executors. `budget`: of the batch that it is part of."""
    settled = story.settled
    plan = story.only_plan(budget)
    advice = advise(plan, min(executors, settled.scenario.max_executors), story.price)
    text = plan_account(plan, settled.directory, advice, spends=settled.recording is None)
    result = {"directory": str(settled.directory), "plan": plan.model_dump(), "advice": advice.as_json()}
    return Answer(text, result)


def _not_planned(directory: Path, error: OrchestratorError) -> Answer:
    result = {"directory": str(directory), "why": str(error)}
    return Answer(f"  not planned: {error}", result, error.exit_code, error=error)


def _together(answers: Mapping[str, Answer]) -> Answer:
    """What is said of all scenarios. What stopped everything was met by the last of them."""
    last = list(answers.values())[-1].error
    stop = last if isinstance(last, STOPS_EVERYTHING) else None
    code = stop.exit_code if stop else worst(answer.exit_code for answer in answers.values())
    failure = f"not planned: {', '.join(name for name, answer in answers.items() if answer.error)}"
    text = "\n\n".join(f"{name}\n{answer.text}" for name, answer in answers.items())
    return Answer(text, {"scenarios": {name: answer.result for name, answer in answers.items()}}, code, failure, stop)
