"""Writes commands.md: the help of every command, as the program itself prints it.

python docs/render_commands.py

A test fails while page and program differ.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import typer.main

from orchestrator import app
from parallel_orchestrator.cli.app import COMMANDS, load_command

PAGE = Path(__file__).parent / "commands.md"
PROGRAM = "parallel-orchestrator"

_HEAD = """\
# Commands

Made by `docs/render_commands.py` from the program itself: what `--help` prints, 80 columns wide. In a clone
`python orchestrator.py` is the same as `parallel-orchestrator`.

**For programs.** `--json` prints exactly one document on standard output, also on failure; progress and messages go to
standard error. `version` is 1. `error.kind` is a word for the class of error (`usage`, `budget_reached`,
`directory_held`, `interrupted`, …; `unsuccessful` where the command came to its end and `result` tells what failed),
`error.next` says how to go on where that is known, and the exit code is the process's own:

```json
{"version": 1, "command": "status", "ok": true, "result": {"state": "running"}}
{"version": 1, "command": "resume", "ok": false, "error": {"kind": "usage", "message": "…", "exit_code": 2}}
```

**Completion.** The option `--install-completion` teaches the current shell (bash, zsh, fish) the commands,
their options and their values; `--show-completion` prints what it would install.

"""


def page() -> str:
    """The page as it should be."""
    command = typer.main.get_command(app)
    with command.make_context(PROGRAM, ["schema"], terminal_width=80, max_content_width=80) as context:
        told = [_section(PROGRAM, command.get_help(context))]
        for name in COMMANDS:
            one = load_command(name)
            with one.make_context(name, [], parent=context, resilient_parsing=True, terminal_width=80) as inner:
                told.append(_section(f"{PROGRAM} {name}", one.get_help(inner)))
    return _HEAD + "\n".join(told)


def _section(title: str, text: str) -> str:
    lines = "\n".join(line.rstrip() for line in text.splitlines())
    return f"## {title}\n\n```text\n{lines}\n```\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
