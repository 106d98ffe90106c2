"""A live run without a cap: the person is asked on a terminal, and has to have agreed elsewhere."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from parallel_orchestrator.records.errors import UsageError
from tests.end_to_end import harness, scripted
from tests.fake_api import FakeApi

REQUIREMENT = "Build two parts"
PLAN = scripted.plan([scripted.task(1, []), scripted.task(2, [])])


@pytest.fixture
def api() -> Iterator[FakeApi]:
    with FakeApi(scripted.model(PLAN), task_of=scripted.task_of) as api:
        yield api


def typed(*arguments: str, api: FakeApi, cwd: Path, code: int) -> subprocess.CompletedProcess[str]:
    """The command line exactly as a person types it, where there is no terminal."""
    done = subprocess.run(
        [*harness.PROGRAM, *arguments],
        env=harness.environment(api.url),
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert done.returncode == code, done.stderr
    return done


def on_terminal(*arguments: str, api: FakeApi, answer: str, cwd: Path) -> tuple[int, str]:
    """The same in a terminal where the person types `answer`; exit code and what was shown."""
    ours, theirs = pty.openpty()
    os.write(ours, answer.encode())
    process = subprocess.Popen(
        [*harness.PROGRAM, *arguments],
        env=harness.environment(api.url, TERM="xterm", COLUMNS="200"),
        cwd=cwd,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    shown = b""
    with contextlib.suppress(OSError):
        while data := os.read(ours, 65536):
            shown += data
    os.close(ours)
    return process.wait(60), shown.decode()


def test_off_a_terminal_nothing_is_asked_of_a_model(api: FakeApi, tmp_path: Path) -> None:
    done = typed(REQUIREMENT, "--output-dir", "out", api=api, cwd=tmp_path, code=2)
    assert "--max-cost USD" in done.stderr
    assert "--yes" in done.stderr
    document = json.loads(typed("run", REQUIREMENT, "--json", api=api, cwd=tmp_path, code=2).stdout)
    assert (document["ok"], document["error"]["kind"], document["error"]["exit_code"]) == (False, "usage", 2)
    assert api.requests == []
    assert list(tmp_path.iterdir()) == []


def test_a_batch_needs_a_cap_or_the_agreement_for_each_scenario(api: FakeApi, tmp_path: Path) -> None:
    (tmp_path / "two.yaml").write_text(
        "scenarios:\n"
        f"  - {{name: capped, requirements: {REQUIREMENT}, limits: {{cost: 5}}}}\n"
        f"  - {{name: agreed, requirements: {REQUIREMENT}, yes: true}}\n"
        f"  - {{name: free, requirements: {REQUIREMENT}}}\n"
        f"  - {{name: too, requirements: {REQUIREMENT}}}\n"
        "  - {name: replayed, requirements: Say hello, replay: simple}\n"
    )
    done = typed("batch", "two.yaml", api=api, cwd=tmp_path, code=2)
    assert "error: free, too: a live model is asked" in done.stderr
    assert api.requests == []
    assert not (tmp_path / "outputs").exists()


def test_the_api_needs_a_cap_or_the_agreement(api: FakeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from orchestrator import ParallelOrchestrator

    for name, value in harness.environment(api.url).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match=r"yes=True"):
        ParallelOrchestrator(REQUIREMENT, tmp_path / "out", quiet=True).run()
    assert api.requests == []


@pytest.mark.parametrize("how", [["--yes"], ["--max-cost", "5"]])
def test_the_agreement_or_a_cap_is_enough_and_counts_for_what_resumes(
    how: list[str], api: FakeApi, tmp_path: Path
) -> None:
    typed(REQUIREMENT, "--output-dir", "out", *how, api=api, cwd=tmp_path, code=0)
    typed("resume", "out", api=api, cwd=tmp_path, code=0)
    (tmp_path / "out" / "execution_summary.json").unlink()
    typed("resume", "out", api=api, cwd=tmp_path, code=0)
    if how == ["--max-cost", "5"]:  # the same without its cap is another matter
        assert "--yes" in typed(REQUIREMENT, "--output-dir", "out", api=api, cwd=tmp_path, code=2).stderr


def test_what_is_only_planned_was_not_agreed_to(api: FakeApi, tmp_path: Path) -> None:
    typed("plan", REQUIREMENT, "--output-dir", "out", api=api, cwd=tmp_path, code=0)
    asked = len(api.requests)
    typed("resume", "out", api=api, cwd=tmp_path, code=2)
    assert len(api.requests) == asked


@pytest.mark.parametrize(("answer", "code"), [("n\n", 130), ("\n", 130), ("\x04", 130), ("y\n", 0)])
def test_on_a_terminal_the_estimate_is_shown_and_the_person_asked(
    answer: str, code: int, api: FakeApi, tmp_path: Path
) -> None:
    ended, shown = on_terminal(REQUIREMENT, "--output-dir", "out", api=api, answer=answer, cwd=tmp_path)
    assert ended == code, shown
    assert shown.index("no --max-cost is given") < shown.index("planning") < shown.index("estimate: ")
    assert "Build it? [y/N]" in shown
    assert {request.task for request in api.requests} == ({"plan"} if code else {"plan", "task_1", "task_2"})
    assert "Traceback" not in shown
    if code:
        assert f"resume {tmp_path / 'out'}" in shown.replace("\r\n", "")


def test_a_program_beside_a_terminal_that_gave_a_cap_is_not_asked(api: FakeApi, tmp_path: Path) -> None:
    ended, shown = on_terminal(REQUIREMENT, "--output-dir", "out", "--max-cost", "5", api=api, answer="", cwd=tmp_path)
    assert ended == 0
    assert "Build it?" not in shown
