"""What is told to be typed works where it is read."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from parallel_orchestrator.system.invocation import command


@pytest.mark.parametrize(
    ("started", "told"),
    [
        (["python", "orchestrator.py", "run"], "python orchestrator.py resume '/my out'"),
        ([".venv/bin/python", "demo.py"], ".venv/bin/python orchestrator.py resume '/my out'"),
        (["/bin/python", "my tools/orchestrator.py"], "/bin/python 'my tools/orchestrator.py' resume '/my out'"),
        (["/v/bin/python", "/v/bin/parallel-orchestrator"], "/v/bin/parallel-orchestrator resume '/my out'"),
        (["/bin/python", "/bin/parallel-orchestrator"], "parallel-orchestrator resume '/my out'"),
        (["python", "/x/parallel_orchestrator/__main__.py"], "python -m parallel_orchestrator resume '/my out'"),
        (["python", "my_script.py"], "parallel-orchestrator resume '/my out'"),
    ],
)
def test_a_command_is_told_as_the_program_was_started(
    started: list[str], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "orig_argv", started)
    monkeypatch.setattr(sys, "argv", started[1:])
    monkeypatch.setattr("shutil.which", lambda name: f"/bin/{name}")
    assert command("resume", Path("/my out")) == told
