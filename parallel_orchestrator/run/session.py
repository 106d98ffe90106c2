"""One session of a batch: everything checked before anything is begun, the folder owned, the result written down."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from parallel_orchestrator.config.options import NO_CAP, Options, Settled, lacks_agreement
from parallel_orchestrator.gateway.endpoints.prices import require_prices
from parallel_orchestrator.records.errors import Interrupted, OrchestratorError, UsageError
from parallel_orchestrator.report.facts.batch_summary import Ending, batch_page, batch_summary, batch_text, worst
from parallel_orchestrator.report.live.view import ScenarioView, View
from parallel_orchestrator.report.pages.summary_page import write_page
from parallel_orchestrator.run.manifest import (
    Entry,
    Story,
    folder_of,
    left_alone,
    place,
    recall,
    remember,
    require_place,
    standing,
)
from parallel_orchestrator.run.runner import Batch, Tools
from parallel_orchestrator.store.paths import BatchDirectory
from parallel_orchestrator.store.run_lock import RunLock
from parallel_orchestrator.system.files import write_whole
from parallel_orchestrator.system.terminal_text import counted

MakeStory = Callable[[str, Options, View, Sequence[str] | None], Story]
"""Makes the run of the scenario of that name; the last is `Story.retry`."""

_NAMED = 5
"""Scenarios that one message names."""


@dataclass(frozen=True)
class Given:
    """What a batch is asked to do."""

    options: Mapping[str, Options]
    """By scenario."""
    folder: Path
    executors: int
    max_cost_usd: float | None
    """Cap over all scenarios together."""
    retry: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """By scenario, the failed tasks to try again; empty: all of them."""
    among_others: bool = False
    """These are some of the scenarios. The others that the folder has stay in the batch as they are."""


def run_batch(given: Given, make: MakeStory, tools: Tools, view: View) -> dict[str, Any]:
    """Build every scenario, or go on with those that are not finished; the batch's summary.

    Raises OrchestratorError when nothing can go on; what was done is kept, and the same again goes on.
    """
    started = time.monotonic()
    batch = BatchDirectory(given.folder.absolute())
    require_place(batch)
    stories = _checked(given, make, view)
    _make(batch)
    lock = RunLock.acquire(batch.run_lock, say=view.say)
    try:
        entries = [place(batch, name, story) for name, story in stories.items()]
        options = {**_remembered(batch, given), **given.options}
        remember(batch, given.executors, given.max_cost_usd, options)
        _say_what_is_not_used(given.options, view)
        _say_what_is_ahead(batch, entries, view)
        work = Batch(batch, entries, given.executors, tools, view)

        def sum_up(stop: OrchestratorError | None) -> dict[str, Any]:
            return _summed_up(batch, work, list(options), time.monotonic() - started, stop)

        return _to_its_end(lambda: work.go(lock, given.max_cost_usd), sum_up)
    finally:
        lock.release()


def _remembered(batch: BatchDirectory, given: Given) -> Mapping[str, Options]:
    """The scenarios that the folder has and that stay in the batch."""
    return recall(batch).options if given.among_others and batch.config.exists() else {}


def _to_its_end(
    work: Callable[[], object], sum_up: Callable[[OrchestratorError | None], dict[str, Any]]
) -> dict[str, Any]:
    """Do the work, and sum up whatever comes of it. What stops it has the summary with it."""
    try:
        work()
    except KeyboardInterrupt as error:
        stop = Interrupted("interrupted")
        stop.summary = sum_up(stop)
        raise stop from error
    except OrchestratorError as error:
        error.summary = sum_up(error)
        raise
    except BaseException as error:
        sum_up(OrchestratorError(f"unexpected {type(error).__name__}: {error}"))
        raise
    return sum_up(None)


def _summed_up(
    batch: BatchDirectory, work: Batch, names: Sequence[str], elapsed_s: float, stop: OrchestratorError | None
) -> dict[str, Any]:
    """The summary of all those scenarios, written down. The exit code is that of this session's."""
    own = {one.name: work.endings.get(one.name) or _not_ended(batch, one) for one in work.entries}
    all_ = {**own, **left_alone(batch, [name for name in names if name not in own])}
    code = stop.exit_code if stop else worst(ending.exit_code for ending in own.values())
    summary = batch_summary([all_[name] for name in names], work.executors, elapsed_s, code, str(stop or ""))
    write_whole(batch.summary, batch_text(summary))
    write_page(batch.page, lambda: batch_page(summary))
    return summary


def _not_ended(batch: BatchDirectory, entry: Entry) -> Ending:
    """Of a scenario that everything stopped before: how it stands."""
    return Ending(entry.name, entry.folder, standing(entry.run(batch)))


def _checked(given: Given, make: MakeStory, view: View) -> dict[str, Story]:
    """The runs of all scenarios. Raises UsageError with every fault that can be found before anything is begun."""
    stories: dict[str, Story] = {}
    faults, uncapped = list[str](), list[str]()
    for name, one in given.options.items():
        try:
            stories[name] = make(name, _in_batch(one, given.executors), ScenarioView(view, name), given.retry.get(name))
            stories[name].check()
            settled = stories[name].settled
            if given.max_cost_usd is None and lacks_agreement(settled, _folder(given, name, settled)):
                uncapped.append(name)
            require_prices(stories[name].settled.scenario, capped=given.max_cost_usd is not None)
        except UsageError as error:
            faults.append(f"{name}: {error}")
    if uncapped:
        faults.append(f"{_listed(uncapped)}: {NO_CAP}")
    if faults:
        raise UsageError(faults[0] if len(faults) == 1 else "\n".join(["nothing was begun:", *dict.fromkeys(faults)]))
    _require_one_way_to_ask(stories)
    return stories


def _folder(given: Given, name: str, settled: Settled) -> Path:
    """Where the run of that scenario lies."""
    batch = BatchDirectory(given.folder.absolute())
    return batch.root / folder_of(batch, name, settled.scenario, resumed=settled.resumed)


def _in_batch(one: Options, executors: int) -> Options:
    """The options of a scenario: one that names no `max_executors` may have all that the batch has."""
    return replace(one, settings={"max_executors": executors, **one.settings})


def _require_one_way_to_ask(stories: Mapping[str, Story]) -> None:
    """Refuse scenarios whose calls one gateway cannot make: it has one key, one endpoint, one table of prices."""
    ways: dict[tuple[str, str | None, str | None], list[str]] = {}
    for name, story in stories.items():
        scenario, paid_by = story.settled.scenario, story.settled.credential
        if not scenario.replay:
            way = (story.who_pays(), paid_by.value if paid_by else None, scenario.prices)
            ways.setdefault(way, []).append(name)
    if len(ways) > 1:
        told = [
            f"  {', '.join(names)}: {paying}" + (f", prices of {prices}" if prices else "")
            for (paying, _, prices), names in ways.items()
        ]
        raise UsageError(
            "the scenarios of a batch share one key, one endpoint and one price file, and these differ:\n"
            + "\n".join(told)
            + "\nnothing was begun; choose those of one kind with --only, or give them a file of their own"
        )


def _make(batch: BatchDirectory) -> None:
    try:
        batch.root.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot make {batch.root}: {error.strerror}") from error


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def _say_what_is_not_used(options: Mapping[str, Options], view: View) -> None:
    """Which scenarios name a folder of their own: in a batch all lie in its own."""
    named = [name for name, one in options.items() if one.output_dir not in (None, Path("outputs") / name)]
    if named:
        where = "they lie in the batch's folder"
        view.say(f"output_dir is for `run --config` alone: of {_listed(named)} it is not used, {where}")


def _say_what_is_ahead(batch: BatchDirectory, entries: Sequence[Entry], view: View) -> None:
    """Who pays, once for all of the same, and which scenarios have a folder of their present text."""
    todo = [entry for entry in entries if not entry.finished]
    if not todo:
        failed = any(entry.finished and entry.finished["status"] != "done" for entry in entries)
        view.say(f"every scenario is finished{', though not all succeeded' if failed else ''}; nothing to do")
        return
    told = sorted({entry.story.who_pays() for entry in todo if not entry.scenario.replay})
    replays = sum(bool(entry.scenario.replay) for entry in todo)
    if replays:
        told.append(f"{counted(replays, 'replay')}, without a model and at no cost")
    sandbox = sorted({entry.story.check()[1] for entry in todo})
    reused = f", {len(entries) - len(todo)} more finished and not touched" if len(todo) < len(entries) else ""
    view.say(f"{counted(len(todo), 'scenario')} to do{reused}. {'; '.join(told)}. {'; '.join(sandbox)}")
    for entry in todo:
        if entry.folder != entry.name:
            how = "goes on" if entry.run(batch).scenario.exists() else "runs anew,"
            view.say(f"{entry.name} differs from what was run before: it {how} in {entry.folder}")
