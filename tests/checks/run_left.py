"""What a run left in its directory, read without anything of the program: the sources of `recount`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

Json = dict[str, Any]


def journal(path: Path) -> list[Json]:
    """Return the records of a journal, each checked: sequence number and CRC-32."""
    records = []
    for number, line in enumerate(path.read_bytes().split(b"\n")[:-1] if path.exists() else [], 1):
        body, _, tail = line.rpartition(b',"sum":"')
        record: Json = json.loads(body + b"}") if tail == b'%08x"}' % zlib.crc32(body) else {"seq": "a bad checksum"}
        if record["seq"] != number:
            sys.exit(f"{path}:{number}: {record['seq']}")
        records.append(record)
    return records


@dataclass(frozen=True)
class Commit:
    """One commit of the trunk."""

    id: str
    parent: str
    subject: str
    trailers: dict[str, str]


@dataclass(frozen=True)
class Hold:
    """One claim of a task, on the run's own clock."""

    task: str
    executor: int
    start: float
    end: float

    @property
    def seconds(self) -> float:
        """Return how long."""
        return self.end - self.start


@dataclass(frozen=True)
class Left:
    """Everything that a run left in its directory."""

    root: Path

    @cached_property
    def plan(self) -> Json:
        """Return the plan."""
        return dict(json.loads((self.root / "execution_plan.json").read_text()))

    @cached_property
    def scenario(self) -> Json:
        """Return the scenario."""
        return dict(json.loads((self.root / "scenario.json").read_text()))

    @cached_property
    def queue(self) -> list[Json]:
        """Return the queue's records."""
        return journal(self.root / "queue.jsonl")

    @cached_property
    def ledger(self) -> list[Json]:
        """Return the ledger's records."""
        return journal(self.root / "ledger.jsonl")

    @cached_property
    def fixes(self) -> dict[str, Json]:
        """Return the last record that plans each fix task, by id."""
        return {record["fix"]: record for record in self.queue if "fix" in record}

    @cached_property
    def corrections(self) -> list[Json]:
        """Return what fix tasks put in the place of the plan's commands."""
        return [one for record in self.queue for one in record.get("evidence", {}).get("corrections", [])]

    def moves(self, task: str) -> list[Json]:
        """Return the moves of one task."""
        return [record for record in self.queue if record.get("task") == task]

    def git(self, *arguments: str) -> bytes:
        """Return what git prints."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
        command = ["git", "--git-dir", str(self.root / ".git"), *arguments]
        return subprocess.run(command, capture_output=True, check=True, env=environment).stdout

    @cached_property
    def commits(self) -> list[Commit]:
        """Return the trunk's commits, oldest first."""
        shown = self.git("log", "-z", "--first-parent", "--reverse", "--format=%H%n%P%n%s%n%(trailers:unfold)", "main")
        found = []
        for entry in filter(None, shown.decode().split("\0")):
            name, parent, subject, *lines = entry.strip("\n").split("\n")
            trailers = dict(line.split(": ", 1) for line in lines if ": " in line)
            found.append(Commit(name, parent, subject, trailers))
        return found

    def report(self, name: str) -> list[tuple[str, str]] | None:
        """Return file and ending (passed, failed, skipped) of each test of a JUnit report."""
        path = self.root / ".git" / "evidence" / name
        if not path.exists():
            return None
        rank = ("passed", "skipped", "failed")
        endings: dict[tuple[str, ...], str] = {}
        for case in ElementTree.parse(path).getroot().iter("testcase"):
            tags = {child.tag for child in case}
            ending = "failed" if tags & {"failure", "error"} else "skipped" if "skipped" in tags else "passed"
            identity = (case.get("file", ""), case.get("classname", ""), case.get("name", ""))
            endings[identity] = max(ending, endings.get(identity, "passed"), key=rank.index)
        return [(file, ending) for (file, *_), ending in endings.items()]


@dataclass(frozen=True)
class Times:
    """The run's clock runs from each session's first claim to its last move, and stands while the whole is tested."""

    holds: list[Hold]
    makespan: float

    def of(self, task: str) -> list[Hold]:
        """Return the holds of one task."""
        return [hold for hold in self.holds if hold.task == task]

    def seconds(self, task: str) -> float:
        """Return how long one task was held in all."""
        return sum(hold.seconds for hold in self.of(task))


def times_of(queue: list[Json]) -> Times:
    """Lay the sessions end to end."""
    now, began, open_claims, holds = 0.0, 0.0, {}, []
    first: float | None = None
    for record in queue:
        if "session" in record or "fix" in record:
            began, first = now, None
            continue
        if "final" in record:
            continue
        if record["state"] == "claimed" and first is None:
            first = record["mono"]
        if first is not None:
            now = max(now, began + record["mono"] - first)
        if record["state"] == "claimed":
            open_claims[record["task"]] = (record["executor"], now)
        elif record["task"] in open_claims:
            executor, start = open_claims.pop(record["task"])
            holds.append(Hold(record["task"], executor, start, now))
    return Times(holds, now)
