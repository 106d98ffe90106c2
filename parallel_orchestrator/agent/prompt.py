"""What the model is sent.

The front of every request of a run is the same, byte for byte, for all executors: tools,
system prompt, requirement, contract and plan. The API's prompt cache works on such a prefix, so
it is bought once; a breakpoint marks its end. The task comes after it, as the first user message.
Nothing here names an executor, a claim, a path of the host or a time.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from typing import Any

from parallel_orchestrator.agent.fix_prompt import fix_text
from parallel_orchestrator.agent.transcript import Conversation
from parallel_orchestrator.messages_api.claude_code_wire import request_of as claude_code_request
from parallel_orchestrator.messages_api.tool_calls import BASH, EDITOR
from parallel_orchestrator.records.fix import FixTask
from parallel_orchestrator.records.journals.transcript import Opening
from parallel_orchestrator.records.plan import Plan, Task
from parallel_orchestrator.records.scenario import Profile

MAX_TOKENS = 16_000
"""Tokens of an answer; doubled each time when one did not fit."""

_CACHED = {"type": "ephemeral"}


class Rejection(Enum):
    """Why the merge queue did not take a task's work, in the words of logs and summaries."""

    CONFLICT = "conflicts with what others merged"
    RED = "the merged tests fail"
    STILL_RED = "leaves the whole red"
    REFUSED = "cannot be merged as it is"


_WHAT_HAPPENED = {
    Rejection.CONFLICT: "It conflicts with work that other engineers merged after you started.",
    Rejection.RED: "The orchestrator merged it with the work of the other engineers and ran all tests. "
    "The result cannot be accepted.",
    Rejection.STILL_RED: "The orchestrator ran all tests and verify commands on it. The whole is still red.",
    Rejection.REFUSED: "The orchestrator checked your files before the merge and cannot accept them.",
}
_WHAT_NEXT = {
    Rejection.CONFLICT: "The workspace now contains your work merged with theirs. Where both changed the same lines, "
    "the file contains both versions between conflict markers: the trunk's after <<<<<<<, yours before >>>>>>>. "
    "Combine them so that both changes work, and delete the markers. Then run the tests",
    Rejection.RED: "The workspace now contains your work merged with theirs. Fix every point above. Then run the tests",
    Rejection.STILL_RED: "The workspace is as you left it. Fix every point above. Then run the tests and the commands",
    Rejection.REFUSED: "The workspace is as you left it. Fix every point above. Then run the tests",
}

_SYSTEM = """\
You are one of several software engineers who build one project at the same time. Each engineer has one task of a \
shared plan. Complete your task without asking questions: no person can answer while you work.

Where you work
- The project root is /workspace. {paths} It contains the work of the tasks that were merged before you started.
- `src` is the import root: import src/app/core.py as app.core. Tests are in tests/, documentation is in docs/.
- pyproject.toml already configures pytest. Do not change it.

Your tools
{tools}
- To run the program yourself, set the import root: PYTHONPATH=src python -m app

What to deliver
- Create and change only the files that your task owns. Other engineers are writing the other files now; rely on the \
contract for what those files will provide.
- Follow the contract exactly: names, signatures, data shapes.
- If your task owns Python files in src, write tests that pass, in the tests/test_*.py files that it owns. The tests \
import only your own files and those of the tasks that yours depends on. Test behaviour: a test must fail when the \
body of the function that it tests is removed. Tests that only import your code, and tests that do not pass every \
time, are sent back.
- Document your part in the docs/*.md that your task owns: a title, one paragraph that says what the part is, and, if \
there is something to run, a section `## Run` with the exact command in a ```sh block.
- Write code that a senior engineer would like to read: small functions, clear names, docstrings, type hints, no dead \
code, errors handled where they occur.

How to finish
- Run your tests before you finish and fix every failure. Delete your scratch files.
- Then answer with a short report and no tool call: what you built, what you checked, what the other engineers should \
know. The orchestrator then merges your work and runs the tests of the whole project. If that fails, it sends you the \
facts and you fix them.
"""

SYSTEM = _SYSTEM.format(
    paths="Use only paths relative to it.",
    tools="""\
- str_replace_based_edit_tool views, creates and changes files.
- bash runs a command in the project root. Each call starts a fresh shell: variables, directory changes and \
background processes of earlier calls are gone. When a command ends, every process that it started is killed. There is \
no network, so you cannot install anything. A command may run for two minutes.""",
)

CLAUDE_CODE_SYSTEM = _SYSTEM.format(
    paths="Use no path outside it.",
    tools="""\
- Do not use git: the files that you leave in the project root are your work.
- There is no network, so you cannot install anything. A command may run for two minutes. A process that it leaves \
running may be killed at any time.""",
)

_PLAIN_TOOLS: list[dict[str, Any]] = [
    {
        "name": EDITOR,
        "description": (
            "View, create and change text files. Commands: view (a file with line numbers, optionally only the lines "
            "of view_range, or a directory), create (write a whole file; needs file_text), str_replace (replace "
            "old_str, which must occur exactly once, with new_str), insert (insert insert_text after line insert_line; "
            "0 is the top)."
        ),
        "input_schema": {
            "type": "object",
            "properties": {
                "command": {"type": "string", "enum": ["view", "create", "str_replace", "insert"]},
                "path": {"type": "string", "description": "Path relative to the project root."},
                "view_range": {
                    "type": "array",
                    "items": {"type": "integer"},
                    "description": "For view: [first line, last line]; -1 is the end.",
                },
                "file_text": {"type": "string", "description": "For create: the whole content of the file."},
                "old_str": {"type": "string", "description": "For str_replace: the exact text to replace."},
                "new_str": {"type": "string", "description": "For str_replace: the text that replaces it."},
                "insert_line": {"type": "integer", "description": "For insert: the line after which to insert."},
                "insert_text": {"type": "string", "description": "For insert: the text to insert."},
            },
            "required": ["command", "path"],
        },
    },
    {
        "name": BASH,
        "description": "Run a command with bash in the project root. Each call starts a fresh shell.",
        "input_schema": {
            "type": "object",
            "properties": {
                "command": {"type": "string", "description": "The command to run."},
                "restart": {"type": "boolean", "description": "Restart the tool."},
            },
        },
    },
]

_OWN_TOOLS: list[dict[str, Any]] = [
    {"type": "text_editor_20250728", "name": EDITOR},
    {"type": "bash_20250124", "name": BASH},
]


def opening(*, requirement: str, plan: Plan, task: Task, model: str, profile: Profile) -> Opening:
    """What a conversation on `task` starts with, for `Transcript.begin`: model, profile, tools, system, task."""
    shared: dict[str, Any] = {"type": "text", "text": _shared_text(requirement, plan)}
    if profile == "anthropic":
        shared["cache_control"] = _CACHED
    return Opening(
        model=model,
        profile=profile,
        tools=_OWN_TOOLS if profile == "anthropic" else _PLAIN_TOOLS,
        system=[{"type": "text", "text": SYSTEM}, shared],
        task=[{"type": "text", "text": _task_text(plan, task)}],
    )


def claude_code_texts(requirement: str, plan: Plan, task: Task) -> tuple[str, str]:
    """The same for Claude Code, which has tools and a system prompt of its own: what is added to that, and the task."""
    return f"{CLAUDE_CODE_SYSTEM}\n{_shared_text(requirement, plan)}", _task_text(plan, task)


def send_back_text(why: Rejection, facts: Iterable[str]) -> str:
    """What a conversation is sent when its work was not taken: what happened, the facts, what to do next."""
    listed = "\n\n".join(facts)
    return (
        f"Your work is not merged yet. {_WHAT_HAPPENED[why]}\n\n{listed}\n\n"
        f"{_WHAT_NEXT[why]} and finish with a short report, as before."
    )


def restart_text(ended: str, why: Rejection, facts: Iterable[str]) -> str:
    """What a new conversation adds to its task: why the earlier one stopped, the facts, what to do next."""
    listed = "\n\n".join(facts)
    return (
        f"An earlier conversation worked on this task and was stopped: {ended}. The workspace contains its work. "
        f"That work is not accepted. {_WHAT_HAPPENED[why]}\n\n{listed}\n\n"
        f"Finish the work. First look at the files that exist. {_WHAT_NEXT[why]} and finish with a short report. "
        "Read only what you need: the space for a conversation is limited."
    )


def build_request(conversation: Conversation) -> dict[str, Any]:
    """The next request of a conversation: arguments of `messages.create`, made of its transcript alone."""
    start = conversation.start
    if start.backend == "claude-code":
        return claude_code_request(start, conversation.model, conversation.messages, conversation.discarded_cuts)
    request = {
        "model": conversation.model,
        "max_tokens": MAX_TOKENS * 2**conversation.discarded_cuts,
        "system": start.system,
        "tools": start.tools,
        "messages": conversation.messages,
    }
    if start.profile == "anthropic":
        # At the top level: a breakpoint that moves along with the end of the conversation.
        request["cache_control"] = _CACHED
    return request


def _shared_text(requirement: str, plan: Plan) -> str:
    return "\n\n".join(
        [
            f"# The requirement\n\n{requirement.strip()}",
            f"# The contract\n\n{plan.contract.strip() or 'None.'}",
            f"# The plan\n\n{plan.integration_notes.strip()}".rstrip(),
            *(_planned(task) for task in plan.tasks),
        ]
    )


def _planned(task: Task) -> str:
    after = f", after {', '.join(task.dependencies)}" if task.dependencies else ""
    return f"## {task.id}: {task.name}{after}\n\n{task.description.strip()}\n\nFiles:\n{_bullets(task.files)}"


def _task_text(plan: Plan, task: Task) -> str:
    if isinstance(task, FixTask):
        return fix_text(task)
    parts = [
        f"# Your task: {task.id}, {task.name}\n\n{task.description.strip()}",
        f"## Files that you own\n\n{_bullets(task.files)}",
    ]
    if task.acceptance:
        parts.append(f"## Acceptance criteria\n\n{_bullets(task.acceptance)}")
    if task.dependencies:
        names = [f"{other}: {plan.task(other).name}" for other in task.dependencies]
        parts.append(f"## Merged tasks that you build on\n\n{_bullets(names)}")
    if task.integration_notes.strip():
        parts.append(f"## Integration notes\n\n{task.integration_notes.strip()}")
    return "\n\n".join(parts)


def _bullets(items: Iterable[str]) -> str:
    return "\n".join(f"- {item}" for item in items)
