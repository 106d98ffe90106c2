"""The command line: which words become a run, which are a mistake, and what each command hands on."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

import pytest
import typer

from parallel_orchestrator.cli.app import make_app, run_app
from parallel_orchestrator.config.options import Options, resolve
from parallel_orchestrator.records.errors import BudgetReached, Interrupted, OrchestratorError, UsageError
from parallel_orchestrator.records.plan import Plan
from parallel_orchestrator.report.live.console import make_view
from parallel_orchestrator.run import manifest, start
from parallel_orchestrator.run.cost import Budget
from parallel_orchestrator.run.run import Ask, Run
from parallel_orchestrator.run.start import BatchRequest
from parallel_orchestrator.store.paths import BatchDirectory, RunDirectory
from parallel_orchestrator.system.files import write_json
from tests.records.plans import plan, task

ROOT = Path(__file__).resolve().parents[2]
KEY = {"ANTHROPIC_API_KEY": "sk-ant-0123456789abcdef"}


@dataclass
class Program:
    """The command line with a start that remembers what it was asked."""

    started: list[tuple[Options, Sequence[str] | None]] = field(default_factory=list)
    batches: list[BatchRequest] = field(default_factory=list)
    error: BaseException | None = None

    def make_run(self, options: Options, *, retry: Sequence[str] | None = None, ask: Ask | None = None) -> Run:
        self.started.append((options, retry))
        return Run(resolve(options, KEY), make_view(quiet=True), retry)

    def execute(self, run: Run) -> NoReturn:
        raise self.error or OrchestratorError("it went")

    def plan_only(self, run: Run, budget: Budget | None = None) -> Plan:
        return plan(task(1), task(2, (1,)))

    def execute_batch(self, request: BatchRequest) -> NoReturn:
        self.batches.append(request)
        raise OrchestratorError("it went")

    def type(self, *arguments: str) -> None:
        """Run a command line and print its answer; what it raises, a foreseen error or the exit."""
        answer = make_app()(list(arguments), standalone_mode=False)
        print(getattr(answer, "text", ""))

    def options(self, *arguments: str) -> Options:
        """Those with which the command line starts its run."""
        with pytest.raises(OrchestratorError, match="it went"):
            self.type(*arguments)
        return self.started[-1][0]


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch) -> Program:
    program = Program()
    for name in ("make_run", "execute", "plan_only", "execute_batch"):
        monkeypatch.setattr(start, name, getattr(program, name))
    return program


# A requirement may be a file


def test_a_file_may_be_the_requirement(program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "prd.md").write_text("Build a form")
    for arguments in (["prd.md"], ["run", "prd.md"], ["--requirements-file", "prd.md"], ["--max-turns", "5", "prd.md"]):
        assert program.options(*arguments).requirements == "Build a form"
    program.type("plan", "prd.md")
    program.type("plan", "--requirements-file", "prd.md")
    assert [options.requirements for options, _ in program.started[-2:]] == ["Build a form"] * 2


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["pdr.md"], "there is no file pdr.md; did you mean prd.md?"),
        (["run", "pdr.md"], "there is no file pdr.md; did you mean prd.md?"),
        (["plan", "pdr.md"], "there is no file pdr.md; did you mean prd.md?"),
        (["outputs/form"], "there is no file outputs/form"),
        (["--requirements-file", "gone.md"], "cannot read the requirement gone.md"),
        (["run", "Build it", "--requirements-file", "prd.md"], "give either a requirement"),
        (["plan"], "give either a requirement or --requirements-file"),
    ],
)
def test_the_name_of_a_file_is_never_planned_as_words(
    arguments: list[str], told: str, program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "prd.md").write_text("Build a form")
    with pytest.raises(UsageError, match=re.escape(told)):
        program.type(*arguments)
    assert program.started == []


# A requirement alone is a run


def test_a_requirement_alone_is_a_run(program: Program) -> None:
    assert program.options("Build a form") == program.options("run", "Build a form") == Options("Build a form")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--max-executors", "3", "--model", "m", "--allow-install", "Build a form"],
        ["--max-executors=3", "--model=m", "--allow-install", "Build a form"],
        ["--allow-install", "--model", "m", "Build a form", "--max-executors", "3"],
        ["Build a form", "--max-executors", "3", "--model", "m", "--allow-install"],
    ],
)
def test_options_may_come_first(arguments: list[str], program: Program) -> None:
    options = program.options(*arguments)
    assert options.requirements == "Build a form"
    assert options.settings == {
        "max_executors": 3,
        "planner_model": "m",
        "executor_model": "m",
        "allow_install": True,
    }


def test_a_requirement_may_begin_with_a_dash(program: Program) -> None:
    assert program.options("--", "- a list of things").requirements == "- a list of things"


@pytest.mark.parametrize(
    ("arguments", "word", "meant"),
    [
        (["resum", "x"], "resum", "resume"),
        (["resum"], "resum", "resume"),
        (["retyr", "out"], "retyr", "retry"),
        (["--debug", "resum", "x"], "resum", "resume"),
        (["--debug", "resum"], "resum", "resume"),
        (["--max-executors", "5", "exprot"], "exprot", "export"),
        (["--speed=2", "plann"], "plann", "plan"),
        (["--allow-install", "resum", "--model", "m"], "resum", "resume"),
    ],
)
def test_a_mistyped_command_is_never_a_paid_run(arguments: list[str], word: str, meant: str, program: Program) -> None:
    with pytest.raises(UsageError, match=rf"no command '{word}'\. Did you mean `{meant}`\?"):
        program.type(*arguments)
    assert program.started == []


@pytest.mark.parametrize("arguments", [["Calculator"], ["--max-executors", "5", "Calculator"], [""], ["--", "it's"]])
def test_a_requirement_of_one_word_has_to_be_meant(arguments: list[str], program: Program) -> None:
    with pytest.raises(UsageError, match=f"a single word goes after run: run {re.escape(shlex.quote(arguments[-1]))}$"):
        program.type(*arguments)
    assert program.started == []
    if arguments[-1]:
        assert program.options("run", arguments[-1]).requirements == arguments[-1]


@pytest.mark.parametrize(
    "arguments",
    [["--max-cost", "5", "status", "x"], ["--max-cost=5", "status"], ["--follow", "status", "x"], ["-f", "status"]],
)
def test_options_before_a_commands_name_are_told_to_stand_after_it(arguments: list[str], program: Program) -> None:
    with pytest.raises(
        UsageError, match=r"^options stand after the command's name: begin with `status`\. To build"
    ) as it:
        program.type(*arguments)
    assert "there is no command" not in str(it.value)
    assert program.started == []


def test_a_requirement_that_is_called_as_a_command_is_goes_after_run(program: Program) -> None:
    with pytest.raises(UsageError, match=r"^'status' after -- is a requirement, not the command\. .*: run status$"):
        program.type("--max-turns", "5", "--", "status")
    assert program.options("run", "--max-turns", "5", "--", "status").requirements == "status"


def test_options_that_mean_the_group_are_its_own(program: Program, capsys: pytest.CaptureFixture[str]) -> None:
    program.type("--help")
    shown = capsys.readouterr().out
    commands = "run plan batch resume retry status logs init doctor schema export check repair"
    for command in commands.split():
        assert f"\n  {command} " in shown
    assert "..." not in shown.partition("Commands:")[2]  # no summary is cut


# What each command hands on


def test_run_takes_a_requirement_or_a_file_and_not_both(program: Program, tmp_path: Path) -> None:
    file = tmp_path / "s.yaml"
    file.write_text("scenarios: [{name: a, requirements: Build a, max_executors: 2}, {name: b, requirements: Build b}]")
    for arguments in (["run"], ["run", "Build it", "--config", str(file)]):
        with pytest.raises(UsageError, match="either a requirement or --config FILE"):
            program.type(*arguments)
    options = program.options("run", "--config", str(file), "--only", "a", "--max-cost", "3")
    assert (options.requirements, options.settings) == ("Build a", {"max_executors": 2, "max_cost_usd": 3.0})
    assert program.options("--config", str(file), "--only", "b").requirements == "Build b"
    with pytest.raises(UsageError, match="give the file, too, with --config FILE"):
        program.type("run", "Build it", "--only", "a")
    over = program.options("run", "--config", str(file), "--only", "a", "--max-executors", "9", "--output-dir", "o")
    assert (over.settings["max_executors"], over.output_dir) == (9, Path("o"))


def test_a_batch_can_be_planned_alone(program: Program, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "two.yaml"
    file.write_text("scenarios:\n  - {name: a, requirements: Build a}\n  - {name: b, requirements: Build b}\n")
    program.type("batch", str(file), "--plan-only", "--output-dir", str(tmp_path / "out"))
    shown = capsys.readouterr().out
    assert shown.count("run this sequentially") == 2
    planned = dict.fromkeys(options.output_dir for options, _ in program.started)
    assert list(planned) == [tmp_path / "out" / name for name in "ab"]
    assert program.batches == []


def test_plan_shows_a_plan_and_builds_nothing(program: Program, capsys: pytest.CaptureFixture[str]) -> None:
    program.type("plan", "Build a form", "--max-executors", "2")
    shown = capsys.readouterr().out
    assert "└─ task_2 Part 2  [medium]" in shown
    assert "run this sequentially: each task waits for the one before it" in shown
    assert "width: 1" in shown


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A run that was begun."""
    scenario = resolve(Options("Build a form", settings={"max_turns": 7}), KEY).scenario
    write_json(RunDirectory(tmp_path).scenario, scenario.model_dump())
    return tmp_path


def test_resume_and_retry_go_on_under_the_runs_own_options(program: Program, directory: Path) -> None:
    options = program.options("resume", str(directory), "--max-cost", "4")
    assert (options.requirements, options.output_dir) == ("Build a form", directory)
    assert (options.settings["max_turns"], options.settings["max_cost_usd"]) == (7, 4.0)
    program.options("retry", str(directory))
    program.options("retry", str(directory), "--failed", "--max-executors", "2")
    assert program.started[-1][0].settings["max_executors"] == 2
    program.options("retry", str(directory), "task_2", "task_3")
    assert [retry for _, retry in program.started] == [None, [], [], ["task_2", "task_3"]]
    with pytest.raises(UsageError, match="--failed means all"):
        program.type("retry", str(directory), "task_2", "--failed")
    manifest.save(BatchDirectory(directory), 2, None, {})
    with pytest.raises(UsageError, match="no task failed in"):
        program.type("retry", str(directory))


def test_what_stops_a_run_is_followed_by_how_to_go_on(program: Program, directory: Path) -> None:
    stops = {BudgetReached: BudgetReached("the cap is reached"), Interrupted: KeyboardInterrupt()}
    for kind, error in stops.items():
        program.error = error
        with pytest.raises(kind) as caught:
            program.type("resume", str(directory))
        more = " --max-cost 1" if kind is BudgetReached else ""
        assert caught.value.__notes__ == [f"to go on: parallel-orchestrator resume {directory}{more}"]


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["FILE", "--only", "a", "c"], ["a", "c"]),
        (["FILE", "--only", "c", "a", "--max-cost", "4", "b"], ["a", "b", "c"]),
        (["--only", "c", "FILE", "a"], ["a", "c"]),
        (["FILE", "--only", "a,b", "c"], ["a", "b", "c"]),
        (["FILE", "--only", "a,", "c"], ["a", "c"]),
        (["FILE", "--only", "a", "--only", "b"], ["a", "b"]),
        (["FILE", "--only=b", "--", "c"], ["b", "c"]),
        (["FILE"], ["a", "b", "c"]),
    ],
)
def test_scenarios_of_a_batch_are_named_after_only(
    words: list[str], names: list[str], program: Program, tmp_path: Path
) -> None:
    file = tmp_path / "s.yaml"
    file.write_text(f"scenarios: [{', '.join(f'{{name: {n}, requirements: Build {n}}}' for n in 'abc')}]")
    with pytest.raises(OrchestratorError, match="it went"):
        program.type("batch", *(str(file) if word == "FILE" else word for word in words))
    assert list(program.batches[0].options) == names


def test_words_that_are_no_names_of_scenarios_begin_no_batch(program: Program, tmp_path: Path) -> None:
    file = tmp_path / "s.yaml"
    file.write_text("scenarios: [{name: a, requirements: Build a}]")
    told = {
        ("a", "b c"): rf"^a batch is of one file: what is a 'b c' after {file}\? To build .* name them after --only$",
        ("--only", "a", "b", "c"): r"has no scenario b, c; it has a$",
    }
    for words, match in told.items():
        with pytest.raises(UsageError, match=match):
            program.type("batch", str(file), *words)
    assert program.batches == []


def test_a_batchs_options_go_before_its_file(program: Program, tmp_path: Path) -> None:
    file = tmp_path / "s.yaml"
    names = ("a", "b", "c")
    file.write_text(
        f"scenarios: [{', '.join(f'{{name: {n}, requirements: Build {n}, sandbox: auto}}' for n in names)}]"
    )
    options = ("--model", "m", "--sandbox", "off", "--max-turns", "9", "--task-timeout", "2", "--allow-install")
    with pytest.raises(OrchestratorError, match="it went"):
        program.type("batch", str(file), "--only", "a,c", *options, "--max-executors", "3", "--max-cost", "4")
    (given,) = program.batches
    assert (list(given.options), given.executors, given.max_cost_usd) == (["a", "c"], 3, 4.0)
    assert given.options["c"].settings == {
        "planner_model": "m",
        "executor_model": "m",
        "sandbox": "off",
        "max_turns": 9,
        "task_timeout_min": 2.0,
        "allow_install": True,
    }


@pytest.mark.parametrize(
    ("error", "code"),
    [(OrchestratorError("a\x1b[2Jb\nc"), 1), (UsageError("x"), 2), (BudgetReached("x"), 4), (KeyboardInterrupt(), 130)],
)
def test_foreseen_errors_are_one_message_and_their_exit_code(
    error: BaseException, code: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    app = typer.Typer(pretty_exceptions_enable=False)

    @app.command()
    def fail() -> None:
        raise error

    monkeypatch.setattr(sys, "argv", ["program"])
    with pytest.raises(SystemExit) as caught:
        run_app(app)
    assert caught.value.code == code
    told = {1: "error: a\\x1b[2Jb\n  c\n", 130: ""}.get(code, "error: x\n")
    assert capsys.readouterr().err == told


# The program itself


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["resum", "x"], 2, "error: there is no command 'resum'. Did you mean `resume`?"),
        (["--max-cost", "5", "status", "x"], 2, "error: options stand after the command's name: begin with `status`."),
        (["Calculator"], 2, "one of a single word goes after run: run Calculator\n"),
        (["run", ""], 2, "error: the requirement is empty"),
        (["Build a form", "--max-executors", "0"], 2, "error: invalid value for '--max-executors'"),
        (["Build a form", "--sandbox", "maybe"], 2, "sandbox: has to be"),
        (["Build a form", "--no-such-option"], 2, "error: no such option: --no-such-option"),
    ],
)
def test_a_mistake_ends_with_2_and_without_a_traceback(
    arguments: list[str], code: int, told: str, tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "orchestrator.py"), *arguments],
        env={"PATH": "/usr/bin:/bin", **KEY},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stderr
    assert told in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


# What nobody foresaw


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (OSError(28, "No space left on device"), 3, "Mend that, then resume."),
        (
            ZeroDivisionError("by\x1b[2Jzero"),
            1,
            "unexpected ZeroDivisionError: by\\x1b[2Jzero. What was",
        ),
    ],
)
def test_what_nobody_foresaw_is_one_message(
    error: Exception, code: int, told: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    app = typer.Typer(pretty_exceptions_enable=False)

    @app.command()
    def fail() -> None:
        raise error

    monkeypatch.setattr(sys, "argv", ["orchestrator"])
    with pytest.raises(SystemExit) as ended:
        run_app(app)
    shown = capsys.readouterr().err
    assert ended.value.code == code
    assert shown.startswith("error: ")
    assert shown.count("\n") == 1
    assert told in shown
