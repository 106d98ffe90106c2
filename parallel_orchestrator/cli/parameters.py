"""The command line's options, each declared once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from parallel_orchestrator.cli import completion

MODEL, LIMITS, OUTPUT, SAFETY = "Model", "Limits", "Output", "Safety"
"""The groups in which --help shows the options."""

Requirement = Annotated[
    str | None,
    typer.Argument(help="What to build, in a sentence or more; or a text file that says so.", metavar="REQUIREMENT"),
]
RequirementsFile = Annotated[
    Path | None, typer.Option(help="A text file that says what to build.", metavar="FILE", show_default=False)
]
Directory = Annotated[
    Path, typer.Argument(help="The run's output directory.", metavar="DIR", autocompletion=completion.runs)
]
RunOrBatch = Annotated[
    Path, typer.Argument(help="The directory of a run, or of a batch.", metavar="DIR", autocompletion=completion.runs)
]
MaxExecutors = Annotated[
    int | None,
    typer.Option(
        min=1, max=500, help="The most executors at once; the plan may need fewer. [5]", rich_help_panel=LIMITS
    ),
]
OutputDir = Annotated[
    Path | None,
    typer.Option(help="Where the project goes. [outputs/<words of the requirement>]", rich_help_panel=OUTPUT),
]
Model = Annotated[
    str | None, typer.Option(help="Model of planner and executors. [claude-opus-5-5]", rich_help_panel=MODEL)
]
MaxCost = Annotated[
    float | None, typer.Option(min=0, help="Stop, resumable, when this many USD are spent.", rich_help_panel=LIMITS)
]
Yes = Annotated[
    bool,
    typer.Option(
        "--yes", "-y", help="Agree to a live run without --max-cost; nothing is asked.", rich_help_panel=LIMITS
    ),
]
MaxTurns = Annotated[
    int | None, typer.Option(min=1, help="Model answers in one conversation. [60]", rich_help_panel=LIMITS)
]
TaskTimeout = Annotated[
    float | None,
    typer.Option(help="Minutes of a task's own time; waiting does not count. [30]", rich_help_panel=LIMITS),
]
FixRounds = Annotated[
    int | None,
    typer.Option(min=0, help="Fix tasks that may correct a whole which is red at the end. [2]", rich_help_panel=LIMITS),
]
Sandbox = Annotated[
    str | None,
    typer.Option(
        help="auto | required | off: where agents' commands run. [auto]",
        autocompletion=lambda: ["auto", "required", "off"],
        rich_help_panel=SAFETY,
    ),
]
Backend = Annotated[
    str | None,
    typer.Option(
        help="api | claude-code: what planner and executors act through. [api]",
        autocompletion=lambda: ["api", "claude-code"],
        rich_help_panel=MODEL,
    ),
]
ClaudeSettings = Annotated[
    str | None,
    typer.Option(
        help="none | host: whether Claude Code has your own settings, CLAUDE.md and MCP servers. [none]",
        autocompletion=lambda: ["none", "host"],
        rich_help_panel=MODEL,
    ),
]
EndpointProfile = Annotated[
    str | None,
    typer.Option(
        help="anthropic | compatible. [by the endpoint's address]",
        autocompletion=lambda: ["anthropic", "compatible"],
        rich_help_panel=MODEL,
    ),
]
ModelOnResume = Annotated[
    str | None,
    typer.Option(help="Another model, for what no model has answered yet. [the run's own]", rich_help_panel=MODEL),
]
EndpointPatience = Annotated[
    str | None,
    typer.Option(
        help="How long the endpoint may send nothing until the run stops: 90s, 10m, 8h. [10m]", rich_help_panel=LIMITS
    ),
]
Replay = Annotated[
    str | None,
    typer.Option(
        help="Replay a recording: a file, or simple | medium | complex.",
        autocompletion=lambda: ["simple", "medium", "complex"],
        rich_help_panel=MODEL,
    ),
]
Speed = Annotated[
    float | None, typer.Option(help="A replay's latencies are divided by this. [1]", rich_help_panel=MODEL)
]
Follow = Annotated[bool, typer.Option("--follow", "-f", help="Go on showing until the run ends; Ctrl-C leaves it.")]
Fresh = Annotated[
    bool,
    typer.Option(
        "--fresh",
        help="Begin again where the directory holds a run, which is moved aside to DIR.1.",
        rich_help_panel=OUTPUT,
    ),
]
AllowInstall = Annotated[
    bool,
    typer.Option("--allow-install", help="Let the plan's packages be installed for the run.", rich_help_panel=SAFETY),
]
Prices = Annotated[
    Path | None, typer.Option(help="JSON file of prices that goes before the built-in table.", rich_help_panel=LIMITS)
]
PlanFile = Annotated[Path | None, typer.Option("--plan", help="Start from this plan instead of asking the planner.")]
