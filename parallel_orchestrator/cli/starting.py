"""Commands for the first minutes: a scenario file to begin with, and a look at whether everything is there."""

from __future__ import annotations

import os
import shlex
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from parallel_orchestrator.cli import parameters as p
from parallel_orchestrator.cli.answer import Answer
from parallel_orchestrator.records.errors import UsageError


class Starting:
    """One method a command; its docstring is its help."""

    def init(
        self,
        file: Annotated[Path, typer.Argument(help="The file to write.", metavar="FILE")] = Path("scenarios.yaml"),
    ) -> Answer:
        """Write a scenario file to begin with.

        It is commented and runs at once, on a recording. Beside it comes scenarios.schema.json, by which editors
        complete and check it. Nothing is ever overwritten.
        """
        from parallel_orchestrator.config.schema import SCHEMA_NAME, TEMPLATE, schema_text
        from parallel_orchestrator.system.invocation import invoked_as

        quoted = shlex.quote(str(file))
        if not _write_new(file, TEMPLATE.format(program=invoked_as(), file=quoted)):
            raise UsageError(f"{file} is there already: name another file")
        schema = file.with_name(SCHEMA_NAME)
        beside = "is written" if _write_new(schema, schema_text()) else "was there already and stays"
        following = f"{invoked_as()} run --config {quoted}"
        text = f"{file} is written\n  schema:   {schema} {beside}\n  next:     {following}"
        return Answer(text, {"file": str(file), "schema": str(schema), "next": following})

    def doctor(
        self,
        *,
        model: p.Model = None,
        output_dir: Annotated[Path, typer.Option(help="Where runs are to lie.")] = Path("outputs"),
        prices: p.Prices = None,
    ) -> Answer:
        """Look whether all is there that a run needs.

        Each fault comes with its fix. Asks no model and costs nothing. Exit code 0, or 2 when something is missing.
        """
        from parallel_orchestrator.config.credentials import endpoint_from
        from parallel_orchestrator.maintenance import doctor
        from parallel_orchestrator.maintenance.doctor import DoctorCheck
        from parallel_orchestrator.records.scenario import DEFAULT_MODEL

        checks = [doctor.python(), doctor.git_program(), doctor.sandbox(), doctor.claude_code()]
        try:
            checks.append(doctor.key(_paying()))
        except UsageError as error:
            checks.append(DoctorCheck("key", "fault", str(error), "set it again, or unset it; recordings need none"))
        try:
            checks.append(doctor.endpoint(endpoint_from(os.environ)))
        except UsageError as error:
            checks.append(DoctorCheck("endpoint", "fault", str(error), "set ANTHROPIC_BASE_URL again, or unset it"))
        checks += [doctor.price(model or DEFAULT_MODEL, prices)]
        checks += [doctor.disk(output_dir), doctor.locks(output_dir), doctor.terminal(os.environ)]
        faults = [check.name for check in checks if check.level == "fault"]
        result = {"checks": [asdict(check) for check in checks]}
        return Answer(doctor.page(checks), result, 2 if faults else 0, f"not as needed: {', '.join(faults)}")


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


def _paying() -> str | None:
    """Who would pay for a run; None where nobody can. Raises UsageError."""
    from parallel_orchestrator.config.credentials import credential_from, endpoint_from, holds_key, is_anthropics

    if not holds_key(os.environ) and is_anthropics(endpoint_from(os.environ)):
        return None
    credential = credential_from(os.environ)
    return f"{credential.describe()} would pay" if credential else "none is set: the endpoint is asked without one"
