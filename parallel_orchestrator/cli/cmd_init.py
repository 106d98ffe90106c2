"""init and schema: a scenario file to begin with, and the schema by which editors check it."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from parallel_orchestrator.cli.output import CliResult
from parallel_orchestrator.config.schema import SCHEMA_NAME, TEMPLATE, json_schema, schema_text
from parallel_orchestrator.records.errors import UsageError
from parallel_orchestrator.system.invocation import invoked_as


def init(
    file: Annotated[Path, typer.Argument(help="The file to write.", metavar="FILE")] = Path("scenarios.yaml"),
) -> CliResult:
    """Write a scenario file to begin with.

    It is commented and runs at once, on a recording. Beside it comes scenarios.schema.json, by which editors
    complete and check it. Nothing is ever overwritten.
    """
    quoted = shlex.quote(str(file))
    if not _write_new(file, TEMPLATE.format(program=invoked_as(), file=quoted)):
        raise UsageError(f"{file} is there already: name another file")
    schema = file.with_name(SCHEMA_NAME)
    beside = "is written" if _write_new(schema, schema_text()) else "was there already and stays"
    following = f"{invoked_as()} run --config {quoted}"
    text = f"{file} is written\n  schema:   {schema} {beside}\n  next:     {following}"
    return CliResult(text, {"file": str(file), "schema": str(schema), "next": following})


def schema() -> CliResult:
    """Print the JSON Schema of scenario files.

    Editors complete and check scenario files by it.
    """
    return CliResult(schema_text().rstrip(), {"schema": json_schema()})


def _write_new(file: Path, text: str) -> bool:
    """Write a file, and say whether it was not there. Raises UsageError."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("x", encoding="utf-8") as new:
            new.write(text)
    except FileExistsError:
        return False
    except OSError as error:
        raise UsageError(f"cannot write {file}: {error.strerror}") from error
    return True
