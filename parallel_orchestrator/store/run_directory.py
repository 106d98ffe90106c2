"""Takes ownership of a run directory: checks that it holds this run and that no other process owns it."""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from parallel_orchestrator.records.errors import CannotGoOn, DamagedState, OrchestratorError, UsageError
from parallel_orchestrator.records.scenario import Scenario, identity_difference
from parallel_orchestrator.store.journal import Journal, unparsed
from parallel_orchestrator.store.paths import BatchDirectory, RunDirectory
from parallel_orchestrator.store.run_lock import RunLock
from parallel_orchestrator.system.files import disk_error, remove_unfinished, write_json
from parallel_orchestrator.system.invocation import command
from parallel_orchestrator.system.logfile import log_to, stop_logging

log = logging.getLogger(__name__)

_BEFORE_SCENARIO = {"run.lock", "orchestrator.log"}
"""What a run killed before it fixed its scenario leaves behind."""

LEAST_FREE_BYTES = 4 * 2**20
"""With less room not even a small run ends. How much a run needs is not known before."""

_UNUSABLE = {errno.EACCES, errno.EPERM, errno.ENAMETOOLONG, errno.ELOOP}
"""Errors that another --output-dir mends, and waiting does not."""


@dataclass(frozen=True)
class OwnedRun:
    """A run directory that this process owns until the lock is released."""

    run: RunDirectory
    scenario: Scenario
    lock: RunLock
    resumed: bool
    written: Scenario
    """What scenario.json holds; `take_up` brings it up to date."""


def own(directory: Path, scenario: Scenario, say: Callable[[str], None], *, resumed: bool = False) -> OwnedRun:
    """Own `directory` for `scenario`: a new run, or the same one again.

    `resumed`: its models and its endpoint may have changed.

    Raises DirectoryHeld when another orchestrator has it, UsageError when it cannot be written or holds something
    else: files that no run made, or a run whose identity differs, naming the field. CannotGoOn when its disk is full.
    `take_up` has to follow.
    """
    run = RunDirectory(directory)
    _make(run)
    lock = RunLock.acquire(run.run_lock, say=say)
    try:
        return own_in(run, scenario, lock, resumed=resumed)
    except BaseException:
        lock.release()
        raise


def set_aside(directory: Path, say: Callable[[str], None]) -> None:
    """Move the run in `directory` to the first free name of DIRECTORY.1, DIRECTORY.2, …; nothing of it is deleted.

    Nothing happens where no run is. Raises DirectoryHeld when an orchestrator works on it.
    """
    run = RunDirectory(directory)
    if not run.scenario.exists():
        return
    lock = RunLock.acquire(run.run_lock, say=say)
    try:
        for number in itertools.count(1):
            aside = directory.with_name(f"{directory.name}.{number}")
            if not aside.exists():
                break
        directory.rename(aside)
    except OSError as error:
        raise UsageError(f"cannot move {directory} aside: {error.strerror}. Choose another --output-dir.") from error
    finally:
        lock.release()
    say(f"the run that was in {directory} is in {aside} now")


@contextlib.contextmanager
def occupied(
    directory: Path, scenario: Scenario, say: Callable[[str], None], *, resumed: bool = False
) -> Iterator[OwnedRun]:
    """`own` for the time of a block: with the run's log open, its journals whole, and what ends the block logged."""
    said: list[str] = []

    def note(text: str) -> None:
        said.append(text)
        say(text)

    owned = own(directory, scenario, note, resumed=resumed)
    with contextlib.ExitStack() as ending:
        ending.callback(owned.lock.release)
        ending.callback(stop_logging, log_to(owned.run.log))
        for text in said:  # before the log was open
            log.info("%s", text)
        try:
            take_up(owned, say)
            yield owned
        except OrchestratorError as error:
            log.error("%s", error)
            raise


def own_in(run: RunDirectory, scenario: Scenario, lock: RunLock, *, resumed: bool = False) -> OwnedRun:
    """`own` under a lock that is held already; one that covers several runs perhaps."""
    _make(run)
    for folder in (run.root, run.evidence):
        remove_unfinished(folder)
    old = read_scenario(run)
    if old is None:
        write_json(run.scenario, scenario.model_dump())
        return OwnedRun(run, scenario, lock, resumed=False, written=scenario)
    return OwnedRun(run, _same_run(run, old, scenario, resumed=resumed), lock, resumed=True, written=old)


def take_up(owned: OwnedRun, say: Callable[[str], None]) -> None:
    """Cut off torn tails, then write down what is new in the scenario. Says and logs each of them.

    Raises DamagedState where a journal is damaged; nothing has been written then.
    """
    cut_torn_tails(owned.run, say)  # the journal itself tells the log
    old, new = owned.written, owned.scenario
    changed = [name for name, value in new.model_dump().items() if getattr(old, name) != value]
    for name in changed:
        change = f"{name}: {_short(getattr(old, name))} -> {_short(getattr(new, name))}"
        log.info("%s: %s", owned.run.scenario, change)
        say(change)
    if changed:
        write_json(owned.run.scenario, new.model_dump())


def _make(run: RunDirectory) -> None:
    """Make the directory of a new run, or refuse what is there."""
    if read_scenario(run) is None:
        _require_empty(run.root)
    try:
        _require_room(run.root)
        run.root.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot make {run.root}: {error.strerror}. Choose another --output-dir.") from error
    with contextlib.suppress(PermissionError):  # somebody else's: theirs to open or close
        run.root.chmod(0o700)


def read_scenario(run: RunDirectory) -> Scenario | None:
    """The scenario of a run, None where there is none yet. Raises DamagedState when it cannot be understood."""
    try:
        text = run.scenario.read_bytes()
    except FileNotFoundError:
        return None
    except NotADirectoryError as error:
        raise UsageError(f"{run.root} is not a directory") from error
    except OSError as error:
        if error.errno in _UNUSABLE:
            raise UsageError(f"cannot read {run.scenario}: {error.strerror}. Choose another directory.") from error
        raise disk_error(run.scenario, error) from error
    try:
        fields = json.loads(text)
        if isinstance(fields, dict) and fields.get("version", 1) != 1:
            raise UsageError(f"{run.scenario} has version {fields['version']}; this program reads version 1")
        return Scenario.model_validate(fields)
    except (ValueError, ValidationError) as error:
        raise DamagedState(
            f"{run.scenario} is damaged: {error}. Nothing was changed. It stores your original request and "
            "cannot be rebuilt. Restore it from a backup, or start over with another --output-dir"
        ) from error


def cut_torn_tails(run: RunDirectory, say: Callable[[str], None]) -> None:
    """Read every journal whole, then cut off what a kill left at their ends, saying so. For the run's owner alone.

    Raises DamagedState at the first damage anywhere; nothing has been written then.
    """
    journals = [Journal(path, unparsed) for path in run.journals()]
    for journal in journals:
        journal.pass_over()
    for journal in journals:
        if torn := journal.repair_tail():
            name = journal.path.relative_to(run.root)
            say(f"{name}: cut off {torn} bytes of a record that was being written when the run was killed")
        journal.close()


def _require_room(directory: Path) -> None:
    """Refuse a place that cannot be written, or is full, before anything is made in it."""
    place = directory
    while not place.exists():
        place = place.parent
    if not os.access(place, os.R_OK | os.W_OK | os.X_OK):
        raise UsageError(
            f"cannot write in {place}: no permission, or its file system is read-only. Choose another --output-dir."
        )
    free = shutil.disk_usage(place).free
    if free < LEAST_FREE_BYTES:
        raise CannotGoOn(
            f"the disk of {place} is full: {free / 2**20:.1f} MiB free, and a run needs {LEAST_FREE_BYTES >> 20} at "
            "the very least. Make room, then run again."
        )


def require_scenario(run: RunDirectory) -> Scenario:
    """The scenario of a run. Raises UsageError where there is none."""
    scenario = read_scenario(run)
    if scenario is not None:
        return scenario
    if not run.root.is_dir():
        raise UsageError(f"there is no folder {run.root}")
    if BatchDirectory(run.root).config.exists():
        raise UsageError(f"{run.root} is a batch: name the folder of one of its runs")
    raise UsageError(f"{run.root} holds no run (there is no scenario.json in it)")


def _require_empty(directory: Path) -> None:
    try:
        names = {path.name for path in directory.iterdir()} if directory.is_dir() else set()
    except OSError as error:
        raise UsageError(f"cannot read {directory}: {error.strerror}") from error
    foreign = sorted(name for name in names - _BEFORE_SCENARIO if not name.startswith(".scenario.json."))
    if foreign:
        raise UsageError(
            f"{directory} holds files that no run made ({', '.join(foreign[:3])}, …): choose another --output-dir"
        )


def _same_run(run: RunDirectory, old: Scenario, new: Scenario, *, resumed: bool) -> Scenario:
    """The scenario to go on with: the new caps and limits under the old identity."""
    # Until work begins on it, a plan may still be replaced by an edited one.
    planned_only = new.plan_sha256 is not None and not run.queue.exists()
    same_plan = old.model_copy(update={"plan_sha256": new.plan_sha256}) if planned_only else old
    field = identity_difference(same_plan, new.model_dump(), resumed=resumed)
    if field:
        source = " (ANTHROPIC_BASE_URL, or the recording and what is in it)" if field == "endpoint" else ""
        raise UsageError(
            f"{run.root} belongs to another run: its {field} is {_short(getattr(old, field))}, "
            f"not {_short(getattr(new, field))}{source}. Choose another --output-dir, or go on as it is: "
            f"{command('resume', run.root)}{' (--model changes its models)' if field.endswith('_model') else ''}"
        )
    return new.model_copy(update={"run": old.run})


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"
