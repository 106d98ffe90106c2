"""Whether files parse as what their names say. Files without a parser here are not checked."""

from __future__ import annotations

import ast
import json
import tomllib
import warnings
from collections.abc import Callable

from parallel_orchestrator.trunk.changes.merge import OURS, THEIRS

LARGEST_SOURCE = 500_000
"""Bytes of the largest file of code or settings. Parsing takes 600 times as much memory, in this process."""
_MOST_DOTS = 200
"""In one line of TOML: parsing time grows with the square of a key's parts."""


def parse_fault(path: str, content: bytes) -> str | None:
    """Return why a file does not parse, with path and line; None when it does or is not checked."""
    parse = _parser(path)
    if parse is None:
        return None
    if is_source(path) and len(content) > LARGEST_SOURCE:
        return f"{path} has {len(content)} bytes; at most {LARGEST_SOURCE} are accepted in one file of code"
    try:
        parse(content)
    except SyntaxError as error:
        return f"{path}:{error.lineno or 1}: {error.msg}"
    except json.JSONDecodeError as error:
        return f"{path}:{error.lineno}: {error.msg}"
    except (ValueError, RecursionError, MemoryError) as error:
        return f"{path}:1: {str(error) or 'nested too deeply'}"
    return None


def is_checked(path: str) -> bool:
    """Whether there is a parser for this kind of file."""
    return _parser(path) is not None


def is_source(path: str) -> bool:
    """Whether parsing it costs much more than reading it."""
    return _parser(path) in (_parse_python, _parse_toml)


def has_conflict_markers(content: bytes) -> bool:
    """Whether conflict markers of our own merges are left."""
    lines = {line.rstrip(b"\r") for line in content.split(b"\n") if line[:7] in (b"<<<<<<<", b">>>>>>>")}
    return bool(lines & {b"<<<<<<< " + OURS.encode(), b">>>>>>> " + THEIRS.encode()})


def _parser(path: str) -> Callable[[bytes], object] | None:
    if path.endswith(".py") and not path.startswith("docs/"):
        return _parse_python
    if path.endswith(".json"):
        return json.loads
    return _parse_toml if path.endswith(".toml") else None


def _parse_python(content: bytes) -> object:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ast.parse(content)


def _parse_toml(content: bytes) -> object:
    for number, line in enumerate(content.split(b"\n"), start=1):
        if line.count(b".") > _MOST_DOTS:
            raise ValueError(f"line {number} has more than {_MOST_DOTS} dots")
    return tomllib.loads(content.decode())
