"""Records of every kind, as this and earlier versions wrote them: they are read, and would be written as they were."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import UNSET, ValidationError

from parallel_orchestrator.records.journals.ledger import AnswerRecord
from parallel_orchestrator.store.journal import body_of, encode
from parallel_orchestrator.store.record_parser import BATCH, LEDGER, QUEUE, TRANSCRIPT, RecordParser

CALL = '"call":3,"task":"task_1","attempt":1,"turn":2,"phase":"work","phase_turn":2'
LINES: dict[str, tuple[RecordParser[Any], str]] = {
    "a claim": (QUEUE, '"task":"a","state":"claimed","attempt":1,"executor":2,"at":1.5,"mono":2.5'),
    "a death": (
        QUEUE,
        '"task":"a","state":"queued","attempt":1,"executor":2,"claim":3,"why":"killed","died":true,"at":1.5,"mono":2.5',
    ),
    "a merge found on the trunk": (
        QUEUE,
        '"task":"a","state":"merged","attempt":1,"executor":2,"claim":3,"why":"found on the trunk",'
        '"evidence":{"commit":"c0ffee"},"at":1.5,"mono":2.5',
    ),
    "a merge with evidence": (
        QUEUE,
        '"task":"a","state":"merged","attempt":1,"executor":2,"claim":3,"evidence":{"commit":"c0ffee","files":'
        '{"created":{"count":1,"paths":["a.py"]},"changed":{"count":0,"paths":[]},"deleted":{"count":0,"paths":[]}},'
        '"tests":{"passed":1,"failed":0,"skipped":0,"added":1},"own_coverage":{"files":{"a.py":{"lines":3,"run":2}},'
        '"doubt":""},"tested":"merged and tested","left_out":[],"unplanned":[],"also_changed":[],"not_checked":[],'
        '"flaky":[],"red_before":[],"seconds":1.5,"ended_early":"reached its limit"},"at":1.5,"mono":2.5',
    ),
    "a merge without source": (
        QUEUE,
        '"task":"a","state":"merged","attempt":1,"evidence":{"commit":"c","own_coverage":null},"at":1.5,"mono":2.5',
    ),
    "a merged fix": (
        QUEUE,
        '"task":"fix_1","state":"merged","attempt":1,"evidence":{"commit":"c","corrections":[{"command":"x",'
        '"replacement":"y","reason":"z","fix":"fix_1"}],"verify":[{"command":"y","code":0}],"whole":"green"},'
        '"at":1.5,"mono":2.5',
    ),
    "a session before plans had digests": (QUEUE, '"session":"start","executors":2,"at":1.5,"mono":2.5'),
    "a session": (QUEUE, '"session":"start","executors":2,"plan":"ab","fix_asked":true,"at":1.5,"mono":2.5'),
    "a fix": (
        QUEUE,
        '"fix":"fix_1","commit":"c","tests":["x failed"],"verify":[{"command":"y","code":1,"output":"","timed_out":'
        'false,"correctable":true}],"at":1.5,"mono":2.5',
    ),
    "final tests": (QUEUE, '"final":{"green":true,"head":"c"},"at":1.5,"mono":2.5'),
    "an intent": (
        LEDGER,
        f'"kind":"intent",{CALL},"hash":"h","model":"m","try":1,"bound_usd":null,"changed":false,"at":1.5',
    ),
    "an answer": (
        LEDGER,
        f'"kind":"answer",{CALL},"hash":"h","model":"m","stop_reason":"end_turn","usage":{{"output_tokens":7}},'
        '"usd":0.25,"recorded_usd":null,"endpoint_s":1.5,"waited_s":0.5,"request_id":null,"at":1.5,"events":"data"',
    ),
    "a last fault": (LEDGER, f'"kind":"fault",{CALL},"fault":"429","ambiguous":false,"detail":"slow down","at":1.5'),
    "a fault": (
        LEDGER,
        f'"kind":"fault",{CALL},"fault":"reset","ambiguous":true,"detail":"gone","try":2,"next_s":1.5,'
        '"gives_up_s":600.5,"at":1.5',
    ),
    "a refusal": (
        LEDGER,
        f'"kind":"refused",{CALL},"status":400,"error_type":"invalid_request_error","detail":"no","at":1.5',
    ),
    "a start": (
        TRANSCRIPT,
        '"kind":"start","model":"m","profile":"anthropic","tools":[{"name":"bash"}],"system":[],"task":[{"type":"text",'
        '"text":"do"}],"base":"c","run":"r","task_id":"task_1","attempt":1',
    ),
    "another model": (TRANSCRIPT, '"kind":"model","model":"n"'),
    "a spoken answer": (
        TRANSCRIPT,
        '"kind":"answer","turn":1,"phase":"work","phase_turn":1,"content":[],"stop_reason":null,"usage":null,'
        '"endpoint_s":1.5,"discarded":true,"faults":{"t":"no tool"}',
    ),
    "a tree": (TRANSCRIPT, '"kind":"tree","turn":1,"tree":"ab"'),
    "results": (
        TRANSCRIPT,
        '"kind":"results","turn":1,"results":[{"tool_use_id":"t","content":"ok","is_error":false}],"seconds":0.5',
    ),
    "a repair": (TRANSCRIPT, '"kind":"repair","round":1,"text":"red","base":"c","tree":"t"'),
    "a restart": (TRANSCRIPT, '"kind":"restart","round":1,"text":"red","base":"c","tree":"t"'),
    "a stop": (TRANSCRIPT, '"kind":"stopped","reason":"a cap","restartable":true'),
    "an ending": (TRANSCRIPT, '"kind":"submitted","reason":""'),
    "another version's ending": (TRANSCRIPT, '"kind":"withdrawn","reason":"why not"'),
    "a batch's session": (BATCH, '"session":"start","executors":8,"scenarios":{"shop":"shop-1a"},"mono":1.5'),
    "a batch's session before it had a clock": (BATCH, '"session":"start","executors":8,"scenarios":{}'),
    "a planned scenario": (
        BATCH,
        '"scenario":"a","state":"planned","path":7.0,"limit":5,"sandbox":"required","venv":"/v"',
    ),
    "an open scenario": (BATCH, '"scenario":"a","state":"open"'),
    "a closed scenario": (BATCH, '"scenario":"a","state":"closed","ending":"done","why":""'),
}


@pytest.mark.parametrize("name", LINES)
def test_a_record_is_read_and_would_be_written_as_it_was(name: str) -> None:
    parse, fields = LINES[name]
    body = f'{{"seq":4,{fields}}}'.encode()
    record = parse(body)
    assert record.seq == 4
    record.seq = UNSET
    assert body_of(encode(4, record)[:-1]) == body


@pytest.mark.parametrize("name", LINES)
def test_what_a_newer_version_adds_is_ignored(name: str) -> None:
    parse, fields = LINES[name]
    assert parse(f'{{"seq":4,{fields},"new":{{"a":[1]}}}}'.encode()) == parse(f'{{"seq":4,{fields}}}'.encode())


def test_what_json_has_no_word_for_is_read() -> None:
    _, fields = LINES["an answer"]
    for usage in ('{"a":"\\ud800"}', '{"a":NaN}', '{"a":1e999}', "[]", '"many"', "1" * 400):
        record = LEDGER(f'{{"seq":1,{fields}}}'.replace('{"output_tokens":7}', usage).encode())
        assert isinstance(record, AnswerRecord)
        assert encode(1, record)


@pytest.mark.parametrize(
    ("parse", "line", "why"),
    [
        (QUEUE, '"task":"a","state":"asleep","attempt":1,"mono":1.0', "Invalid enum value 'asleep'"),
        (QUEUE, '"state":"queued","attempt":1,"mono":1.0', "missing required field `task`"),
        (QUEUE, '"task":"a","state":"queued","attempt":"1","mono":1.0', "Expected `int`"),
        (QUEUE, '"session":"start","executors":"two","mono":1.0', "Expected `int`"),
        (LEDGER, '"kind":"gift"', "Invalid value 'gift'"),
        (LEDGER, '"call":1', "missing required field `kind`"),
        (TRANSCRIPT, '"kind":"tree","turn":1', "missing required field `tree`"),
        (TRANSCRIPT, '"turn":1', "missing required field `kind`"),
        (BATCH, '"scenario":"a","state":"lost"', "Invalid enum value 'lost'"),
    ],
)
def test_what_fits_no_type_says_why(parse: RecordParser[Any], line: str, why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        parse(f'{{"seq":1,{line}}}'.encode())
