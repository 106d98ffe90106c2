"""Paths that lead out of the workspace, by the editor and by commands, in the sandbox and without it."""

from __future__ import annotations

from pathlib import Path

from tests.attacks.stage import Seen, Stage, Turn, attacker, bash, create, edit, seen_by_model
from tests.end_to_end import harness, scripted
from tests.fake_api import Answer, Block, Body, FakeApi

REFUSED = [
    *("", "../x", "a/../../x", "..", "~/.bashrc", "~root/x", "file:///etc/x", "a\0b", "a" * 5000, "x/" * 2500),
    *("C:\\x", "..\\x", "CON", "src/nul.txt", "com1", "name.", "name ", "/etc/x", "//etc/x", "/proc/self/root/etc/x"),
    *(
        "/dev/fd/0",
        "/dev/stdin",
        "/workspacex/x",
        "/workspace/../x",
        "../task_10/x",
        "../task_2/x",
        "../../queue.jsonl",
    ),
    *(".git/config", "src/.GIT/hooks/pre-commit", "a\x1b[2Jb", "a\u202eb", "a\nb"),
]

TRAPS = """
mkdir traps; cd traps
ln -s {parent}/secret.txt file; ln -s ../../../../secret.txt relative; ln -s {parent}/made dangling
ln -s {parent} folder; ln -s folder chain; ln -s {parent}/new dangling_folder; ln -s {out}/executor_2/task_2 sibling
ln -s {out}/queue.jsonl queue; ln -s {out}/ledger.jsonl journal; ln -s {out}/executor_1/task_1.jsonl conversation
ln -s /proc/self/root root; ln -s /dev/fd descriptors; ln -s ../src inner; ln -s loop loop; mkfifo fifo
ln {parent}/secret.txt hard || ln -s {parent}/secret.txt hard
mknod device c 1 5 || mkfifo device
ls
"""
TRAPPED = [
    *("file", "relative", "dangling", "queue", "journal", "conversation", "loop", "hard", "fifo", "device"),
    *("folder/secret.txt", "chain/secret.txt", "folder/out-twin/file.txt", "dangling_folder/x", "sibling/src/x.py"),
    *("root/etc/passwd", "descriptors/0", "inner/x", "file/x", "loop/x"),
]

REACHING_OUT = """
for place in {parent} {out} traps/folder /proc/self/root{parent} /proc/1/root{parent} /proc/1/cwd/..; do
    cat $place/secret.txt $place/queue.jsonl $place/execution_plan.json && echo REACHED
    echo attacked >> $place/secret.txt && echo REACHED
    echo attacked >> $place/queue.jsonl && echo REACHED
    mkdir $place/made && echo REACHED
done
ls -d {out}/executor_* ../executor_* && echo REACHED
cat traps/file traps/hard traps/queue traps/journal traps/conversation && echo REACHED
for place in traps/{{file,dangling,queue}} ../x /x /etc/x /usr/x; do echo attacked > $place && echo REACHED; done
cp src/../traps/sibling/src/* . && echo REACHED
mount --bind / traps && echo REACHED; unshare -r true && chroot / true && nsenter -t 1 -m true && echo REACHED
dd if=/dev/zero of=/dev/sda count=1 && echo REACHED
"""

SWAPPING = """
cd {out}/executor_*/task_1/spot/.. && python3 - <<'END'
import contextlib, os
n = 0
while not os.path.exists("stop"):
    n += 1  # a new name each time: the editor may make the folder anew meanwhile, and no name may be taken then
    for act in (lambda: os.rename("spot", f"aside{n}"), lambda: os.symlink("{parent}/out-twin", "spot"),
                lambda: open("swapped", "w").close(), lambda: os.unlink("spot"),
                lambda: os.rename(f"aside{n}", "spot")):
        with contextlib.suppress(OSError):
            act()
END
"""


def tries(path: str) -> list[Block]:
    """Every command of the editor on `path`."""
    return [
        create(path),
        edit(command="view", path=path),
        edit(command="str_replace", path=path, old_str="e", new_str="attacked"),
        edit(command="insert", path=path, insert_line=0, insert_text="attacked\n"),
    ]


def played(stage: Stage, turns: list[Turn], beside: list[Turn], *options: str) -> list[Seen]:
    """What the model of task_1 saw of `turns` while that of task_2 took `beside`; both then do honest work."""
    models = {"task_1": attacker(turns), "task_2": attacker(beside)}
    planned = scripted.plan([scripted.task(1, []), scripted.task(2, [])])

    def build(body: Body) -> Answer | list[Block]:
        return models[scripted.task_of(body)](body)

    with FakeApi(scripted.model(planned, build), task_of=scripted.task_of) as api:
        stage.run(api, *options)
        return seen_by_model(api, "task_1")


def assert_nothing_came_of_it(stage: Stage, seen: list[Seen]) -> None:
    """The run went on to its honest end, and neither the parent nor the run's own files were touched."""
    assert not [result for result in seen if "SECRET" in result.content]
    stage.assert_nothing_happened()
    assert harness.recount(stage.out) == []
    assert harness.tree(stage.out).keys() == {path for number in (1, 2) for path in scripted.task(number, [])["files"]}


def test_the_editor_and_commands_stay_in_a_sandboxed_workspace(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    places = {"parent": stage.parent, "out": stage.out}
    edits = [call for path in [*REFUSED, *(f"traps/{name}" for name in TRAPPED)] for call in tries(path)]
    seen = played(stage, [[bash(TRAPS.format(**places))], [*edits, bash(REACHING_OUT.format(**places))]], [])
    made, *refused, reached = seen[: len(edits) + 2]
    assert set(made.content.split()) >= {name.partition("/")[0] for name in TRAPPED}
    assert [call["input"] for call, result in zip(edits, refused, strict=True) if not result.is_error] == []
    assert not [result for result in refused if str(tmp_path) in result.content]
    assert "REACHED" not in reached.content
    assert_nothing_came_of_it(stage, seen)


def test_the_editor_stays_in_the_workspace_without_a_sandbox(tmp_path: Path) -> None:
    """As task_2 can reach the workspace of task_1 here, its command swaps a folder there for a link, all the while."""
    stage = Stage(tmp_path)
    places = {"parent": stage.parent, "out": stage.out}
    edits = [call for path in [*REFUSED, *(f"traps/{name}" for name in TRAPPED)] for call in tries(path)]
    # The pauses let the other command swap also where it gets little of the processor.
    race = [call for _ in range(25) for call in [*tries("spot/file.txt"), bash("sleep 0.05")]]
    wait = "mkdir -p spot; for i in $(seq 600); do [ -e swapped ] && break; sleep 0.1; done; ls swapped"
    turns = [[bash(TRAPS.format(**places))], [*edits, bash(wait)], [*race, bash("touch stop")]]
    swap = f"for i in $(seq 600); do [ -d {stage.out}/executor_*/task_1/spot ] && break; sleep 0.1; done\n"
    swapping = bash(swap + SWAPPING.replace("{out}", str(stage.out)).replace("{parent}", str(stage.parent)))
    seen = played(stage, turns, [[swapping]], "--sandbox", "off", "--max-executors", "2")
    refused, waited, raced = seen[1 : len(edits) + 1], seen[len(edits) + 1], seen[len(edits) + 2 :][: len(race)]
    assert [call["input"] for call, result in zip(edits, refused, strict=True) if not result.is_error] == []
    assert waited.content == "swapped"
    assert not [result for result in raced if "untouched" in result.content]
    assert any(result.is_error for result in raced)
    assert_nothing_came_of_it(stage, seen)
