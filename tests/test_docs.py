"""The documents against the program: links, commands, code blocks, fields and diagrams."""

from __future__ import annotations

import ast
import importlib
import re
import runpy
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest
import typer
import yaml

from parallel_orchestrator.cli.app import load_command, make_app
from parallel_orchestrator.config.options import Options, make_scenario
from parallel_orchestrator.config.scenarios import load_options
from parallel_orchestrator.gateway.endpoints.recording import load
from parallel_orchestrator.records.lifecycle import LEGAL_MOVES
from parallel_orchestrator.records.plan import Complexity, Plan, Task
from parallel_orchestrator.records.scenario import IDENTITY, Scenario
from parallel_orchestrator.report.facts.batch_status import BatchStatus
from parallel_orchestrator.report.facts.batch_summary import BatchSummary
from parallel_orchestrator.report.facts.documents import JsonDocument, Summary
from parallel_orchestrator.report.facts.status import RunStatus
from parallel_orchestrator.report.facts.summary import read_state, summarize
from parallel_orchestrator.run import start
from parallel_orchestrator.run.start import BatchRequest
from parallel_orchestrator.store.paths import RunDirectory
from parallel_orchestrator.system.files import write_json
from parallel_orchestrator.trunk.changes.change import Change
from parallel_orchestrator.trunk.evidence import describe
from parallel_orchestrator.trunk.results import FinalReport, TestCounts
from parallel_orchestrator.trunk.testing.testbench import PytestReport
from parallel_orchestrator.trunk.testing.verdict import Verdict

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
TOP = ("README.md", "QUICKSTART.md", "CONTRIBUTING.md", "CHANGELOG.md")
DOCUMENTS = [*(ROOT / name for name in TOP), *sorted(DOCS.rglob("*.md"))]


def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def blocks(path: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text_of(path), re.MULTILINE | re.DOTALL)


def prose(path: Path) -> str:
    return re.sub(r"^```.*?^```$", "", text_of(path), flags=re.MULTILINE | re.DOTALL)


def ids(paths: list[Path]) -> list[str]:
    return [path.relative_to(ROOT).as_posix() for path in paths]


# Links


def anchors(path: Path) -> set[str]:
    """Headings as GitHub turns them into anchors."""
    headings = re.findall(r"^#+ (.+)$", prose(path), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=ids(DOCUMENTS))
def test_links_between_documents_resolve(document: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", prose(document)):
        if target.startswith(("http://", "https://")):
            continue
        name, _, anchor = target.partition("#")
        linked = (document.parent / name).resolve() if name else document
        assert linked.exists(), target
        assert not anchor or anchor in anchors(linked), target


# Python, YAML and shell blocks

PYTHON = [(path, block) for path in DOCUMENTS for block in blocks(path, "python")]


@pytest.mark.parametrize(("document", "block"), PYTHON, ids=ids([path for path, _ in PYTHON]))
def test_python_blocks_compile_and_import_what_there_is(document: Path, block: str) -> None:
    for node in ast.walk(ast.parse(block, str(document))):
        if isinstance(node, ast.ImportFrom) and node.module:
            module = importlib.import_module(node.module)
            assert all(hasattr(module, alias.name) for alias in node.names)


def test_the_scenario_file_in_the_documents_loads(tmp_path: Path) -> None:
    (block,) = blocks(DOCS / "usage.md", "yaml")
    file = tmp_path / "services.yaml"
    file.write_text(block, encoding="utf-8")
    options = load_options(file, "services")
    assert options.settings["max_cost_usd"] == 20
    assert options.settings["verify"]


def test_the_recording_in_the_documents_loads(tmp_path: Path) -> None:
    (block,) = blocks(DOCS / "recordings.md", "yaml")
    file = tmp_path / "hello.yaml"
    file.write_text(block, encoding="utf-8")
    assert load(file).answers[0].key == ("plan", "work", 1)


def commands(path: Path) -> Iterator[list[str]]:
    """Arguments of every command line of ours that a document names, in blocks and in running text."""
    lines = [line for block in blocks(path, "sh") for line in block.replace("\\\n", "").splitlines()]
    lines += re.findall(r"`(python orchestrator\.py [^`]+|parallel-orchestrator [^`]+)`", prose(path))
    for line in lines:
        words = shlex.split(line, comments=True)
        if words[:2] == ["python", "orchestrator.py"]:
            yield words[2:]
        elif words[:1] == ["parallel-orchestrator"]:
            yield words[1:]


COMMANDS = [(path, arguments) for path in DOCUMENTS for arguments in commands(path)]


ANSWERED_AT_ONCE = ("status", "logs", "init", "doctor", "schema", "export", "check", "repair")
"""Commands that start nothing: of these the options alone are checked."""


class Started(Exception):
    """A command line was understood; the run that it asks for is not begun."""


def not_begun(options: Options, *, retry: Any = None, ask: Any = None) -> NoReturn:
    make_scenario({"requirements": options.requirements, "run": "x", "endpoint": "http://x", **options.settings})
    raise Started


def no_batch(request: BatchRequest) -> NoReturn:
    assert request.options
    raise Started


@pytest.mark.parametrize(("document", "arguments"), COMMANDS, ids=[" ".join(words)[:60] for _, words in COMMANDS])
def test_commands_in_the_documents_are_understood(
    document: Path, arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    for name in ("services.yaml", "scenarios.yaml"):
        (tmp_path / name).write_text(blocks(DOCS / "usage.md", "yaml")[0], encoding="utf-8")
    (tmp_path / "prd.md").write_text("Build it", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    if arguments[0] in ANSWERED_AT_ONCE:
        parsed = typer.main.get_command(make_app())
        with parsed.make_context("orchestrator.py", list(arguments), resilient_parsing=False) as context:
            load_command(arguments[0]).make_context(arguments[0], arguments[1:], parent=context)
        return
    if arguments[0] in ("resume", "retry"):
        Path(arguments[1]).mkdir(parents=True)
        scenario = make_scenario({"requirements": "Build it", "run": "x", "endpoint": "http://x"})
        write_json(RunDirectory(Path(arguments[1])).scenario, scenario.model_dump())
    monkeypatch.setattr(start, "make_run", not_begun)
    monkeypatch.setattr(start, "execute_batch", no_batch)
    command = typer.main.get_command(make_app())
    with pytest.raises(Started):
        command.main(arguments, prog_name="orchestrator.py", standalone_mode=False)


def test_there_are_commands_to_check() -> None:
    assert len(COMMANDS) > 15


TARGETS = set(re.findall(r"^([\w-]+):", text_of(ROOT / "Makefile"), re.MULTILINE))


@pytest.mark.parametrize("document", DOCUMENTS, ids=ids(DOCUMENTS))
def test_make_targets_exist(document: Path) -> None:
    named = {line.split()[1] for block in blocks(document, "sh") for line in block.splitlines() if line[:5] == "make "}
    named |= set(re.findall(r"`make ([\w-]+)`", prose(document)))
    assert named <= TARGETS


def test_continuous_integration_calls_make_targets() -> None:
    workflow = yaml.safe_load(text_of(ROOT / ".github" / "workflows" / "ci.yml"))
    runs = [step.get("run", "") for step in workflow["jobs"]["test"]["steps"]]
    assert {line.removeprefix("make ") for line in runs if line.startswith("make ")} == {"demo", "test"} <= TARGETS


def test_the_readme_is_short_and_its_pictures_are_there() -> None:
    readme = text_of(ROOT / "README.md")
    assert len(readme.splitlines()) <= 150
    pictures = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", readme)
    assert len(pictures) >= 4
    assert all((ROOT / picture).stat().st_size for picture in pictures)


# docs/security.md names tests that there are, and leaves no test of an attack out


def test_the_table_of_attacks_names_tests_that_there_are() -> None:
    page = text_of(DOCS / "security.md")
    named = set(re.findall(r"`(tests/[\w/]+\.py)`", page))
    assert all((ROOT / path).is_file() for path in named)
    played = {path.relative_to(ROOT).as_posix() for path in (ROOT / "tests" / "attacks").glob("test_*.py")}
    assert played <= named
    groups = {line.split("|")[1].strip() for line in page.splitlines() if line.count("|") == 5}
    wanted = "paths, commands, hand-ins, verdict, secrets, model faults, plan faults, surroundings, terminal, random"
    assert set(wanted.split(", ")) <= groups


def test_attacks_and_faults_have_targets_and_the_quick_tests_leave_the_long_ones_out() -> None:
    makefile = text_of(ROOT / "Makefile")
    quick, attacks = (makefile.partition(f"\n{name}:")[2].partition("\n\n")[0] for name in ("test", "attacks"))
    assert quick.count("pytest") == quick.count("not thorough") == 1
    assert "pytest -n 2 --dist worksteal tests/attacks" in attacks
    assert "tests.checks.guards" in attacks


def test_the_page_of_commands_is_what_the_program_says() -> None:
    page = runpy.run_path(str(DOCS / "render_commands.py"))["page"]
    assert page() == text_of(DOCS / "commands.md"), "run docs/render_commands.py"
    assert page().count("  Example") == 13


# docs/run-directory.md names every field

FIELDS = set(re.findall(r"`([a-z0-9_]+)`", text_of(DOCS / "run-directory.md")))


def sample_plan() -> Plan:
    task = Task(
        id="task_1",
        name="n",
        description="d",
        priority=1,
        estimated_effort="low",
        dependencies=[],
        files=["docs/a.md"],
        acceptance=[],
        integration_notes="",
    )
    complexity = Complexity(level="simple", reasoning="r", key_features=[], technical_components=[])
    return Plan(complexity=complexity, contract="", integration_notes="", packages=[], verify=[], tasks=[task])


def keys(value: Any) -> set[str]:
    """The keys of a JSON value, at every depth."""
    if isinstance(value, dict):
        return set(value).union(*map(keys, value.values()))
    return set().union(*map(keys, value)) if isinstance(value, list) else set()


def test_every_field_of_scenario_and_plan_is_documented() -> None:
    named = [*Scenario.model_fields, *Plan.model_fields, *Task.model_fields, *Complexity.model_fields]
    assert set(named) <= FIELDS


def test_the_identity_is_marked() -> None:
    rows = re.findall(r"^\| (`[^|]+) \* \|", text_of(DOCS / "run-directory.md"), re.MULTILINE)
    assert {name for row in rows for name in re.findall(r"`(\w+)`", row)} == set(IDENTITY)


def test_every_field_of_the_summary_is_documented(tmp_path: Path) -> None:
    scenario = make_scenario({"requirements": "Build it", "run": "x", "endpoint": "http://x"})
    state = read_state(RunDirectory(tmp_path), scenario, sample_plan())
    final = FinalReport("c", TestCounts(), (), None, (), {"src": 0, "tests": 0, "docs": 0}, 0.0)
    assert keys(summarize(state, final.as_json()).as_json()) <= FIELDS


def test_the_documents_are_known() -> None:
    assert {Summary, BatchSummary, RunStatus, BatchStatus} <= {*JsonDocument.__subclasses__()}


@pytest.mark.parametrize("document", JsonDocument.__subclasses__(), ids=lambda document: document.__name__)
def test_every_field_of_a_document_is_documented(document: type[JsonDocument]) -> None:
    assert set(document.__struct_fields__) <= FIELDS


def test_every_field_of_the_evidence_is_documented() -> None:
    verdict = Verdict(PytestReport(()), (), 0)
    assert keys(describe(Change({}, {}, {}, {}, {}), verdict, sample_plan().tasks[0]).as_json()) <= FIELDS


# Diagrams


def test_the_page_shows_the_diagrams_of_the_document() -> None:
    diagrams = runpy.run_path(str(DOCS / "render_diagrams.py"))["diagrams"]
    drawn = re.findall(r'data-source-sha256="([0-9a-f]{64})"', text_of(DOCS / "architecture-diagram.html"))
    found = diagrams(text_of(DOCS / "architecture.md"))
    assert len(found) == len(blocks(DOCS / "architecture.md", "mermaid")) > 6
    assert [diagram.digest for diagram in found] == drawn, "run docs/render_diagrams.py"


def test_the_page_needs_no_network() -> None:
    page = text_of(DOCS / "architecture-diagram.html")
    assert page.count("<svg ") == 2 * len(blocks(DOCS / "architecture.md", "mermaid"))
    assert not re.search(r"""(src|href)=["'](https?:)?//|@import|url\(["']?http""", page)


def arrows(block: str) -> set[tuple[str, str]]:
    """The arrows of a diagram; `a & b --> c` are two."""
    pairs = re.findall(r"^ +([\w &]+?) --> ([\w &]+?)(?:: .*)?$", block, re.MULTILINE)
    return {(a, b) for left, right in pairs for a in left.split(" & ") for b in right.split(" & ")}


def test_the_state_diagram_is_the_table_of_legal_moves() -> None:
    (block,) = (b for b in blocks(DOCS / "architecture.md", "mermaid") if b.startswith("stateDiagram"))
    table = {(old.value, new.value) for old, moves in LEGAL_MOVES.items() for new in moves}
    assert arrows(block) == table
