"""Every command in README.md and QUICKSTART.md, run as a reader runs it: in bash, one block after the other.

The key is a fake API server's. `make` is not called again: its recipe for the demo is run in its place.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end import harness, scripted
from tests.fake_api import FakeApi

ROOT = harness.ROOT
BIN = Path(sys.executable).parent
DEMO = "python orchestrator.py run --config configs/demo.yaml --only medium --speed 100"
REPLACED = {
    "make demo": DEMO,
    "make test": "true",  # this is it
    ". .venv/bin/activate": "true",  # the shell's PATH has it already
}
INTERRUPTED = "--speed 5"
"""In the command that a reader interrupts after the first ✓."""


def lines_of(document: str) -> list[str]:
    """The commands of a document's shell blocks, comments left out."""
    text = (ROOT / document).read_text(encoding="utf-8")
    found = re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    lines = [line.partition(" #")[0].strip() for block in found for line in block.splitlines()]
    return [REPLACED.get(line, line) for line in lines if line and not line.startswith("export ANTHROPIC_API_KEY")]


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """What a reader has before the first command: the checkout, without outputs."""
    folder = tmp_path / "clone"
    folder.mkdir()
    for name in ("orchestrator.py", "configs"):
        (folder / name).symlink_to(ROOT / name)
    return folder


@pytest.fixture
def api() -> Iterator[FakeApi]:
    """An endpoint whose model builds two parts whatever the requirement is."""
    planned = scripted.plan([scripted.task(1, []), scripted.task(2, [1])])
    with FakeApi(scripted.model(planned), task_of=scripted.task_of) as server:
        yield server


def run(line: str, clone: Path, api: FakeApi) -> str:
    """Run one command to its end, or interrupt it where the reader does; what it printed."""
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    environment = harness.environment(api.url, PATH=path, GIT_CONFIG_GLOBAL="/dev/null")
    command = ["bash", "-c", line]
    with subprocess.Popen(
        command,
        cwd=clone,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout
        output = ""
        if INTERRUPTED in line:
            for printed in process.stdout:
                output += printed
                if "✓" in printed:
                    os.killpg(process.pid, signal.SIGINT)
                    break
        output += process.stdout.read()
        code = process.wait()
    assert code == expected_code(line), f"{line}\n{output}"
    return output


def expected_code(line: str) -> int:
    """What a command ends with. `retry` of a run that is done has nothing to do and says so."""
    if INTERRUPTED in line:
        return 130
    return 2 if " retry " in line else 0


@pytest.mark.long
@pytest.mark.timeout(600)  # a dozen runs of the program, one after the other
@pytest.mark.parametrize("document", ["README.md", "QUICKSTART.md"])
def test_every_command_of_a_document_runs(document: str, clone: Path, api: FakeApi) -> None:
    said = {}
    folder = clone
    for line in lines_of(document):
        if line.startswith("cd "):
            folder = (folder / line.removeprefix("cd ")).resolve()
            continue
        said[line] = run(line, folder, api)
    assert api.answered_twice() == []
    if document == "QUICKSTART.md":
        resumed = next(output for line, output in said.items() if "resume outputs/try" in line)
        assert "reusing" in resumed
        assert "done: 6 of 6 tasks merged" in resumed
        assert "task_2" in next(output for line, output in said.items() if line.endswith("task_2"))


def test_the_documents_have_commands() -> None:
    assert len(lines_of("README.md")) > 4
    assert len(lines_of("QUICKSTART.md")) > 15
