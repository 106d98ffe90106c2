from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from parallel_orchestrator.sandbox.output import BoundedOutput


def test_short_output_is_kept_as_it_is() -> None:
    output = BoundedOutput(10)
    output.add("größe".encode())
    assert output.text() == "größe"


def test_long_output_keeps_head_and_tail() -> None:
    output = BoundedOutput(20)
    for _ in range(1000):
        output.add(b"x" * 1000)
    output.add(b"the end")
    head, note, tail = output.text().split("\n")
    assert head == "x" * 10
    assert "1,000,007 bytes" in note
    assert tail == "xxxthe end"


@given(st.lists(st.binary(max_size=300), max_size=40), st.integers(2, 100))
def test_output_is_bounded_whatever_comes(chunks: list[bytes], limit: int) -> None:
    output = BoundedOutput(limit)
    for chunk in chunks:
        output.add(chunk)
    assert len(output.text()) <= limit + 80


def test_a_key_in_the_output_is_taken_out_before_it_is_cut() -> None:
    key = "ghp" + "_" + "0123456789" * 4
    for fill in (0, 1_000_000):
        output = BoundedOutput(100)
        output.add(f"{key[:20]}".encode())
        output.add(f"{key[20:]} {'x' * fill} {key}".encode())
        assert output.text().count("[credential]") == 2
        assert "ghp" not in output.text()
    # Its beginning would be the last that is kept of the head.
    output = BoundedOutput(100)
    output.add(f"{'x' * 29} {key} {'x ' * 1000}".encode())
    assert "ghp" not in output.text()
