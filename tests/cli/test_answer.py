"""One document on standard output with --json, whatever is typed and whatever happens; over the real program."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from parallel_orchestrator.config.options import Options
from parallel_orchestrator.run import manifest
from parallel_orchestrator.store.paths import BatchDirectory

ROOT = Path(__file__).resolve().parents[2]
LONG = "n" * 300
"""A name that no file can have."""
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
"""A locale in which a file that names no encoding is not UTF-8."""


def typed(
    *arguments: str, cwd: Path, before: str = "", encoding: str | None = None, **variables: str
) -> subprocess.CompletedProcess[str]:
    """A command line, run to its end. `before`: Python that is executed first; `encoding`: of what it prints."""
    if encoding:
        variables["PYTHONIOENCODING"] = encoding
    code = f"import sys; sys.argv[0] = 'orchestrator.py'; import orchestrator as o\n{before}\no.main()"
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ANTHROPIC")}
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=cwd,
        env={**kept, "PYTHONPATH": str(ROOT), **variables},
        capture_output=True,
        encoding=encoding or "utf-8",
        check=False,
    )


def document(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """Standard output, all of which is one document."""
    found: dict[str, Any] = json.loads(done.stdout)
    assert found["version"] == 1
    assert found["ok"] == (done.returncode == 0)
    assert "Traceback" not in done.stderr
    if not found["ok"]:
        assert found["error"]["exit_code"] == done.returncode
    return found


@pytest.mark.parametrize(
    ("arguments", "code", "command", "kind", "told"),
    [
        (["status", "nowhere", "--json"], 2, "status", "usage", "there is no folder nowhere"),
        (["--json", "logs", "nowhere"], 2, "logs", "usage", "there is no folder nowhere"),
        (["retry", "--bad", "--json"], 2, "retry", "usage", "no such option: --bad"),
        (["batch", "--json", "--max-executors", "none"], 2, "batch", "usage", "--max-executors"),
        (["--json", "resum", "x"], 2, "run", "usage", "Did you mean `resume`?"),
        (["--json"], 2, None, "usage", "a command is missing"),
        (["Build a form", "--json"], 2, "run", "usage", "ANTHROPIC_API_KEY"),
        (["export", "--json", "nowhere", "--recording", "x"], 2, "export", "usage", "there is no folder"),
    ],
)
def test_a_failure_is_a_document(
    arguments: list[str], code: int, command: str | None, kind: str, told: str, tmp_path: Path
) -> None:
    done = typed(*arguments, cwd=tmp_path)
    found = document(done)
    assert (done.returncode, found["command"], found["error"]["kind"]) == (code, command, kind)
    assert told in found["error"]["message"]
    assert "result" not in found


@pytest.mark.parametrize(("arguments", "code"), [("schema", 3), ("schema --json", 3), ("status nowhere --json", 2)])
def test_an_answer_that_cannot_be_shown_is_one_line_and_an_exit_code(arguments: str, code: int, tmp_path: Path) -> None:
    done = typed(*arguments.split(), cwd=tmp_path, before="import os; os.dup2(os.open('/dev/full', os.O_WRONLY), 1)")
    assert (done.returncode, len(done.stderr.splitlines())) == (code, 1)
    assert "standard output cannot be written: No space left on device" in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["status", LONG],
        ["resume", LONG],
        ["retry", LONG],
        ["logs", LONG],
        ["check", LONG],
        ["repair", LONG],
        ["export", LONG, "--recording", "x"],
        ["run", "Build a form", "--replay", "simple", "--output-dir", LONG],
        ["run", "--config", LONG],
        ["run", "--config", "a/" + LONG],
        ["batch", LONG],
        ["batch", "two.yaml", "--output-dir", LONG],
        ["init", LONG],
        ["doctor", "--output-dir", LONG],
        ["run", "Build a form", "--replay", LONG],
        ["run", "Build a form", "--replay", "simple", "--plan", LONG],
        ["run", "Build a form", "--replay", "simple", "--prices", LONG],
    ],
    ids=lambda arguments: " ".join(word for word in arguments if word != LONG),
)
def test_a_name_that_no_file_can_have_is_a_mistake_in_what_was_typed(arguments: list[str], tmp_path: Path) -> None:
    (tmp_path / "two.yaml").write_text("scenarios: [{name: a, requirements: Build a form, replay: simple}]")
    done = typed(*arguments, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert done.stderr.startswith("error: ")
    assert "n" * 90 in done.stderr
    assert "unexpected" not in done.stderr
    assert "recorded" not in done.stderr
    assert document(typed(*arguments, "--json", cwd=tmp_path))["error"]["kind"] == "usage"
    assert [path.name for path in tmp_path.iterdir()] == ["two.yaml"]


def test_what_an_encoding_lacks_is_escaped_and_stops_nothing(tmp_path: Path) -> None:
    said = {}
    for encoding in ("ascii", "utf-8"):
        options = ("--replay", "simple", "--speed", "1000", "--sandbox", "off", "--output-dir", encoding)
        run = typed("run", "Create a hello world function", *options, cwd=tmp_path, encoding=encoding)
        assert run.returncode == 0, run.stderr
        logs = typed("logs", encoding, "task_1", cwd=tmp_path, encoding=encoding)
        followed = typed("logs", encoding, "task_1", "--follow", cwd=tmp_path, encoding=encoding)
        assert (logs.returncode, followed.returncode, logs.stderr, followed.stderr) == (0, 0, "", "")
        assert logs.stdout == followed.stdout.removesuffix("\n")
        (head,) = (line for line in logs.stdout.splitlines() if "task_1, attempt 1" in line)
        (merged,) = (line for line in run.stderr.splitlines() if "[1/1]" in line)
        said[encoding] = (head[:12], merged.partition(" task_1")[0])
    assert said == {
        "ascii": ("\\u2500\\u2500", "[1/1] \\u2713"),
        "utf-8": ("── task_1, a", "[1/1] ✓"),
    }
    helped = typed("batch", "--help", cwd=tmp_path, encoding="latin-1")
    assert (helped.returncode, "NAME,NAME,\\u2026" in helped.stdout) == (0, True)
    # A closed stream that was filled in has an encoding of its own.
    closed = typed("logs", "ascii", "task_1", cwd=tmp_path, before="import os; os.close(1); sys.stdout = None", **ASCII)
    assert (closed.returncode, closed.stdout, closed.stderr) == (0, "", "")


def test_files_are_read_as_utf_8_in_every_locale(tmp_path: Path) -> None:
    manifest.save(BatchDirectory(tmp_path), 1, None, {"größe": Options("Zähle", replay="gone.yaml")})
    done = typed("resume", ".", cwd=tmp_path, **ASCII)
    assert (done.returncode, "there is no recording 'gone.yaml'" in done.stderr) == (2, True), done.stderr
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "a.md").write_text("# Größe")
    show = "from pathlib import Path\nfrom parallel_orchestrator.report.pages.readme import read_documents\n"
    read = typed(cwd=tmp_path, before=f"{show}print(ascii(read_documents(Path('.')))); sys.exit()", **ASCII)
    assert read.stdout == "{'docs/a.md': '# Gr\\xf6\\xdfe'}\n"


def test_what_nobody_foresaw_is_one_line_or_one_document(tmp_path: Path) -> None:
    before = "import parallel_orchestrator.config.schema as t\nt.TEMPLATE = '{no_such_field}'"
    done = typed("init", "--json", cwd=tmp_path, before=before)
    found = document(done)
    assert (done.returncode, found["error"]["kind"]) == (1, "orchestrator")
    assert "unexpected KeyError: 'no_such_field'" in found["error"]["message"]
    done = typed("init", cwd=tmp_path, before=before)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (1, "", 1)
    assert "Traceback" in typed("init", "--debug", cwd=tmp_path, before=before).stderr


def test_what_others_print_does_not_get_into_the_document(tmp_path: Path) -> None:
    before = "import os, parallel_orchestrator.maintenance.doctor as d\n" + (
        "real = d.python\nd.python = lambda: (print('chatter'), os.system('echo chatter'), real())[2]"
    )
    # Nothing listens on port 9: a fault among the results.
    done = typed("doctor", "--json", cwd=tmp_path, before=before, ANTHROPIC_BASE_URL="http://127.0.0.1:9")
    found = document(done)
    assert done.stderr.count("chatter") == 2
    levels = {check["name"]: check["level"] for check in found["result"]["checks"]}
    assert set(levels) == {
        "python",
        "git",
        "sandbox",
        "claude",
        "key",
        "endpoint",
        "model",
        "disk",
        "locks",
        "terminal",
    }
    # An endpoint of one's own may want no key.
    assert (levels["key"], levels["endpoint"], levels["locks"], levels["git"]) == ("ok", "fault", "ok", "ok")
    assert all(check["fix"] for check in found["result"]["checks"] if check["level"] != "ok")
    assert found["error"]["kind"] == "unsuccessful"
    assert found["error"]["message"] == "not as needed: endpoint"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("content", "why"), [(None, "No such file or directory"), ("{", "it is not JSON")])
def test_a_price_file_that_cannot_be_used_hides_no_other_check(content: str | None, why: str, tmp_path: Path) -> None:
    if content:
        (tmp_path / "p.json").write_text(content)
    done = typed("doctor", "--prices", "p.json", "--json", cwd=tmp_path, ANTHROPIC_BASE_URL="http://127.0.0.1:9")
    found = document(done)
    (model,) = (check for check in found["result"]["checks"] if check["name"] == "model")
    assert model["told"].startswith(f"the price file p.json cannot be used: {why}")
    assert (model["level"], model["fix"]) == ("fault", "correct that file, or leave out --prices")
    assert (done.returncode, found["error"]["message"]) == (2, "not as needed: endpoint, model")
    assert len(found["result"]["checks"]) == 10


def test_schema_and_init_succeed_and_init_overwrites_nothing(tmp_path: Path) -> None:
    schema = typed("schema", cwd=tmp_path)
    assert document(typed("schema", "--json", cwd=tmp_path))["result"]["schema"] == json.loads(schema.stdout)
    file = tmp_path / "sub" / "my file.yaml"
    found = document(typed("init", str(file), "--json", cwd=tmp_path))["result"]
    beside = file.parent / "scenarios.schema.json"
    assert found == {
        "file": str(file),
        "schema": str(beside),
        "next": f"{sys.executable} orchestrator.py run --config '{file}'",
    }
    text = file.read_text()
    assert text.startswith(f"# yaml-language-server: $schema={beside.name}\n")
    assert beside.read_text() == schema.stdout
    beside.write_text("mine")
    done = typed("init", str(file), cwd=tmp_path)
    assert (done.returncode, file.read_text()) == (2, text)
    assert "is there already" in done.stderr
    assert f"{beside} was there already and stays" in typed("init", "sub/other.yaml", cwd=tmp_path).stdout.replace(
        "sub/", f"{tmp_path}/sub/"
    )
    assert beside.read_text() == "mine"


def test_help_and_version_may_be_asked_for_as_well(tmp_path: Path) -> None:
    assert document(typed("--version", "--json", cwd=tmp_path))["command"] is None
    assert document(typed("status", "--help", "--json", cwd=tmp_path))["command"] == "status"


def test_completion_offers_commands_options_and_values(tmp_path: Path) -> None:
    for words, place, expected in (
        ("orchestrator.py re", 1, {"resume", "repair", "retry"}),
        ("orchestrator.py retry --fa", 2, {"--failed"}),
        ("orchestrator.py run --sandbox ", 3, {"auto", "required", "off"}),
    ):
        variables = {"_ORCHESTRATOR.PY_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(place)}
        done = typed(cwd=tmp_path, **variables)
        assert set(done.stdout.split()) == expected
