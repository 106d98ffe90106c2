"""The Python API's settings: real parameters, the same names everywhere, wrong ones refused at once."""

from __future__ import annotations

import inspect
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import typer

import parallel_orchestrator
from orchestrator import ParallelOrchestrator, app
from parallel_orchestrator.config.schema import LimitsSection, ScenarioDefaults, ScenarioEntry
from parallel_orchestrator.config.settings import fields_of
from parallel_orchestrator.records import errors
from parallel_orchestrator.records.errors import UsageError
from parallel_orchestrator.records.scenario import Scenario

ROOT = Path(__file__).resolve().parents[2]
PARAMETERS = inspect.signature(ParallelOrchestrator).parameters


def test_every_setting_of_a_scenario_is_a_parameter() -> None:
    known = {name for name in PARAMETERS if name not in ("max_executors", "old_names")}
    given = {field for name in known for field in fields_of({name: "x"})}
    elsewhere = {"version", "run", "endpoint", "plan_sha256", "variables", "max_executors"}
    assert set(Scenario.model_fields) - elsewhere <= given


def test_every_parameter_is_described_and_typed() -> None:
    described = ParallelOrchestrator.__doc__ or ""
    named = [name for name in PARAMETERS if name != "old_names"]
    general = {"planner_model", "executor_model", "planner_backend", "executor_backend"}
    assert [name for name in named if f"\n    {name}" not in described and name not in general | {"backend"}] == []
    assert all(parameter.annotation is not inspect.Parameter.empty for parameter in PARAMETERS.values())


def test_the_options_of_the_command_line_have_the_same_names() -> None:
    run = typer.main.get_command(app).commands["run"]  # type: ignore[attr-defined]
    options = {parameter.name for parameter in run.params} - {
        *("requirement", "requirements_file", "config", "only", "fresh", "as_json", "debug", "help")
    }
    assert options <= set(PARAMETERS)


def test_scenario_files_have_the_same_names() -> None:
    within = {"planner", "executor", "limits", "api_key_env", "base_url_env", "name", "requirements_file"}
    assert set(ScenarioEntry.model_fields) - within <= set(PARAMETERS)
    assert {"max_cost", "max_turns", "task_timeout", "task_max_cost", "model", "backend"} <= set(
        ScenarioDefaults.model_fields
    )
    assert set(LimitsSection.model_fields) == {"cost", "task_cost", "turns", "minutes"}


@pytest.mark.parametrize(
    ("old", "new", "value"),
    [
        ("max_cost_usd", "max_cost", 5.0),
        ("task_max_cost_usd", "task_max_cost", 1.0),
        ("task_timeout_min", "task_timeout", 3.0),
        ("endpoint_patience_s", "endpoint_patience", 9.0),
    ],
)
def test_old_names_work_with_a_warning_where_they_are_used(old: str, new: str, value: float) -> None:
    with pytest.warns(DeprecationWarning, match=f"{old} is called {new} now") as seen:
        by_old = ParallelOrchestrator("Build it", **{old: value})  # type: ignore[arg-type]
    assert seen[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        by_new = ParallelOrchestrator("Build it", **{new: value})  # type: ignore[arg-type]
    assert by_old.settings == by_new.settings == {new if old == "endpoint_patience_s" else old: value}
    with pytest.raises(UsageError, match=f"{old} is the old name of {new}"):
        ParallelOrchestrator("Build it", **{old: value, new: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("wrong", "meant"), [("max_costs", "max_cost"), ("max_executer", "max_executors"), ("sandbx", "sandbox")]
)
def test_a_wrong_name_is_refused_by_the_constructor(wrong: str, meant: str) -> None:
    with pytest.raises(UsageError, match=rf"there is no setting {wrong}; did you mean {meant}\?") as caught:
        ParallelOrchestrator("Build it", **{wrong: 1})  # type: ignore[arg-type]
    assert isinstance(caught.value, TypeError)


def test_a_wrong_value_is_refused_by_the_constructor_under_its_own_name() -> None:
    with pytest.raises(UsageError, match=r"max_cost: has to be greater than or equal to 0 \(got -1\)") as caught:
        ParallelOrchestrator("Build it", max_cost=-1, sandbox="of")  # type: ignore[arg-type]
    assert "sandbox" in str(caught.value)


def test_a_general_setting_gives_way_to_that_of_a_role() -> None:
    one = ParallelOrchestrator("Build it", planner_model="p", model="m", backend="claude-code", executor_backend="api")
    assert one.settings == {
        "planner_model": "p",
        "executor_model": "m",
        "planner_backend": "claude-code",
        "backend": "api",
    }


def test_a_requirement_may_be_a_file(tmp_path: Path) -> None:
    file = tmp_path / "prd"
    file.write_text("Build a form")
    assert ParallelOrchestrator(file).requirements == "Build a form"
    with pytest.raises(UsageError, match="there is no file"):
        ParallelOrchestrator("prd.md")


def test_the_package_offers_every_error() -> None:
    kinds = {name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, Exception)}
    assert len(kinds) > 10
    for name in (*kinds, "ParallelOrchestrator", "Progress", "UnknownSetting"):
        assert getattr(parallel_orchestrator, name).__name__ == name
        assert name in dir(parallel_orchestrator)
    for name in ("Nonsense", "internal_error", "__path_of_nothing__"):
        with pytest.raises(AttributeError, match=f"no attribute '{name}'"):
            getattr(parallel_orchestrator, name)


@pytest.mark.parametrize("name", ["BudgetReached", "ParallelOrchestrator", "Progress"])
def test_importing_the_package_alone_loads_nothing(name: str) -> None:
    code = (
        "import sys, parallel_orchestrator\n"
        "loaded = [n for n in sys.modules if n.startswith(('parallel_orchestrator.', 'orchestrator', 'pydantic'))]\n"
        f"from parallel_orchestrator import {name}\n"
        f"print(loaded, {name}.__name__, 'anthropic' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["[]", name, "False"]
