"""What a person types, over the real command line: again, wrongly, at once, with limits, with files of one's own."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end import harness, scripted
from tests.end_to_end.scripted import EDITOR, answers_before, task_of
from tests.fake_api import KEY, Block, Body, FakeApi, text, tool_use

REQUIREMENT = "Build a few parts"
PLAN = scripted.plan([scripted.task(1, []), scripted.task(2, [1]), scripted.task(3, [])])
"""task_2 needs task_1, task_3 stands alone."""


def _build(body: Body) -> list[Block]:
    """Build a part in two turns."""
    if answers_before(body):
        return [text("Done.")]
    name = task_of(body)
    number = name.removeprefix("task_")
    module = f"def value() -> int:\n    return {number}\n"
    test = f"import part_{number}\n\n\ndef test_value():\n    assert part_{number}.value() == {number}\n"
    files = {
        f"src/part_{number}.py": module,
        f"tests/test_part_{number}.py": test,
        f"docs/part_{number}.md": f"# Part {number}\n",
    }
    return [
        tool_use(f"toolu_{name}_{place}", EDITOR, command="create", path=path, file_text=content)
        for place, (path, content) in enumerate(files.items())
    ]


def _api(plan: dict[str, Any] = PLAN, **options: Any) -> FakeApi:
    return FakeApi(scripted.model(plan, _build), task_of=task_of, **options)


def _asked(api: FakeApi) -> list[str]:
    """The task of each request; `plan` is the planner."""
    return [request.task for request in api.requests]


def _states(directory: Path) -> dict[str, str]:
    return {task["id"]: task["state"] for task in harness.summary(directory)["tasks"]}


def _assert_done(directory: Path, tasks: int) -> None:
    assert list(_states(directory).values()) == ["merged"] * tasks
    assert harness.summary(directory)["status"] == "done"
    assert harness.recount(directory) == []
    assert harness.family(directory) == set()


# A finished run, in a place and an environment that are awkward


@dataclass(frozen=True)
class Finished:
    """A run that is over."""

    directory: Path
    repository: Path
    """Somebody else's, around the output directory."""
    variables: dict[str, str]
    output: str
    bodies: list[Body]

    def again(self, *arguments: str, code: int = 0) -> str:
        """Type another command in the same environment; its endpoint is gone."""
        return harness.run(*arguments, code=code, variables=self.variables)

    def outer(self, *arguments: str) -> str:
        """Ask git about the repository around it."""
        return subprocess.run(
            ["git", *arguments], cwd=self.repository, capture_output=True, text=True, check=True
        ).stdout


@pytest.fixture
def finished(tmp_path: Path) -> Iterator[Finished]:
    """Inside another repository, as from one of its hooks, under a path with spaces and Unicode, paid by a token."""
    repository = tmp_path / "ein Ördner, π’s"
    repository.mkdir()
    commit = ["-c", "user.name=n", "-c", "user.email=e", "commit", "--quiet", "--allow-empty", "-m", "theirs"]
    for command in (["init", "--quiet"], commit):
        subprocess.run(["git", *command], cwd=repository, check=True)
    directory = repository / "out put"
    with _api() as api:
        variables = {
            "ANTHROPIC_BASE_URL": api.url,
            "ANTHROPIC_AUTH_TOKEN": KEY,
            "GIT_DIR": str(repository / ".git"),
            "GIT_INDEX_FILE": str(repository / ".git" / "index"),
            "FORCE_COLOR": "1",
        }
        arguments = (REQUIREMENT, "--endpoint-profile", "compatible", "--output-dir", str(directory))
        output = harness.run(*arguments, variables=variables)
        yield Finished(directory, repository, variables, output, [request.body for request in api.requests])
        # Whatever was typed afterwards has bought nothing.
        assert len(api.requests) == 7
        assert {request.headers["authorization"] for request in api.requests} == {f"Bearer {KEY}"}


def check_a_run_inside_another_repository_leaves_that_alone(finished: Finished) -> None:
    _assert_done(finished.directory, 3)
    assert finished.outer("log", "--format=%s") == "theirs\n"
    assert finished.outer("ls-files") == ""
    own = ["git", "--git-dir", str(finished.directory / ".git"), "log", "--format=%s", "main"]
    assert subprocess.run(own, capture_output=True, text=True, check=True).stdout.splitlines()[-1] == "Begin"


def check_a_token_pays_and_is_not_shown(finished: Finished) -> None:
    assert "paid by auth token from ANTHROPIC_AUTH_TOKEN (…6789)" in finished.output
    assert KEY not in finished.output
    files = [path for path in finished.directory.rglob("*") if path.is_file()]
    assert not any(KEY.encode() in path.read_bytes() for path in files)


def check_without_a_terminal_nothing_but_text_is_printed(finished: Finished) -> None:
    plain = re.sub(r"\x1b\[\d*m", "", finished.output)  # FORCE_COLOR is set: colour, and nothing else
    assert [line for line in plain.splitlines() if not line.isprintable()] == []
    assert all(line.isprintable() for line in finished.again("run", "--help").splitlines())


def check_the_compatible_profile_sends_nothing_of_anthropics_own(finished: Finished) -> None:
    sent = json.dumps(finished.bodies)
    assert not [name for name in ("cache_control", "output_config", "thinking") if f'"{name}"' in sent]
    tools = [tool for body in finished.bodies for tool in body.get("tools", [])]
    assert tools
    assert all("input_schema" in tool and "type" not in tool for tool in tools)


def check_the_same_command_on_a_finished_directory_changes_nothing(finished: Finished) -> None:
    before = harness.fingerprint(finished.directory)
    output = finished.again(REQUIREMENT, "--endpoint-profile", "compatible", "--output-dir", str(finished.directory))
    assert "is finished; nothing to do" in output
    assert "3 of 3 tasks merged (100%)" in output
    assert "is finished" in finished.again("resume", str(finished.directory))
    assert harness.fingerprint(finished.directory) == before


def check_another_run_in_the_same_directory_is_refused(finished: Finished) -> None:
    before = harness.fingerprint(finished.directory)
    for arguments, field in (
        (["Build something else"], "requirements"),
        ([REQUIREMENT, "--model", "claude-haiku-4-5"], "planner_model"),
        ([REQUIREMENT, "--replay", "simple"], "endpoint"),
    ):
        output = finished.again(*arguments, "--output-dir", str(finished.directory), code=2)
        assert f"belongs to another run: its {field} is " in output
    assert harness.fingerprint(finished.directory) == before


def check_only_what_failed_can_be_tried_again(finished: Finished) -> None:
    before = harness.fingerprint(finished.directory)
    output = finished.again("retry", str(finished.directory), "task_2", code=2)
    assert "task_2 did not fail" in output
    assert harness.fingerprint(finished.directory) == before


def check_an_exported_run_is_rebuilt_from_its_recording(finished: Finished) -> None:
    file, copy = (finished.repository.with_name(name) for name in ("my run.yaml", "copy"))
    assert "7 answers" in finished.again("export", str(finished.directory), "--recording", str(file))
    output = harness.run(REQUIREMENT, "--replay", str(file), "--speed", "1000", "--output-dir", str(copy))
    assert "the answers of an earlier run, no model is asked" in output
    _assert_done(copy, 3)
    assert harness.tree(copy) == harness.tree(finished.directory)
    assert harness.summary(copy)["cost_usd"] == 0


def test_what_can_be_typed_after_a_finished_run(finished: Finished, subtests: pytest.Subtests) -> None:
    # One run for all of them, whichever processes the tests are spread over.
    for check in (
        check_a_run_inside_another_repository_leaves_that_alone,
        check_a_token_pays_and_is_not_shown,
        check_without_a_terminal_nothing_but_text_is_printed,
        check_the_compatible_profile_sends_nothing_of_anthropics_own,
        check_the_same_command_on_a_finished_directory_changes_nothing,
        check_another_run_in_the_same_directory_is_refused,
        check_only_what_failed_can_be_tried_again,
        check_an_exported_run_is_rebuilt_from_its_recording,
    ):
        with subtests.test(check.__name__):
            check(finished)


# Without what a run needs


def test_without_a_key_the_three_ways_are_named_and_nothing_is_left(tmp_path: Path) -> None:
    output = harness.run(REQUIREMENT, "--output-dir", str(tmp_path / "new" / "out"), code=2)
    for way in ("ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL", "--replay"):
        assert way in output
    assert list(tmp_path.iterdir()) == []


def test_an_endpoint_that_wants_no_key_is_asked_without_one(tmp_path: Path) -> None:
    with _api() as api:
        api.key = ""
        variables = {"ANTHROPIC_BASE_URL": api.url}
        output = harness.run("plan", REQUIREMENT, "--output-dir", str(tmp_path / "out"), variables=variables)
        assert f"no key is set, so {api.url} is asked without one" in output
        (request,) = api.requests
        assert not {"authorization", "x-api-key"} & request.headers.keys()


def test_a_recording_that_is_none_is_refused_before_a_directory_is_made(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("recording: 1\nname: mine\n")
    output = harness.run(REQUIREMENT, "--replay", "mine.yaml", cwd=tmp_path, code=2)
    assert "mine.yaml is not a recording that can be replayed: " in output
    assert sorted(tmp_path.iterdir()) == [tmp_path / "mine.yaml"]


# At once, and stopped


def test_a_directory_in_use_is_refused_and_a_stopped_run_goes_on(tmp_path: Path) -> None:
    directory = tmp_path / "out"
    command = (REQUIREMENT, "--output-dir", str(directory))
    with _api(latency_s=0.2) as api:
        with harness.started(*command, url=api.url) as first:
            harness.wait_until(lambda: "plan" in _asked(api))
            api.latency_s = 8.0  # far from its end, however slow the machine makes the second one
            harness.wait_until(lambda: {"task_1", "task_3"} <= set(_asked(api)))
            output = harness.run(*command, api=api, code=5)
            for told in (f"process {first.pid} ", f"on {socket.gethostname()}", "started 20"):
                assert told in output
            first.send_signal(signal.SIGTERM)
            output, _ = first.communicate(timeout=100)
            assert first.returncode == 130
            assert f"resume {directory}" in output
        assert harness.family(directory) == set()
        assert harness.summary(directory)["status"] == "incomplete"
        assert harness.recount(directory) == []
        api.latency_s = 0.2
        output = harness.run(*command, api=api)
        assert "resuming: reusing 0 tasks" in output
        assert api.answered_twice() == []
        assert _asked(api).count("plan") == 1
    _assert_done(directory, 3)
    assert harness.summary(directory)["sessions"] == 2


# Plans


def test_a_plan_is_shown_first_and_built_later_or_edited(tmp_path: Path) -> None:
    planned, edited = tmp_path / "planned", tmp_path / "edited"
    with _api(scripted.plan([scripted.task(1, []), scripted.task(2, [1])])) as api:
        output = harness.run("plan", REQUIREMENT, "--output-dir", str(planned), api=api)
        assert "critical path: task_1 -> task_2" in output
        assert _asked(api) == ["plan"]
        assert {path.name for path in planned.iterdir()} == {
            *("scenario.json", "execution_plan.json", "ledger.jsonl", "run.lock", "orchestrator.log")
        }
        plan = json.loads((planned / "execution_plan.json").read_text())

        harness.run(REQUIREMENT, "--output-dir", str(planned), api=api)
        assert _asked(api).count("plan") == 1
        _assert_done(planned, 2)

        plan["tasks"] = [{**plan["tasks"][0], "description": "As a person wrote it."}]
        file = tmp_path / "my plan.json"
        file.write_text(json.dumps(plan))
        before = len(api.requests)
        harness.run(REQUIREMENT, "--plan", str(file), "--output-dir", str(edited), api=api)
        assert set(_asked(api)[before:]) == {"task_1"}
        assert "As a person wrote it." in json.dumps(api.requests[-1].body)
    _assert_done(edited, 1)


def test_a_plan_file_that_was_not_taken_over_is_asked_for_and_not_planned_anew(tmp_path: Path) -> None:
    directory, file = tmp_path / "out", tmp_path / "plan.json"
    file.write_text(json.dumps(PLAN))
    with _api() as api:
        harness.run(REQUIREMENT, "--plan", str(file), "--output-dir", str(directory), api=api)
        # What a kill before the plan was written would have left.
        for name in ("execution_plan.json", "execution_summary.json", "queue.jsonl"):
            (directory / name).unlink()
        asked = len(api.requests)
        assert "--plan" in harness.run("resume", str(directory), api=api, code=2)
        assert len(api.requests) == asked


def test_a_plan_may_be_edited_until_work_begins_on_it(tmp_path: Path) -> None:
    directory, file = tmp_path / "out", tmp_path / "plan.json"
    with _api() as api:
        harness.run("plan", REQUIREMENT, "--output-dir", str(directory), api=api)
        edited = json.loads((directory / "execution_plan.json").read_text())
        edited["tasks"][0]["name"] = "Renamed by hand"
        file.write_text(json.dumps(edited))
        harness.run(REQUIREMENT, "--plan", str(file), "--output-dir", str(directory), api=api)
        assert harness.summary(directory)["tasks"][0]["name"] == "Renamed by hand"
        edited["tasks"][0]["name"] = "Too late"
        file.write_text(json.dumps(edited))
        told = harness.run(REQUIREMENT, "--plan", str(file), "--output-dir", str(directory), api=api, code=2)
        assert "plan_sha256" in told


# Limits


def test_a_task_that_reached_its_turns_fails_alone_and_is_tried_again(tmp_path: Path) -> None:
    directory = tmp_path / "out"
    dawdles = [True]

    def build(body: Body) -> list[Block]:
        if task_of(body) == "task_1" and dawdles[0]:
            number = answers_before(body)
            return [tool_use(f"toolu_{number}", "bash", command=f"echo {number}")]
        return _build(body)

    with FakeApi(scripted.model(PLAN, build), task_of=task_of) as api:
        command = (REQUIREMENT, "--max-turns", "3", "--output-dir", str(directory))
        output = harness.run(*command, "--endpoint-profile", "anthropic", api=api, code=1)
        assert "reached its limit of 3 turns" in output
        assert f"next:     {harness.typed('retry', directory)}" in output
        assert _states(directory) == {"task_1": "failed", "task_2": "blocked", "task_3": "merged"}
        assert harness.summary(directory)["success_rate"] == pytest.approx(1 / 3)
        assert harness.recount(directory) == []
        assert _asked(api).count("task_1") == 3
        before = harness.fingerprint(directory)
        assert "is finished" in harness.run("resume", str(directory), api=api, code=1)
        assert harness.fingerprint(directory) == before

        dawdles[0] = False
        harness.run("retry", str(directory), api=api)
        bodies = [request.body for request in api.requests]
    _assert_done(directory, 3)
    # This profile, for comparison, has what the compatible one must not send.
    assert "output_config" in bodies[0]
    assert all("cache_control" in body for body in bodies[1:])
    assert {tool["type"] for body in bodies[1:] for tool in body["tools"]} == {"text_editor_20250728", "bash_20250124"}
    tasks = {task["id"]: task for task in harness.summary(directory)["tasks"]}
    assert {name: task["attempt"] for name, task in tasks.items()} == {"task_1": 2, "task_2": 1, "task_3": 1}
    assert harness.summary(directory)["lines_of_code"]["docs"] == 3
    folder = directory / tasks["task_1"]["executor"]
    assert (folder / "task_1.2").is_dir()
    assert (folder / "task_1.2.jsonl").is_file()
    assert len(list(directory.glob("executor_*/task_1"))) == 1
