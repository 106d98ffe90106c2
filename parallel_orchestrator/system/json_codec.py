"""JSON that is read or written thousands of times: by msgspec, and by the standard library what that does not take.

msgspec refuses lone surrogates, NaN and numbers beyond a float; events of an endpoint and old files may hold
them. They are read, and written as null: what is written is JSON to the letter. Integers stay exact; one of more
digits than Python converts is read as its text.
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
    """What `json.loads` gives. Raises ValueError, or RecursionError for what is nested too deep."""
    try:
        return _decode(data)
    except (msgspec.DecodeError, ValueError):
        return json.loads(data, parse_int=_integer)


def strict(data: bytes | str) -> Any:
    """The same, of JSON to the letter. Raises ValueError also for lone surrogates, NaN and numbers beyond a float."""
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
    """`value` with `instead` for each NaN and infinity in it, which JSON cannot say."""
    match value:
        case float():
            return value if math.isfinite(value) else instead
        case dict():
            return {key: finite(item, instead) for key, item in value.items()}
        case list() | tuple():
            return [finite(item, instead) for item in value]
    return value


def dumps(value: Any) -> bytes:
    """Compact JSON in UTF-8; keys are texts, and NaN and infinity become null.

    Raises UnicodeEncodeError for lone surrogates, and RecursionError.
    """
    return _encode(value)


def _integer(digits: str) -> int | str:
    try:
        return int(digits)
    except ValueError:
        return digits
