"""A transcript that is damaged, or whose workspace is lost: what is kept of it, and what the rest costs to buy again.

An attempt resumes from a record that names its workspace's tree, so conversation and files agree. The ledger still has
the answers after that record. The gateway replays each one whose request comes out the same.
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from dataclasses import dataclass

from parallel_orchestrator.agent.transcript import Conversation, fold
from parallel_orchestrator.maintenance.reading import RunFiles
from parallel_orchestrator.maintenance.trunk import has_tree
from parallel_orchestrator.store.journal import Record
from parallel_orchestrator.store.paths import AttemptFile, RunDirectory
from parallel_orchestrator.system.terminal_text import counted


@dataclass(frozen=True)
class TranscriptCut:
    """What repair does to a transcript."""

    kept: list[Record]
    """Empty: the attempt begins again."""
    cause: str
    """Why the transcript cannot stay as it is."""
    loss: str
    """What is cut off, and its price."""


def planned_cut(files: RunFiles, attempt: AttemptFile) -> TranscriptCut | None:
    """Returns what has to be cut off a transcript; None when it can stay, or while the queue is damaged."""
    if files.replica is None:
        return None
    content = files.transcripts[attempt]
    fault = files.faults.get(attempt.path, "")
    if files.has_ended(attempt):
        kept = conversation_records(content.records, skip=True)
        loss = f"{len(kept)} of its records are kept; the attempt has ended, so nothing is bought again"
        return TranscriptCut(kept, fault, loss) if fault else None
    sound = conversation_records(content.unbroken)
    tree = fold(sound).tree
    if not fault:
        if not tree or has_tree(files.run, tree):
            return None
        fault = f"the workspace's tree {tree} cannot be read from .git"
    kept = _up_to_a_tree(files.run, sound)
    return TranscriptCut(kept, fault, _loss(files, attempt, kept))


def lost_base(files: RunFiles, attempt: AttemptFile, renamed: Container[str] = ()) -> str:
    """Returns the commit that an unfinished attempt started from if it is lost or `renamed`; else empty."""
    if files.has_ended(attempt):
        return ""
    base = fold(files.transcripts[attempt].records).base
    lost = base and (base in renamed or not has_tree(files.run, f"{base}^{{tree}}"))
    return base if lost else ""


def conversation_records(records: Iterable[Record], *, skip: bool = False) -> list[Record]:
    """Returns the records up to the first that does not fit those before it. `skip`: leave it out and continue."""
    conversation, fitting = Conversation(), list[Record]()
    for record in records:
        try:
            if not fitting and record["kind"] != "start":
                raise ValueError("a conversation begins with its start record")
            conversation.apply(record)
        except (KeyError, ValueError, TypeError):
            if not skip:
                break
        else:
            fitting.append(record)
    return fitting


def _up_to_a_tree(run: RunDirectory, records: list[Record]) -> list[Record]:
    """Returns the records up to the last one that names a tree which git still has."""
    for count in range(len(records), 0, -1):
        tree = records[count - 1].get("tree")
        if tree and has_tree(run, tree):
            return records[:count]
    return []


def _loss(files: RunFiles, attempt: AttemptFile, kept: list[Record]) -> str:
    """Returns what buying the answers after the kept records costs, if none of them can be replayed."""
    last = fold(kept).turns
    prices = {record["turn"]: None for record in files.transcripts[attempt].records if record["kind"] == "answer"}
    prices |= {
        record["turn"]: record["usd"]
        for record in files.ledger.records
        if record.get("kind") == "answer" and (record["task"], record["attempt"]) == (attempt.task, attempt.attempt)
    }
    lost = [price for turn, price in prices.items() if turn > last]
    where = f"the attempt resumes after turn {last}" if kept else "the attempt begins again"
    if not lost:
        return f"{where}; no answer is lost"
    unknown = f" and {lost.count(None)} of unknown price" if None in lost else ""
    return (
        f"{where}; {counted(len(lost), 'later answer')} will be replayed where the request comes out the same, "
        f"and otherwise bought again for up to ${sum(filter(None, lost)):.2f}{unknown}"
    )
