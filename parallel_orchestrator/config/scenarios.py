"""Scenario files: reads them, reports every fault at once with its place, and makes the options of runs."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from parallel_orchestrator.config.diagnostics import LONGEST_LINE, MOST_FAULTS, faults_page
from parallel_orchestrator.config.options import (
    SHIPPED,
    SHIPPED_SCENARIOS,
    Options,
    find_recording,
    is_file,
)
from parallel_orchestrator.config.requirement import looks_like_a_file
from parallel_orchestrator.config.scenario_errors import Path_, validation_message
from parallel_orchestrator.config.schema import SAME, ScenarioDefaults, ScenarioEntry, ScenarioFile
from parallel_orchestrator.config.yaml_nodes import Fault, Node, Place, earlier, find, key_of, plain
from parallel_orchestrator.config.yaml_tree import LONGEST_TEXT, read_tree
from parallel_orchestrator.records.errors import UsageError
from parallel_orchestrator.store.yaml_marks import mark_at
from parallel_orchestrator.system.user_file import Unusable, read_named

_MOST_EARLIER = 1000
"""Values that are not the last of their key, and are looked at all the same: far more than faults are shown."""
_MOST_NAMED = 10_000_000
"""Bytes that all files have together that a scenario file names."""
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
    text = _read(path)
    tree, faults = read_tree(text)
    file, named = None, _Named(path.parent)
    if tree is not None or not faults:
        file = _validated(named, tree or Node(Place(1, 1), [], "mapping"), faults)
    if faults or file is None:
        raise UsageError(faults_page(path, text, faults))
    options = {entry.name: _options(file.defaults, entry, named) for entry in file.scenarios}
    unknown = [name for name in only if name not in options]
    if unknown:
        near = [close for name in unknown for close in difflib.get_close_matches(name, options, 1)]
        hint = f"; did you mean {', '.join(near)}?" if near else ""
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
    mark = mark_at(text, len(text))
    return f"{path}:{mark.line + 1}:{mark.column + 1}"


@dataclass
class _Named:
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
            text = read_named(self.folder / name)
        except Unusable as error:
            return Unusable(f"{shown} cannot be used: {error}")
        self._bytes += len(text.encode())
        if self._bytes > _MOST_NAMED:
            return Unusable(f"with {shown} the files named here have more than {_MOST_NAMED:,} bytes together")
        return text


def _validated(named: _Named, tree: Node, faults: list[Fault]) -> ScenarioFile | None:
    """The file's content; what is wrong with it is added to `faults`."""
    # A value that could not be read has a fault already.
    unreadable = {fault.place for fault in faults}
    source = _Source(named, tree)
    file, wrong = source.validate()
    faults += source.faults()
    for within, alone in islice(earlier(tree), _MOST_EARLIER):
        part = _Source(named, alone, within)
        wrong += part.validate()[1]
        faults += part.faults()
    wrong = sorted((one for one in wrong if one.place not in unreadable), key=lambda one: one.place)
    # Those after the most that are shown count, and need no words.
    faults += [
        Fault(one.place, validation_message(one.error) if n < MOST_FAULTS else "") for n, one in enumerate(wrong)
    ]
    return file


@dataclass(frozen=True)
class _Wrong:
    """One of pydantic's errors, and where it is."""

    place: Place
    error: dict[str, Any]


@dataclass(frozen=True)
class _Source:
    """A file's tree, and the places in it."""

    named: _Named
    tree: Node
    within: Path_ = ()
    """The path of the only value to look at: an earlier one of a repeated key."""

    def validate(self) -> tuple[ScenarioFile | None, list[_Wrong]]:
        """The file's content, or what is wrong with it by the models."""
        try:
            return ScenarioFile.model_validate(plain(self.tree)), []
        except ValidationError as error:
            found: list[dict[str, Any]] = [dict(one) for one in error.errors(include_url=False)]
            inside = (one for one in found if one["loc"][: len(self.within)] == self.within)
            return None, [_Wrong(place, one) for one in inside if (place := self._place(one))]

    def faults(self) -> Iterator[Fault]:
        """What is wrong besides."""
        yield from self._same_names()
        yield from self._requirements()
        yield from self._given_twice()
        yield from self._missing_files()

    def _place(self, error: dict[str, Any]) -> Place | None:
        """Where one of pydantic's errors is; None about what was not read at all."""
        path: Path_ = error["loc"]
        nodes = list(find(self.tree, path))
        if error["type"] == "extra_forbidden":
            key = key_of(nodes[len(path) - 1], str(path[-1])) if len(nodes) >= len(path) else None
            return key.place if key else nodes[-1].place
        unknown = not nodes[-1].complete and error["type"] in ("missing", "too_short")
        return None if nodes[-1].kind == "unread" or unknown else nodes[-1].place

    def _parts(self) -> Iterator[Node]:
        """The scenarios, as far as they are mappings."""
        listed = list(find(self.tree, ("scenarios",)))[1:]
        for node in listed[0].value if listed and listed[0].kind == "sequence" else ():
            if node.kind == "mapping":
                yield node

    def _same_names(self) -> Iterator[Fault]:
        seen: dict[str, Place] = {}
        for name in filter(None, (_text(part, "name") for part in self._parts())):
            # They are names of folders, and somewhere case does not count in those.
            first = seen.setdefault(name.value.casefold(), name.place)
            if first != name.place:
                yield Fault(name.place, f"the name {name.value!r} is used twice, first in line {first.line}")

    def _requirements(self) -> Iterator[Fault]:
        for part in self._parts():
            given = [key for key in ("requirements", "requirements_file") if key_of(part, key)]
            if len(given) > 1 or (not given and part.complete and len(self.within) < 2):
                what = "'requirements' and 'requirements_file' exclude each other" if given else "a scenario needs"
                yield Fault(part.place, what if given else f"{what} 'requirements', or 'requirements_file'")
            yield from self._nothing_said(part, given)
            yield from self._empty_file(part)

    def _given_twice(self) -> Iterator[Fault]:
        for part in (*self._parts(), *list(find(self.tree, ("defaults",)))[1:]):
            for name, path in SAME.items():
                if (key := key_of(part, name)) and len(list(find(part, path))) > len(path):
                    yield Fault(key.place, f"{name} and {'.'.join(path)} are the same setting: keep one of them")

    def _nothing_said(self, part: Node, keys: Sequence[str]) -> Iterator[Fault]:
        """Of the keys that say what to build: those after which nothing stands, or only blanks."""
        for key in keys:
            node = list(find(part, (key,)))[-1]
            blank = key == "requirements" and str(node.value).isspace()
            if key == "requirements" and isinstance(node.value, str) and self._names_a_file(node.value.strip()):
                yield Fault(node.place, f"{node.value.strip()} is the name of a file: write requirements_file")
            if node.kind == "scalar" and (node.value is None or blank):
                yield Fault(node.place, f"{key} is empty: {_SAY[key]}")

    def _names_a_file(self, text: str) -> bool:
        return looks_like_a_file(text) or ("\n" not in text and is_file(self.named.folder / text))

    def _empty_file(self, part: Node) -> Iterator[Fault]:
        name = _text(part, "requirements_file")
        with suppress(Unusable):
            if name and not self.named.text(name.value).strip():
                yield Fault(name.place, f"{name.value} is empty: say in it what to build")

    def _missing_files(self) -> Iterator[Fault]:
        for part in (*self._parts(), *list(find(self.tree, ("defaults",)))[1:]):
            for path in (("planner", "instructions"), ("prices",), ("requirements_file",)):
                if name := _text(part, *path):
                    yield from _complaint(name.place, self.named.text, name.value)
            if replay := _text(part, "replay"):
                beside = self.named.folder / replay.value
                yield from _complaint(replay.place, find_recording, str(beside) if is_file(beside) else replay.value)


def _complaint(place: Place, look: Callable[[str], object], name: str) -> Iterator[Fault]:
    try:
        look(name)
    except (UsageError, Unusable) as error:
        yield Fault(place, str(error))


def _text(node: Node, *path: str) -> Node | None:
    """The node at the end of a path of keys, if a text that is not empty stands there."""
    nodes = list(find(node, path))
    last = nodes[-1]
    return (
        last
        if len(nodes) > len(path) and last.kind == "scalar" and isinstance(last.value, str) and last.value
        else None
    )


def _options(defaults: ScenarioDefaults, entry: ScenarioEntry, named: _Named) -> Options:
    """One scenario with the defaults below it, sections merged key by key."""

    def value(name: str, section: str | None = None, general: str | None = None) -> Any:
        for part in (entry, defaults):
            for holder, key in ((getattr(part, section) if section else part, name), (part, general)):
                if key and key in holder.model_fields_set and getattr(holder, key) is not None:
                    return getattr(holder, key)
        return None

    folder = named.folder
    instructions, prices, replay = value("instructions", "planner"), value("prices"), value("replay")
    settings = {
        "max_executors": value("max_executors"),
        "planner_model": value("model", "planner", "model"),
        "planner_instructions": named.text(instructions) if instructions else None,
        "planner_backend": value("backend", "planner", "backend"),
        "executor_model": value("model", "executor", "model"),
        "backend": value("backend", "executor", "backend"),
        "max_cost_usd": value("cost", "limits", "max_cost"),
        "task_max_cost_usd": value("task_cost", "limits", "task_max_cost"),
        "max_turns": value("turns", "limits", "max_turns"),
        "task_timeout_min": value("minutes", "limits", "task_timeout"),
        "prices": str(folder / prices) if prices else None,
        **{name: value(name) for name in ("sandbox", "endpoint_profile", "speed", "verify", "allow_install")},
        **{
            name: value(name) for name in ("claude_settings", "repair_rounds", "fix_rounds", "yes", "endpoint_patience")
        },
    }
    given = {name: setting for name, setting in settings.items() if setting is not None}
    if replay and (folder / replay).is_file():
        replay = str(folder / replay)
    requirement = entry.requirements or named.text(str(entry.requirements_file))
    output_dir = Path(entry.output_dir) if entry.output_dir else Path("outputs") / entry.name
    variables = {"ANTHROPIC_API_KEY": value("api_key_env"), "ANTHROPIC_BASE_URL": value("base_url_env")}
    return Options(requirement, output_dir, None, replay, given, variables={k: v for k, v in variables.items() if v})
