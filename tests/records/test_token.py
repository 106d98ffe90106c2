"""Attempt tokens: made up, altered, forged."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from parallel_orchestrator.records.attempt_token import Caller, mint, verify

names = st.text("abcdefghijklmnopqrstuvwxyz_0123456789", min_size=1, max_size=12)
callers = st.builds(Caller, names, names, st.integers(1, 10**6))


@given(callers, st.text(max_size=40))
def test_a_token_proves_its_caller_and_to_its_own_gateway_only(caller: Caller, secret: str) -> None:
    token = mint(secret, caller)
    assert verify(secret, token) == caller
    assert verify(secret + "x", token) is None


@given(callers, st.data())
def test_an_altered_token_proves_nothing(caller: Caller, data: st.DataObject) -> None:
    token = mint("secret", caller)
    place = data.draw(st.integers(0, len(token) - 1))
    other = data.draw(st.characters(min_codepoint=33, max_codepoint=126).filter(lambda c: c != token[place]))
    assert verify("secret", token[:place] + other + token[place + 1 :]) is None


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=60))
def test_no_made_up_token_proves_anything(token: str) -> None:
    assert verify("secret", token) is None
    assert verify("secret", "po1." + token) is None


def test_a_signature_is_for_one_attempt_only() -> None:
    token = mint("secret", Caller("run", "task_1", 1))
    for forged in (token.replace(".task_1.", ".task_2."), token.replace(".1.", ".2."), token.replace("po1", "po2")):
        assert forged != token
        assert verify("secret", forged) is None
