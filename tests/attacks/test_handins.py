"""What is handed in may be anything, and without a sandbox the run's own files are within reach, too."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from parallel_orchestrator.trunk.changes.folder import MOST_MEMBERS
from parallel_orchestrator.trunk.changes.rules import LARGEST_FILE, MOST_FILES
from tests.attacks.stage import Stage, Turn, bash, create
from tests.end_to_end import harness, scripted
from tests.fake_api import Answer, Block, Body, FakeApi

Build = Callable[[Body], Answer | list[Block]]

REFUSED = {
    "ln -s /etc/passwd src/leak.py": "src/leak.py is a link",
    "ln -s ../.. docs/up": "docs/up is a link",
    "mkdir -p src/sub/.git; echo x > src/sub/.git/config": "src/sub/.git is a git repository of its own",
    "mkdir src/sub; echo gitdir: /tmp > src/sub/.git": "src/sub/.git is a git repository of its own",
    "echo '[submodule]' > src/.gitmodules": "src/.gitmodules is a control file of git",
    "echo '* filter=x' > docs/.gitattributes": "docs/.gitattributes is a control file of git",
    "mkdir src/.claude; echo {} > src/.claude/settings.json": "src/.claude/settings.json makes a tool run commands",
    "cd docs; mkdir -p .github/workflows; echo > .github/workflows/x.yml": "docs/.github/workflows/x.yml makes a tool",
    "echo > tests/conftest.py": "tests/conftest.py has a name that changes how Python or pytest runs",
    "echo > src/sitecustomize.py": "src/sitecustomize.py has a name that changes",
    "echo import os > src/x.pth": "src/x.pth has a name that changes",
    "mkdir src/a.dist-info; echo > src/a.dist-info/entry_points.txt": "src/a.dist-info/entry_points.txt has a name",
    "echo > docs/Note.md; echo > docs/note.md": "docs/Note.md and docs/note.md are the same path",
    r"echo > $'docs/e\u0301.md'; echo > $'docs/\u00e9.md'": "are the same path on many systems",
    r"echo > $'docs/\e[2J.md'": "docs/\\x1b[2J.md has a name that does not work everywhere",
    "mkfifo src/pipe": "src/pipe is neither a file nor a folder",
    f"seq -f docs/%g.md {MOST_FILES} | xargs touch": f"at most {MOST_FILES} are merged",
}
"""Commands in the workspace, and what the hand-in is refused for."""

REFUSED_FOR_SIZE = {
    "truncate -s 200M src/large.bin": f"at most {LARGEST_FILE} are merged",
    f"mkdir many; cd many; seq {MOST_MEMBERS + 1} | xargs touch": f"more than {MOST_MEMBERS} files and folders",
    "for n in $(seq 9); do truncate -s 250M large.$n; done": "larger than 2048 MiB together",
}

LEFT_OUT = (
    "mkdir -p .git .claude .github/workflows; echo > .git/config; echo {} > .claude/settings.json; "
    "echo > .github/workflows/x.yml; echo > conftest.py; echo > sitecustomize.py; echo > x.pth; "
    "ln -s /etc link; chmod 6777 src/*.py; chmod 0666 docs/*.md"
)


def _after_work(commands: list[str]) -> Build:
    """A model that does a part's honest work, then runs the task's command, then reports."""

    def build(body: Body) -> Answer | list[Block]:
        before = scripted.answers_before(body)
        if before == 2:
            return [bash(commands[int(scripted.task_of(body).removeprefix("task_")) - 1])]
        return scripted.build_part(body, 4 if before > 2 else before + 1)

    return build


@pytest.mark.parametrize(
    "refused", [REFUSED, pytest.param(REFUSED_FOR_SIZE, marks=pytest.mark.thorough)], ids=["form", "size"]
)
def test_what_is_handed_in_is_refused_or_left_out_and_told(tmp_path: Path, refused: dict[str, str]) -> None:
    stage, commands = Stage(tmp_path), [LEFT_OUT, *refused]
    plan = scripted.plan([scripted.task(number, []) for number in range(1, len(commands) + 1)])
    with FakeApi(scripted.model(plan, _after_work(commands)), task_of=scripted.task_of) as api:
        stage.run_python(api, code=1, repair_rounds=0)
    honest, *attacks = stage.summary()["tasks"]
    for task, (command, reason) in zip(attacks, refused.items(), strict=True):
        assert (task["state"], task["merged"]) == ("failed", False), command
        assert reason in task["reason"], command
    assert honest["merged"], honest
    assert honest["evidence"]["left_out"] == [
        *(".claude/settings.json", ".git", ".github/workflows/x.yml", "conftest.py", "link", "sitecustomize.py"),
        "x.pth",
    ]
    assert harness.tree(stage.out).keys() == {"src/part_1.py", "tests/test_part_1.py", "docs/part_1.md"}
    assert {path.name: path.stat().st_mode & 0o7022 for path in stage.out.glob("*/*part_1.*")} == {
        "part_1.py": 0,
        "test_part_1.py": 0,
        "part_1.md": 0,
    }
    stage.assert_nothing_happened()


def _files_of_the_run(out: Path) -> list[Path]:
    names = (
        "execution_plan.json",
        "queue.jsonl",
        "ledger.jsonl",
        "scenario.json",
        "execution_summary.json",
        "run.lock",
    )
    return [*(out / name for name in names), out / "executor_1/task_1.jsonl", out / ".git/config"]


def test_in_the_sandbox_nothing_of_the_run_is_within_reach(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    files = _files_of_the_run(stage.out)
    commands = [bash(f"echo tamper''ed >> {path}") for path in files]
    upwards = [create(f"../../{path.relative_to(stage.out)}", "tampered") for path in files]
    seen = stage.play(
        [*commands, *upwards, bash("ls -A .. / | grep -E 'queue|executor|jsonl|json'; cat ../task_1.jsonl")]
    )
    assert all(result.is_error or "exit code" in result.content for result in seen[: 2 * len(files)]), seen
    assert "cat: ../task_1.jsonl: No such file" in seen[2 * len(files)].content
    assert "queue.jsonl" not in seen[2 * len(files)].content
    assert stage.summary()["status"] == "done"
    for path in files:
        assert "tampered\n" not in path.read_text(), path
    stage.assert_nothing_happened()


def _python(stage: Stage, script: str) -> Block:
    """A command that runs a Python script in the workspace, with ROOT the run's directory."""
    return bash(f"python - <<'END'\nfrom pathlib import Path\nROOT = Path({str(stage.out)!r})\n{script}\nEND")


def _unsandboxed(stage: Stage, script: str, code: int) -> str:
    """Run two tasks, one after the other, without a sandbox; the first one's agent runs `script`. What was printed."""
    with _api_of_two(stage, script) as api:
        return stage.run(api, "--sandbox", "off", code=code)


def _api_of_two(stage: Stage, script: str) -> FakeApi:
    turn = [_python(stage, script)]

    def build(body: Body) -> Answer | list[Block]:
        before = scripted.answers_before(body)
        if scripted.task_of(body) != "task_1":
            return scripted.build_part(body)
        return scripted.build_part(body, before) if before else turn

    plan = scripted.plan([scripted.task(1, []), scripted.task(2, [1])])
    return FakeApi(scripted.model(plan, build), task_of=scripted.task_of)


@pytest.mark.parametrize(
    "name",
    [
        "queue.jsonl",
        pytest.param("ledger.jsonl", marks=pytest.mark.thorough),
        pytest.param("executor_1/task_1.jsonl", marks=pytest.mark.thorough),
    ],
)
def test_without_a_sandbox_a_changed_record_stops_the_run(tmp_path: Path, name: str) -> None:
    stage = Stage(tmp_path)
    printed = _unsandboxed(stage, f"with (ROOT / {name!r}).open('r+b') as f: f.seek(20); f.write(b'X')", code=1)
    assert f"{name} is damaged at line 1, byte 0" in printed
    assert not (stage.out / "execution_summary.json").exists()
    stage.assert_nothing_happened()


def test_without_a_sandbox_what_was_forged_beforehand_has_no_say(tmp_path: Path) -> None:
    """A summary, another's workspace and files beside the trunk."""
    stage = Stage(tmp_path)
    script = """
(ROOT / "execution_summary.json").write_text('{"status": "done"}')
(ROOT / "src").mkdir(exist_ok=True)
(ROOT / "src/part_2.py").write_text("forged")
for slot in (1, 2):
    (ROOT / f"executor_{slot}/task_2").mkdir(parents=True, exist_ok=True)
    (ROOT / f"executor_{slot}/task_2/forged.py").write_text("forged")
"""
    _unsandboxed(stage, script, code=0)
    assert [task["merged"] for task in stage.summary()["tasks"]] == [True, True]
    assert "forged" not in "".join(harness.tree(stage.out).values())
    assert [move["state"] for move in harness.moves(stage.out) if move["task"] == "task_2"] == ["claimed", "merged"]
    assert harness.recount(stage.out) == []
    stage.assert_nothing_happened()


def test_without_a_sandbox_a_forged_record_stops_the_run_and_says_where(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    script = """
with (ROOT / "queue.jsonl").open("a") as queue:
    queue.write('{"seq":3,"task":"task_2","state":"merged","attempt":1}\\n')
"""
    _unsandboxed(stage, script, code=1)
    assert "queue.jsonl is damaged at line 3" in stage.output
    assert "repair" in stage.output
    assert "Traceback" not in stage.output
    stage.assert_nothing_happened()


@pytest.mark.thorough
def test_without_a_sandbox_another_plan_stops_the_run_and_repair_brings_the_own_one_back(tmp_path: Path) -> None:
    """One that could be run, with a command to run at the end, put in its place while work goes on."""
    stage = Stage(tmp_path)
    script = f"""
import json
plan = json.loads((ROOT / "execution_plan.json").read_text())
plan["verify"].append("touch {tmp_path}/ran")
(ROOT / "execution_plan.json").write_text(json.dumps(plan))
"""
    told = "execution_plan.json is damaged: it is not the plan that work on this run began with"
    with _api_of_two(stage, script) as api:
        assert told in stage.run(api, "--sandbox", "off", code=1)
        paid = len(api.requests)
        assert told in harness.run("resume", str(stage.out), api=api, code=1)
        harness.run("repair", str(stage.out), api=api)
        harness.run("resume", str(stage.out), api=api)
        assert len(api.requests) == paid, "all of it was paid for already"
    assert stage.summary()["completed"] == 2
    assert not (tmp_path / "ran").exists()
    stage.assert_nothing_happened()


_HOOKS = ("post-checkout", "reference-transaction", "post-index-change", "pre-commit", "post-commit")


def _poison(git_dir: str, marker: Path) -> str:
    """Python that fills the repository at `git_dir`, an expression, with everything that makes git run something."""
    return f"""
git = {git_dir}
for folder in ("hooks", "info", "objects/info", "refs", "modules/x"):
    (git / folder).mkdir(parents=True, exist_ok=True)
run = git / "run.sh"
run.write_text("#!/bin/sh\\necho $0 $@ >> {marker}\\ncat\\n")
run.chmod(0o755)
config = git / "config"
old = config.read_text() if config.exists() else "[core]\\nrepositoryformatversion = 0\\n"
(git / "more").write_text(f'''
[filter "evil"]
clean = {{run}}
smudge = {{run}}
required = true
[merge "evil"]
driver = {{run}} %A
[diff "evil"]
textconv = {{run}}
command = {{run}}
''')
config.write_text(old + f'''
[core]
fsmonitor = {{run}}
hooksPath = {{git}}/hooks
sshCommand = {{run}}
pager = {{run}}
editor = {{run}}
attributesFile = {{git}}/info/attributes
alternateRefsCommand = {{run}}
[include]
path = {{git}}/more
[diff]
external = {{run}}
[gpg]
program = {{run}}
[commit]
gpgSign = true
[log]
showSignature = true
[alias]
read-tree = !{{run}}
update-ref = !{{run}}
[credential]
helper = !{{run}}
[remote "origin"]
url = ext::{{run}}
promisor = true
uploadpack = {{run}}
[protocol "ext"]
allow = always
[submodule]
recurse = true
''')
for hook in {_HOOKS!r}:
    (git / "hooks" / hook).write_text(run.read_text())
    (git / "hooks" / hook).chmod(0o755)
(git / "config.worktree").write_text((git / "more").read_text())
(git / "info/attributes").write_text("* filter=evil merge=evil diff=evil ident\\n")
(git / "objects/info/alternates").write_text(f"{{git}}/elsewhere\\n")
"""


@pytest.mark.parametrize("sandbox", [pytest.param("auto", marks=pytest.mark.thorough), "off"])
def test_no_git_call_of_ours_runs_what_a_repository_names(tmp_path: Path, sandbox: str) -> None:
    """A poisoned repository in the workspace and, without a sandbox, the run's own."""
    stage, marker = Stage(tmp_path), tmp_path / "ran"
    script = _poison("Path('.git').absolute()", marker)
    script += "Path('.gitattributes').write_text('* filter=evil merge=evil diff=evil')\n"
    script += "Path('.gitmodules').write_text('[submodule \"x\"]\\\\npath = src\\\\nurl = ext::x\\\\n')\n"
    turns: Sequence[Turn] = [[_python(stage, script)]]
    if sandbox == "off":
        turns = [*turns, [_python(stage, _poison("ROOT / '.git'", marker))]]
    plan = scripted.plan([scripted.task(number, []) for number in (1, 2, 3)])
    stage.play(*turns, options=["--sandbox", sandbox], plan=plan)
    assert stage.summary()["completed"] == 3
    assert not marker.exists(), marker.read_text()
    stage.assert_nothing_happened()


def test_a_view_that_was_changed_stops_the_run_before_git_is_called(tmp_path: Path) -> None:
    """And a workspace whose .git is a file is not taken for the repository that it names."""
    stage, marker = Stage(tmp_path), tmp_path / "ran"
    script = _poison(f"Path({str(tmp_path / 'elsewhere')!r})", marker)
    script += f"Path('.git').write_text('gitdir: {tmp_path}/elsewhere')\n"
    script += "with (ROOT / '.git/view/config').open('a') as file: file.write((git / 'more').read_text())\n"
    script += "(ROOT / '.git/view/info').mkdir()\n"
    script += "(ROOT / '.git/view/info/attributes').write_text('* filter=evil merge=evil\\\\n')\n"
    printed = _unsandboxed(stage, script, code=3)
    assert ".git/view was tampered with: something other than this program changed it" in printed
    assert stage.summary()["completed"] == 0
    assert not marker.exists(), marker.read_text()
    stage.assert_nothing_happened()
