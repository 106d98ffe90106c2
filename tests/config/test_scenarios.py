"""Scenario files: defaults below each scenario, unknown keys named, one of several chosen."""

from __future__ import annotations

from pathlib import Path

import pytest

from parallel_orchestrator.config.options import Options, settle
from parallel_orchestrator.config.scenarios import find_config, load_options
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
    head = "scenarios: [{name: a, requirements: Build, prices: p.json, replay: "
    assert _load(folder, head + "mine.yaml}]").replay == str(folder / "mine.yaml")
    options = _load(folder, head + "simple}]")
    assert (options.replay, options.settings["prices"]) == ("simple", str(folder / "p.json"))


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("scenarios: [{name: a, requirements: B, colour: red}]", "scenarios.0.colour: Extra inputs are not permitted"),
        (
            "defaults: {limits: {costs: 1}}\nscenarios: [{name: a, requirements: B}]",
            "defaults.limits.costs: Extra inputs are not permitted",
        ),
        ("default: {}\nscenarios: [{name: a, requirements: B}]", "default: Extra inputs are not permitted"),
        ("defaults: {requirements: B}\nscenarios: [{name: a}]", "defaults.requirements: Extra inputs"),
        ("scenarios: [{name: a}]", "scenarios.0.requirements: Field required"),
        ("scenarios: [{requirements: B}]", "scenarios.0.name: Field required"),
        ("scenarios: [{name: ../a, requirements: B}]", "scenarios.0.name: String should match pattern"),
        ("scenarios: [{name: a, requirements: B, max_executors: 0}]", "scenarios.0.max_executors: Input should be"),
        ("scenarios: [{name: a, requirements: B, sandbox: off}]", "scenarios.0.sandbox: Input should be 'auto'"),
        ("scenarios: []", "scenarios: List should have at least 1 item"),
        ("scenarios: [a]", "scenarios.0: "),
        ("scenarios: {name: a}", "scenarios: Input should be a valid list"),
        ("defaults: 5\nscenarios: [{name: a, requirements: B}]", "defaults: "),
        ("", "scenarios: "),
        ("[]", "scenarios: "),
        ("- a\n- b", ""),
        ("just words", ""),
        ("scenarios: [{name: a, requirements: A}, {name: a, requirements: B}]", "the name 'a' is used twice"),
    ],
)
def test_a_file_with_faults_is_refused_and_they_are_named(content: str, told: str, folder: Path) -> None:
    with pytest.raises(UsageError, match="is not a scenario file:\n  ") as caught:
        _load(folder, content)
    assert told in str(caught.value)


@pytest.mark.parametrize("content", ["a: [", "a: b: c", "\t", "!!python/object/apply:os.system ['true']"])
def test_what_is_no_yaml_or_asks_for_more_than_data_is_refused(content: str, folder: Path) -> None:
    with pytest.raises(UsageError, match="cannot read"):
        _load(folder, content)


def test_files_that_are_not_there_are_told(folder: Path) -> None:
    with pytest.raises(UsageError, match="there is no scenario file"):
        find_config("none.yaml")
    with pytest.raises(UsageError, match=r"cannot read the planner's instructions .*none\.txt"):
        _load(folder, "scenarios: [{name: a, requirements: B, planner: {instructions: none.txt}}]")


@pytest.mark.parametrize("name", ["simple", "medium", "complex"])
def test_the_demonstrations_can_be_run_without_a_key(name: str) -> None:
    settled = settle(load_options(ROOT / "configs" / "demo.yaml", name), {})
    assert settled.recording
    assert settled.credential is None
    assert settled.directory.name == f"demo-{name}"
