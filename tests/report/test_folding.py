"""Sentences are broken between words where they are read; what is to be copied is not."""

from __future__ import annotations

import sys

import pytest

from parallel_orchestrator.report.pages.wrapping import folded


def test_sentences_are_broken_between_words_on_a_terminal_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    sentence = "  cost:     " + "a word " * 20
    kept = [
        "├─ task_1 " + "x " * 60,
        "  next:     cd /" + "x" * 90 + " && y z",
        "a  " * 40 + ".",
        "12 | name: " + "x " * 50 + ".",
        "short",
    ]
    text = "\n".join([sentence.rstrip(), *kept])
    assert folded(text, sys.stdout) == text
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    for columns in (60, 80, 200):
        monkeypatch.setenv("COLUMNS", str(columns))
        first, *more = folded(text, sys.stdout).split("\n")
        assert more[-len(kept) :] == kept
        broken = more[: -len(kept)]
        assert bool(broken) == (columns < 200)
        assert all(len(line) < columns and line.startswith(" " * 12) for line in broken)
        assert " ".join(" ".join([first, *broken]).split()) == " ".join(sentence.split())
