"""Runs without a key, paid by the login of a person's own Claude Code: the real one lends it, a fake API is paid."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from parallel_orchestrator.claude_code.binary import find
from parallel_orchestrator.sandbox import reaper
from parallel_orchestrator.store.journal import read_all
from tests.attacks.canary import CANARY, leaks, processes_watched
from tests.claude_code.models import OPTIONS, in_their_tools, layered
from tests.end_to_end import harness, scripted
from tests.end_to_end.scripted import answers_before, task_of
from tests.fake_api import Block, Body, FakeApi, Request, text, tool_use
from tests.fake_api_rules import Refused

pytestmark = pytest.mark.timeout(300)

REQUIREMENT = "Build a project of a few parts"
OLD = "sk-ant-oat01-" + "old7" * 20
BREAKS = "What does not hold with a login: the key"
UNREACHABLE = "http://127.0.0.1:9"
ONE = scripted.plan([scripted.task(1, [])])


class Person:
    """A home with a Claude Code that is logged in."""

    def __init__(self, home: Path, token: str = CANARY) -> None:
        self.home = home
        self.config = home / ".claude"
        self.config.mkdir(parents=True)
        (home / ".ssh").mkdir()
        (home / ".ssh" / "id_rsa").write_text("the person's own key\n")
        self.log_in(token)

    def log_in(self, token: str, expires: int = 4_102_444_800_000) -> None:
        """As `claude /login` leaves it, or another Claude Code that renewed it."""
        login = {
            "accessToken": token,
            "refreshToken": "sk-ant-ort01-" + "r3fr" * 20,
            "expiresAt": expires,
            "scopes": ["user:inference", "user:profile"],
            "subscriptionType": "max",
        }
        (self.config / ".credentials.json").write_text(json.dumps({"claudeAiOauth": login}))

    def variables(self, **more: str) -> dict[str, str]:
        """The person's environment: no key, and no way out of this machine."""
        kept = {"ANTHROPIC_API_KEY": "", "HTTPS_PROXY": UNREACHABLE, "HOME": str(self.home), "CLAUDE_CONFIG_DIR": ""}
        return {**kept, **more}


@pytest.fixture
def person(tmp_path: Path) -> Person:
    return Person(tmp_path / "person")


def _built(directory: Path, api: FakeApi, person: Person, *options: str, **more: Any) -> str:
    variables = person.variables(**more.pop("variables", {}))
    command = (REQUIREMENT, "--output-dir", str(directory), *OPTIONS, *options)
    return harness.run(*command, api=api, variables=variables, **more)


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


def test_the_login_pays_and_is_nowhere(person: Person, tmp_path: Path) -> None:
    directory = tmp_path / "run"
    before = (person.config / ".credentials.json").read_bytes()
    with FakeApi(_attacking(person), key=CANARY, task_of=task_of) as api, processes_watched() as seen:
        output = _built(directory, api, person, "--endpoint-profile", "anthropic")
        assert api.answered_twice() == []
        headers = [request.headers for request in api.requests]
        said = json.dumps([request.body for request in api.requests])
    assert f"paid by Claude Code's login from {person.config / '.credentials.json'} at http://127" in output
    assert BREAKS in output
    assert harness.summary(directory)["status"] == "done"
    assert harness.recount(directory) == []
    assert all(shown["authorization"] == f"Bearer {CANARY}" and "x-api-key" not in shown for shown in headers)
    assert all("oauth-2025-04-20" in shown["anthropic-beta"] for shown in headers)
    assert all("context-management" in shown["anthropic-beta"] for shown in headers)
    assert leaks(directory) == []
    assert seen == set()
    assert CANARY not in said
    # Every attack found nothing, or was refused.
    answers = _said(directory)
    assert len(answers) == 10
    assert "CLAUDE_PID=" in answers[0]
    assert not any("own key" in answer or "root:" in answer or "accessToken" in answer for answer in answers)
    assert sorted(path.name for path in person.home.iterdir()) == [".claude", ".claude.json", ".ssh"]
    assert not Path("/etc/planted.txt").exists()
    # The person's own Claude Code: its login as it was, and no session of ours in it.
    assert (person.config / ".credentials.json").read_bytes() == before
    assert not (person.config / "settings.json").exists()
    assert list(person.config.glob("projects/*/*.jsonl")) == []


def test_a_token_of_a_variable_is_a_login_too(person: Person, tmp_path: Path) -> None:
    (person.config / ".credentials.json").unlink()
    directory = tmp_path / "run"
    with FakeApi(layered(1, 1), key=CANARY, task_of=task_of) as api:
        output = _built(directory, api, person, variables={"CLAUDE_CODE_OAUTH_TOKEN": CANARY})
    assert "paid by Claude Code's login from CLAUDE_CODE_OAUTH_TOKEN" in output
    assert harness.summary(directory)["status"] == "done"
    assert leaks(directory) == []
    assert CANARY not in output


def test_with_a_key_the_login_is_not_touched(person: Person, tmp_path: Path) -> None:
    with FakeApi(layered(1, 1), task_of=task_of) as api:
        output = _built(tmp_path / "run", api, person, variables={"ANTHROPIC_API_KEY": api.key})
        assert all(request.headers["x-api-key"] == api.key for request in api.requests)
        assert not any("oauth" in request.headers.get("anthropic-beta", "") for request in api.requests)
    assert BREAKS not in output
    assert not (person.home / ".claude.json").exists()


class _Expiring(FakeApi):
    """Refuses a login, whereupon somebody renews it."""

    renew: Callable[[], None] = staticmethod(lambda: None)

    def _refusal(self, request: Request, method: str) -> Refused | None:
        refused = super()._refusal(request, method)
        if refused:
            self.renew()
        return refused


def test_a_login_that_runs_out_is_renewed_on_the_way(tmp_path: Path) -> None:
    person, directory = Person(tmp_path / "person", OLD), tmp_path / "run"
    with _Expiring(layered(1, 2), key=CANARY, task_of=task_of) as api:
        api.renew = lambda: person.log_in(CANARY)
        _built(directory, api, person)
        assert api.answered_twice() == []
        shown = [request.headers["authorization"].removeprefix("Bearer ") for request in api.requests]
    assert shown[0] == OLD
    assert set(shown[1:]) == {CANARY}
    assert harness.summary(directory)["status"] == "done"
    assert harness.recount(directory) == []
    assert leaks(directory) == []
    assert not any(OLD.encode() in path.read_bytes() for path in directory.rglob("*") if path.is_file())


def test_a_renewed_login_that_the_endpoint_quotes_is_written_nowhere(tmp_path: Path) -> None:
    person, directory = Person(tmp_path / "person", OLD), tmp_path / "run"
    script = in_their_tools(scripted.model(ONE, lambda body: [text(f"The token is {CANARY}, or {OLD}.")]))
    with _Expiring(script, key=CANARY, task_of=task_of) as api:
        api.renew = lambda: person.log_in(CANARY)
        _built(directory, api, person, code=1)  # nothing was built
    assert leaks(directory) == []
    assert not any(OLD.encode() in path.read_bytes() for path in directory.rglob("*") if path.is_file())


def test_a_refused_login_is_asked_for_again(person: Person) -> None:
    """As when another Claude Code of the person has renewed it, or none has."""
    command = [sys.executable, "-m", "parallel_orchestrator.claude_code.login", str(find().path)]
    around = {**os.environ, **person.variables()}
    for refused, told in ((OLD, CANARY), (CANARY, None)):
        asker = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=around, text=True
        )
        with asker:
            assert asker.stdin
            assert asker.stdout
            asker.stdin.write(f"{refused}\n")
            asker.stdin.flush()
            said = asker.stdout.read()
        assert (json.loads(said)["value"] if said else None) == told
        assert (asker.returncode == 0) == (told is not None)


def test_a_login_that_nobody_renews_ends_the_run_at_its_first_call(tmp_path: Path) -> None:
    person = Person(tmp_path / "person", OLD)
    with FakeApi(layered(1, 1), key=CANARY, task_of=task_of) as api:
        output = _built(tmp_path / "run", api, person, code=2)
        assert len(api.requests) == 1
    assert "refused the credential" in output
    assert OLD not in output


def test_a_login_that_claude_code_does_not_show_is_refused_before_anything_is_made(person: Person) -> None:
    (person.config / ".credentials.json").write_text(json.dumps({"claudeAiOauth": {"accessToken": ""}}))
    with FakeApi(layered(1, 1)) as api:
        output = _built(person.home / "run", api, person, code=2)
        assert api.requests == []
    assert "claude /login" in output
    assert not (person.home / "run").exists()


@pytest.mark.thorough
def test_killed_with_everything_it_resumes_by_the_login_and_buys_nothing_again(person: Person, tmp_path: Path) -> None:
    directory = tmp_path / "run"
    command = (REQUIREMENT, "--output-dir", str(directory), *OPTIONS)
    with FakeApi(layered(1, 2), key=CANARY, task_of=task_of) as api:
        with harness.started(*command, url=api.url, variables=person.variables()) as process:
            harness.wait_until(lambda: sum(request.whole for request in api.requests) >= 3)
            os.killpg(process.pid, signal.SIGKILL)
        harness.wait_until(lambda: harness.family(directory) == set())
        output = harness.run("resume", str(directory), api=api, variables=person.variables())
        assert api.answered_twice() == []
    assert BREAKS in output
    assert harness.summary(directory)["status"] == "done"
    assert leaks(directory) == []


def test_the_planner_alone_is_paid_by_the_login_too(person: Person, tmp_path: Path) -> None:
    command = ("plan", REQUIREMENT, "--output-dir", str(tmp_path / "run"), *OPTIONS)
    with FakeApi(layered(1, 1), key=CANARY, task_of=task_of) as api:
        output = harness.run(*command, api=api, variables=person.variables())
        assert len(api.requests) == 1
    assert BREAKS in output
    assert leaks(tmp_path / "run") == []


def test_nobody_waits_for_a_renewal_whose_asker_is_dead(tmp_path: Path) -> None:
    person = Person(tmp_path / "person", OLD)
    person.log_in(OLD, expires=1000)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # the renewal never comes
        proxy = f"http://127.0.0.1:{silent.getsockname()[1]}"
        around = {**os.environ, **person.variables(HTTPS_PROXY=proxy)}
        command = [sys.executable, "-m", "parallel_orchestrator.claude_code.login", str(find().path)]
        asker = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, env=around)
        assert asker.stdin
        asker.stdin.write(OLD.encode() + b"\n")
        asker.stdin.flush()
        harness.wait_until(lambda: any(_is_claude_code(pid) for pid in reaper.descendants(asker.pid)))
        below = reaper.descendants(asker.pid)
        asker.stdin.close()  # as when the gateway dies
        harness.wait_until(lambda: not any(map(_is_claude_code, below)), 30)
        asker.wait()


def _is_claude_code(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/exe").samefile(find().path)
    except OSError:
        return False
