"""What a person asked for, made whole: options and environment become a Scenario."""

from __future__ import annotations

import hashlib
import re
import secrets
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from parallel_orchestrator.config.credentials import (
    credential_from,
    endpoint_from,
    is_anthropics,
    misplaced,
    refuse_secrets,
)
from parallel_orchestrator.config.diagnostics import format_faults
from parallel_orchestrator.config.settings import SETTING_OF
from parallel_orchestrator.records.credential import Credential
from parallel_orchestrator.records.errors import UsageError, as_predicate
from parallel_orchestrator.records.plan import Plan, plan_faults, shape_faults, shortened
from parallel_orchestrator.records.scenario import Scenario
from parallel_orchestrator.store.paths import RunDirectory
from parallel_orchestrator.store.plan_file import plan_digest
from parallel_orchestrator.store.run_directory import read_scenario, require_scenario
from parallel_orchestrator.system import redact
from parallel_orchestrator.system.user_file import (
    LONGEST_PLAN,
    LONGEST_RECORDING,
    Unusable,
    parse_json,
    read_user_file,
    require_size,
)
from parallel_orchestrator.system.yaml_document import Bounds, read_yaml

SHIPPED = Path(__file__).parent.parent / "recordings"
"""Recordings and configuration that come with the package."""
SHIPPED_SCENARIOS = frozenset({"demo.yaml"})
"""Of them, the scenario files. All others that end so are recordings."""
_LONGEST_NAME = 100
NO_CAP = (
    "a live model is asked, and nothing limits what that costs. Nothing was started. Set a cap in USD with "
    "--max-cost USD (max_cost= in Python, max_cost: in a scenario file): the run stops there and can be resumed. "
    "Or agree to a run without a cap with --yes (yes=True, yes: true)"
)
_PLAN_BOUNDS = Bounds(values=30_000, levels=20)


@dataclass
class Options:
    """What a person gave for a run, defaults not filled in. Names are those of the scenario's fields."""

    requirements: str
    output_dir: Path | None = None
    plan: Path | None = None
    """Start from this plan file instead of asking the planner."""
    replay: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    """Scenario fields that were given; absent ones take their defaults."""
    variables: dict[str, str] = field(default_factory=dict)
    """Environment variables to use in place of ours: ANTHROPIC_API_KEY to the name of another, say."""
    fresh: bool = False
    """Begin again where the directory holds a run; that one is moved aside."""
    resumed: bool = False
    """By `resume` or `retry`: models and endpoint may be others than those that the run was begun with."""


@dataclass(frozen=True)
class ResolvedRun:
    """A scenario that can be run, with what must not be written down."""

    scenario: Scenario
    directory: Path
    credential: Credential | None
    recording: Path | None
    plan: Plan | None
    fresh: bool = False
    resumed: bool = False
    """Whether models and endpoint may be others than those that the run in the directory was begun with."""


def resolve(options: Options, environment: Mapping[str, str]) -> ResolvedRun:
    """Fill in what was left open and check all that can be checked before anything is paid for. Raises UsageError."""
    requirement = options.requirements.strip()
    if not requirement:
        raise UsageError("the requirement is empty: say in a sentence or more what to build")
    fields: dict[str, Any] = {"requirements": requirement, "run": secrets.token_hex(6), **options.settings}
    fields["variables"] = options.variables
    recording = find_recording(options.replay) if options.replay else None
    credential = None
    if recording:
        shipped = recording.parent == SHIPPED
        fields |= {"replay": options.replay if shipped else str(recording), "endpoint": recording_identity(recording)}
    else:
        environment = _with_variables(environment, options.variables)
        fields["endpoint"] = endpoint_from(environment)
        credential = credential_from(environment)
        if credential:
            redact.know(credential.value)  # under whatever name it came
        profile = "anthropic" if is_anthropics(fields["endpoint"]) else "compatible"
        fields.setdefault("endpoint_profile", profile)
    if fields.get("prices"):
        fields["prices"] = str(Path(fields["prices"]).absolute())  # a resume may be typed in another folder
    plan = None
    if options.plan:
        plan, fields["plan_sha256"] = load_plan(options.plan)
    scenario = make_scenario(fields)
    if scenario.claude_settings == "host" and "claude-code" not in (scenario.planner_backend, scenario.backend):
        raise UsageError("--claude-settings host is for Claude Code: add --backend claude-code, or leave it out")
    refuse_secrets({**scenario.model_dump(), "plan's texts": plan.model_dump() if plan else None})
    directory = (options.output_dir or Path("outputs") / slug(requirement)).absolute()
    return ResolvedRun(scenario, directory, credential, recording, plan, options.fresh, options.resumed)


def _with_variables(environment: Mapping[str, str], variables: Mapping[str, str]) -> dict[str, str]:
    """The environment with some variables standing for ours. Raises UsageError when one is not set."""
    missing = [name for name in variables.values() if not environment.get(name)]
    if missing:
        raise UsageError(f"the environment variable {missing[0]}, which the scenario names, is not set")
    return {**environment, **{ours: environment[name] for ours, name in variables.items()}}


def make_scenario(fields: dict[str, Any]) -> Scenario:
    """A scenario of these fields. Raises UsageError that lists every bad one."""
    try:
        return Scenario(**fields)
    except ValidationError as error:
        named = [(".".join(map(str, fault["loc"])), fault) for fault in error.errors()]
        faults = [
            f"  {SETTING_OF.get(name, name)}: " + (misplaced(name) or f"{as_predicate(e['msg'])} (got {e['input']!r})")
            for name, e in named
        ]
        # Not `from error`: its text quotes the values, and one may be a credential.
        raise UsageError("bad settings:\n" + "\n".join(faults)) from None


def slug(requirement: str) -> str:
    """A folder name made of the requirement's first words."""
    plain = unicodedata.normalize("NFKD", requirement).encode("ascii", "ignore").decode().lower()
    words = re.findall(r"[a-z0-9]+", plain)
    name = "-".join(words)[:48].rsplit("-", 1)[0] if len("-".join(words)) > 48 else "-".join(words)
    return name or "run-" + hashlib.sha256(requirement.encode()).hexdigest()[:8]


def find_recording(name: str) -> Path:
    """The recording file called `name`: a path, or the name of a shipped one. Raises UsageError."""
    path = Path(name)
    if is_file(path):
        try:
            require_size(path, LONGEST_RECORDING)
        except Unusable as error:
            raise UsageError(f"the recording {path} cannot be used: {error}") from error
        return path.absolute()
    recordings = {p.stem: p for p in SHIPPED.glob("*.yaml") if p.name not in SHIPPED_SCENARIOS}
    if name in recordings:
        return recordings[name]
    known = ", ".join(sorted(recordings))
    shown = repr(name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - 1] + "…")
    raise UsageError(f"there is no recording {shown}: neither a file, nor one of the shipped ones ({known})")


def is_file(path: Path) -> bool:
    """Whether a file is there. What no file can be called, is not."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def is_shipped(recording: Path) -> bool:
    """Whether the recording is one of ours, byte for byte: only those may run without a sandbox unasked."""
    size = recording.stat().st_size
    ours = [path.read_bytes() for path in SHIPPED.glob("*.yaml") if path.stat().st_size == size]
    return bool(ours) and recording.read_bytes() in ours


def recording_identity(recording: Path) -> str:
    """What scenario.json holds as the endpoint of a replay."""
    with recording.open("rb") as file:
        return f"recording:{recording.stem}:{hashlib.file_digest(file, 'sha256').hexdigest()[:16]}"


def load_plan(path: Path) -> tuple[Plan, str]:
    """A plan file and its hash. Raises UsageError that lists every fault."""
    try:
        text = read_user_file(path, LONGEST_PLAN)
        if path.suffix in (".yaml", ".yml"):
            document = read_yaml(text, _PLAN_BOUNDS)
            if document.faults:
                raise UsageError(format_faults(path, text, document.faults))
            data = document.value
            plan = Plan.model_validate(data)
        else:
            data = parse_json(text)
            plan = Plan.model_validate_json(text)
    except Unusable as error:
        raise UsageError(f"cannot read the plan {path}: {error}") from error
    except ValidationError as error:
        faults = [f"  {fault}" for fault in shape_faults(error, text, data=data)]
        raise UsageError(f"{path} is not a plan:\n" + "\n".join(shortened(faults))) from error
    if faults := plan_faults(plan):
        raise UsageError(f"the plan {path} cannot be run:\n" + "\n".join(f"  {fault}" for fault in shortened(faults)))
    return plan, plan_digest(plan)


def resume_options(directory: Path, overrides: dict[str, Any]) -> Options:
    """The options under which the run in `directory` goes on: its own, caps and limits replaced by `overrides`."""
    scenario = require_scenario(RunDirectory(directory.absolute()))
    kept = scenario.model_dump(exclude={"version", "run", "requirements", "endpoint", "replay", "variables"})
    return Options(
        scenario.requirements,
        directory,
        None,
        scenario.replay,
        {**kept, **overrides},
        resumed=True,
        variables=dict(scenario.variables),
    )


def lacks_agreement(resolved: ResolvedRun, directory: Path | None = None) -> bool:
    """Whether this run may spend without a limit, and the person has not agreed to that.

    A run that began without a cap needs no second agreement. `directory`: of the run, when not the resolved one.
    """
    scenario = resolved.scenario
    if resolved.recording or scenario.max_cost_usd is not None or scenario.yes:
        return False
    run = RunDirectory(directory or resolved.directory)
    old = None if resolved.fresh else read_scenario(run)
    return old is None or old.max_cost_usd is not None or not (old.yes or run.queue.exists())


def require_agreement(resolved: ResolvedRun) -> None:
    """Raise UsageError when the run `lacks_agreement`."""
    if lacks_agreement(resolved):
        raise UsageError(NO_CAP)
