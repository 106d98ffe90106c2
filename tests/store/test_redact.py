"""Secrets taken out: every form of a known value, every well-known key, at every place that writes."""

from __future__ import annotations

import base64
import json
import logging
import random
import re
import string
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parallel_orchestrator.store.journal import Journal, read_each
from parallel_orchestrator.system import redact
from parallel_orchestrator.system.files import write_json, write_whole
from parallel_orchestrator.system.logfile import log_to, stop_logging
from parallel_orchestrator.system.redact import MARK, Redactor
from parallel_orchestrator.system.terminal_text import one_line, printable
from tests.journals import ITEMS, Item

ODD = 'key-"odd"/and\\strange+0123456789=~x&y'
LETTERS = string.ascii_letters + string.digits


def _letters(count: int) -> str:
    return "".join(random.Random(count).choices(LETTERS, k=count))


@pytest.mark.parametrize(
    "encode",
    [
        str,
        lambda secret: json.dumps(secret)[1:-1],
        lambda secret: quote(secret, safe=""),
        quote,
        quote_plus,
        lambda secret: re.sub("%..", lambda code: code.group().lower(), quote(secret, safe="")),
    ],
)
def test_spellings_of_a_known_value(encode: Callable[[str], str]) -> None:
    assert Redactor(ODD).text(f"a {encode(ODD)} b") == f"a {MARK} b"


@given(st.text(string.printable[:94], min_size=12, max_size=150), st.binary(max_size=70))
def test_base64_that_begins_with_a_known_value(secret: str, after: bytes) -> None:
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        assert Redactor(secret).text(encode(secret.encode() + after).decode()).startswith(MARK)


def test_several_values_and_what_is_too_short_to_be_one() -> None:
    redactor = Redactor("first-0123456789", "second-0123456789", "ollama")
    assert redactor.text("first-0123456789second-0123456789 ollama") == f"{MARK}{MARK} ollama"


@pytest.mark.parametrize(
    "key",
    [
        "sk-ant-" + "api03-" + _letters(93) + "AA",
        "sk-ant-" + "oat01-" + _letters(80),
        "sk-" + _letters(20) + "T3Blbk" + "FJ" + _letters(21),
        "sk-" + "proj-" + _letters(40) + "T3Blbk" + "FJ" + _letters(41),
        "sk_" + "live_" + _letters(24),
        "ghp" + "_" + _letters(36),
        "ghs" + "_" + _letters(37),
        "github" + "_pat_" + _letters(22) + "_" + _letters(59),
        "glpat" + "-" + _letters(20),
        "AKIA" + _letters(16).upper(),
        "ASIA" + _letters(16).upper(),
        "AIza" + _letters(35),
        "xoxb" + "-" + _letters(26),
        "xoxp" + "-" + _letters(28),
        "hf" + "_" + _letters(34),
        "npm" + "_" + _letters(36),
        "pypi-AgEIc" + "HlwaS" + _letters(60),
        "SG." + _letters(22) + "." + _letters(43),
        "-----BEGIN RSA " + "PRIVATE KEY-----\n" + f"{_letters(64)}\n" * 3 + "-----END RSA PRIVATE KEY-----",
        "-----BEGIN " + "PRIVATE KEY-----\\n" + _letters(64) + "\\n-----END PRIVATE KEY-----",
    ],
)
def test_well_known_keys(key: str) -> None:
    assert redact.foreign(f"KEY={key}") == f"KEY={MARK}"
    assert redact.foreign({"a": [key]}) == {"a": [MARK]}
    assert redact.foreign(f'"{key}";\n'.encode()) == f'"{MARK}";\n'.encode()
    for before in ("", "x", "xy"):
        encoded = base64.b64encode(f"{before}{key}".encode())
        wrapped = base64.encodebytes(f"{before}{key}".encode())
        for text in (encoded.decode(), encoded.decode().rstrip("="), wrapped.decode()):
            assert redact.foreign(f"see: {text}") == f"see: {MARK}" + "\n" * text.endswith("\n")


@pytest.mark.parametrize(
    "text",
    [
        "task-ant-colony-simulation-with-many-parts",
        "disk-" + "0123456789abcdef" * 4,
        'if "-----BEGIN PRIVATE KEY-----" in text:\n    return pem_of(text)\n' + "x = 1\n" * 40,
        "AKIA, AIza and ghp_ are how keys begin; sk-ant-api03-… too",
        "AKIAIOSFODNN7EXAMPLEANDMORE",
        base64.b64encode(bytes(range(256)) * 20).decode(),
        "src/a/long/path/of/a/module/in/a/project/with_many_parts.py",
    ],
)
def test_what_is_no_key_stays(text: str) -> None:
    assert redact.foreign(text) == text


@pytest.fixture
def secret(monkeypatch: pytest.MonkeyPatch) -> str:
    """A value that this process knows, for the time of the test."""
    monkeypatch.setattr(redact, "_known", Redactor())
    redact.know("first-0123456789")
    redact.know(ODD)
    return ODD


def test_whole_files_hold_no_known_value(secret: str, tmp_path: Path) -> None:
    for content in (f"a {secret} first-0123456789", f"a {secret} first-0123456789".encode()):
        write_whole(tmp_path / "file", content)
        assert (tmp_path / "file").read_text() == f"a {MARK} {MARK}"
    write_json(tmp_path / "file", {"a": secret})
    assert json.loads((tmp_path / "file").read_text()) == {"a": MARK}


def test_journals_hold_no_known_value_and_stay_whole(secret: str, tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal", ITEMS)
    record = journal.append(Item(text=secret, value=[secret, {secret: 1}], n=1), durable=True)
    journal.close()
    assert record == Item(seq=1, text=MARK, value=[MARK, {MARK: 1}], n=1)
    assert list(read_each(tmp_path / "journal", ITEMS)) == [record]


def test_the_log_and_the_terminal_get_neither_values_nor_keys(secret: str, tmp_path: Path) -> None:
    key = "ghp" + "_" + _letters(36)
    handler = log_to(tmp_path / "o.log")
    try:
        try:
            raise ValueError(secret)
        except ValueError:
            logging.getLogger("parallel_orchestrator.somewhere").exception("%s of %s", secret, key)
    finally:
        stop_logging(handler)
    logged = (tmp_path / "o.log").read_text()
    assert logged.count(MARK) == 3
    assert one_line(f"{secret}\n{key}") == f"{MARK}\\n{MARK}"
    assert printable(f"{secret}\n{key}") == f"{MARK}\n{MARK}"


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "part", ["sk-", "sk-ant-api03-", "-----BEGIN PRIVATE KEY-----", "github_pat_", "A" * 24 + "=", "A" * 23 + "\n", "1"]
)
def test_text_made_to_be_slow_is_not(part: str) -> None:
    text = part * (600_000 // len(part))
    for hostile in (text, base64.b64encode(text.encode()).decode()):
        assert redact.foreign(hostile) in (hostile, MARK)
