"""Options and environment made into a scenario, and everything that is wrong with them said before anything is paid."""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from parallel_orchestrator.config.credentials import credential_from, endpoint_from
from parallel_orchestrator.config.options import (
    SHIPPED,
    Options,
    ResolvedRun,
    find_recording,
    is_shipped,
    load_plan,
    resolve,
    resume_options,
    slug,
)
from parallel_orchestrator.records.credential import Credential
from parallel_orchestrator.records.errors import UsageError
from parallel_orchestrator.store.paths import RunDirectory
from parallel_orchestrator.system import redact
from parallel_orchestrator.system.files import write_json
from tests.records.plans import plan, task

KEY = {"ANTHROPIC_API_KEY": "sk-ant-0123456789abcdef"}


def _settle(requirement: str = "Build it", environment: dict[str, str] | None = None, **options: Any) -> ResolvedRun:
    return resolve(Options(requirement, **options), KEY if environment is None else environment)


# Who pays


def test_without_a_key_the_ways_are_named() -> None:
    with pytest.raises(UsageError) as caught:
        _settle(environment={})
    assert caught.value.exit_code == 2
    ways = str(caught.value).splitlines()[1:]
    assert [re.split(r"[=\s]", way.strip().removeprefix("export "))[0] for way in ways] == [
        "ANTHROPIC_API_KEY",
        "ANTHROPIC_BASE_URL",
        "--replay",
        "--backend",
    ]


def test_the_login_of_claude_code_pays_for_no_run() -> None:
    settings = {"planner_backend": "claude-code", "backend": "claude-code"}
    with pytest.raises(UsageError, match="a login of Claude Code cannot pay for a run"):
        _settle(environment={"CLAUDE_CODE_OAUTH_TOKEN": "sk-ant-oat01-0123456789"}, settings=settings)


def test_a_key_of_another_name_is_known_by_its_value() -> None:
    _settle(environment={"MINE": "key-0123456789abc"}, variables={"ANTHROPIC_API_KEY": "MINE"})
    assert redact.known("x key-0123456789abc y") == "x [credential] y"


@pytest.mark.parametrize(
    ("environment", "kind", "source"),
    [
        (KEY, "api_key", "ANTHROPIC_API_KEY"),
        ({"ANTHROPIC_AUTH_TOKEN": "t"}, "auth_token", "ANTHROPIC_AUTH_TOKEN"),
        ({**KEY, "ANTHROPIC_AUTH_TOKEN": "t"}, "api_key", "ANTHROPIC_API_KEY"),
        ({"ANTHROPIC_API_KEY": " \n", "ANTHROPIC_AUTH_TOKEN": " t\n"}, "auth_token", "ANTHROPIC_AUTH_TOKEN"),
    ],
)
def test_the_key_pays_before_the_token(environment: dict[str, str], kind: str, source: str) -> None:
    found = credential_from(environment)
    assert found
    assert (found.kind, found.source, found.value) == (kind, source, environment[source].strip())


def test_an_endpoint_of_ones_own_may_want_no_key() -> None:
    for url in ("http://localhost:8080", "https://models.example.org/v1"):
        settled = resolve(Options("Build it"), {"ANTHROPIC_BASE_URL": url})
        assert (settled.credential, settled.scenario.endpoint_profile) == (None, "compatible")
    for url in ("https://api.anthropic.com", ""):
        with pytest.raises(UsageError, match="no model to ask"):
            resolve(Options("Build it"), {"ANTHROPIC_BASE_URL": url})


@pytest.mark.parametrize("value", ["two words", "línea", "a\nb", "“quoted”"])
def test_what_cannot_be_a_credential_is_refused_and_not_shown(value: str) -> None:
    with pytest.raises(UsageError, match="ANTHROPIC_API_KEY holds white space or characters") as caught:
        credential_from({"ANTHROPIC_API_KEY": value})
    assert value not in str(caught.value)


def test_a_credential_shows_its_last_four_characters_at_most() -> None:
    credential = Credential("api_key", "sk-ant-0123456789abcdef", source="ANTHROPIC_API_KEY")
    assert credential.describe() == "API key from ANTHROPIC_API_KEY (…cdef)"
    assert credential.value not in repr(credential)
    assert Credential("auth_token", "short", source="X").describe() == "auth token from X"


@pytest.mark.parametrize(
    ("url", "endpoint"),
    [
        ("", "https://api.anthropic.com"),
        ("http://localhost:8000/", "http://localhost:8000"),
        ("https://host/path/v1", "https://host/path"),
        (" https://host/v1/ ", "https://host"),
        ("http://host/a@b", "http://host/a@b"),
    ],
)
def test_the_endpoint_is_the_base_of_the_messages_api(url: str, endpoint: str) -> None:
    assert endpoint_from({"ANTHROPIC_BASE_URL": url}) == endpoint


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://host", "/v1", "file:///etc/passwd", "http:/", "https://"])
def test_a_bad_url_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match=r"ANTHROPIC_BASE_URL is .*: it must start with http"):
        _settle(environment={**KEY, "ANTHROPIC_BASE_URL": url})


def test_a_url_that_holds_a_password_is_refused_and_not_shown() -> None:
    with pytest.raises(UsageError, match="holds a user name or password") as caught:
        _settle(environment={**KEY, "ANTHROPIC_BASE_URL": "http://me:hunter2@host/v1"})
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "profile"),
    [("", "anthropic"), ("https://api.anthropic.com/v1", "anthropic"), ("http://localhost:1", "compatible")],
)
def test_the_profile_follows_the_endpoint_unless_it_is_given(url: str, profile: str) -> None:
    environment = {**KEY, "ANTHROPIC_BASE_URL": url}
    assert _settle(environment=environment).scenario.endpoint_profile == profile
    given = _settle(environment=environment, settings={"endpoint_profile": "anthropic"})
    assert given.scenario.endpoint_profile == "anthropic"


def test_no_secret_is_in_the_scenario() -> None:
    settled = _settle()
    assert settled.credential
    assert KEY["ANTHROPIC_API_KEY"] not in settled.scenario.model_dump_json()
    assert KEY["ANTHROPIC_API_KEY"] not in repr(settled)


# What to build, and where


@pytest.mark.parametrize("requirement", ["", "   ", "\n\t"])
def test_an_empty_requirement_is_refused(requirement: str) -> None:
    with pytest.raises(UsageError, match="the requirement is empty"):
        _settle(requirement)


def test_defaults_are_filled_in_and_what_was_given_is_kept(tmp_path: Path) -> None:
    settled = _settle("  Build it\n", settings={"max_executors": 3, "max_cost_usd": 1.5}, output_dir=tmp_path / "o")
    scenario = settled.scenario
    assert (scenario.requirements, scenario.max_executors, scenario.max_cost_usd) == ("Build it", 3, 1.5)
    assert (scenario.sandbox, scenario.repair_rounds, scenario.speed) == ("auto", 2, 1.0)
    assert settled.directory == tmp_path / "o"
    assert (settled.plan, settled.recording) == (None, None)
    assert _settle().scenario.run != _settle().scenario.run


def test_every_bad_setting_is_listed() -> None:
    with pytest.raises(UsageError) as caught:
        _settle(settings={"max_executors": 0, "sandbox": "maybe", "colour": "red"})
    told = str(caught.value)
    for name in ("max_executors", "sandbox", "colour"):
        assert f"\n  {name}: " in told


def test_the_directory_is_named_after_the_requirement(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert _settle("Build a To-Do list!").directory == tmp_path / "outputs" / "build-a-to-do-list"


@pytest.mark.parametrize(
    ("requirement", "name"),
    [
        ("Build a To-Do list!", "build-a-to-do-list"),
        ("Größe: ändern", "groe-andern"),
        ("../../etc/passwd", "etc-passwd"),
        ("word " * 30, "word-word-word-word-word-word-word-word-word"),
    ],
)
def test_slugs(requirement: str, name: str) -> None:
    assert slug(requirement) == name


@given(st.text())
def test_a_slug_is_always_a_folder_name(requirement: str) -> None:
    try:
        requirement.encode()
    except UnicodeEncodeError:
        return
    assert re.fullmatch(r"[a-z0-9][a-z0-9-]*", slug(requirement))
    assert len(slug(requirement)) <= 48


def test_requirements_without_latin_letters_have_folders_of_their_own() -> None:
    assert slug("作る") != slug("建てる")


# Recordings


def test_a_shipped_recording_needs_no_key_and_is_named_as_it_was_typed() -> None:
    settled = _settle(environment={}, replay="simple")
    digest = hashlib.sha256((SHIPPED / "simple.yaml").read_bytes()).hexdigest()[:16]
    assert settled.scenario.endpoint == f"recording:simple:{digest}"
    assert settled.scenario.replay == "simple"
    assert settled.credential is None
    assert settled.recording
    assert is_shipped(settled.recording)


def test_a_recording_of_ones_own_is_found_again_from_elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("version: 1\n")
    (tmp_path / "prices.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    settled = _settle(environment={}, replay="mine.yaml", settings={"prices": "prices.json"})
    assert settled.scenario.replay == str(tmp_path / "mine.yaml")
    assert settled.scenario.prices == str(tmp_path / "prices.json")
    assert settled.recording
    assert not is_shipped(settled.recording)


@pytest.mark.parametrize("name", ["none", "../recordings/simple", "", "/", "SIMPLE"])
def test_a_recording_that_is_not_there_is_told_with_those_that_are(name: str) -> None:
    with pytest.raises(UsageError, match=r"there is no recording .*complex, medium, simple"):
        find_recording(name)


# Plans of one's own


def _plan_file(folder: Path, content: str) -> Path:
    (folder / "plan.json").write_text(content)
    return folder / "plan.json"


def test_a_plan_file_is_part_of_what_the_run_is(tmp_path: Path) -> None:
    good = plan(task(1), task(2, (1,)))
    path = _plan_file(tmp_path, good.model_dump_json())
    settled = _settle(plan=path)
    assert settled.plan == good
    digest = settled.scenario.plan_sha256
    assert digest
    path.write_text(json.dumps(good.model_dump(), indent=8))
    assert _settle(plan=path).scenario.plan_sha256 == digest  # its layout is no matter
    path.write_text(plan(task(1)).model_dump_json())
    assert _settle(plan=path).scenario.plan_sha256 != digest
    assert _settle().scenario.plan_sha256 is None


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("{", "it is not JSON (line 1, column 2: "),
        ('{"tasks": [],\n "tasks": []}', "tasks stands in it 2 times in one object"),
        ("[" * 100_000, "it is nested too deep"),
        ('{"a": ' * 100_000, "it is nested too deep"),
        ('{"priority": NaN}', "NaN in it is not a number that can be used"),
        (f'{{"priority": {"9" * 5_000}}}', "999… in it is not a number that can be used"),
        (f'{{"priority": -1{"0" * 400}.5}}', "000… in it is not a number that can be used"),
        ("[]", "is not a plan:\n  file: "),
        (plan(task(1)).model_dump_json(exclude={"contract"}), "is not a plan:\n  contract: is missing"),
        (
            plan(task(1)).model_dump_json().replace('"priority":1', '"priority":0'),
            "is not a plan:\n  task_1.priority: ",
        ),
        (plan(task(1, (1,))).model_dump_json(), "cannot be run:\n  task_1 depends on itself"),
        (
            plan(task(1, (8,)), task(2, (9,))).model_dump_json(),
            "cannot be run:\n  task_1 depends on 'task_8', which is not in the plan\n  task_2 depends on 'task_9'",
        ),
    ],
)
def test_a_plan_file_with_faults_is_refused_with_all_of_them(content: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        load_plan(_plan_file(tmp_path, content))
    assert told in str(caught.value)
    assert str(tmp_path / "plan.json") in str(caught.value)


def test_a_plan_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    (tmp_path / "long").write_bytes(b" " * 10_000_001)
    os.mkfifo(tmp_path / "pipe")
    for path in (*(tmp_path / name for name in ("none", "", "bytes", "long", "pipe")), Path("/dev/zero")):
        with pytest.raises(UsageError, match="cannot read the plan"):
            load_plan(path)


# Going on


def test_a_resume_has_the_runs_own_options_and_the_new_limits(tmp_path: Path) -> None:
    first = _settle(
        settings={"max_executors": 3, "max_turns": 7}, plan=_plan_file(tmp_path, plan(task(1)).model_dump_json())
    )
    write_json(RunDirectory(tmp_path).scenario, first.scenario.model_dump())
    options = resume_options(tmp_path, {"max_cost_usd": 9.0})
    again = resolve(options, KEY)
    assert again.directory == tmp_path
    expected = {**first.scenario.model_dump(), "max_cost_usd": 9.0, "run": again.scenario.run}
    assert again.scenario.model_dump() == expected


def test_a_resume_of_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"holds no run \(there is no scenario.json in it\)"):
        resume_options(tmp_path, {})


def test_a_plan_may_be_yaml(tmp_path: Path) -> None:
    good, file = plan(task(1), task(2, (1,))), tmp_path / "plan.yaml"
    file.write_text(yaml.safe_dump(good.model_dump()))
    (tmp_path / "plan.json").write_text(good.model_dump_json())
    assert load_plan(file) == load_plan(tmp_path / "plan.json")
    file.write_text("tasks: [\ncontract: x: y\n")
    with pytest.raises(UsageError, match=r"plan\.yaml:\d+:\d+: "):
        load_plan(file)
    file.write_text(yaml.safe_dump({**good.model_dump(), "taks": []}))
    with pytest.raises(UsageError, match=r"taks: no such field; did you mean tasks\?"):
        load_plan(file)
