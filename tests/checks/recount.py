"""Recompute every figure of a run's summary from what the run left behind, and print each difference.

    python -m tests.checks.recount DIRECTORY [--run-verify]

Sources: queue.jsonl, ledger.jsonl, the transcripts, git (commits, trailers, trees), and the JUnit and coverage
reports in .git/evidence. Nothing of the program is imported; what each figure means is written down here again,
after docs/run-directory.md. Tokens are counted from the endpoint's own events.

Not to be recomputed, so taken over: the texts of `facts`, `flaky`, `red_before`, `left_out`, `own_coverage`, the
seconds of a merge, how the verify commands ended, and of a fix task how many passing tests it added and whether it left
the whole red. With --run-verify the commands are run again, unconfined, in a copy of the commit.

Exit code 0 when all is equal, 1 when something differs, 2 when there is nothing to compare.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tests.checks.run_left import Commit, Json, Left, Times, journal, times_of

KINDS = ("src", "tests", "docs")
SETTLED = ("merged", "failed", "blocked")
TOKENS = {
    "input": "input_tokens",
    "cache_write": "cache_creation_input_tokens",
    "cache_read": "cache_read_input_tokens",
    "output": "output_tokens",
}
COPIES = ("docs/execution_plan.json", "docs/execution_summary.json")
OF_A_FIX = ("corrections", "verify", "whole")
LISTED = 200
"""Paths that a list of files shows at most."""


def critical_path(plan: Json, fixes: Iterable[str], times: Times) -> float:
    """Return the longest path through the dependencies; fix tasks follow all others, one after the other."""
    ends: dict[str, float] = {}
    waiting = list(plan["tasks"])
    while waiting:
        task = next(task for task in waiting if all(other in ends for other in task["dependencies"]))
        before = max((ends[other] for other in task["dependencies"]), default=0.0)
        ends[task["id"]] = before + times.seconds(task["id"])
        waiting.remove(task)
    return max(ends.values()) + sum(times.seconds(fix) for fix in fixes)


def parallelism(left: Left, times: Times) -> Json:
    """Return how well the executors were used."""
    busy: dict[int, float] = {}
    for hold in times.holds:
        busy[hold.executor] = busy.get(hold.executor, 0.0) + hold.seconds
    work = sum(hold.seconds for hold in times.holds)
    started = [record["executors"] for record in left.queue if "session" in record]
    return {
        "executors_used": len(busy),
        "executors_started": max(started, default=0),
        "executors_budget": left.scenario["max_executors"],
        "sessions": len(started),
        "makespan_s": times.makespan,
        "work_s": work,
        "critical_path_s": critical_path(left.plan, left.fixes, times),
        "speedup": work / times.makespan if times.makespan else None,
        "utilisation": {f"executor_{k}": busy[k] / times.makespan if times.makespan else 0.0 for k in sorted(busy)},
    }


# How much: the ledger


def usage_of(events: str) -> Json:
    """Return what the endpoint's own events say; later figures replace earlier ones."""
    usage: Json = {}
    for line in events.split("\n"):
        event = json.loads(line[5:]) if line.startswith("data:") else {}
        for part in (event.get("message", {}).get("usage"), event.get("usage")):
            if isinstance(part, dict):
                usage |= {name: figure for name, figure in part.items() if figure is not None}
    return usage


def counted(figure: Any) -> int:
    """Return a number of tokens as it is, and 0 for what can be none."""
    return figure if type(figure) is int and 0 <= figure <= 10**9 else 0


def spending(ledger: list[Json], task: str | None) -> Json:
    """Return what one task bought, or all of them and the planner."""
    own = [record for record in ledger if task in (None, record["task"])]
    of_kind = {kind: [record for record in own if record["kind"] == kind] for kind in ("intent", "answer", "fault")}
    intents, answers = of_kind["intent"], of_kind["answer"]
    usages = [usage_of(answer["events"]) for answer in answers]
    turns = {(answer["task"], answer["attempt"], answer["turn"]) for answer in answers}
    doubts = list(doubtful(own))
    return {
        "model_calls": len(answers),
        "tokens": {ours: sum(counted(usage.get(name)) for usage in usages) for ours, name in TOKENS.items()},
        "cost_usd": sum((answer["usd"] or 0.0 for answer in answers), 0.0),
        "uncertain_cost_usd": sum((intent["bound_usd"] or 0.0 for intent, _ in doubts), 0.0),
        "recorded_cost_usd": sum((answer["recorded_usd"] or 0.0 for answer in answers), 0.0),
        "unpriced_calls": sum(answer["usd"] is None for answer in answers),
        "retries": sum(intent["try"] > 1 for intent in intents),
        "bought_again": len(answers) - len(turns),
        "changed_bodies": sum(1 for _ in changed(own)),
        "open_calls": sum(fault is None for _, fault in doubts),
    }


def doubtful(records: list[Json]) -> Iterator[tuple[Json, Json | None]]:
    """Yield each try of which nobody knows what it cost: with the fault or unpriced answer, or None without an end."""
    open_tries: dict[int, Json] = {}
    for record in records:
        if record["kind"] == "intent":
            open_tries[record["call"]] = record
            continue
        intent = open_tries.pop(record["call"])
        unpriced = record["kind"] == "answer" and record["usd"] is None
        if unpriced or (record["kind"] == "fault" and record["ambiguous"]):
            yield intent, record
    yield from ((intent, None) for intent in open_tries.values())


def changed(records: list[Json]) -> Iterator[Json]:
    """Yield the first try of each call whose turn had an answer, to another request."""
    answered: dict[tuple[Any, ...], set[str]] = {}
    for record in records:
        turn = (record["task"], record["attempt"], record["turn"])
        if record["kind"] == "answer":
            answered.setdefault(turn, set()).add(record["hash"])
        elif record["kind"] == "intent" and record["try"] == 1 and record["turn"] and turn in answered:
            yield record


def planning(left: Left) -> Json:
    """Return the planner's share."""
    answers = [record for record in left.ledger if record["kind"] == "answer" and record["task"] == "plan"]
    return {
        "complexity": left.plan["complexity"]["level"],
        "endpoint_s": sum((answer["endpoint_s"] for answer in answers), 0.0),
        **spending(left.ledger, "plan"),
    }


# What: git and the reports


def counts(report: list[tuple[str, str]] | None) -> Json:
    """Return tests by ending."""
    endings = Counter(ending for _, ending in report or [])
    return {name: endings[name] for name in ("passed", "failed", "skipped")}


def merge_of(left: Left, task: Json, attempt: int) -> Commit | None:
    """Return the commit that brought a task's work."""
    wanted = {"Task": task["id"], "Attempt": str(attempt)}
    found = [commit for commit in left.commits if wanted.items() <= commit.trailers.items()]
    if len(found) > 1:
        sys.exit(f"{task['id']} was merged {len(found)} times: {', '.join(commit.id for commit in found)}")
    return found[0] if found else None


def files_of(left: Left, commit: Commit) -> dict[str, list[str]]:
    """Return the files that a commit created, changed and deleted."""
    shown = left.git("diff-tree", "-r", "-z", "--no-renames", "--name-status", commit.parent, commit.id).decode()
    fields = shown.split("\0")[:-1]
    pairs = list(zip(fields[::2], fields[1::2], strict=True))
    kinds = {"created": "A", "changed": "MT", "deleted": "D"}
    return {kind: sorted(path for letter, path in pairs if letter in letters) for kind, letters in kinds.items()}


def listed(paths: list[str]) -> list[str]:
    """Return a list as a summary shows it."""
    return paths[:LISTED] + [f"… and {len(paths) - LISTED} more"] * (len(paths) > LISTED)


def evidence_of(left: Left, task: Json, attempt: int, told: Json) -> Json:
    """Return what was checked about a merge; `told` has what cannot be recomputed."""
    commit = merge_of(left, task, attempt)
    if commit is None:
        return {}
    files = files_of(left, commit)
    written = sorted(files["created"] + files["changed"])
    report = left.report(f"{task['id']}.{attempt}.junit.xml")
    tests = counts(report)
    before = next((c.trailers.get("Tests-Passed", "0") for c in left.commits if c.id == commit.parent), "0")
    # Where tests failed before, the trunk was measured again, and no file keeps that figure.
    known = told["red_before"] or task["id"] in left.fixes
    added = told["tests"]["added"] if known else tests["passed"] - int(before)
    own = sum(ending == "passed" and file in task["files"] for file, ending in report or [])
    return {
        "commit": commit.id,
        "files": {kind: {"count": len(paths), "paths": listed(paths)} for kind, paths in files.items()},
        "tests": {**tests, "added": added},
        **({"own_coverage": told["own_coverage"]} if "own_coverage" in told else {}),
        "tested": "merged and tested" if tests["passed"] and (added > 0 or own) else "merged, not tested",
        "left_out": told["left_out"],
        "unplanned": listed([path for path in files["created"] if path not in task["files"]]),
        "also_changed": listed([path for path in files["changed"] if path not in task["files"]]),
        "not_checked": listed([path for path in written if not is_checked(path)]),
        "flaky": told["flaky"],
        "red_before": told["red_before"],
        **({name: told[name] for name in OF_A_FIX} if task["id"] in left.fixes else {}),
        "seconds": told["seconds"],
        **ended_early(left, task, attempt),
    }


def ended_early(left: Left, task: Json, attempt: int) -> Json:
    """Return why the merged conversation ended before its model said so; empty where it said so."""
    name = task["id"] if attempt == 1 else f"{task['id']}.{attempt}"
    records = [record for path in left.root.glob(f"executor_*/{name}.jsonl") for record in journal(path)]
    reason = next((r["reason"] for r in reversed(records) if r["kind"] == "submitted"), "")
    return {} if not reason or reason.startswith("unknown stop reason") else {"ended_early": reason}


def is_checked(path: str) -> bool:
    """Return whether a file of this name is parsed before it is merged."""
    python = path.endswith(".py") and not path.startswith("docs/")
    return python or path.endswith((".json", ".toml"))


def final(left: Left, summary: Json, *, run_verify: bool) -> Json:
    """Return what was checked on the final trunk."""
    if summary["tests"] is None:
        return dict.fromkeys(("lines_of_code", "tests", "coverage_percent", "verify"))
    last = left.commits[-1]
    commit = last.parent if last.subject == "Describe the project" else last.id
    tests, facts = counts(left.report("final.junit.xml")), summary["tests"]["facts"]
    commands = [*corrected(left), *left.scenario["verify"]]
    codes = rerun(left, commit, commands) if run_verify else [check["code"] for check in summary["verify"]]
    outputs = [check["output"] for check in summary["verify"]]
    verify = [
        {"command": command, "code": code, "output": output}
        for command, code, output in zip(commands, codes, outputs, strict=True)
    ]
    return {
        "green": not facts and tests["passed"] > 0 and not tests["failed"] and not any(codes),
        "commit": commit,
        "lines_of_code": {kind: lines(left, commit, kind) for kind in KINDS},
        "tests": {"total": sum(tests.values()), **tests, "facts": facts},
        "coverage_percent": coverage(left),
        "verify": verify,
    }


def corrected(left: Left) -> list[str]:
    """Return the plan's commands with the corrections that fix tasks made."""
    commands: list[str] = list(left.plan["verify"])
    for one in left.corrections:
        commands = [one["replacement"] if command == one["command"] else command for command in commands]
    return commands


def fix_of(left: Left, times: Times, fix: str, told: Json) -> Json:
    """Return a fix task's part of the summary: that of a task which owns all files of the plan."""
    files = {path for task in left.plan["tasks"] for path in task["files"]}
    record = left.fixes[fix]
    red = [fact.strip().partition("\n")[0].rstrip(":") for fact in record["tests"]]
    for failed in record["verify"]:
        how = "did not end in time" if failed["timed_out"] else f"ended with exit code {failed['code']}"
        red.append(f"`{failed['command']}` {how}")
    return {**task_of(left, times, {"id": fix, "name": "Correct the whole", "files": files}, told), "red": red}


def lines(left: Left, commit: str, kind: str) -> int:
    """Return the non-blank lines of text below one folder of a commit."""
    total = 0
    for entry in left.git("ls-tree", "-r", "-z", commit, "--", f"{kind}/").decode().split("\0")[:-1]:
        told, _, path = entry.partition("\t")
        mode, _, name = told.split(" ")
        left_out = mode == "120000" or path in COPIES
        content = b"\0" if left_out else left.git("cat-file", "blob", name)
        if b"\0" not in content:
            total += sum(bool(line.strip()) for line in content.splitlines())
    return total


def coverage(left: Left) -> float | None:
    """Return the share of src that the tests ran, summed over its files."""
    path = left.root / ".git" / "evidence" / "coverage.json"
    if not path.exists():
        return None
    files = [file["summary"] for file in json.loads(path.read_text())["files"].values()]
    statements = sum(file["num_statements"] for file in files)
    return 100.0 * sum(file["covered_lines"] for file in files) / statements if statements else 100.0


def rerun(left: Left, commit: str, commands: list[str]) -> list[int]:
    """Return the exit codes of the verify commands, run one after the other in a copy of the commit."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with tempfile.TemporaryDirectory() as folder:
        archive = left.git("archive", commit)
        subprocess.run(["tar", "-x", "-C", folder], input=archive, check=True)
        return [
            subprocess.run(
                ["bash", "-c", command], cwd=folder, env={**os.environ, "PATH": path}, capture_output=True, check=False
            ).returncode
            for command in commands
        ]


# The whole


def task_of(left: Left, times: Times, task: Json, told: Json) -> Json:
    """Return one task's part of the summary."""
    moves, holds = left.moves(task["id"]), times.of(task["id"])
    last: Json = moves[-1] if moves else {"state": "queued", "attempt": 1}
    attempt: int = last["attempt"]
    claims = [move for move in moves if move["state"] == "claimed" and move["attempt"] == attempt]
    folder = claims[0]["executor"] if claims else None
    merged = last["state"] == "merged"
    evidence = evidence_of(left, task, attempt, told["evidence"]) if merged else {}
    name = task["id"] if attempt == 1 else f"{task['id']}.{attempt}"
    transcript = journal(left.root / f"executor_{folder}" / f"{name}.jsonl")
    return {
        "id": task["id"],
        "name": task["name"],
        "state": last["state"],
        "reason": last.get("why", ""),
        "claimed": bool(holds),
        "executed": any(record["kind"] == "submitted" for record in transcript),
        "verified": evidence.get("tested") == "merged and tested",
        "merged": merge_of(left, task, attempt) is not None,
        "executor": f"executor_{folder}" if folder else None,
        "attempt": attempt,
        "deaths": sum(bool(move.get("died")) for move in moves if move["attempt"] == attempt),
        "started_s": holds[0].start if holds else None,
        "ended_s": holds[-1].end if holds else None,
        "duration_s": times.seconds(task["id"]),
        "files_created": evidence["files"]["created"]["count"] if evidence else 0,
        **spending(left.ledger, task["id"]),
        "evidence": evidence,
    }


def recount(left: Left, summary: Json, *, run_verify: bool = False) -> Json:
    """Return the summary as it should be."""
    times = times_of(left.queue)
    told = {task["id"]: task for task in summary["tasks"]}
    tasks = [task_of(left, times, task, told[task["id"]]) for task in left.plan["tasks"]]
    told_fixes = {fix["id"]: fix for fix in summary.get("fixes", [])}
    fixes = [fix_of(left, times, fix, told_fixes[fix]) for fix in left.fixes]
    corrected = {"fixes": fixes, "corrections": left.corrections}
    recorded = any("final" in record for record in left.queue)
    states = Counter(task["state"] for task in tasks)
    checked = final(left, summary, run_verify=run_verify)
    done = states["merged"] == len(tasks) and checked.get("green")
    settled = all(task["state"] in SETTLED for task in [*tasks, *fixes])
    return {
        "version": 1,
        "run": left.scenario["run"],
        "requirements": left.scenario["requirements"],
        "status": ("done" if done else "failed") if settled else "incomplete",
        "total_tasks": len(tasks),
        "completed": states["merged"],
        "failed": states["failed"],
        "blocked": states["blocked"],
        "success_rate": states["merged"] / len(tasks),
        "total_files_created": sum(task["files_created"] for task in [*tasks, *fixes]),
        **checked,
        **parallelism(left, times),
        **spending(left.ledger, None),
        "planning": planning(left),
        "tasks": tasks,
        # The first version planned no fix tasks, and wrote neither of the two.
        **{name: value for name, value in corrected.items() if value or name in summary or recorded},
    }


def differences(wanted: Any, found: Any, where: str = "") -> Iterator[str]:
    """Yield a line for each place in which two JSON values differ; figures may differ by their rounding."""
    if isinstance(wanted, dict) and isinstance(found, dict):
        for key in {**wanted, **found}:
            yield from differences(wanted.get(key, "(absent)"), found.get(key, "(absent)"), f"{where}.{key}".strip("."))
    elif isinstance(wanted, list) and isinstance(found, list) and len(wanted) == len(found):
        for index, pair in enumerate(zip(wanted, found, strict=True)):
            yield from differences(*pair, f"{where}[{index}]")
    elif isinstance(wanted, float) and type(found) in (int, float):
        if abs(wanted - found) > _rounding(where):
            yield f"{where}: recomputed {wanted!r}, the summary says {found!r}"
    elif wanted != found or type(wanted) is not type(found):
        yield f"{where}: recomputed {wanted!r}, the summary says {found!r}"


def _rounding(where: str) -> float:
    digits = 6 if where.endswith("_usd") else 2 if where.endswith("_percent") else 3
    return 1e-12 if where == "success_rate" else 0.5000001 * 10.0**-digits


def check(directory: Path, *, run_verify: bool = False) -> int:
    """Print what differs; the exit code."""
    try:
        summary = json.loads((directory / "execution_summary.json").read_text())
    except (OSError, ValueError) as error:
        print(f"no summary: {error}", file=sys.stderr)
        return 2
    found = list(differences(recount(Left(directory), summary, run_verify=run_verify), summary))
    for line in found:
        print(line)
    return 1 if found else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Recompute every figure of a run's summary.")
    parser.add_argument("directory", type=Path, help="a run's output directory")
    parser.add_argument("--run-verify", action="store_true", help="run the verify commands again, unconfined")
    arguments = parser.parse_args()
    sys.exit(check(arguments.directory.resolve(), run_verify=arguments.run_verify))
