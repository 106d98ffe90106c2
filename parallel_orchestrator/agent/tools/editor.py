"""The text editor tool: view, create, str_replace and insert, confined to the workspace.

Every command returns the text for the model, or raises ToolFault with a message that says what to do instead. Files
are UTF-8; lines end with "\\n".
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from parallel_orchestrator.agent.tools.workspace_paths import PathRefused, Workspace, split
from parallel_orchestrator.messages_api.tool_calls import ToolFault
from parallel_orchestrator.system.terminal_text import counted

READ_LIMIT = 10_000_000
"""Bytes of the largest file that the editor opens."""
WRITE_LIMIT = 1_000_000
"""Bytes of the largest file that the editor writes."""
VIEW_LIMIT = 100_000
"""Characters of the longest view."""
LISTING_LIMIT = 1_000
"""Entries of the longest directory listing."""

_CONTEXT_LINES = 4
_MOST_PLACES = 100
_NOT_LISTED = frozenset({"__pycache__", "node_modules"})


class Editor:
    """The tool for one workspace."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._commands: dict[str, Callable[[str, Mapping[str, Any]], str]] = {
            "view": self._view,
            "create": self._create,
            "str_replace": self._replace,
            "insert": self._insert,
        }

    def run(self, arguments: Mapping[str, Any]) -> str:
        """Execute one call. Raises ToolFault."""
        command = _text(arguments, "command")
        if command not in self._commands:
            raise ToolFault(f"there is no command {command!r}; the commands are {', '.join(self._commands)}")
        return self._commands[command](_text(arguments, "path"), arguments)

    def _view(self, path: str, arguments: Mapping[str, Any]) -> str:
        wanted = arguments.get("view_range")
        if self._workspace.is_directory(path):
            if wanted is not None:
                raise ToolFault(f"{path} is a directory; view_range is for files")
            return self._listing(path)
        lines = _lines(self._read(path))
        if not lines:
            return f"{path} is empty"
        first, last = _range(wanted, len(lines))
        return _cut(_numbered(lines[first - 1 : last], first), path)

    def _create(self, path: str, arguments: Mapping[str, Any]) -> str:
        text = _text(arguments, "file_text")
        self._write(path, text)
        return f"Wrote {path} ({counted(len(_lines(text)), 'line')})."

    def _replace(self, path: str, arguments: Mapping[str, Any]) -> str:
        old, new = _text(arguments, "old_str"), _text(arguments, "new_str", default="")
        if not old:
            raise ToolFault("old_str is empty; use insert to add text, or create to write the whole file")
        text = self._read(path)
        places = _places(text, old)
        if not places:
            raise ToolFault(
                f"old_str was not found in {path}, nothing was changed; "
                "it must match the file exactly, including white space"
            )
        if len(places) > 1:
            lines = ", ".join(str(text.count("\n", 0, place) + 1) for place in places[:20])
            raise ToolFault(
                f"old_str was found {_times(len(places))} in {path} (lines {lines}), nothing was changed; "
                "include more of the lines around it, so that it occurs once"
            )
        place = places[0]
        changed = text[:place] + new + text[place + len(old) :]
        self._write(path, changed)
        return _edited(path, changed, text.count("\n", 0, place) + 1, new.count("\n") + 1)

    def _insert(self, path: str, arguments: Mapping[str, Any]) -> str:
        after, added = arguments.get("insert_line"), _text(arguments, "insert_text")
        text = self._read(path)
        lines = _lines(text)
        if not isinstance(after, int) or isinstance(after, bool) or not 0 <= after <= len(lines):
            raise ToolFault(
                f"insert_line must be a whole number from 0 (the top) to {len(lines)} (the end), not {after!r}"
            )
        if not added:
            raise ToolFault("insert_text is empty")
        if after and not lines[after - 1].endswith("\n"):
            lines[after - 1] += "\n"
        if not added.endswith("\n") and after < len(lines):
            added += "\n"
        changed = "".join([*lines[:after], added, *lines[after:]])
        self._write(path, changed)
        return _edited(path, changed, after + 1, len(_lines(added)))

    def _read(self, path: str) -> str:
        data = self._workspace.read(path, READ_LIMIT)
        try:
            text = data.decode()
        except UnicodeDecodeError:
            text = "\0"
        if "\0" in text:
            raise ToolFault(f"{path} is not UTF-8 text; the editor does not open binary files")
        return text

    def _write(self, path: str, text: str) -> None:
        data = text.encode(errors="replace")
        if len(data) > WRITE_LIMIT:
            raise ToolFault(f"{path} would be {len(data):,} bytes long; the editor writes up to {WRITE_LIMIT:,}")
        self._workspace.write(path, data)

    def _listing(self, path: str) -> str:
        entries = list(self._entries(split(path), depth=2))
        note = f"\n... only the first {LISTING_LIMIT} entries are shown" if len(entries) > LISTING_LIMIT else ""
        heading = f"Files and directories in {path}, two levels deep, without hidden files and caches:"
        return "\n".join([heading, *(entries[:LISTING_LIMIT] or ["(none)"])]) + note

    def _entries(self, names: tuple[str, ...], depth: int) -> Iterator[str]:
        with self._workspace.directory(names) as descriptor:
            with os.scandir(descriptor) as entries:
                names_here = sorted(entry.name for entry in entries)
            kinds = {name: _kind(descriptor, name) for name in names_here}
        for name in names_here[: LISTING_LIMIT + 1]:
            if name.startswith(".") or name in _NOT_LISTED or kinds[name] is None:
                continue
            yield "/".join((*names, name)) + str(kinds[name])
            if kinds[name] == "/" and depth > 1:
                try:
                    yield from self._entries((*names, name), depth - 1)
                except PathRefused:  # removed or replaced since the listing
                    continue


def _kind(directory: int, name: str) -> str | None:
    try:
        mode = os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode
    except OSError:
        return None
    if stat.S_ISDIR(mode):
        return "/"
    return "" if stat.S_ISREG(mode) else " (not a regular file)"


def _text(arguments: Mapping[str, Any], name: str, default: str | None = None) -> str:
    value = arguments.get(name, default)
    if value is None:
        raise ToolFault(f"the argument {name} is missing")
    if not isinstance(value, str):
        raise ToolFault(f"the argument {name} must be a string, not {type(value).__name__}")
    return value


def _range(wanted: Any, count: int) -> tuple[int, int]:
    if wanted is None:
        return 1, count
    if not isinstance(wanted, list) or len(wanted) != 2 or not all(type(number) is int for number in wanted):
        raise ToolFault("view_range must be two whole numbers: [first line, last line], -1 for the end")
    first, last = wanted
    if last == -1:
        last = count
    if not (1 <= first <= count and first <= last):
        raise ToolFault(f"view_range {wanted} does not fit: the file has {counted(count, 'line')}")
    return first, min(last, count)


def _lines(text: str) -> list[str]:
    """Split at line feeds only; lines keep their ends."""
    parts = [part + "\n" for part in text.split("\n")]
    parts[-1] = parts[-1][:-1]
    return parts if parts[-1] else parts[:-1]


def _places(text: str, wanted: str) -> list[int]:
    """Return where `wanted` begins in `text`, overlaps included; at most the first hundred."""
    places: list[int] = []
    start = text.find(wanted)
    while start >= 0 and len(places) < _MOST_PLACES:
        places.append(start)
        start = text.find(wanted, start + 1)
    return places


def _times(count: int) -> str:
    return f"{count} times" if count < _MOST_PLACES else f"{count} times or more"


def _numbered(lines: list[str], first: int) -> str:
    return "\n".join(f"{number:6}\t{line.removesuffix(chr(10))}" for number, line in enumerate(lines, first))


def _edited(path: str, text: str, first: int, count: int) -> str:
    start = max(1, first - _CONTEXT_LINES)
    changed = _lines(text)[start - 1 : first - 1 + count + _CONTEXT_LINES]
    return _cut(f"Edited {path}. The changed lines are now:\n{_numbered(changed, start)}", path)


def _cut(text: str, path: str) -> str:
    if len(text) <= VIEW_LIMIT:
        return text
    start = text[:VIEW_LIMIT].rpartition("\n")[0] or text[:VIEW_LIMIT]
    return f"{start}\n... this view of {path} ends after {VIEW_LIMIT:,} characters; use view_range to see the rest"
