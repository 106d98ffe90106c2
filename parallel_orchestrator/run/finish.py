"""Finishing a run: test the whole, describe it, sum up. The summary comes last: it says that the run has ended."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing

from parallel_orchestrator.records.errors import CannotGoOn
from parallel_orchestrator.report.facts.documents import Summary
from parallel_orchestrator.report.facts.summary import (
    RunState,
    incomplete_summary,
    last_summary,
    read_state,
    summarize,
)
from parallel_orchestrator.report.live.view import waiting
from parallel_orchestrator.report.pages.readme import build_readme, read_documents
from parallel_orchestrator.report.pages.summary_page import summary_page, write_page
from parallel_orchestrator.report.pages.summary_text import headline
from parallel_orchestrator.run.prepare import PreparedRun
from parallel_orchestrator.run.run import Run
from parallel_orchestrator.sandbox.runner import clear_up
from parallel_orchestrator.store.plan_file import plan_of, planned_verify
from parallel_orchestrator.store.queue.queue import TaskQueue
from parallel_orchestrator.store.run_directory import OwnedRun
from parallel_orchestrator.system.files import write_whole
from parallel_orchestrator.system.invocation import command
from parallel_orchestrator.system.terminal_text import listed
from parallel_orchestrator.trunk import FinalReport
from parallel_orchestrator.trunk.git.repository import Repository


def test_whole(prepared: PreparedRun) -> FinalReport | None:
    """Test the whole. Returns None when it is red and a fix task is planned for it, or other tasks are left."""
    run, owned = prepared.run, prepared.owned
    plan = plan_of(owned.run)
    with closing(TaskQueue(owned.run, plan.graph())) as queue:
        if queue.refresh().unsettled:
            return None
        clear_up()  # of executors that were killed in this session
        run.say("testing the whole …")
        planned = planned_verify(owned.run, plan)
        with waiting(run.view, "testing the whole"):
            final = prepared.trunk.final_checks([*planned, *owned.scenario.verify])
        if final.green:
            return final
        red = final.red(planned)
        fix = queue.plan_fix(red, owned.scenario.fix_rounds)
    for reason in red.reasons(output=True):
        run.note(f"the whole is red: {reason}")
    if fix:
        run.say(f"the whole is red: {'; '.join(red.reasons()[:3])}; {fix} begins, to correct it")
    return None if fix else final


def finish(prepared: PreparedRun, final: FinalReport) -> Summary:
    """Publish the project's README and write the summary; return the summary."""
    run, owned = prepared.run, prepared.owned
    plan = plan_of(owned.run)
    state = read_state(owned.run, owned.scenario, plan)
    summary = summarize(state, final.as_json())
    pages = {
        "README.md": build_readme(state, read_documents(owned.run.root)),
        "docs/execution_plan.json": owned.run.plan.read_text(encoding="utf-8"),
        "docs/execution_summary.json": summary.text(),
    }
    head = prepared.trunk.publish({path: text.encode() for path, text in pages.items()}, "Describe the project")
    for folder in sorted(owned.run.root.glob("edits-*")):
        run.say(f"edits that were not committed, and that the trunk's files replaced, are kept in {folder}")
    with closing(TaskQueue(owned.run, plan.graph())) as queue:
        queue.record_final(final.as_json(), head)
    _write_down(run, summary, lambda: state)
    run.note(headline(summary))
    return summary


def sum_up_unfinished(prepared: PreparedRun) -> Summary:
    """Write the summary of a run that stops before its end, and return it."""
    directory, scenario, plan = prepared.owned.run, prepared.owned.scenario, prepared.plan
    summary = incomplete_summary(directory, scenario, plan)
    _write_down(prepared.run, summary, lambda: read_state(directory, scenario, plan))
    return summary


def restore_finished(run: Run, owned: OwnedRun, finished: Summary) -> None:
    """Restore a finished run's summary, page and deleted files from its other files."""
    directory = owned.run
    if last_summary(directory) != finished:
        _write_down(run, finished, lambda: read_state(directory, owned.scenario, plan_of(directory)))
        run.say(f"{directory.summary.name} did not say what the run's other files say; it was written again")
    try:
        missing, edited = Repository(directory).restore_missing()
    except CannotGoOn as error:
        run.say(f"the trunk cannot be read: {error} To repair it: {command('repair', directory.root)}")
        return
    if missing:
        run.say(f"brought back from the trunk: {listed(missing)}")
    if edited:
        run.say(f"not as on the trunk, and left as it is: {listed(edited)}; `check` names each")


def _write_down(run: Run, summary: Summary, read: Callable[[], RunState]) -> None:
    """Write the page, then the summary, whose presence marks the run as finished."""
    write_page(run.directory.page, lambda: summary_page(read(), summary), in_batch=bool(run.name))
    write_whole(run.directory.summary, summary.text())
