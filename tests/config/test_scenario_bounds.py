"""However much stands in a scenario file, or in files that it names: it hides nothing and costs little."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from parallel_orchestrator.config.scenarios import load_batch, load_options
from parallel_orchestrator.records.errors import UsageError
from tests.config.files import SOME, bomb, faults_of

LONG = "x: &a '{0}'\nscenarios: [" + "{1}, " * 2_000 + "]"
"""A scenario file with a long text and many aliases of it."""


def test_a_tab_inside_a_text_stays(folder: Path) -> None:
    (folder / "scenarios.yaml").write_text("scenarios:\n- name: a\n  requirements: |\n    a:\n    \tb\n")
    assert load_options(folder / "scenarios.yaml", None).requirements == "a:\n\tb\n"


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (bomb(9), "a file holds at most 30,000 values"),
        ("\n".join(bomb(6, name) for name in "abcdefgh"), "a file holds at most 30,000 values"),
        ("[" * 900_000, "nested "),
        ("\n".join(f"k{n}: 1" for n in range(80_000)), "a file holds at most 30,000 values"),
        ("defaults: {x: " + "{a: " * 29_000, "nested deeper than"),
        ("\n".join(f"k{n}: 1" for n in range(14_900)), "unknown key 'k0'(?s:.*)and 14851 more"),
        ("defaults: {x: 1}\n" * 4_000, "unknown key 'x'"),
        ("x" * 50_000_000, ":1:1000001: a scenario file has at most 1,000,000 bytes"),
        ("a: " + "9" * 900_000, "is read as a number"),
        (f"{SOME}\n? {'k' * 900_000}\n: 1", r"unknown key 'k{59}…'"),
        ("defaults: {replay: " + "r" * 900_000 + f"}}\n{SOME}", "there is no recording 'r{99}…'"),
        ("scenarios: [" + ", ".join(["{nam: a, requirements: 1}"] * 5_000) + "]", "unknown key 'nam'"),
        # Long texts that many aliases stand for.
        (
            LONG.format(" " * 900_000, "{name: b, requirements: *a}"),
            "has more than 2,000,000 characters",
        ),
        (
            LONG.format("y" * 900_000, "{name: *a, requirements: b}"),
            "has more than 2,000,000 characters",
        ),
        (LONG.format("y" * 900_000, "{*a : 1}"), "has more than 2,000,000 characters"),
        (
            LONG.format("y" * 900_000, "{name: b, sandbox: *a}"),
            "has more than 2,000,000 characters",
        ),
        (
            LONG.format("y/" * 450_000, "{name: b, replay: *a}"),
            "has more than 2,000,000 characters",
        ),
        (
            LONG.format("y" * 900_000, "{name: b, verify: [*a]}"),
            "has more than 2,000,000 characters",
        ),
        # Many faults at the end of a long line, and much to say of one.
        ("scenarios: [{requirements: '" + "x" * 900_000 + "'}, " + "{nam: b}, " * 1_000 + "]", "unknown key 'nam'"),
        ("a: 1" + ":20" * 300_000 + ".5", r":1:4: 1(:20){12}:2… is read as a number in YAML: .* \"1(:20)+:2…\""),
        ("a: *" + "b" * 900_000, "found undefined alias 'b{900,1000}…\n"),
        (f"a: !{'b' * 900_000} c", "the tag !b{900,1000}…\n"),
        (f"scenarios: [{', '.join(['{name: ' + 'b' * 400_000 + '}'] * 2)}]", "the name 'b{900,1000}…\n"),
    ],
    ids=[
        "aliases",
        "more aliases",
        "brackets",
        "brackets with keys",
        "keys",
        "keys unknown",
        "keys twice",
        "50 MB",
        "digits",
        "key",
        "name",
        "faults",
        "blanks by aliases",
        "names by aliases",
        "keys by aliases",
        "words by aliases",
        "paths by aliases",
        "commands by aliases",
        "end of a line",
        "long number",
        "long alias",
        "long tag",
        "long name",
    ],
)
def test_what_is_too_much_is_refused(content: str, told: str, folder: Path) -> None:
    (folder / "scenarios.yaml").write_text(content)
    with pytest.raises(UsageError, match=told) as caught:
        load_options(folder / "scenarios.yaml", None)
    assert len(str(caught.value)) < 50_000


def test_aliases_may_stand_for_long_texts(folder: Path) -> None:
    entries = "".join(f"- {{name: s{n}, requirements: *a}}\n" for n in range(1, 50))
    content = f"scenarios:\n- {{name: s0, requirements: &a '{'x' * 20_000}'}}\n{entries}"
    (folder / "scenarios.yaml").write_text(content)
    assert {one.requirements for one in load_batch(folder / "scenarios.yaml", []).values()} == {"x" * 20_000}


NAMING = ("requirements_file: {}", "requirements: B, prices: {}", "requirements: B, planner: {{instructions: {}}}")


@pytest.mark.parametrize("naming", NAMING)
def test_what_has_no_end_or_is_too_long_is_not_read_as_a_text(naming: str, folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    (folder / "long").write_bytes(b"x" * 1_000_001)
    special = "not a regular file"
    for name, why in (("/dev/zero", special), ("pipe", special), ("long", "more than 1,000,000 bytes")):
        entry = naming.format(name)
        (fault,) = faults_of(folder, f"scenarios: [{{name: a, {entry}}}]")
        assert re.fullmatch(rf"1:{22 + entry.index(name) + 1}: .*{name} cannot be used: it .*{why}.*", fault), fault


def test_a_recording_that_is_too_long_is_not_read(folder: Path) -> None:
    with (folder / "long.yaml").open("wb") as file:
        file.truncate(100_000_001)
    (fault,) = faults_of(folder, "scenarios: [{name: a, requirements: B, replay: long.yaml}]")
    assert fault.startswith("1:48: the recording ")
    assert "more than 20,000,000 bytes" in fault


def test_a_text_is_read_once_however_many_scenarios_name_it(folder: Path) -> None:
    (folder / "text").write_text("x" * 1_000_000)
    entries = "".join(f"- {{name: s{n}, requirements_file: text}}\n" for n in range(50))
    (folder / "scenarios.yaml").write_text("scenarios:\n" + entries)
    texts = {id(options.requirements) for options in load_batch(folder / "scenarios.yaml", []).values()}
    assert len(texts) == 1


def test_all_texts_together_are_bounded(folder: Path) -> None:
    for n in range(12):
        (folder / f"t{n}").write_text("x" * 900_000)
    entries = "\n".join(f"- {{name: s{n}, requirements_file: t{n}}}" for n in range(12))
    (fault,) = faults_of(folder, "scenarios:\n" + entries)
    assert fault.startswith("13:34: with ")
    assert "more than 10,000,000 bytes together" in fault
