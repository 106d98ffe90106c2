"""Replaces secrets in everything that is written, shown or sent on.

A secret is found in one of two ways:

**By its value.** Orchestrator and gateway know the credential that pays, and every value in the orchestrator's
environment that looks like a credential (`system.environment.secret_values`). The gateway gets them by pipe. Both
replace them in journals, files, log, console, tracebacks, and in the answers and errors of the endpoint. A value is
found as it is, escaped for JSON, URL-encoded, and in base64 that begins with it. Workers and their commands never hold
a value.

**By its format.** Well-known kinds of keys are found by pattern, also inside base64. Patterns are applied to text from
outside when it is read: output of commands, files as the editor shows them, test reports, errors of the endpoint. They
are applied once, before the text is used, so a resumed conversation has the same text. They are also applied to log and
console. They are never applied to a model's answer, because a changed byte would change the program that it wrote.

Not covered: a secret with neither a known value nor a known format; a known value in hexadecimal, or in base64 behind
other text; files that commands write in the workspace, which belong to the project; a value that was cut in two when a
long text was shortened.
"""

from __future__ import annotations

import base64
import functools
import json
import re
from collections.abc import Iterator
from typing import Any, TypeVar
from urllib.parse import quote

import msgspec

MARK = "[credential]"
SHORTEST = 12
"""A shorter value is a local server's placeholder (`ollama`). Replacing it would garble answers."""

Value = TypeVar("Value")

_PEM = "-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----"
_PATTERNS = (
    r"sk-ant-[a-z]{3,5}[0-9]{2}-[A-Za-z0-9_-]{20,}",
    # Bounded: an unbounded part would search the whole text from each of many beginnings.
    r"sk-[A-Za-z0-9_-]{20,100}T3BlbkFJ[A-Za-z0-9_-]{20,}",
    r"sk_live_[A-Za-z0-9]{24,}",
    r"rk_live_[A-Za-z0-9]{24,}",
    r"gh[pousr]_[A-Za-z0-9]{36,}",
    r"github_pat_[A-Za-z0-9_]{50,}",
    r"glpat-[A-Za-z0-9_-]{20,}",
    r"A[KS]IA[0-9A-Z]{16}(?![0-9A-Za-z])",
    r"AIza[A-Za-z0-9_-]{35}",
    r"xox[abeoprs]-[A-Za-z0-9-]{24,}",
    r"hf_[A-Za-z0-9]{34,}",
    r"npm_[A-Za-z0-9]{36}",
    r"pypi-AgEIcHlwaS[A-Za-z0-9_-]{50,}",
    r"SG\.[A-Za-z0-9_-]{22}\.[A-Za-z0-9_-]{43}",
    _PEM + r"(?:[A-Za-z0-9+/=\s]|\\[nr]){64,}(?:-----END [A-Z ]{0,30}PRIVATE KEY-----)?",
)


@functools.cache
def _patterns() -> tuple[re.Pattern[str], ...]:
    # Compiled at first use: --help does not need them.
    return tuple(map(re.compile, _PATTERNS))


_LIKE_A_KEY = re.compile(r"[A-Za-z0-9+/_-]{20}|PRIVATE KEY")
"""Matches wherever a pattern or `_ENCODED` does; most lines do not and skip the rest. Add new shorter patterns here."""
_ENCODED = re.compile(r"[A-Za-z0-9+/_-]{24,}(?:\r?\n[A-Za-z0-9+/_-]{4,})*={0,2}")
_TO_STANDARD = str.maketrans("-_", "+/", "\r\n=")


class Redactor:
    """Replaces exact values in texts, in their usual forms. Values shorter than `SHORTEST` stay."""

    def __init__(self, *secrets: str) -> None:
        self.secrets = tuple(dict.fromkeys(secret for secret in secrets if len(secret) >= SHORTEST))
        forms = {form for secret in self.secrets for form in _spellings(secret)}
        self._forms = sorted(forms, key=len, reverse=True)

    def text(self, text: str) -> str:
        """Return `text` without the values."""
        if len(text) < SHORTEST:  # no form of a value is shorter
            return text
        for form in self._forms:
            text = text.replace(form, MARK)
        return text


_known = Redactor()


def know(*secrets: str) -> None:
    """Add values that this process replaces from now on."""
    global _known  # noqa: PLW0603 - the whole process holds a secret, not one object in it
    _known = Redactor(*_known.secrets, *secrets)


def known(value: Value) -> Value:
    """`value` without known values: a text, bytes, a Struct, or a JSON value with all its keys and texts."""
    return _map(_known.text, value) if _known.secrets else value


def foreign(value: Value) -> Value:
    """Return a value from outside without known values and without well-known kinds of keys."""
    cleaned: Value = _map(_without_patterns, known(value))
    return cleaned


def known_secrets() -> tuple[str, ...]:
    """Return the known values, for another process that writes."""
    return _known.secrets


def _without_patterns(text: str) -> str:
    if not _LIKE_A_KEY.search(text):
        return text
    # Base64 first: a key right before it would match together with its first line, and hide the rest.
    text = _ENCODED.sub(_if_clean, text)
    for pattern in _patterns():
        text = pattern.sub(MARK, text)
    return text


def _if_clean(match: re.Match[str]) -> str:
    """Return the base64 unchanged, or the mark when it holds a well-known kind of key."""
    letters = match.group().translate(_TO_STANDARD)
    decoded = base64.b64decode(letters + "A" * (-len(letters) % 4)).decode("latin-1")
    return MARK if any(pattern.search(decoded) for pattern in _patterns()) else match.group()


def _map(clean: Any, value: Any) -> Any:
    match value:
        case str():
            return clean(value)
        case bytes():
            return clean(value.decode("latin-1")).encode("latin-1")
        case dict():
            return {_map(clean, key): _map(clean, item) for key, item in value.items()}
        case list() | tuple():
            return type(value)(_map(clean, item) for item in value)
        case msgspec.Struct():
            return msgspec.convert(_map(clean, msgspec.to_builtins(value)), type(value))
    return value


def _spellings(secret: str) -> Iterator[str]:
    """Yield the forms in which a program may print the value."""
    yield from (secret, json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1])
    for quoted in (quote(secret), quote(secret, safe="")):
        yield from (quoted, re.sub("%..", lambda code: code.group().lower(), quoted))
    data = secret.encode()
    encoded = base64.b64encode(data).decode()[: len(data) * 8 // 6]  # its last letter may depend on what follows
    yield from (encoded, encoded.replace("+", "-").replace("/", "_"))
