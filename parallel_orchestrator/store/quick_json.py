"""JSON that is read or written thousands of times: by msgspec, and by the standard library what that does not take.

Lone surrogates, NaN and numbers beyond a float are no JSON for msgspec; events of an endpoint and files of ours may
hold them. Integers stay exact at any size in both.
"""

from __future__ import annotations

import json
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
        return json.loads(data)


def strict(data: bytes | str) -> Any:
    """The same, of JSON to the letter. Raises ValueError also for lone surrogates, NaN and numbers beyond a float."""
    try:
        return _decode(data)
    except msgspec.DecodeError as error:
        raise ValueError(str(error)) from None


def text(value: Any) -> str:
    """What `json.dumps` gives of a JSON value, compact and not in ASCII alone: NaN and lone surrogates are kept.

    Raises RecursionError.
    """
    try:
        told = _encode(value)
    except (UnicodeEncodeError, TypeError):
        return _exactly(value)
    return _exactly(value) if b"null" in told else told.decode()  # NaN and infinity are null by now


def dumps(value: Any) -> bytes:
    """Compact JSON in UTF-8; keys are texts, and NaN and infinity become null.

    Raises UnicodeEncodeError for lone surrogates, and RecursionError.
    """
    return _encode(value)
