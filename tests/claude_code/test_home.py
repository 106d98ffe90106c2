"""A person is logged in to Claude Code, and a key pays: nothing of their home reaches the run, and the login nobody."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.attacks.canary import CANARY, leaks, processes_watched
from tests.claude_code.models import OPTIONS, in_their_tools
from tests.end_to_end import harness, scripted
from tests.end_to_end.scripted import answers_before, task_of
from tests.fake_api import Block, Body, FakeApi, tool_use
from tests.journals import read_all

pytestmark = pytest.mark.timeout(300)

ONE = scripted.plan([scripted.task(1, [])])


class Person:
    """A home with a Claude Code that is logged in."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.config = home / ".claude"
        self.config.mkdir(parents=True)
        (home / ".ssh").mkdir()
        (home / ".ssh" / "id_rsa").write_text("the person's own key\n")
        login = {"accessToken": CANARY, "refreshToken": "r", "expiresAt": 4_102_444_800_000}
        (self.config / ".credentials.json").write_text(json.dumps({"claudeAiOauth": login}))


def _attacks(person: Person) -> list[Block]:
    """Calls that look for what is not theirs, or leave the workspace."""
    spy = (
        "mkdir -p docs; { env; cat /proc/*/environ /proc/*/cmdline; } 2>/dev/null | tr '\\0' '\\n' | tee docs/part_1.md"
    )
    links = f"ln -s {person.config} linked; ln -s / root; cat {person.config}/.credentials.json ~/.claude/.cred*; true"
    wanted = [
        person.config / ".credentials.json",
        person.home / ".ssh" / "id_rsa",
        Path("/etc/shadow"),
        Path("/workspace/linked/.credentials.json"),
        Path(f"/workspace/root{person.home}/.ssh/id_rsa"),
    ]
    written = [person.home / "planted.txt", Path("/workspace/linked/settings.json"), Path("/etc/planted.txt")]
    calls = [tool_use("toolu_spy", "Bash", command=spy), tool_use("toolu_links", "Bash", command=links)]
    calls += [tool_use(f"toolu_r{i}", "Read", file_path=str(path)) for i, path in enumerate(wanted)]
    calls += [tool_use(f"toolu_w{i}", "Write", file_path=str(p), content="planted\n") for i, p in enumerate(written)]
    return calls


def _attacking(person: Person) -> Callable[[Body], Any]:
    def attack(body: Body) -> list[Block]:
        turn = answers_before(body)
        if turn == 0:
            return _attacks(person)
        if turn == 1:
            return [tool_use("toolu_clean", "Bash", command="rm -f linked root")]
        return scripted.build_part(body, turn - 1)

    return in_their_tools(scripted.model(ONE, attack))


def _said(directory: Path) -> list[str]:
    """The results of the first answer's calls."""
    (transcript,) = directory.glob("executor_*/task_1.jsonl")
    results = next(record for record in read_all(transcript) if record["kind"] == "results")["results"]
    return [result["content"] for result in results]


def test_attacks_on_the_home_find_nothing_of_it(tmp_path: Path) -> None:
    person, directory = Person(tmp_path / "person"), tmp_path / "run"
    before = (person.config / ".credentials.json").read_bytes()
    command = ("Build a project of a few parts", "--output-dir", str(directory), *OPTIONS)
    variables = {"HOME": str(person.home), "CLAUDE_CONFIG_DIR": ""}
    with FakeApi(_attacking(person), task_of=task_of) as api, processes_watched() as seen:
        harness.run(*command, "--endpoint-profile", "anthropic", api=api, variables=variables)
        headers = [request.headers for request in api.requests]
        said = json.dumps([request.body for request in api.requests])
    assert harness.summary(directory)["status"] == "done"
    assert all(shown["x-api-key"] == api.key for shown in headers)
    assert all("context-management" in shown["anthropic-beta"] for shown in headers)
    assert not any("oauth" in shown["anthropic-beta"] for shown in headers)
    assert leaks(directory) == []
    assert seen == set()
    assert CANARY not in said
    # Every attack found nothing, or was refused.
    answers = _said(directory)
    assert len(answers) == 10
    assert "CLAUDE_PID=" in answers[0]
    assert not any("own key" in answer or "root:" in answer or "accessToken" in answer for answer in answers)
    assert not Path("/etc/planted.txt").exists()
    # The person's own Claude Code: its login as it was, and nothing of ours beside it.
    assert sorted(path.name for path in person.home.iterdir()) == [".claude", ".ssh"]
    assert [path.name for path in person.config.iterdir()] == [".credentials.json"]
    assert (person.config / ".credentials.json").read_bytes() == before
