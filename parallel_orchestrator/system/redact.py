"""Keeping secrets out of everything that is written, shown or sent on.

Two kinds of secret, because two things can be known about one:

**Known values** are replaced exactly: plain, escaped for JSON, URL-encoded, hexadecimal, and base64 at each of its
three alignments, wrapped or not. The orchestrator knows the credential that pays and what else in its environment
looks like one (`store.environment.secret_values`); the gateway is told all of them by pipe. Whatever those two write
goes through here: journals, whole files, log, console, tracebacks, answers and errors of the endpoint. An answer is
cleaned as a whole too, as a value may come in two pieces of the stream. Workers and what they start never hold a
value, so they cannot compare with one.

**Patterns** are the forms of well-known keys, also inside base64. They are used where foreign text comes in, before
anything is made of it, so that a conversation that is resumed is the one that was held: output of commands, files as
the editor shows them, test reports, error texts of the endpoint; and for log and console. They are never applied to
what a model writes: it is played again from the ledger, and a changed byte would be a changed program.

Not covered: a secret that no value and no pattern matches; files that an agent's commands write in the workspace,
which are the project's own; and a value that was cut in two where a long text was shortened.
"""

from __future__ import annotations

import base64
import functools
import json
import re
from collections.abc import Iterator
from typing import Any, TypeVar

MARK = "[credential]"
SHORTEST = 12
"""A shorter value is a local server's placeholder (`ollama`); taking it out would garble answers."""

Value = TypeVar("Value")

_UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_BREAK = r"(?:\s|\\[nr])*"
"""Where base64 may be wrapped: white space, or a newline inside JSON."""
_PROBE = 12

_PEM = "-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----"
_PATTERNS = (
    r"sk-ant-[a-z]{3,5}[0-9]{2}-[A-Za-z0-9_-]{20,}",
    # Bounded: from each of many beginnings it would else look through all that follows.
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
    # Compiled when they are needed: --help never does.
    return tuple(map(re.compile, _PATTERNS))


_LIKE_A_KEY = re.compile(r"[A-Za-z0-9+/_-]{20}|PRIVATE KEY")
"""Where this finds nothing, as in most lines, neither does any pattern, nor `_ENCODED`. Whoever adds one with shorter
parts names it here."""
_ENCODED = re.compile(r"[A-Za-z0-9+/_-]{24,}(?:\r?\n[A-Za-z0-9+/_-]{4,})*={0,2}")
_TO_STANDARD = str.maketrans("-_", "+/", "\r\n=")


class Redactor:
    """Takes exact values out of texts, in their usual forms. Values shorter than `SHORTEST` are left alone."""

    def __init__(self, *secrets: str) -> None:
        self.secrets = tuple(dict.fromkeys(secret for secret in secrets if len(secret) >= SHORTEST))
        forms = {form for secret in self.secrets for form in _spellings(secret)}
        self._forms = sorted(forms, key=len, reverse=True)
        self._encoded = [_wrapped(core) for secret in self.secrets for core in _base64_cores(secret)]

    def text(self, text: str) -> str:
        """`text` without the values."""
        if len(text) < SHORTEST:  # no spelling of a value is shorter
            return text
        for form in self._forms:
            text = text.replace(form, MARK)
        for probes, wrapped in self._encoded:
            if any(probe in text for probe in probes):
                text = wrapped.sub(MARK, text)
        return text


_known = Redactor()


def know(*secrets: str) -> None:
    """Keep these values, besides those known already, out of all that this process writes from now on."""
    global _known  # noqa: PLW0603 - it is the process that holds a secret, not one object in it
    _known = Redactor(*_known.secrets, *secrets)


def known(value: Value) -> Value:
    """`value` without known secrets: a text, bytes, or a JSON value with all its keys and texts."""
    return _map(_known.text, value) if _known.secrets else value


def foreign(value: Value) -> Value:
    """The same for what came from outside: without known secrets, and without what looks like a well-known key."""
    cleaned: Value = _map(_without_patterns, known(value))
    return cleaned


def known_secrets() -> tuple[str, ...]:
    """The values, for handing them to another process that writes."""
    return _known.secrets


def _without_patterns(text: str) -> str:
    if not _LIKE_A_KEY.search(text):
        return text
    # Base64 first: a key that stands right before it would take its first line along, and hide what the rest is.
    text = _ENCODED.sub(_if_clean, text)
    for pattern in _patterns():
        text = pattern.sub(MARK, text)
    return text


def _if_clean(found: re.Match[str]) -> str:
    """Encoded text as it is, or the mark when a key is in it, at whichever of the alignments."""
    letters = found.group().translate(_TO_STANDARD)
    for start in range(4):
        part = letters[start:]
        decoded = base64.b64decode(part + "A" * (-len(part) % 4)).decode("latin-1")
        if any(pattern.search(decoded) for pattern in _patterns()):
            return MARK
    return found.group()


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
    return value


def _spellings(secret: str) -> Iterator[str]:
    """The value plain and in the encodings that keep its letters in order."""
    data = secret.encode()
    yield from (secret, json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1])
    for quoted in ("".join(chr(byte) if chr(byte) in keep else f"%{byte:02X}" for byte in data) for keep in _KEPT):
        yield from (quoted, re.sub("%..", lambda code: code.group().lower(), quoted))
    yield from (data.hex(), data.hex().upper())


_KEPT = (_UNRESERVED, _UNRESERVED | {"/"}, frozenset[str]())
"""What URL encoders leave as it is: those for a query, those for a path, and those that encode everything."""


def _base64_cores(secret: str) -> Iterator[str]:
    """The letters of its base64 that do not depend on what stands before and after it, per alignment and alphabet."""
    data = secret.encode()
    for before in range(3):
        encode = base64.b64encode(b"\0" * before + data + b"\0\0\0").decode()
        core = encode[-(-before * 8 // 6) : (before + len(data)) * 8 // 6]
        yield from {core, core.replace("+", "-").replace("/", "_")}


def _wrapped(core: str) -> tuple[tuple[str, ...], re.Pattern[str]]:
    """How to find base64 that may be wrapped: parts of which one is whole wherever the lines end, and a pattern."""
    middle = len(core) // 2 - _PROBE // 2
    probes = (core[:_PROBE], core[middle : middle + _PROBE], core[-_PROBE:])
    return probes, re.compile(_BREAK.join(map(re.escape, core)))
