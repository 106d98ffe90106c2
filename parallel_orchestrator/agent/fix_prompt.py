"""The first message of a conversation on a fix task. What all conversations share comes before it, as for any task."""

from __future__ import annotations

import json

from parallel_orchestrator.records.fix import CORRECTIONS, FixTask
from parallel_orchestrator.records.journals.red_whole import FailedCommand, RedWhole, how_it_failed

_BEGIN = """\
# Your task: {id}, {name}

Every task of the plan is merged. Then the whole was tested, and it is red. You correct it. No one else is at work, \
so your task differs from what is said above: you own the whole project. You may change, add and remove any file under \
src/, tests/ and docs/, no matter who wrote it."""

_RULES = """\
## Rules

- Correct the cause, in the code or, where a test contradicts the requirement or the contract, in that test.
- Every test that passes now must pass afterwards, under its name. A test that fails now is corrected; it is never \
removed, skipped or emptied.
- Change no more than the correction needs.
- Run the tests and the commands yourself before you finish. They will be run again on your work."""

_CORRECTION = """\
## A command that cannot work

{commands}

The command itself may be wrong: it does not start, or it names a file or module that the plan does not have. If you \
can make the project meet it within the plan and the contract, do that. If not, put another command in its place: \
write the file {file} in the project root, which is not merged, with this content:

```json
{example}
```

`command` is the old command exactly as it stands here. `replacement` proves what the old one was meant to prove; it \
must pass, and must fail where the project is missing. `reason` says in a sentence why the old one cannot work."""


def fix_text(task: FixTask) -> str:
    """The task, the facts, what may be done, and how to finish."""
    parts = [_BEGIN.format(id=task.id, name=task.name), *_facts(task.red), _RULES]
    if wrong := [failed.command for failed in task.red.verify if failed.correctable]:
        example = [{"command": wrong[0], "replacement": "…", "reason": "…"}]
        listed = "\n".join(f"- {command}" for command in wrong)
        parts.append(
            _CORRECTION.format(commands=listed, file=CORRECTIONS, example=json.dumps(example, ensure_ascii=False))
        )
    accepted = "\n".join(f"- {line}" for line in task.acceptance)
    return "\n\n".join([*parts, f"## It is accepted when\n\n{accepted}"])


def _facts(red: RedWhole) -> list[str]:
    parts = []
    if red.tests:
        parts.append("## What the tests say\n\n" + "\n\n".join(_quoted(fact) for fact in red.tests))
    if red.verify:
        parts.append("## Which commands fail\n\n" + "\n\n".join(_command(failed) for failed in red.verify))
    if not parts:
        parts.append("## What is red\n\nRun the tests and the plan's verify commands to see it.")
    return parts


def _command(failed: FailedCommand) -> str:
    how = how_it_failed(failed.code, failed.timed_out)
    shown = f"The command, run with bash in the project root:\n\n{_quoted(failed.command)}\n\nIt {how}."
    output = failed.output.strip()
    return f"{shown} The end of its output:\n\n{_quoted(output)}" if output else f"{shown} It printed nothing."


def _quoted(text: str) -> str:
    """Text in a fence that is longer than any in it."""
    longest = max((len(run) for line in text.splitlines() for run in [line.strip()] if set(run) == {"`"}), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{text}\n{fence}"
