"""Help, completion and errors of the command line itself: groups, width, one style, and old Pythons."""

from __future__ import annotations

import ast
import fcntl
import json
import os
import pty
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from parallel_orchestrator.cli import app
from parallel_orchestrator.cli.app import load_command
from parallel_orchestrator.store.plan_file import plan_text
from tests.end_to_end import harness
from tests.records.plans import plan, task

COMMANDS = {name: load_command(name) for name in app.COMMANDS}


def test_options_are_in_groups() -> None:
    text = _help("run")
    places = [text.index(f"\n{title}:\n") for title in ("Model", "Limits", "Output", "Safety", "Other")]
    assert places == sorted(places)
    assert text.index("--max-cost") < text.index("Output:")
    assert text.index("--sandbox") > text.index("Safety:")


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_the_program_lists_a_command_by_the_first_line_of_its_help(name: str) -> None:
    assert str(COMMANDS[name].help).partition("\n")[0] == app.COMMANDS[name]


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_each_option_is_listed_once(name: str) -> None:
    words = _help(name).partition("\n  Example")[0].split()
    for param in COMMANDS[name].params:
        if param.param_type_name == "option":
            assert any(words.count(option) + words.count(f"{option},") >= 1 for option in param.opts), param.opts
    assert words.count("--json") == words.count("--debug") == 1


def _help(name: str) -> str:
    with COMMANDS[name].make_context(name, [], resilient_parsing=True, terminal_width=80) as context:
        found: str = COMMANDS[name].get_help(context)
    return found


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_help_is_as_wide_as_the_terminal(columns: int) -> None:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    done = subprocess.Popen([*harness.PROGRAM, "run", "--help"], stdin=theirs, stdout=theirs, env=environment)
    os.close(theirs)
    shown = b""
    try:
        while data := os.read(ours, 65536):
            shown += data
    except OSError:
        pass
    assert done.wait() == 0
    said = shown.decode().partition("Examples:")[0]
    assert columns - 25 < max(map(len, said.splitlines())) <= columns


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["run", "--max-turn", "5"], "error: no such option: --max-turn"),
        (["run", "Build it", "--max-turns", "many"], "error: invalid value for '--max-turns'"),
        (["status"], "error: missing argument 'DIR'"),
        (["resum", "x"], "error: there is no command 'resum'"),
    ],
)
def test_the_librarys_own_errors_look_like_all_others(arguments: list[str], told: str) -> None:
    done = subprocess.run([*harness.PROGRAM, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith(told)
    assert "Usage:" not in done.stderr
    if arguments[0] != "resum":
        assert done.stderr.splitlines()[-1] == f"help: {' '.join(harness.PROGRAM)} {arguments[0]} --help"
    as_json = subprocess.run([*harness.PROGRAM, *arguments, "--json"], capture_output=True, text=True, check=False)
    error = json.loads(as_json.stdout)["error"]
    assert (error["kind"], error["exit_code"], as_json.returncode) == ("usage", 2, 2)


def _completed(words: str, cwd: Path) -> list[str]:
    """What bash offers after these words of a command line."""
    typed = words.split(" ")
    done = subprocess.run(
        harness.PROGRAM,
        env={
            **os.environ,
            "_ORCHESTRATOR.PY_COMPLETE": "complete_bash",
            "_ORCHESTRATOR_PY_COMPLETE": "complete_bash",
            "COMP_WORDS": words.replace(" ", "\n"),
            "COMP_CWORD": str(len(typed) - 1),
        },
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    return done.stdout.split()


def test_directories_tasks_and_scenarios_are_completed(tmp_path: Path) -> None:
    run = tmp_path / "outputs" / "todo"
    run.mkdir(parents=True)
    (run / "execution_plan.json").write_text(plan_text(plan(task(1), task(2, (1,)))))
    (tmp_path / "two.yaml").write_text("scenarios:\n  - name: first\n  - {name: second, replay: simple}\n")
    program = "parallel-orchestrator"
    assert _completed(f"{program} status ", tmp_path) == ["outputs/todo"]
    assert _completed(f"{program} status outputs/t", tmp_path) == ["outputs/todo"]
    assert _completed(f"{program} logs outputs/todo ", tmp_path) == ["task_1", "task_2"]
    assert _completed(f"{program} retry outputs/todo task_2", tmp_path) == ["task_2"]
    assert _completed(f"{program} run --config two.yaml --only ", tmp_path) == ["first", "second"]
    assert _completed(f"{program} batch two.yaml --only s", tmp_path) == ["second"]
    assert _completed(f"{program} logs outputs/gone ", tmp_path) == []
    assert "resume" in _completed(f"{program} re", tmp_path)


def test_completion_is_for_the_command_that_people_type() -> None:
    done = subprocess.run(
        [*harness.PROGRAM, "--show-completion"],
        env={**os.environ, "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == 0:
        assert "parallel-orchestrator" in done.stdout
        assert "orchestrator.py" not in done.stdout


ENTRIES = ("orchestrator.py", "demo.py", "parallel_orchestrator/__main__.py")
BEFORE_THE_CHECK = (*ENTRIES, "parallel_orchestrator/__init__.py", "parallel_orchestrator/system/invocation.py")


@pytest.mark.parametrize("file", [*BEFORE_THE_CHECK, "parallel_orchestrator/store/__init__.py"])
def test_what_runs_before_the_check_is_understood_by_an_old_python(file: str) -> None:
    ast.parse((harness.ROOT / file).read_text(), feature_version=(3, 9))


@pytest.mark.parametrize("entry", ENTRIES)
def test_an_old_python_is_refused_with_a_sentence(entry: str) -> None:
    code = (
        "import runpy, sys; sys.path.insert(0, '.'); sys.version_info = (3, 9, 18, 'final', 0);"
        f"runpy.run_path({entry!r}, run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=harness.ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "is Python 3.9.18, which is too old. This program needs Python 3.11 or newer" in done.stderr
    assert "Traceback" not in done.stderr
