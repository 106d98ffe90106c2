from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from parallel_orchestrator.gateway.endpoints.recording import (
    RecordedAnswer,
    Recording,
    dump,
    from_ledger,
    load,
)
from parallel_orchestrator.records.errors import UsageError
from tests.fake_api import FakeApi, text, tool_use
from tests.gateway.support import MODEL, body, gateway

ROOT = Path(__file__).parents[2]
HEAD = f"recording: 1\nname: small\norigin: written\nrequirement: A thing\nmodel: {MODEL}\n"
ANSWER = """
  - task: task_1
    phase: work
    turn: 1
    latency_s: 0
    stop_reason: end_turn
    usage: {input_tokens: 1, output_tokens: 2}
    content:
      - {type: text, text: done}
"""
CODE = "def f() -> int:\n    return 1\n\n\nprint(f())\n"


def load_text(folder: Path, content: str) -> Recording:
    path = folder / "small.yaml"
    path.write_text(content)
    return load(path)


def test_a_recording_is_read(tmp_path: Path) -> None:
    recording = load_text(tmp_path, f"# a comment\n{HEAD}answers:{ANSWER}")
    assert recording.name == "small"
    assert recording.answers[0].key == ("task_1", "work", 1)
    assert recording.answers[0].content == [{"type": "text", "text": "done"}]


def test_an_odd_but_plain_text_stays_text(tmp_path: Path) -> None:
    recording = load_text(tmp_path, f"{HEAD}answers:{ANSWER.replace('text: done', 'text: 2026-11-22')}")
    assert recording.answers[0].content[0]["text"] == "2026-11-22"


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("recording: 1", "recording: 2", "recording"),
        ("origin: written", "origin: guessed", "origin"),
        ("model:", "modell:", "model"),
        ("    turn: 1\n", "", r"answers\[0\]\.turn"),
        ("turn: 1", "turn: 0", r"answers\[0\]\.turn"),
        ("task: task_1", "task: ../x", r"answers\[0\]\.task"),
        ("phase: work", "phase: play", r"answers\[0\]\.phase"),
        ("latency_s: 0", "latency_s: .nan", r"line 10: \.nan is read as a number"),
        ("latency_s: 0", "latency_s: soon", r"answers\[0\]\.latency_s"),
        ("    phase: work\n", "    phase: work\n    phase: work\n", "line 9.*'phase' stands here twice"),
        ("{type: text, text: done}", "{type: poem, text: done}", r"answers\[0\]\.content\[0\].*poem"),
        ("{type: text, text: done}", "{type: tool_use, id: a, name: b}", r"answers\[0\]\.content\[0\].*input"),
        ("{type: text, text: done}", "&a {type: text, text: x}\n      - *a", "aliases"),
        ("{type: text, text: done}", "!!python/object:os.system {}", "small.yaml"),
        ("{type: text, text: done}", "{type: text", "small.yaml.*line"),
        ("answers:", "answers: 3 #", "answers|line"),
        ("model:", "answers: !!timestamp abc\nmodel:", "line 5: the tag !!timestamp is not allowed"),
        ("answers:", "? [a, b]\n: c\nanswers:", "line 6: a key has to be a word"),
        ("input_tokens: 1", f"input_tokens: {'9' * 400}", "line 12: 9+… is read as a number"),
        ("input_tokens: 1", f"input_tokens: {'9' * 5_000}", "line 12: 9+… is read as a number"),
        ("input_tokens: 1", "input_tokens: 0x10", "line 12: 0x10 is read as 16 in YAML"),
        ("text: done", "text: yes", "line 14: yes means true in YAML"),
        ("text: done", "text: !!binary aGk=", "line 14: the tag !!binary is not allowed"),
        ("text: done", "text: !mine x", "line 14: the tag !mine is not allowed"),
        ("{type: text, text: done}", "!!set {a, b}", "line 14: the tag !!set is not allowed"),
        ("recording: 1", "--- a\n--- b", "line 2: a second document begins"),
        ("text: done", "text: \x01", "line 14: the character '.x01' is not allowed"),
        ("text: done", "text: '\ud800'".encode(errors="replace").decode() + "\t\t{", "line 14"),
        ("- task: task_1", "\t- task: task_1", "line 7: a tab is no indentation"),
        ("{type: text, text: done}", "[" * 100_000, "line 14: nested "),
        ("{type: text, text: done}", "{a: " * 100_000, "line 14: nested "),
        ("{type: text, text: done}", "- " * 100_000, "line 14: nested "),
        (
            "{type: text, text: done}",
            "{type: text, text: done}\n" + "x: 1\n" * 3,
            "line 16: the key 'x' stands",
        ),
        (
            "{type: text, text: done}",
            "[" + "a, " * 200_000 + "]",
            "line 14: a file holds at most 100,000 values",
        ),
    ],
)
def test_faults_are_named_with_file_and_place(tmp_path: Path, old: str, new: str, says: str) -> None:
    content = f"{HEAD}answers:{ANSWER}"
    assert old in content
    with pytest.raises(UsageError, match=says) as error:
        load_text(tmp_path, content.replace(old, new, 1))
    assert "small.yaml" in str(error.value)


@pytest.mark.parametrize("content", ["[" * 100_000, "{a: " * 100_000, f"answers: {'9' * 400}\n", "? [a]\n: b\n"])
def test_the_command_line_ends_with_2_and_names_file_and_line(tmp_path: Path, content: str) -> None:
    path = tmp_path / "odd.yaml"
    path.write_text(content)
    command = [sys.executable, str(ROOT / "orchestrator.py"), "run", "x", "--replay", str(path)]
    ended = subprocess.run(
        [*command, "--output-dir", str(tmp_path / "out")], check=False, capture_output=True, text=True, timeout=120
    )
    assert ended.returncode == 2, ended.stderr
    assert f"{path}: line 1: " in ended.stderr
    assert "docs/recordings.md" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not (tmp_path / "out").exists()


def test_a_tag_makes_no_other_value_of_a_word(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"small\.yaml .*: line 6: answers: Input should be a valid list"):
        load_text(tmp_path, f"{HEAD}answers: !!bool maybe\n")


def test_two_answers_for_one_key_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"answers\[1\] is for task_1, phase work, turn 1, and so is answers\[0\]"):
        load_text(tmp_path, f"{HEAD}answers:{ANSWER}{ANSWER.removeprefix(chr(10))}")


def test_an_absent_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"absent\.yaml"):
        load(tmp_path / "absent.yaml")


def test_what_is_written_reads_back_and_shows_code_as_it_is(tmp_path: Path) -> None:
    edit = tool_use("toolu_1", "str_replace_based_edit_tool", command="create", path="src/a.py", file_text=CODE)
    answer = RecordedAnswer(
        task="task_1", phase="repair 1", turn=2, latency_s=1.5, stop_reason="tool_use", usage={"output_tokens": 3},
        content=[text("größe: " + "long " * 60), edit],
    )  # fmt: skip
    recording = Recording(name="n", origin="exported", requirement="Do it:\nwell", model=MODEL, answers=[answer])
    written = dump(recording, "Exported.\nNot edited.")
    assert written.startswith("# Exported.\n# Not edited.\nrecording: 1\nname: n\norigin: exported\n")
    assert "file_text: |\n" in written
    assert "        def f() -> int:\n            return 1\n" in written
    assert load_text(tmp_path, written) == recording


def test_an_exported_run_replays_as_it_was(tmp_path: Path) -> None:
    def script(asked: dict[str, object]) -> list[dict[str, object]]:
        edit = tool_use("toolu_1", "bash", command=CODE)
        return [{"type": "thinking", "thinking": "hm", "signature": "c2ln"}, text(str(asked["messages"])), edit]

    with FakeApi(script) as api, gateway(tmp_path, api) as gw:
        gw.open()
        gw.ask(1, json=body("attempt one"))
        retried = gw.client(gw.token(attempt=2))
        live = [
            gw.ask(1, client=retried, json=body("one"), phase="work", phase_turn=1, stream=False).json(),
            gw.ask(3, client=retried, json=body("three"), phase="repair 1", phase_turn=1, stream=False).json(),
        ]
        gw.ask(1, client=gw.client(gw.token("plan")), json=body("plan it"))
        recording = from_ledger(gw.ledger(), "A thing", "mine")
    assert [answer.key for answer in recording.answers] == [
        ("task_1", "work", 1),
        ("task_1", "repair 1", 1),
        ("plan", "work", 1),
    ]
    path = tmp_path / "mine.yaml"
    path.write_text(dump(recording))
    with gateway(tmp_path) as gw:
        gw.open("replayed", recording=path, speed=1000)
        client = gw.client(gw.token(run="replayed"))
        again = [
            gw.ask(1, client=client, phase="work", phase_turn=1, stream=False).json(),
            gw.ask(2, client=client, phase="repair 1", phase_turn=1, stream=False).json(),
        ]
    for then, now in zip(live, again, strict=True):
        assert [now[name] for name in ("content", "stop_reason", "usage", "model")] == [
            then[name] for name in ("content", "stop_reason", "usage", "model")
        ]


def test_there_has_to_be_something_to_export(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no answers"):
        from_ledger(tmp_path / "ledger.jsonl", "A thing", "mine")
