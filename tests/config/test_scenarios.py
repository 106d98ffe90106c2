"""Scenario files: defaults below each scenario, unknown keys named, one of several chosen."""

from __future__ import annotations

import json
import os
import re
import resource
import time
from pathlib import Path

import pytest

from parallel_orchestrator.config.options import Options, settle
from parallel_orchestrator.config.scenario_file import json_schema
from parallel_orchestrator.config.scenarios import find_config, load_batch, load_options
from parallel_orchestrator.records.errors import UsageError

ROOT = Path(__file__).resolve().parents[2]

FILE = """
defaults:
  max_executors: 4
  planner: {model: planner-m, instructions: how.txt}
  limits: {cost: 5, turns: 30}
  speed: 10
  verify: ["make test"]
scenarios:
  - name: one
    requirements: Build one
  - name: two
    requirements: Build two
    max_executors: 2
    planner: {model: other-m}
    limits: {turns: 9, minutes: 3.5, task_cost: 1}
    executor: {model: executor-m}
    sandbox: "off"
    verify: []
    output_dir: elsewhere/two
"""


def _load(folder: Path, content: str, only: str | None = None) -> Options:
    path = folder / "scenarios.yaml"
    path.write_text(content)
    return load_options(path, only)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "how.txt").write_text("Use no classes.")
    (tmp_path / "blank.txt").write_text(" \n")
    return tmp_path


def test_a_scenario_has_the_defaults(folder: Path) -> None:
    options = _load(folder, FILE, "one")
    assert options.requirements == "Build one"
    assert options.output_dir == Path("outputs/one")
    assert options.settings == {
        "max_executors": 4,
        "planner_model": "planner-m",
        "planner_instructions": "Use no classes.",
        "max_cost_usd": 5.0,
        "max_turns": 30,
        "speed": 10.0,
        "verify": ["make test"],
    }


def test_what_a_scenario_says_goes_before_them_key_by_key(folder: Path) -> None:
    options = _load(folder, FILE, "two")
    assert options.output_dir == Path("elsewhere/two")
    assert options.settings == {
        "max_executors": 2,
        "planner_model": "other-m",
        "planner_instructions": "Use no classes.",
        "executor_model": "executor-m",
        "max_cost_usd": 5.0,
        "task_max_cost_usd": 1.0,
        "max_turns": 9,
        "task_timeout_min": 3.5,
        "sandbox": "off",
        "speed": 10.0,
        "verify": [],
    }
    assert settle(options, {"ANTHROPIC_API_KEY": "k"}).scenario.task_timeout_min == 3.5


def test_one_of_several_is_chosen_by_name(folder: Path) -> None:
    for only in (None, "three"):
        with pytest.raises(UsageError, match="has the scenarios one, two: choose one with --only NAME"):
            _load(folder, FILE, only)


def test_a_single_scenario_needs_no_choice(folder: Path) -> None:
    assert _load(folder, "scenarios: [{name: a, requirements: Build}]").requirements == "Build"


def test_files_are_found_beside_the_scenario_file_and_shipped_recordings_by_name(folder: Path) -> None:
    (folder / "mine.yaml").write_text("")
    (folder / "p.json").write_text("{}")
    head = "scenarios: [{name: a, requirements: Build, prices: p.json, replay: "
    assert _load(folder, head + "mine.yaml}]").replay == str(folder / "mine.yaml")
    options = _load(folder, head + "simple}]")
    assert (options.replay, options.settings["prices"]) == ("simple", str(folder / "p.json"))


def _faults(folder: Path, content: str) -> list[str]:
    """LINE:COLUMN and message of each fault; the excerpts are checked to point there."""
    with pytest.raises(UsageError) as caught:
        _load(folder, content)
    head, *told = str(caught.value).split("\n")
    path = folder / "scenarios.yaml"
    found = []
    while told:
        line = told.pop(0).removeprefix(f"{path}:")
        found.append(line)
        if told and " | " in told[0]:
            excerpt, caret = told.pop(0), told.pop(0)
            number, column, _ = line.split(":", 2)
            shown = content.split("\n")[int(number) - 1].replace("\t", " ")
            assert excerpt.startswith(f"{number:>5} | {shown}"[:20])
            assert caret.index("^") - len("      | ") == int(column) - 1
    assert head == f"{path}: {len(found)} {'fault' if len(found) == 1 else 'faults'}; nothing was started"
    return found


SOME = "scenarios: [{name: a, requirements: B}]"


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("scenarios: [{name: a, requirements: B, colour: red}]", ["1:40: unknown key 'colour'"]),
        (
            f"defaults: {{limits: {{costs: 1}}}}\n{SOME}",
            ["1:21: unknown key 'costs'; did you mean 'cost'?"],
        ),
        (f"default: {{}}\n{SOME}", ["1:1: unknown key 'default'; did you mean 'defaults'?"]),
        ("scenarios:\n- name: a\n  requirements: B\n  cost: 1", ["4:3: unknown key 'cost'; did you mean limits.cost?"]),
        (f"defaults: {{requirements: B}}\n{SOME}", ["1:12: unknown key 'requirements'"]),
        ("scenarios: [{name: a}]", ["1:13: a scenario needs 'requirements', or 'requirements_file'"]),
        ("scenarios: [{requirements: B}]", ["1:13: 'name' is missing here"]),
        ("scenarios: [{name: ../a, requirements: B}]", ["1:20: scenarios.name: String should match pattern"]),
        ("scenarios: [{name: a, requirements: B, max_executors: 0}]", ["1:55: scenarios.max_executors: "]),
        (
            "scenarios: [{name: a, requirements: B, max_executors: '5'}]",
            ["1:55: scenarios.max_executors: has to be a valid integer"],
        ),
        ("scenarios: [{name: a, requirements: 5}]", ["1:37: scenarios.requirements: has to be a valid string, not 5"]),
        ("scenarios: [{name: a, requirements: B, verify: make}]", ["1:48: scenarios.verify: has to be a valid list"]),
        (
            "scenarios: [{name: a, requirements: B, sandbox: requird}]",
            ["1:49: scenarios.sandbox: has to be 'auto', 'required' or 'off'; did you mean 'required'?"],
        ),
        ("scenarios: []", ["1:12: scenarios: List should have at least 1 item"]),
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
                "3:21: defaults.limits.minutes: has to be greater than 0",
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
                "7:47: scenarios.speed: has to be a valid number",
                "7:50: the key 'speed' stands here twice",
            ],
        ),
        (
            f"defaults:\n  limits: {{turns: x, turns: y, turns: 1}}\n  limits: {{}}\ndefaults: {{}}\n{SOME}",
            [
                "2:19: defaults.limits.turns: has to be a valid integer",
                "2:22: the key 'turns' stands here twice",
                "2:29: defaults.limits.turns: has to be a valid integer",
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
        ("scenarios: [{name: a, requirements: 2026-01-01}]", ["1:37: 2026-01-01 has a meaning of its own"]),
        (f"defaults: {{speed: .nan}}\n{SOME}", ["1:19: .nan is read as a number"]),
        # Files that are not there.
        (f"defaults: {{replay: mediun}}\n{SOME}", ["1:20: there is no recording 'mediun'"]),
        (f"defaults: {{planner: {{instructions: none.txt}}}}\n{SOME}", ["1:36: there is no text file "]),
        ("scenarios: [{name: a, requirements_file: none.txt}]", ["1:42: there is no text file "]),
        (
            "scenarios: [{name: a, requirements: B, requirements_file: how.txt}]",
            ["1:13: 'requirements' and 'requirements_file' exclude each other"],
        ),
        # Nothing said of what to build.
        ("scenarios:\n- name: a\n  requirements:\n", ["3:16: requirements is empty: say what to build"]),
        ("scenarios: [{name: a, requirements: ~}]", ["1:37: requirements is empty: say what to build"]),
        ("scenarios: [{name: a, requirements: '   '}]", ["1:37: requirements is empty: say what to build"]),
        ("scenarios: [{name: a, requirements: ''}]", ["1:37: scenarios.requirements: String should have at least 1"]),
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
        # No YAML.
        ("a: [", ["1:1: unknown key 'a'", "2:1: did not find expected node content"]),
        ("a: b: c", ["1:1: unknown key 'a'", "1:5: mapping values are not allowed"]),
        (
            "defaults:\n  limits: {costt: 1}\nscenarios:\n- name: a\n  colour: red\n- verify: [a\n  speed: x\n",
            [
                "2:12: unknown key 'costt'",
                "4:3: a scenario needs 'requirements'",
                "5:3: unknown key 'colour'",
                "7:8: did not find expected ',' or ']'",
            ],
        ),
        (
            'defaults:\n  speed: x\n  sandbox: "off\nscenarios:\n- name: a\n  requirements: "B"\n',
            ["2:10: defaults.speed: has to be a valid number", "6:18: did not find expected key"],
        ),
        (
            "defaults:\n  limits:\n    costt: 1\n   turns: x\n",
            ["3:5: unknown key 'costt'", "4:4: did not find expected key"],
        ),
        (
            "scenarios:\n- name: 5\n- name: b\n  requirements: |\n   a\n  - b\n",
            ["2:3: a", "2:9: scenarios.name", "6:3: "],
        ),
        ("\t", ["1:1: a tab is no indentation in YAML; use spaces"]),
        (
            "scenarios:\n\t- name: a",
            ["2:1: a tab is no indentation in YAML; use spaces", "2:4: a scenario needs 'requirements'"],
        ),
        ("a: \x01", ["1:4: "]),
        (f"{SOME}\n---\n{SOME}", ["2:1: a second document begins"]),
        (
            "scenarios: [{name: 5, requirements: B}]\n---\na: 1",
            ["1:20: scenarios.name: ", "2:1: a second document begins"],
        ),
        (
            "defaults: {speed: *b, turns: 1}\nscenarios: [{name: a, requirements: *c, *d : 1}, *e]",
            [
                "1:19: the alias *b names nothing that stands before it",
                "1:23: unknown key 'turns'",
                "2:37: the alias *c names nothing",
                "2:41: the alias *d names nothing",
                "2:50: the alias *e names nothing",
            ],
        ),
        (
            f"defaults: {{speed: &a [*a], verify: *a, limits: *b}}\n{SOME}",
            [
                "1:19: defaults.speed: has to be a valid number",
                "1:23: the alias *a stands inside what it names",
                "1:48: the alias *b names nothing",
            ],
        ),
        (
            f"defaults: {{verify: {'[' * 25}&a {']' * 25}, speed: *a, turns: 1}}\n{SOME}",
            [
                "1:21: defaults.verify: has to be a valid string",
                "1:38: nested deeper than 20 levels",
                "1:86: unknown key 'turns'",
            ],
        ),
        ("? [a]\n: b", ["1:3: a key has to be a word", "1:1: 'scenarios' is missing here"]),
    ],
)
def test_every_fault_is_told_where_it_stands(content: str, told: list[str], folder: Path) -> None:
    found = _faults(folder, content)
    assert len(found) == len(told), found
    for fault, start in zip(sorted(found), sorted(told), strict=True):
        assert fault.startswith(start)


def _bomb(levels: int, a: str = "a") -> str:
    lines = [f"{a}0: &{a}0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"{a}{n}: &{a}{n} [{', '.join([f'*{a}{n - 1}'] * 10)}]" for n in range(1, levels)]
    return "\n".join(lines)


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


TABS = """defaults:
\tspeed: fast
  limits:
\t  cost: no
scenarios:
  - name: a
\trequirements: B
    limits:
    \tturns: 010
    sandbox: auto
    verify: *b
"""

BOMBS = f"""defaults:
  speed: yes
{_bomb(6, "a")}
{_bomb(6, "b")}
scenarios:
  - name: a
    requirements: !!python/none B
    verify: *b5
    max_executors: "3"
"""


@pytest.mark.parametrize(
    ("content", "places"),
    [
        # Neither a tab nor an alias that names nothing hides what stands after it.
        (TABS, ["2:1", "2:9", "4:1", "4:10", "7:1", "9:5", "9:13", "11:13"]),
        (TABS.replace("*b", "b"), ["2:1", "2:9", "4:1", "4:10", "7:1", "9:5", "9:13", "11:13"]),
        (BAD[0], ["2:3", "3:18", "3:29", "7:5", "8:13"]),
        (BAD[1], ["1:1", "5:16", "7:16", "8:7", "9:11", "10:19"]),
        (BAD[2], ["2:11", "4:14", "5:5", "5:19", "7:21", "8:20"]),
    ],
)
def test_all_faults_of_a_file_are_told_at_once(content: str, places: list[str], folder: Path) -> None:
    assert [":".join(fault.split(":")[:2]) for fault in _faults(folder, content)] == places


TABBED = "- name: {0}{1}\n\trequirements: |\n\t\tBuild {1}\n\t\tnow\n\tcolour: red\n\tlimits:\n\t\tturns: x\n"


@pytest.mark.parametrize("count", [4, 9, 400])
@pytest.mark.parametrize("name", ["s", "s" * 150])
def test_many_tabs_hide_nothing_either(count: int, name: str, folder: Path) -> None:
    content = "scenarios:\n" + "".join(TABBED.format(name, n) for n in range(count))
    (folder / "scenarios.yaml").write_text(content)
    started = time.process_time()
    with pytest.raises(UsageError) as caught:
        load_options(folder / "scenarios.yaml", None)
    assert time.process_time() - started < 2
    told = str(caught.value)
    long = count if len(name) > 99 else 0
    found = re.search(r"(\d+) faults; nothing", told)
    assert found
    # In the lines of the texts some are in the way, too, as long as they are found one by one.
    assert 6 * count + long <= int(found[1]) <= 6 * count + long + 10
    for line, what in ((3, "a tab"), (6, "a tab"), (6, "unknown key 'colour'"), (8, "scenarios.limits.turns: ")):
        assert re.search(rf":{line}:\d+: {what}", told)
    assert "expected" not in told


def test_a_tab_that_does_no_harm_stays(folder: Path) -> None:
    texts = "".join(f"- name: s{n}\n  requirements: |\n    a:\n    \tb {'x' * 200}\n" for n in range(400))
    (folder / "scenarios.yaml").write_text("scenarios:\n" + texts)
    options = load_batch(folder / "scenarios.yaml", [])
    assert {one.requirements for one in options.values()} == {f"a:\n\tb {'x' * 200}\n"}


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (_bomb(9), "with this alias the file expands to more than"),
        ("\n".join(_bomb(6, name) for name in "abcdefgh"), "with this alias the file expands to more than"),
        ("[" * 900_000, "nested deeper than"),
        ("\n".join(f"k{n}: 1" for n in range(80_000)), "up to here the file expands to more than"),
        ("defaults: {x: " + "{a: " * 29_000, "nested deeper than"),
        ("\n".join(f"k{n}: 1" for n in range(14_900)), "unknown key 'k0'(?s:.*)and 14851 more"),
        ("defaults: {x: 1}\n" * 4_000, "unknown key 'x'"),
        ("x" * 50_000_000, ":1:1000001: a scenario file has at most 1,000,000 bytes"),
        ("a: " + "9" * 900_000, "is read as a number"),
        (f"{SOME}\n? {'k' * 900_000}\n: 1", r"unknown key 'k{59}…'"),
        ("defaults: {replay: " + "r" * 900_000 + f"}}\n{SOME}", "there is no recording 'r{99}…'"),
        ("scenarios: [" + ", ".join(["{nam: a, requirements: 1}"] * 5_000) + "]", "unknown key 'nam'"),
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
    ],
)
def test_what_is_too_much_is_refused_before_it_grows(content: str, told: str, folder: Path) -> None:
    (folder / "scenarios.yaml").write_text(content)
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    with pytest.raises(UsageError, match=told) as caught:
        load_options(folder / "scenarios.yaml", None)
    assert len(str(caught.value)) < 50_000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KiB
    assert time.process_time() - started < 2  # s, of which one would do on a machine with nothing else to do


NAMING = ("requirements_file: {}", "requirements: B, prices: {}", "requirements: B, planner: {{instructions: {}}}")


@pytest.mark.parametrize("naming", NAMING)
def test_what_has_no_end_or_is_too_long_is_not_read_as_a_text(naming: str, folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    (folder / "long").write_bytes(b"x" * 1_000_001)
    for name, why in (("/dev/zero", "no regular"), ("pipe", "no regular"), ("long", "more than 1,000,000 bytes")):
        entry = naming.format(name)
        (fault,) = _faults(folder, f"scenarios: [{{name: a, {entry}}}]")
        assert re.fullmatch(rf"1:{22 + entry.index(name) + 1}: .*{name} cannot be used: it .*{why}.*", fault), fault


def test_a_recording_that_is_too_long_is_not_read(folder: Path) -> None:
    with (folder / "long.yaml").open("wb") as file:
        file.truncate(100_000_001)
    (fault,) = _faults(folder, "scenarios: [{name: a, requirements: B, replay: long.yaml}]")
    assert fault.startswith("1:48: the recording ")
    assert "more than 100,000,000 bytes" in fault


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
    (fault,) = _faults(folder, "scenarios:\n" + entries)
    assert fault.startswith("13:34: with ")
    assert "more than 10,000,000 bytes together" in fault


def test_bombs_are_told_where_each_goes_off_and_hide_nothing(folder: Path) -> None:
    found = [fault for fault in _faults(folder, BOMBS) if "unknown key" not in fault]
    places = [":".join(fault.split(":")[:2]) for fault in found]
    assert places == ["2:10", "7:15", "13:15", "17:19", "19:20"], found
    assert [("with this alias" in fault) for fault in found] == [False, True, True, False, False]


def test_a_thousand_scenarios_fit(folder: Path) -> None:
    entries = "".join(f"- name: s{n}\n  requirements: Build {n}\n  replay: simple\n" for n in range(1000))
    (folder / "scenarios.yaml").write_text("scenarios:\n" + entries)
    assert len(load_batch(folder / "scenarios.yaml", [])) == 1000


def test_variables_are_named_in_the_file_and_read_from_the_environment(folder: Path) -> None:
    options = _load(folder, "scenarios: [{name: a, requirements: B, api_key_env: MINE, base_url_env: URL}]")
    settled = settle(options, {"MINE": "k", "URL": "http://localhost:1"})
    assert settled.credential is not None
    assert (settled.credential.value, settled.scenario.endpoint) == ("k", "http://localhost:1")
    with pytest.raises(UsageError, match="MINE, which the scenario names, is not set"):
        settle(options, {"ANTHROPIC_API_KEY": "other"})


def test_the_schema_that_is_shipped_is_that_of_the_models() -> None:
    shipped = json.loads((ROOT / "configs" / "scenarios.schema.json").read_text())
    assert shipped == json_schema()
    for file in (ROOT / "configs").glob("*.yaml"):
        assert file.read_text().startswith("# yaml-language-server: $schema=scenarios.schema.json\n"), file


@pytest.mark.parametrize("name", ["demo", "batch", "live"])
def test_the_shipped_files_have_no_fault(name: str) -> None:
    assert load_batch(ROOT / "configs" / f"{name}.yaml", [])


def test_files_that_are_not_there_are_told(folder: Path) -> None:
    with pytest.raises(UsageError, match="there is no scenario file"):
        find_config("none.yaml")
    with pytest.raises(UsageError, match="cannot read"):
        load_options(folder, None)


@pytest.mark.parametrize("name", ["simple", "medium", "complex"])
def test_the_demonstrations_can_be_run_without_a_key(name: str) -> None:
    settled = settle(load_options(ROOT / "configs" / "demo.yaml", name), {})
    assert settled.recording
    assert settled.credential is None
    assert settled.directory.name == f"demo-{name}"
