"""Everything that is wrong with a scenario file is told at once, each where it stands."""

from __future__ import annotations

from pathlib import Path

import pytest

from parallel_orchestrator.config.scenarios import load_options
from parallel_orchestrator.records.errors import UsageError
from tests.config.files import SOME, faults_of


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("scenarios: [{name: a, requirements: B, colour: red}]", ["1:40: unknown key 'colour'"]),
        (
            f"defaults: {{limits: {{costs: 1}}}}\n{SOME}",
            ["1:21: unknown key 'costs'; did you mean cost?"],
        ),
        (f"default: {{}}\n{SOME}", ["1:1: unknown key 'default'; did you mean defaults?"]),
        ("scenarios:\n- name: a\n  requirements: B\n  cost: 1", ["4:3: unknown key 'cost'; did you mean max_cost?"]),
        (f"defaults: {{requirements: B}}\n{SOME}", ["1:12: unknown key 'requirements'"]),
        ("scenarios: [{name: a}]", ["1:13: a scenario needs 'requirements', or 'requirements_file'"]),
        ("scenarios: [{requirements: B}]", ["1:13: 'name' is missing here"]),
        ("scenarios: [{name: ../a, requirements: B}]", ["1:20: scenarios.name: has to match pattern"]),
        ("scenarios: [{name: a, requirements: B, max_executors: 0}]", ["1:55: scenarios.max_executors: "]),
        (
            "scenarios: [{name: a, requirements: B, max_executors: '5'}]",
            ["1:55: scenarios.max_executors: has to be a valid integer"],
        ),
        ("scenarios: [{name: a, requirements: 5}]", ["1:37: scenarios.requirements: has to be a valid string, not 5"]),
        ("scenarios: [{name: a, requirements: B, verify: make}]", ["1:48: scenarios.verify: has to be a valid list"]),
        (
            "scenarios: [{name: a, requirements: B, sandbox: requird}]",
            ["1:49: scenarios.sandbox: has to be 'auto', 'required' or 'off'; did you mean required?"],
        ),
        ("scenarios: []", ["1:12: scenarios: has to have at least 1 item"]),
        ("scenarios: [a]", ["1:13: scenarios: has to be a mapping of keys to values"]),
        ("scenarios: {name: a}", ["1:12: scenarios: has to be a valid list"]),
        (f"defaults: 5\n{SOME}", ["1:11: defaults: has to be a mapping of keys to values"]),
        ("", ["1:1: 'scenarios' is missing here"]),
        ("- a\n- b", ["1:1: the file: has to be a mapping of keys to values"]),
        ("just words", ["1:1: the file: has to be a mapping of keys to values"]),
        (
            "scenarios:\n- {name: a, requirements: A}\n- {name: A, requirements: B}",
            ["3:10: the name 'A' is used twice, first in line 2"],
        ),
        # Twice the same key, in the file and nested.
        (f"{SOME}\n{SOME}", ["2:1: the key 'scenarios' stands here twice, first in line 1"]),
        (
            f"defaults:\n  limits:\n    cost: 1\n    cost: 2\n{SOME}",
            ["4:5: the key 'cost' stands here twice, first in line 3"],
        ),
        (
            f"defaults:\n  limits: {{costt: 1, turns: x}}\n  limits: {{minutes: 0}}\n{SOME}",
            [
                "2:12: unknown key 'costt'",
                "2:29: defaults.limits.turns: has to be a valid integer",
                "3:3: the key 'limits' stands here twice, first in line 2",
            ],
        ),
        (
            "scenarios:\n- name: a\n  colour: red\n  replay: none\n- name: A\n  requirements:\n"
            "scenarios: [{name: a, requirements: B, speed: x, speed: 1}]",
            [
                "2:3: a scenario needs 'requirements'",
                "3:3: unknown key 'colour'",
                "4:11: there is no recording 'none'",
                "5:9: the name 'A' is used twice",
                "6:16: requirements is empty",
                "7:1: the key 'scenarios' stands here twice, first in line 1",
            ],
        ),
        (
            f"defaults:\n  limits: {{turns: x, turns: y, turns: 1}}\n  limits: {{}}\ndefaults: {{}}\n{SOME}",
            [
                "2:19: defaults.limits.turns: has to be a valid integer",
                "2:22: the key 'turns' stands here twice",
                "2:32: the key 'turns' stands here twice",
                "3:3: the key 'limits' stands here twice",
                "4:1: the key 'defaults' stands here twice",
            ],
        ),
        # Tags.
        (
            f"defaults: !!python/object/apply:os.system ['true']\n{SOME}",
            ["1:11: the tag !!python/object/apply:os.system is not allowed"],
        ),
        (
            "scenarios:\n- name: !!python/name:os.system ''\n  requirements: B",
            ["2:9: the tag !!python/name:os.system is not allowed"],
        ),
        # What YAML 1.1 reads otherwise than people do.
        ("scenarios: [{name: no, requirements: B}]", ["1:20: no means false in YAML"]),
        (f"defaults:\n  sandbox: off\n{SOME}", ["2:12: off means false in YAML"]),
        (f"defaults: {{limits: {{turns: 010}}}}\n{SOME}", ["1:28: 010 is read as 8 in YAML"]),
        (f"defaults: {{max_executors: 1_0}}\n{SOME}", ["1:27: 1_0 is read as 10 in YAML"]),
        (f"defaults: {{limits: {{minutes: 1:30}}}}\n{SOME}", ["1:30: 1:30 is read as 90 in YAML"]),
        (f"defaults: {{speed: .nan}}\n{SOME}", ["1:19: .nan is read as a number"]),
        # Files that are not there.
        (f"defaults: {{replay: mediun}}\n{SOME}", ["1:20: there is no recording 'mediun'"]),
        (f"defaults: {{planner: {{instructions: none.txt}}}}\n{SOME}", ["1:36: none.txt cannot be used: No such file"]),
        ("scenarios: [{name: a, requirements_file: none.txt}]", ["1:42: none.txt cannot be used: No such file"]),
        (
            "scenarios: [{name: a, requirements: B, requirements_file: how.txt}]",
            ["1:13: 'requirements' and 'requirements_file' exclude each other"],
        ),
        # Nothing said of what to build.
        ("scenarios:\n- name: a\n  requirements:\n", ["3:16: requirements is empty: say what to build"]),
        ("scenarios: [{name: a, requirements: ~}]", ["1:37: requirements is empty: say what to build"]),
        ("scenarios: [{name: a, requirements: '   '}]", ["1:37: requirements is empty: say what to build"]),
        ("scenarios: [{name: a, requirements: ''}]", ["1:37: scenarios.requirements: has to have at least 1"]),
        (
            "scenarios: [{name: a, requirements_file: null}]",
            ["1:42: requirements_file is empty: name a file that says what to build"],
        ),
        ("scenarios: [{name: a, requirements_file: blank.txt}]", ["1:42: blank.txt is empty: say in it what to build"]),
        # Keys are never written into a file.
        (
            f"defaults: {{api_key_env: sk-ant-abc}}\n{SOME}",
            ["1:25: defaults.api_key_env: name an environment variable"],
        ),
        # No YAML: nothing else is told.
        ("a: [", ["2:1: did not find expected node content"]),
        ("a: b: c", ["1:5: the colon here begins a value inside a text"]),
        (
            "defaults:\n  limits: {costt: 1}\nscenarios:\n- name: a\n  colour: red\n- verify: [a\n  speed: x\n",
            ["7:8: did not find expected ',' or ']'"],
        ),
        (
            'defaults:\n  speed: x\n  sandbox: "off\nscenarios:\n- name: a\n  requirements: "B"\n',
            ["6:18: did not find expected key"],
        ),
        ("\t", ["1:1: a tab is no indentation in YAML; use spaces"]),
        ("scenarios:\n\t- name: a", ["2:1: a tab is no indentation in YAML; use spaces"]),
        ("scenarios:\n  - name: a\n\trequirements: B", ["3:1: a tab is no indentation in YAML; use spaces"]),
        ("a: \x01", ["1:4: the character '\\x01' is not allowed"]),
        # Places are told in characters, and lines end as YAML's do.
        ('# ééé\nscenarios: [{name: a, requirements: "x\x01"}]', ["2:39: the character '\\x01' is not allowed"]),
        ('# é\r# é\x85# é\r\nscenarios: [{name: é, requirements: "x\x01"}]', ["4:39: the character '\\x01'"]),
        ("# é\rscenarios: [{name: a, requirements: B, colour: red}]", ["2:40: unknown key 'colour'"]),
        (f"{SOME}\n---\n{SOME}", ["2:1: a second document begins"]),
        (f"defaults: {{speed: *b}}\n{SOME}", ["1:19: found undefined alias 'b'"]),
        (f"defaults: {{speed: &a [*a]}}\n{SOME}", ["1:19: nested deeper than 20 levels"]),
        (f"defaults: {{verify: {'[' * 25}{']' * 25}, turns: 1}}\n{SOME}", ["1:39: nested deeper than 20 levels"]),
        ("? [a]\n: b", ["1:3: a key has to be a word", "1:1: 'scenarios' is missing here"]),
    ],
)
def test_every_fault_is_told_where_it_stands(content: str, told: list[str], folder: Path) -> None:
    found = faults_of(folder, content)
    assert len(found) == len(told), found
    for fault, start in zip(sorted(found), sorted(told), strict=True):
        assert fault.replace(f"{folder}/", "").startswith(start)


BAD = (
    """defaults:
  max_executers: 5
  limits: {cost: no, turns: 010}
scenarios:
  - name: a
    requirements: B
    name: b
    replay: mediun
""",
    """default: {}
scenarios:
  - name: a
    requirements: B
    executor: {modell: x}
    limits:
      minutes: 0
      minutes: 3
  - name: A
    requirements: !!python/none C
""",
    """scenarios:
  - name: a/b
    requirements: A
    sandbox: on
  - requirements: 5
    planner:
      instructions: none.txt
    max_executors: "3"
""",
)


@pytest.mark.parametrize(
    ("content", "places"),
    [
        (BAD[0], ["2:3", "3:18", "3:29", "7:5", "8:13"]),
        (BAD[1], ["1:1", "5:16", "7:16", "8:7", "9:11", "10:19"]),
        (BAD[2], ["2:11", "4:14", "5:5", "5:19", "7:21", "8:20"]),
    ],
)
def test_all_faults_of_a_file_are_told_at_once(content: str, places: list[str], folder: Path) -> None:
    assert [":".join(fault.split(":")[:2]) for fault in faults_of(folder, content)] == places


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"# \xc3\xa9\ra: \xc3\xa9\xff", "2:5: this is not UTF-8"),
        (b"\xef\xbb\xbfa: \xff", "1:4: this is not UTF-8"),
        (b"# \xc3\xa9\n" + b"\xc3\xa9" * 500_000, "2:499998: a scenario file has at most 1,000,000 bytes"),
    ],
)
def test_bytes_that_cannot_be_read_are_told_by_line_and_character(content: bytes, told: str, folder: Path) -> None:
    path = folder / "scenarios.yaml"
    path.write_bytes(content)
    with pytest.raises(UsageError) as caught:
        load_options(path, None)
    assert str(caught.value).startswith(f"{path}:{told}")


def test_a_fault_behind_aliases_is_told_once_where_it_stands(folder: Path) -> None:
    content = "scenarios:\n- &a {name: a, requirements: B, colour: red}\n- *a\n"
    assert [fault.split(";")[0] for fault in faults_of(folder, content)] == [
        "2:13: the name 'a' is used twice, first in line 2",
        "2:33: unknown key 'colour'",
    ]
