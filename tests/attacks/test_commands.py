"""Commands that look for the key, for a way out or for something to break: in bash, and in tests that are merged."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.attacks import other_user, probes
from tests.attacks.stage import Seen, Stage, bash, create, edit, fingerprint, seen_by_model
from tests.end_to_end import scripted
from tests.fake_api import KEY, Answer, Block, Body, FakeApi, text

PROBE = "tests/test_part_1.py"
SECOND_LOOK = "a=$(wc -c < tick); sleep 0.2; b=$(wc -c < tick); test $a -gt 0 && test $a = $b && echo silent; rm tick"
needs_other_user = pytest.mark.skipif(bool(other_user.impossible()), reason=other_user.impossible())
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be told what root is told")


@pytest.fixture
def root_stage(tmp_path: Path) -> Stage:
    """A stage for this user: root, where the tests run as root."""
    return Stage(tmp_path)


@pytest.fixture
def user_stage() -> Iterator[Stage]:
    """A stage on which the program runs as an ordinary user."""
    with other_user.ordinary_user() as (folder, become):
        stage = Stage(folder)
        stage.prefix = become
        if become:
            os.chown(stage.parent, other_user.UID, other_user.UID)
        yield stage


class Outside:
    """What listens on the host, where nobody from a sandbox may call."""

    def __init__(self, folder: Path, keep: ExitStack) -> None:
        self._tcp = keep.enter_context(socket.create_server(("", 0)))
        self._udp = keep.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        self._udp.bind(("", 0))
        self._named, self._abstract = (keep.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(2))
        self.path = str(folder / "agent.sock")
        self._named.bind(self.path)
        Path(self.path).chmod(0o777)
        self._abstract.bind(f"\0host-{os.getpid()}")
        for listener in (self._named, self._abstract):
            listener.listen()

    def setting(self) -> dict[str, Any]:
        """Where it can be reached, for the probes."""
        return {
            "tcp": self._tcp.getsockname()[1],
            "udp": self._udp.getsockname()[1],
            "unix": self.path,
            "abstract": f"host-{os.getpid()}",
            "addresses": sorted(
                {found[4][0] for found in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)}
            ),
        }

    def calls(self) -> list[str]:
        """Who has called."""
        found = []
        for listener in (self._tcp, self._named, self._abstract):
            listener.setblocking(False)
            with suppress(BlockingIOError):
                listener.accept()
                found.append(str(listener))
        self._udp.setblocking(False)
        with suppress(BlockingIOError):
            found.append(f"udp {self._udp.recv(100)!r}")
        return found


@contextmanager
def outside(folder: Path) -> Iterator[Outside]:
    with ExitStack() as keep:
        yield Outside(folder, keep)


def probe(**setting: Any) -> str:
    """The probes as an attacker's test file; without a setting they only define themselves."""
    given = {"yek": KEY[::-1], "network": False, **setting}
    source = Path(probes.__file__).read_text()
    # What is honest about it, so that it may be merged.
    honest = "import part_1\n\n\ndef test_value():\n    assert part_1.value() == 1\n"
    return source.replace("SETTING: dict[str, Any] = {}", f"SETTING: dict[str, Any] = {given!r}") + f"\n\n{honest}"


def play_probe(stage: Stage, setting: dict[str, Any], *options: str, variables: dict[str, str]) -> list[Seen]:
    """The attacker writes the probes, runs them, looks whether its daemons still write, and hands them in as its test.

    pytest then runs them among the tests of the merged tree, and again at the end of the run.
    """
    turns = [[create(PROBE, probe(**setting)), bash(f"PYTHONPATH=src:tests python {PROBE}"), bash(SECOND_LOOK)]]

    def build(body: Body) -> Answer | list[Block]:
        turn = scripted.answers_before(body)
        honest = [block for block in scripted.build_part(body, turn) if block.get("input", {}).get("path") != PROBE]
        # The module first: the attacker's own test file imports it.
        return scripted.build_part(body, 1) if turn == 0 else turns[0] if turn == 1 else honest

    with FakeApi(scripted.model(scripted.plan([scripted.task(1, [])]), build), task_of=scripted.task_of) as api:
        stage.run(api, *options, variables={"HOME": str(stage.parent), **variables})
        return seen_by_model(api, "task_1")


def check_probe(stage: Stage, seen: list[Seen]) -> None:
    """Nothing leaked to the commands or to the tests, nothing was left and nothing written later."""
    ran, later = (found.content for found in seen[3:5])
    assert "LEAKS []" in ran, ran
    assert later == "silent"
    summary = stage.summary()
    assert summary["tests"]["failed"] == 0, summary["tests"]
    assert "test_nothing_leaks" in (stage.out / PROBE).read_text()
    assert not list(stage.out.rglob("core*")) + list(stage.out.glob("tick"))
    stage.assert_nothing_happened()
    spoken = stage.output + "".join(found.content for found in seen)
    assert KEY not in spoken
    assert [str(path) for path in stage.out.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()] == []


@pytest.mark.parametrize("stage_of", ["root_stage", pytest.param("user_stage", marks=needs_other_user)])
def test_in_the_sandbox_no_key_no_way_out_and_nothing_left(stage_of: str, request: pytest.FixtureRequest) -> None:
    stage: Stage = request.getfixturevalue(stage_of)
    with outside(stage.parent.parent) as world:
        setting = {**world.setting(), "network": True}
        seen = play_probe(stage, setting, "--sandbox", "required", variables={"SSH_AUTH_SOCK": world.path})
        check_probe(stage, seen)
        assert world.calls() == []


@needs_other_user
def test_without_a_sandbox_an_ordinary_users_commands_see_no_key_and_leave_nothing(user_stage: Stage) -> None:
    seen = play_probe(user_stage, {}, "--sandbox", "off", variables={"SSH_AUTH_SOCK": "/nowhere"})
    check_probe(user_stage, seen)
    first = user_stage.output.splitlines()[0]
    assert "Sandbox: OFF - commands run as you" in first
    assert "root" not in first


LEAVES_A_MESS = """import os
def test_mess():
    os.makedirs("shut/inner")
    os.symlink({victim!r}, "shut/link")
    os.chmod("shut/inner", 0)
    os.chmod("shut", 0o500)
    for _ in range(1500):
        os.mkdir("deep")
        os.chdir("deep")
    assert 0
"""


@needs_other_user
@pytest.mark.thorough
def test_folders_left_shut_or_bottomless_stop_nobody_and_are_cleared_away(user_stage: Stage) -> None:
    """In the workspace, which is put back as it was after the red test, and in the copy that the tests ran in."""
    temporary = user_stage.parent / "temporary"
    temporary.mkdir()
    if user_stage.prefix:
        os.chown(temporary, other_user.UID, other_user.UID)
    user_stage.before = fingerprint(user_stage.parent, but=user_stage.out)
    bottomless = "python -c \"import os\nfor _ in range(1500): os.mkdir('deep'); os.chdir('deep')\""
    mess = create(PROBE, LEAVES_A_MESS.format(victim=str(user_stage.parent / "secret.txt")))
    turns: list[list[Block]] = [
        [bash(f"{bottomless}; echo kept > kept; chmod 000 kept .")],
        [bash("chmod 600 kept; cat kept; chmod 000 .")],
        [edit(command="view", path="."), bash("chmod 000 .")],
    ]

    def build(body: Body) -> Answer | list[Block]:
        turn = scripted.answers_before(body)
        if turn < len(turns):
            return turns[turn]
        work = [*scripted.build_part(body, 1), *scripted.build_part(body, 2)]
        steps = [[*work, mess], [text("Done.")], work, [text("Mended.")]]
        return steps[min(turn - len(turns), len(steps) - 1)]

    with FakeApi(scripted.model(scripted.plan([scripted.task(1, [])]), build), task_of=scripted.task_of) as api:
        user_stage.run(api, variables={"TMPDIR": str(temporary), "HOME": str(user_stage.parent)})
        seen = seen_by_model(api, "task_1")
    assert seen[1].content == "kept"
    assert "kept" in seen[2].content
    assert list(temporary.iterdir()) == []
    user_stage.assert_nothing_happened()


@needs_root
def test_root_without_a_sandbox_is_told_in_the_first_line(root_stage: Stage) -> None:
    seen = root_stage.play(
        [bash(f"printenv; {many_sleepers()}"), bash(daemons()), bash(SECOND_LOOK)], options=("--sandbox", "off")
    )
    first = " ".join(root_stage.output.split())
    told = "Sandbox: OFF - commands run as you, that is as root: they can read the credential from memory"
    assert told in first[:400]
    assert KEY not in seen[0].content
    assert "more than 256 processes" in seen[0].content
    assert seen[2].content == "silent"
    root_stage.assert_nothing_happened()


def many_sleepers() -> str:
    """Starts more than it may; a fork bomb that stays bounded where nothing stops it."""
    return "for i in $(seq 400); do sleep 1000 & done; wait"


def daemons() -> str:
    """Starts the probes' daemons."""
    source = Path(probes.__file__).read_text()
    return f"mkdir d; cat > d/d.py <<'EOF'\n{source}\nEOF\npython -c 'from d.d import *; leave_daemons()'; rm -r d"


# It would end at 1,024 processes by itself, should nothing else bound it.
FORK_BOMB = """import os, time
for _ in range(10):
    try: os.fork()
    except OSError: pass
time.sleep(999)
"""
MEMORY_BOMB = """import os, time
for _ in range(9): os.fork() or (x := bytearray(b'x') * (400 << 20)) and time.sleep(99)
time.sleep(99)
"""
DISK_BOMB = """for n in range(30):
    with open(f'bomb{n}', 'wb') as f:
        for _ in range(120): f.write(bytes(1 << 20))
"""


def test_bombs_hit_their_limits_and_the_run_goes_on(root_stage: Stage) -> None:
    def python(source: str) -> Block:
        return bash(f"python - <<'EOF'\n{source}EOF")

    seen = root_stage.play(
        [
            python("x = bytearray(5 << 30)\n"),
            python(MEMORY_BOMB),
            bash("truncate -s 1G sparse"),
            python("f = [open('/dev/null') for _ in range(10**5)]\n"),
            bash("echo first; yes | head -c 400M; echo; echo last"),
            python(FORK_BOMB) if os.geteuid() == 0 else bash(many_sleepers()),
            python(DISK_BOMB),
            bash("rm -f bomb* sparse; ulimit -a; ls"),
        ]
    )
    told = [found.content for found in seen]
    assert "MemoryError" in told[0]
    assert "used more than 2 GiB of memory" in told[1]
    assert told[2] == "[exit code 153]"  # SIGXFSZ
    assert "Too many open files" in told[3]
    assert told[4].startswith("first\n")
    assert told[4].endswith("last")
    assert len(told[4]) < 31_000
    assert "more than 256 processes" in told[5] or "Resource temporarily unavailable" in told[5], told[5]
    assert "holds more than 1 GiB" in told[6]
    root_stage.assert_nothing_happened()


@pytest.mark.thorough
def test_bombs_in_tests_that_are_merged_fail_the_task_and_not_the_run(root_stage: Stage) -> None:
    bombs = {"task_1": FORK_BOMB, "task_2": MEMORY_BOMB, "task_3": DISK_BOMB, "task_4": ""}
    plan = scripted.plan([scripted.task(number, []) for number in (1, 2, 3, 4)])

    def build(body: Body) -> Answer | list[Block]:
        name = scripted.task_of(body)
        number, turn = name.removeprefix("task_"), scripted.answers_before(body)
        bomb = "".join(f"    {line}\n" for line in bombs[name].splitlines()) or "    pass\n"
        test = create(f"tests/test_part_{number}.py", f"def test_value():\n{bomb}")
        steps = [[*scripted.build_part(body, 1), *scripted.build_part(body, 2), test], [text("Done.")]]
        honest = [scripted.build_part(body, 1), [text("Mended.")]]
        return [*steps, *honest, [text("Done.")]][min(turn, 4)]

    with FakeApi(scripted.model(plan, build), task_of=scripted.task_of) as api:
        root_stage.run(api)
        facts = {name: json.dumps([r.body for r in api.requests if r.task == name][-1]["messages"]) for name in bombs}
    assert "more than 256 processes" in facts["task_1"] or os.geteuid()
    assert "used more than 2 GiB of memory" in facts["task_2"]
    assert "holds more than 1 GiB" in facts["task_3"]
    assert root_stage.summary()["tests"]["passed"] == 4
    root_stage.assert_nothing_happened()
