from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parallel_orchestrator.system import json_codec

texts = st.text()  # lone surrogates, too
values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), texts),
    lambda inner: st.one_of(st.lists(inner), st.dictionaries(texts, inner)),
)


@given(values, st.booleans())
def test_it_reads_what_the_standard_library_reads(value: Any, ascii_only: bool) -> None:
    told = json.dumps(value, ensure_ascii=ascii_only)
    assert json_codec.loads(told) == json.loads(told)
    if ascii_only:
        assert json_codec.loads(told.encode()) == json.loads(told)


@given(values)
def test_what_it_writes_is_read_as_the_same(value: Any) -> None:
    try:
        told = json_codec.dumps(value)
    except UnicodeEncodeError:
        assert not _is_utf8(value)
    else:
        assert json.loads(told) == _finite(value)


@given(values)
def test_what_it_writes_as_text_is_read_as_the_same(value: Any) -> None:
    told = json_codec.text(value)
    assert json.loads(told) == _finite(value)
    assert "\n" not in told


@pytest.mark.parametrize("more", ["", "\ud800"])
def test_what_is_no_number_is_written_as_null(more: str) -> None:
    told = json_codec.text({"a": [math.nan], "b": -math.inf, "c": None, "d": more})
    assert json.loads(told) == {"a": [None], "b": None, "c": None, "d": more}


def test_an_integer_that_python_does_not_convert_is_read_as_its_text() -> None:
    assert json_codec.loads('{"a": %s, "b": -7}' % ("1" * 5000)) == {"a": "1" * 5000, "b": -7}


@pytest.mark.parametrize("told", ["", "{", "[1,]", "{'a': 1}", '"\t"', "1 2", "\ufeff1", b"\xff", b'"\xff"'])
def test_what_is_no_json_is_a_value_error(told: bytes | str) -> None:
    for loads in (json.loads, json_codec.loads):
        with pytest.raises((json.JSONDecodeError, UnicodeDecodeError)):
            loads(told)


@pytest.mark.parametrize("told", ["NaN", "1e400", '"\\ud800"', str(2**70), '{"a": 1, "a": 2}', "-0", "1.0", "1E5"])
def test_odd_values_are_the_same(told: str) -> None:
    found, expected = json_codec.loads(told), json.loads(told)
    assert type(found) is type(expected)
    assert found == expected or math.isnan(found)


def test_what_is_nested_too_deep_is_a_recursion_error() -> None:
    with pytest.raises(RecursionError):
        json_codec.loads("[" * 100_000)


def _is_utf8(value: Any) -> bool:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def _finite(value: Any) -> Any:
    """JSON has no infinity; msgspec writes null for it."""
    if isinstance(value, float) and math.isinf(value):
        return None
    if isinstance(value, list):
        return [_finite(item) for item in value]
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return value
