"""What the model is sent.

The front of every request of a run is the same, byte for byte, for all executors: tools,
system prompt, requirement, contract and plan. The API's prompt cache works on such a prefix, so
it is bought once; a breakpoint marks its end. The task comes after it, as the first user message.
Nothing here names an executor, a claim, a path of the host or a time.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from parallel_orchestrator.agent.claude_code.wire import request_of as claude_code_request
from parallel_orchestrator.agent.tools import BASH, EDITOR
from parallel_orchestrator.agent.transcript import Conversation
from parallel_orchestrator.records.plan import Plan, Task
from parallel_orchestrator.records.scenario import Profile

MAX_TOKENS = 16_000
"""Tokens of an answer; doubled each time when one did not fit."""

_CACHED = {"type": "ephemeral"}

_SYSTEM = """\
You are one of several software engineers who build one project at the same time. Each has one task of a common plan. \
Work on your own task to its end, without asking back: nobody reads along until you have finished.

Where you work
- The project root is /workspace. {paths} It holds what the finished tasks have merged so far.
- `src` is the import root: src/app/core.py is imported as app.core. Tests are in tests/, documentation is in docs/.
- pytest is set up already in pyproject.toml, which you leave as it is.

Your tools
{tools}
- To run the program by hand, set the import root: PYTHONPATH=src python -m app

What to deliver
- Create and change only the files that your task owns. Others are being written by somebody else at this moment; \
rely on the contract for what they will offer.
- Keep to the contract exactly: names, signatures, data shapes.
- A task with Python in src adds tests that pass, in its own tests/test_*.py. They import only your own files and \
those of the tasks that yours depends on. Test behaviour: a test has to fail when the function that it tests is emptied.
- Document your part in the docs/*.md that your task owns: a title, one paragraph on what it is, and, where there is \
something to run, a section `## Run` with the exact command in a ```sh block.
- Write code that a senior engineer would be glad to read: small functions, clear names, docstrings, type hints, no \
dead code, errors handled where they arise.

How to finish
- Run your tests before you finish, and mend what fails. Leave no scratch files behind.
- Then answer with a short report, without a tool call: what you built, what you checked, what others should know. \
Your work is then merged and tested together with everybody else's. Should that fail, you are told what happened.
"""

SYSTEM = _SYSTEM.format(
    paths="Use only paths relative to it.",
    tools="""\
- str_replace_based_edit_tool views, creates and changes files.
- bash runs a command in the project root. Every call is a fresh shell: no variable, directory or background process \
of an earlier call is there, and what a command leaves running is ended with it. There is no network, so nothing can \
be installed. A command may take two minutes.""",
)

CLAUDE_CODE_SYSTEM = _SYSTEM.format(
    paths="Use no path outside it.",
    tools="""\
- Nobody is there to be asked, and git is not used: whatever you leave in the project root is taken as your work.
- There is no network, so nothing can be installed. A command may take two minutes. What it leaves running may be \
ended at any time.""",
)

_PLAIN_TOOLS: list[dict[str, Any]] = [
    {
        "name": EDITOR,
        "description": (
            "View, create and change text files. Commands: view (a file with line numbers, optionally only the lines "
            "of view_range, or a directory), create (write a whole file; needs file_text), str_replace (replace "
            "old_str, which must occur exactly once, by new_str), insert (put insert_text after line insert_line; "
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
                "new_str": {"type": "string", "description": "For str_replace: what comes in its place."},
                "insert_line": {"type": "integer", "description": "For insert: the line after which to insert."},
                "insert_text": {"type": "string", "description": "For insert: the text to insert."},
            },
            "required": ["command", "path"],
        },
    },
    {
        "name": BASH,
        "description": "Run a command with bash in the project root. Every call is a fresh shell.",
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


def opening(*, requirement: str, plan: Plan, task: Task, model: str, profile: Profile) -> dict[str, Any]:
    """What a conversation on `task` starts with, for `Transcript.begin`: model, profile, tools, system, task."""
    shared: dict[str, Any] = {"type": "text", "text": _shared_text(requirement, plan)}
    if profile == "anthropic":
        shared["cache_control"] = _CACHED
    return {
        "model": model,
        "profile": profile,
        "tools": _OWN_TOOLS if profile == "anthropic" else _PLAIN_TOOLS,
        "system": [{"type": "text", "text": SYSTEM}, shared],
        "task": [{"type": "text", "text": _task_text(plan, task)}],
    }


def claude_code_texts(requirement: str, plan: Plan, task: Task) -> tuple[str, str]:
    """The same for Claude Code, which has tools and a system prompt of its own: what is added to that, and the task."""
    return f"{CLAUDE_CODE_SYSTEM}\n{_shared_text(requirement, plan)}", _task_text(plan, task)


def build_request(conversation: Conversation) -> dict[str, Any]:
    """The next request of a conversation: arguments of `messages.create`, made of its transcript alone."""
    start = conversation.start
    if start.get("backend") == "claude-code":
        return claude_code_request(start, conversation.messages, conversation.discarded_cuts)
    request = {
        "model": start["model"],
        "max_tokens": MAX_TOKENS * 2**conversation.discarded_cuts,
        "system": start["system"],
        "tools": start["tools"],
        "messages": conversation.messages,
    }
    if start["profile"] == "anthropic":
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
    parts = [
        f"# Your task: {task.id}, {task.name}\n\n{task.description.strip()}",
        f"## Files that you own\n\n{_bullets(task.files)}",
    ]
    if task.acceptance:
        parts.append(f"## It is accepted when\n\n{_bullets(task.acceptance)}")
    if task.dependencies:
        names = [f"{other}: {plan.task(other).name}" for other in task.dependencies]
        parts.append(f"## Merged already, to build on\n\n{_bullets(names)}")
    if task.integration_notes.strip():
        parts.append(f"## How it fits in\n\n{task.integration_notes.strip()}")
    return "\n\n".join(parts)


def _bullets(items: Iterable[str]) -> str:
    return "\n".join(f"- {item}" for item in items)
