"""Scenario files: reads them, reports every fault at once with its place, and makes the options of runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from parallel_orchestrator.config.diagnostics import LONGEST_LINE, MOST_FAULTS, format_faults, validation_message
from parallel_orchestrator.config.options import SHIPPED, SHIPPED_SCENARIOS, Options, find_recording, is_file
from parallel_orchestrator.config.requirement import looks_like_a_file
from parallel_orchestrator.config.schema import SAME, ScenarioDefaults, ScenarioEntry, ScenarioFile
from parallel_orchestrator.records.errors import UsageError, did_you_mean
from parallel_orchestrator.system.user_file import Unusable, read_user_file
from parallel_orchestrator.system.yaml_document import Bounds, Document, Fault, KeyPath, Place, place_at, read_yaml

LONGEST_TEXT = 1_000_000
"""Bytes. Some thousand scenarios fit; reading them takes a fraction of a second."""
_BOUNDS = Bounds(values=30_000, levels=20, characters=2_000_000)
_MOST_NAMED = 10_000_000
"""Bytes that all files have together that a scenario file names."""
_SAME_NAME = (
    *("max_executors", "sandbox", "endpoint_profile", "endpoint_patience", "speed", "verify", "allow_install"),
    *("claude_settings", "repair_rounds", "fix_rounds", "yes"),
)
"""Settings that have one name here and in the scenario, and stand in no section."""
_SAY = {"requirements": "say what to build", "requirements_file": "name a file that says what to build"}


def find_config(name: str) -> Path:
    """The scenario file called `name`: a path, or the one that comes with the package."""
    path = Path(name)
    if is_file(path):
        return path
    if name in SHIPPED_SCENARIOS and is_file(SHIPPED / name):
        return SHIPPED / name
    raise UsageError(f"there is no scenario file {name}")


def load_options(path: Path, only: str | None) -> Options:
    """The options of one scenario: the one named `only`, or the file's single one. Raises UsageError."""
    options = load_batch(path, [] if only is None else [only])
    if len(options) > 1:
        raise UsageError(f"{path} has the scenarios {', '.join(options)}: choose one with --only NAME")
    return next(iter(options.values()))


def load_batch(path: Path, only: Sequence[str]) -> dict[str, Options]:
    """The options of all scenarios by name, or of those named by `only`. Raises UsageError with every fault."""
    text, texts = _read(path), _Texts(path.parent)
    file, faults = _checked(read_yaml(text, _BOUNDS), texts)
    if faults or file is None:
        raise UsageError(format_faults(path, text, faults))
    options = {entry.name: _options(file.defaults, entry, texts) for entry in file.scenarios}
    unknown = [name for name in only if name not in options]
    if unknown:
        hint = "".join(did_you_mean(name, options) for name in unknown)
        raise UsageError(f"{path} has no scenario {', '.join(unknown)}; it has {', '.join(options)}{hint}")
    return {name: one for name, one in options.items() if not only or name in only}


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(LONGEST_TEXT + 1)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    if len(data) > LONGEST_TEXT:
        limit = f"a scenario file has at most {LONGEST_TEXT:,} bytes, and here they end; divide it into several files"
        raise UsageError(f"{_at(path, data[:LONGEST_TEXT])}: {limit}")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(
            f"{_at(path, error.object[: error.start])}: this is not UTF-8; save the file as UTF-8"
        ) from error


def _at(path: Path, before: bytes) -> str:
    """file:line:column of what follows those bytes."""
    text = before.decode("utf-8-sig", errors="ignore")
    place = place_at(text, len(text))
    return f"{path}:{place.line}:{place.column}"


@dataclass
class _Texts:
    """The text files that a scenario file names. Each is read once, however often it is named."""

    folder: Path
    _read: dict[str, str | Unusable] = field(default_factory=dict)
    _bytes: int = 0

    def text(self, name: str) -> str:
        """What stands in the file. Raises Unusable that says why it cannot be used."""
        if name not in self._read:
            self._read[name] = self._look(name)
        found = self._read[name]
        if isinstance(found, Unusable):
            raise found
        return found

    def _look(self, name: str) -> str | Unusable:
        shown = self.folder / name[:LONGEST_LINE]
        try:
            text = read_user_file(self.folder / name)
        except Unusable as error:
            return Unusable(f"{shown} cannot be used: {error}")
        self._bytes += len(text.encode())
        if self._bytes > _MOST_NAMED:
            return Unusable(f"with {shown} the files named here have more than {_MOST_NAMED:,} bytes together")
        return text


def _checked(document: Document, texts: _Texts) -> tuple[ScenarioFile | None, list[Fault]]:
    """The file's content, and everything that is wrong with it."""
    if document.value is None and document.faults:
        return None, document.faults
    file, errors = None, list[dict[str, Any]]()
    try:
        file = ScenarioFile.model_validate({} if document.value is None else document.value)
    except ValidationError as invalid:
        errors = [dict(one) for one in invalid.errors(include_url=False)]
    faults = [*document.faults, *_Checks(document, texts).faults()]
    misread = {fault.place for fault in document.faults}
    placed = [(place, error) for error in errors if (place := _place(document, error)) not in misread]
    placed.sort(key=lambda one: one[0])
    # Only so many are shown. The others are counted, and a message for each would take seconds.
    for number, (place, error) in enumerate(placed):
        faults.append(Fault(place, validation_message(error) if number < MOST_FAULTS else ""))
    return file, faults


def _place(document: Document, error: dict[str, Any]) -> Place:
    """Where one of pydantic's errors is."""
    path: KeyPath = error["loc"]
    at_key = error["type"] == "extra_forbidden" and path in document.keys
    return document.keys[path] if at_key else document.place(path)


@dataclass(frozen=True)
class _Checks:
    """What the models cannot check: names, files, and settings that exclude each other."""

    document: Document
    texts: _Texts

    def faults(self) -> Iterator[Fault]:
        """All that these checks find."""
        names: dict[str, Place] = {}
        for path, entry in self._scenarios():
            yield from self._same_name(path, entry, names)
            yield from self._requirement(path, entry)
        for path, part in (*self._scenarios(), *self._defaults()):
            yield from self._given_twice(path, part)
            yield from self._missing_files(path, part)

    def _scenarios(self) -> Iterator[tuple[KeyPath, dict[str, Any]]]:
        """The scenarios that are mappings, each with its path."""
        value = self.document.value
        listed = value.get("scenarios") if isinstance(value, dict) else None
        for number, entry in enumerate(listed if isinstance(listed, list) else ()):
            if isinstance(entry, dict):
                yield ("scenarios", number), entry

    def _defaults(self) -> Iterator[tuple[KeyPath, dict[str, Any]]]:
        value = self.document.value
        if isinstance(value, dict) and isinstance(value.get("defaults"), dict):
            yield ("defaults",), value["defaults"]

    def _same_name(self, path: KeyPath, entry: dict[str, Any], names: dict[str, Place]) -> Iterator[Fault]:
        name, place = _text(entry, "name"), self.document.place((*path, "name"))
        # They are names of folders, and some file systems ignore case.
        if first := names.get(name.casefold()):
            yield Fault(place, f"the name {name!r} is used twice, first in line {first.line}")
        elif name:
            names[name.casefold()] = place

    def _requirement(self, path: KeyPath, entry: dict[str, Any]) -> Iterator[Fault]:
        """Exactly one of the keys that say what to build, and something behind it."""
        given = [key for key in _SAY if key in entry]
        if not given:
            yield Fault(self.document.place(path), "a scenario needs 'requirements', or 'requirements_file'")
        if len(given) > 1:
            yield Fault(self.document.place(path), "'requirements' and 'requirements_file' exclude each other")
        for key in given:
            text = _text(entry, key)
            if problem := self._unsaid(key, text, empty=entry[key] is None or text.isspace()):
                yield Fault(self.document.place((*path, key)), problem)

    def _unsaid(self, key: str, text: str, *, empty: bool) -> str:
        """Why the key's text does not say what to build; empty where it does."""
        if empty:
            return f"{key} is empty: {_SAY[key]}"
        if key == "requirements":
            names_file = looks_like_a_file(text.strip()) or ("\n" not in text and is_file(self.texts.folder / text))
            return f"{text.strip()} is the name of a file: write requirements_file" if text and names_file else ""
        with suppress(Unusable):
            return f"{text} is empty: say in it what to build" if text and not self.texts.text(text).strip() else ""
        return ""

    def _given_twice(self, path: KeyPath, part: dict[str, Any]) -> Iterator[Fault]:
        for name, (section, short) in SAME.items():
            within = part.get(section)
            if name in part and isinstance(within, dict) and short in within:
                message = f"{name} and {section}.{short} are the same setting: keep one of them"
                yield Fault(self.document.keys[*path, name], message)

    def _missing_files(self, path: KeyPath, part: dict[str, Any]) -> Iterator[Fault]:
        for within in (("planner", "instructions"), ("prices",), ("requirements_file",)):
            if name := _text(part, *within):
                yield from _complaint(self.document.place((*path, *within)), self.texts.text, name)
        if replay := _text(part, "replay"):
            beside = self.texts.folder / replay
            name = str(beside) if is_file(beside) else replay
            yield from _complaint(self.document.place((*path, "replay")), find_recording, name)


def _complaint(place: Place, look: Callable[[str], object], name: str) -> Iterator[Fault]:
    try:
        look(name)
    except (UsageError, Unusable) as error:
        yield Fault(place, str(error))


def _text(part: Any, *keys: str) -> str:
    """The text at the end of these keys; empty where there is none."""
    for key in keys:
        part = part.get(key) if isinstance(part, dict) else None
    return part if isinstance(part, str) else ""


def _options(defaults: ScenarioDefaults, entry: ScenarioEntry, texts: _Texts) -> Options:
    """One scenario with the defaults below it, sections merged key by key."""

    def value(name: str, section: str | None = None, general: str | None = None) -> Any:
        for part in (entry, defaults):
            for holder, key in ((getattr(part, section) if section else part, name), (part, general)):
                if key and key in holder.model_fields_set and getattr(holder, key) is not None:
                    return getattr(holder, key)
        return None

    folder = texts.folder
    instructions, prices, replay = value("instructions", "planner"), value("prices"), value("replay")
    settings: dict[str, Any] = {
        "planner_model": value("model", "planner", "model"),
        "planner_instructions": texts.text(instructions) if instructions else None,
        "planner_backend": value("backend", "planner", "backend"),
        "executor_model": value("model", "executor", "model"),
        "backend": value("backend", "executor", "backend"),
        "max_cost_usd": value("cost", "limits", "max_cost"),
        "task_max_cost_usd": value("task_cost", "limits", "task_max_cost"),
        "max_turns": value("turns", "limits", "max_turns"),
        "task_timeout_min": value("minutes", "limits", "task_timeout"),
        "prices": str(folder / prices) if prices else None,
        **{name: value(name) for name in _SAME_NAME},
    }
    given = {name: setting for name, setting in settings.items() if setting is not None}
    if replay and (folder / replay).is_file():
        replay = str(folder / replay)
    requirement = entry.requirements or texts.text(str(entry.requirements_file))
    output_dir = Path(entry.output_dir) if entry.output_dir else Path("outputs") / entry.name
    variables = {"ANTHROPIC_API_KEY": value("api_key_env"), "ANTHROPIC_BASE_URL": value("base_url_env")}
    return Options(requirement, output_dir, None, replay, given, variables={k: v for k, v in variables.items() if v})
