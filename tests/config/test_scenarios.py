"""Scenario files: defaults below each scenario, unknown keys named, one of several chosen."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from parallel_orchestrator.config.options import find_recording, resolve
from parallel_orchestrator.config.scenarios import find_config, load_batch, load_options
from parallel_orchestrator.config.schema import json_schema
from parallel_orchestrator.records.errors import UsageError
from tests.config.files import load

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


def test_a_scenario_has_the_defaults(folder: Path) -> None:
    options = load(folder, FILE, "one")
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
    options = load(folder, FILE, "two")
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
    assert resolve(options, {"ANTHROPIC_API_KEY": "k"}).scenario.task_timeout_min == 3.5


def test_one_of_several_is_chosen_by_name(folder: Path) -> None:
    told = {
        None: "has the scenarios one, two: choose one with --only NAME",
        "three": r"has no scenario three; it has one, two$",
        "onw": r"has no scenario onw; it has one, two; did you mean one\?",
    }
    for only, match in told.items():
        with pytest.raises(UsageError, match=match):
            load(folder, FILE, only)


def test_a_single_scenario_needs_no_choice(folder: Path) -> None:
    assert load(folder, "scenarios: [{name: a, requirements: Build}]").requirements == "Build"


def test_files_are_found_beside_the_scenario_file_and_shipped_recordings_by_name(folder: Path) -> None:
    (folder / "mine.yaml").write_text("")
    (folder / "p.json").write_text("{}")
    head = "scenarios: [{name: a, requirements: Build, prices: p.json, replay: "
    assert load(folder, head + "mine.yaml}]").replay == str(folder / "mine.yaml")
    options = load(folder, head + "simple}]")
    assert (options.replay, options.settings["prices"]) == ("simple", str(folder / "p.json"))


def test_a_thousand_scenarios_fit(folder: Path) -> None:
    entries = "".join(f"- name: s{n}\n  requirements: Build {n}\n  replay: simple\n" for n in range(1000))
    (folder / "scenarios.yaml").write_text("scenarios:\n" + entries)
    assert len(load_batch(folder / "scenarios.yaml", [])) == 1000


def test_variables_are_named_in_the_file_and_read_from_the_environment(folder: Path) -> None:
    options = load(folder, "scenarios: [{name: a, requirements: B, api_key_env: MINE, base_url_env: URL}]")
    settled = resolve(options, {"MINE": "k", "URL": "http://localhost:1"})
    assert settled.credential is not None
    assert (settled.credential.value, settled.scenario.endpoint) == ("k", "http://localhost:1")
    with pytest.raises(UsageError, match="MINE, which the scenario names, is not set"):
        resolve(options, {"ANTHROPIC_API_KEY": "other"})


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


def test_only_a_scenario_file_that_comes_with_the_package_is_found_by_its_name(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("medium.yaml", "simple.yaml", "demo", "recordings/demo.yaml", "n" * 300, "n\0"):
        with pytest.raises(UsageError, match=f"^there is no scenario file {name}$"):
            find_config(name)
    installed = folder / "installed"
    installed.mkdir()
    for name in ("demo.yaml", "medium.yaml"):
        (installed / name).touch()
    for module in ("scenarios", "options"):
        monkeypatch.setattr(f"parallel_orchestrator.config.{module}.SHIPPED", installed)
    assert find_config("demo.yaml") == installed / "demo.yaml"
    with pytest.raises(UsageError, match=r"there is no scenario file medium\.yaml"):
        find_config("medium.yaml")
    assert find_recording("medium") == installed / "medium.yaml"
    with pytest.raises(UsageError, match=r"there is no recording 'demo': .* shipped ones \(medium\)"):
        find_recording("demo")


@pytest.mark.parametrize("name", ["simple", "medium", "complex"])
def test_the_demonstrations_can_be_run_without_a_key(name: str) -> None:
    settled = resolve(load_options(ROOT / "configs" / "demo.yaml", name), {})
    assert settled.recording
    assert settled.credential is None
    assert settled.directory.name == f"demo-{name}"


def test_every_field_of_the_schema_is_described() -> None:
    schema = json_schema()
    parts = {"the file": schema, **schema["$defs"]}
    bare = [
        f"{part}.{name}"
        for part, found in parts.items()
        for name, field in found.get("properties", {}).items()
        if not field.get("description")
    ]
    assert bare == []


def test_an_unquoted_colon_gets_its_hint(tmp_path: Path) -> None:
    file = tmp_path / "s.yaml"
    file.write_text("scenarios:\n  - name: a\n    requirements: Build a form: with fields\n")
    with pytest.raises(UsageError, match=r"s\.yaml:3:31: the colon here .* put the whole text in quotes"):
        load_batch(file, [])


def test_settings_have_the_names_of_the_command_line_too(tmp_path: Path) -> None:
    file = tmp_path / "s.yaml"
    file.write_text(
        "defaults: {model: m, max_cost: 5, limits: {turns: 9}, executor: {model: e}}\n"
        "scenarios:\n"
        "  - {name: a, requirements: Build a, max_turns: 7, task_timeout: 3, backend: claude-code}\n"
        "  - {name: b, requirements: Build b, limits: {cost: 2}, model: own}\n"
    )
    options = load_batch(file, [])
    assert options["a"].settings == {
        "planner_model": "m",
        "executor_model": "e",
        "planner_backend": "claude-code",
        "backend": "claude-code",
        "max_cost_usd": 5.0,
        "max_turns": 7,
        "task_timeout_min": 3.0,
    }
    assert options["b"].settings == {
        "planner_model": "own",
        "executor_model": "own",
        "max_cost_usd": 2.0,
        "max_turns": 9,
    }
    file.write_text("scenarios: [{name: a, requirements: Build a, max_cost: 5, limits: {cost: 2}}]\n")
    with pytest.raises(UsageError, match=r"max_cost and limits\.cost are the same setting: keep one of them"):
        load_batch(file, [])


def test_a_requirement_that_is_the_name_of_a_file_is_a_fault(tmp_path: Path) -> None:
    (tmp_path / "form").write_text("Build a form")
    file = tmp_path / "s.yaml"
    for name in ("prd.md", "form"):
        file.write_text(f"scenarios: [{{name: a, requirements: {name}}}]\n")
        with pytest.raises(UsageError, match=rf"{name} is the name of a file: write requirements_file"):
            load_batch(file, [])


def test_words_that_yaml_1_1_reads_as_dates_or_merges_are_texts(folder: Path) -> None:
    for word in ("2026-01-01", "=", "<<"):
        assert load(folder, f"scenarios: [{{name: a, requirements: {word}}}]").requirements == word
