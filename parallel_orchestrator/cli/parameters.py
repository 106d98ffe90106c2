"""The command line's options, each declared once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Requirement = Annotated[str, typer.Argument(help="What to build, in a sentence or more.", metavar="REQUIREMENT")]
Directory = Annotated[Path, typer.Argument(help="The run's output directory.", metavar="DIR")]
RunOrBatch = Annotated[Path, typer.Argument(help="The directory of a run, or of a batch.", metavar="DIR")]
MaxExecutors = Annotated[
    int | None, typer.Option(min=1, max=500, help="The most executors at once; the plan may need fewer. [5]")
]
OutputDir = Annotated[Path | None, typer.Option(help="Where the project goes. [outputs/<words of the requirement>]")]
Model = Annotated[str | None, typer.Option(help="Model of planner and executors. [claude-opus-5-5]")]
MaxCost = Annotated[float | None, typer.Option(min=0, help="Stop, resumable, when this many USD are spent.")]
MaxTurns = Annotated[int | None, typer.Option(min=1, help="Model answers in one conversation. [60]")]
TaskTimeout = Annotated[float | None, typer.Option(help="Minutes of a task's own time; waiting does not count. [30]")]
Sandbox = Annotated[
    str | None,
    typer.Option(
        help="auto | required | off: where agents' commands run. [auto]",
        autocompletion=lambda: ["auto", "required", "off"],
    ),
]
Backend = Annotated[
    str | None,
    typer.Option(
        help="api | claude-code: what planner and executors act through. [api]",
        autocompletion=lambda: ["api", "claude-code"],
    ),
]
ClaudeSettings = Annotated[
    str | None,
    typer.Option(
        help="none | host: whether Claude Code has your own settings, CLAUDE.md and MCP servers. [none]",
        autocompletion=lambda: ["none", "host"],
    ),
]
EndpointProfile = Annotated[
    str | None,
    typer.Option(
        help="anthropic | compatible. [by the endpoint's address]",
        autocompletion=lambda: ["anthropic", "compatible"],
    ),
]
Replay = Annotated[
    str | None,
    typer.Option(
        help="Replay a recording: a file, or simple | medium | complex.",
        autocompletion=lambda: ["simple", "medium", "complex"],
    ),
]
Speed = Annotated[float | None, typer.Option(help="A replay's latencies are divided by this. [1]")]
Follow = Annotated[bool, typer.Option("--follow", "-f", help="Go on showing until the run ends; Ctrl-C leaves it.")]
AllowInstall = Annotated[
    bool, typer.Option("--allow-install", help="Let the plan's packages be installed for the run.")
]
Prices = Annotated[Path | None, typer.Option(help="JSON file of prices that goes before the built-in table.")]
PlanFile = Annotated[Path | None, typer.Option("--plan", help="Start from this plan instead of asking the planner.")]
