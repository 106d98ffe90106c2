"""Fast JSON by msgspec, with the standard library for what msgspec refuses.

msgspec refuses lone surrogates, NaN and numbers beyond a float. Events of an endpoint and old files may hold them, so
they are read, and NaN is written as null: the output is always strict JSON. Integers stay exact; one with more digits
than Python converts is read as text.
"""

from __future__ import annotations

import json
import math
from typing import Any

import msgspec

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode
_exactly = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def loads(data: bytes | str) -> Any:
    """Like `json.loads`. Raises ValueError, or RecursionError for deep nesting."""
    try:
        return _decode(data)
    except (msgspec.DecodeError, ValueError):
        return json.loads(data, parse_int=_integer)


def strict(data: bytes | str) -> Any:
    """Parse strict JSON. Raises ValueError also for lone surrogates, NaN and numbers beyond a float."""
    try:
        return _decode(data)
    except msgspec.DecodeError as error:
        raise ValueError(str(error)) from None


def text(value: Any) -> str:
    """What `json.dumps` gives of a JSON value or a Struct, compact and not in ASCII alone: lone surrogates are kept.

    NaN and infinity become null. Raises RecursionError.
    """
    try:
        return _encode(value).decode()
    except (UnicodeEncodeError, TypeError):
        return _exactly(finite(msgspec.to_builtins(value)))


def finite(value: Any, instead: str | None = None) -> Any:
    """Return `value` with `instead` for each NaN and infinity, which JSON cannot hold."""
    match value:
        case float():
            return value if math.isfinite(value) else instead
        case dict():
            return {key: finite(item, instead) for key, item in value.items()}
        case list() | tuple():
            return [finite(item, instead) for item in value]
    return value


def dumps(value: Any) -> bytes:
    """Return compact JSON in UTF-8 of a value whose keys are strings. NaN and infinity become null.

    Raises UnicodeEncodeError for lone surrogates, and RecursionError.
    """
    return _encode(value)


def _integer(digits: str) -> int | str:
    try:
        return int(digits)
    except ValueError:
        return digits
