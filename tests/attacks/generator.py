"""Random attacks from a seed: what a hostile model calls, in what order, and what it hands in.

    attack = Attack(seed=7, parent=..., out=..., sandboxed=True)
    attack.plan(), attack.build         # for `scripted.model`

The same seed gives the same conversations. Without a sandbox a command may do all that the user may, so there only
the editor attacks, and commands only set traps for it and leave processes behind. Whatever could harm a machine that
is not a sandbox looks first whether it is in one.
"""

from __future__ import annotations

import random
import shlex
from pathlib import Path
from typing import Any

from tests.attacks.stage import Turn, bash, create, edit
from tests.end_to_end import scripted
from tests.fake_api import Block, Body, text, tool_use

PIECES = [
    *("..", "..", ".", "", "~", "src", "tests", "docs", "a", "part_1.py", ".git", ".GIT", "config", "con", "nul.txt"),
    *("x" * 300, "a\0b", "\x1b[2J", "größe", "\u202eyp", "C:", "a\\b", "name.", "name ", "-rf", "*", "$(id)", "{}"),
    *("link", "up", "loop", "fifo", "secret.txt", "out-twin", "queue.jsonl", "executor_1", "task_1", "conftest.py"),
]
STARTS = ["", "", "", "/", "//", "/workspace/", "/workspace/../", "/proc/self/root/", "/dev/fd/", "file://", "../"]
TARGETS = [
    *("{parent}", "{parent}/secret.txt", "{parent}/made", "{out}/queue.jsonl", "{out}/ledger.jsonl", "{out}/.git"),
    *("{out}/executor_1", "{out}/executor_2/task_2", "/etc/passwd", "/proc/self/root", "/dev/fd", "/dev/zero"),
    *("..", "../../..", "../../../secret.txt", "loop", "src", "/nowhere"),
]
NAMES = [
    *("evil.py", "test_evil.py", "conftest.py", "sitecustomize.py", "evil.pth", "pytest.ini", "setup.cfg", "tox.ini"),
    *(
        ".gitattributes",
        ".gitmodules",
        ".git",
        "A.py",
        "a.py",
        "CON",
        "-rf",
        "--help",
        "*",
        "a b",
        "ä.py",
        "a\u0308.py",
    ),
    *(
        "$'new\\nline.py'",
        "$'\\e[2J.py'",
        "$'\\xff\\xfe.py'",
        "$'\\u202e.py'",
        "x.md",
        "part_1.py",
        "part_2.py",
        ".env",
    ),
]
TEXTS = [
    *("", "x = 1\n", "\\xff\\xfe", "def broken(:\n", "<<<<<<< a\n=======\n>>>>>>> b\n", "import os; os._exit(0)\n"),
    *("[pytest]\naddopts = -k nothing\n", "[pytest]\naddopts = -p no:terminal --co\npython_files = nothing\n"),
    *("[tool:pytest]\ntestpaths = /\n", "import sys; sys.exit(0)\n", "open('{parent}/made', 'w')\n"),
    *("gitdir: {out}/.git\n", "[core]\n\tfsmonitor = touch {parent}/made\n", "* filter=evil\n", "\x1b]52;c;AAAA\x07"),
]

LEFT_BEHIND = [
    "sleep 600 & disown",
    "setsid sleep 600 > /dev/null 2>&1 &",
    "(trap '' TERM HUP INT; while :; do sleep 1; echo late >> {root}/late.py; done) > /dev/null 2>&1 & disown",
    "nohup python3 -c 'import os, time; os.fork() or os.setsid() or os.fork() or time.sleep(600)' &",
    "trap '' TERM; for i in $(seq 40); do sleep 600 & done; exit 3",
    "python3 -c 'import os, time; [os.fork() for _ in range(5)]; os.setsid(); time.sleep(600)' & sleep 0.1",
    "mkfifo {root}/fifo; mkdir -p {root}/a; python3 -c 'import socket; socket.socket(1).bind(\"{root}/up\")'",
    "yes $'\\e[2J' | head -c 5000000; head -c 100000 /dev/urandom",
    "exec 1>&- 2>&-; sleep 0.1",
    "env; cat /proc/self/environ; ps axeww; cat {root}/*; cat absent; grep -r x .",
    "kill -9 $$",
    "cat",
]
ONLY_INSIDE = [
    "cd {root} && mkdir {name}; chmod 000 {name} *; ls -la; chmod 7777 .",
    "cd {root} && truncate -s 200G sparse; truncate -s 6M big.py; ls -s",
    "cd {root} && for i in $(seq 3000); do : > many_$i.py; done",
    "cd {root} && for i in $(seq 400); do mkdir -p d/d/d/d && cd d/d/d/d || break; done; : > bottom",
    "cd {root} && git init -q {name} && git -C {name} config core.fsmonitor 'touch {parent}/made'",
    "cd {root} && mkdir -p {name}/.git/hooks && echo 'touch {parent}/made' > {name}/.git/hooks/post-checkout",
    "rm -rf src tests docs; ls -la",
    "rm -rf {root}; echo file > {root}",
    "mv src aside; ln -s aside src; ls src/",
    "ulimit -f unlimited; ulimit -n 1000000; ulimit -u unlimited; ulimit -a",
    "kill -9 -1",
    "kill -9 1; kill -STOP 1; kill -9 $PPID; sleep 0.1",
    "pkill -9 bwrap; pkill -9 python; pkill -STOP sh",
    "for i in $(seq 400); do sleep 60 & done 2> /dev/null; echo $!",
    "echo x > {parent}/secret.txt; echo x > {out}/queue.jsonl; rm -rf {parent}; mkdir -p {parent}/made",
    "cat {parent}/secret.txt {out}/*.jsonl /proc/*/environ /proc/*/root{parent}/secret.txt",
    "rm -rf / --no-preserve-root 2> /dev/null; ls /",
    "rm -rf /workspace /workspace/.* /workspace/*; mv /workspace /moved; rmdir /workspace",
    "for f in /proc/sys/kernel/core_pattern /proc/sysrq-trigger /proc/sys/vm/* /proc/1/mem; do echo x > $f; done",
    "echo '|/bin/touch {parent}/made' > /proc/sys/kernel/core_pattern; sh -c 'kill -SEGV $$'",
    "mount -t tmpfs none /workspace; umount -l /workspace; mount --bind / /workspace; pivot_root . .",
    "unshare -Urm sh -c 'mount --bind /proc/1/root /mnt; ls /mnt{parent}'; chroot /proc/1/root ls {parent}",
    "mknod dev b 8 0; dd if=/dev/zero of=dev count=1; ls /dev; dd if=/dev/zero of=/dev/shm/fill bs=1M count=600",
    "dd if=/dev/zero of=fill bs=1M count=300; python3 -c 'x = bytearray(8 << 30)'; rm -f fill",
    "echo pwned > ../made; echo pwned > /made; echo pwned > /usr/made; echo pwned > /etc/passwd; touch {parent}/made",
    "python3 -c 'import socket; socket.create_connection((\"169.254.169.254\", 80), 1)'; ls /run /var/run /home /root",
    "nsenter -t 1 -a ls {parent}; echo -1000 > /proc/1/oom_score_adj",
]
TESTS = [
    "import os\nos.kill(-1, 9)\n",
    "import os\nos._exit(0)\n",
    "import os\ndef test_evil():\n    os.kill(os.getppid(), 9)\n",
    "import os, time\nif os.fork() == 0:\n    os.setsid()\n    time.sleep(600)\ndef test_evil():\n    pass\n",
    "def test_evil():\n    for place in ('{parent}/made', '../made', '/results/made', '/etc/made'):\n"
    "        try:\n            open(place, 'w').write('x')\n        except OSError:\n            pass\n",
    "import glob, os\nfor found in glob.glob('/results/*') + glob.glob('/results/.*'):\n    os.unlink(found)\n"
    "def test_evil():\n    pass\n",
    "import os, shutil\nshutil.rmtree('/results', True)\nos.symlink('{parent}/made', '/results/junit.xml')\n",
    "import pytest\npytest.skip('all', allow_module_level=True)\n",
    "def test_evil():\n    print('x' * 10_000_000)\n    raise SystemExit(0)\n",
    "import shutil\ndef test_evil():\n    shutil.rmtree('.', ignore_errors=True)\n",
    "import pytest\n@pytest.mark.parametrize('n', range(3000))\ndef test_evil(n):\n    assert n\n",
    "import sys\nsys.setrecursionlimit(10**9)\ndef f():\n    f()\ndef test_evil():\n    f()\n",
    "x = (\n" + "(" * 500 + ")" * 500 + ")\n",
    "# -*- coding: evil -*-\nx = 1\n",
]
_SECONDS = 3
_TIDY = """
mkdir -p src tests docs; chmod -R u+rwX .; find . -name .git -exec rm -rf {} +
find src tests docs ! -type d ! -name '*part_[0-9]*' -delete; find src tests docs ! -type d ! -type f -delete
"""
_INSIDE = '[ "$(uname -n)" = workspace ] || exit 9; '
_TEST_INSIDE = "import os\nif os.uname().nodename != 'workspace':\n    raise SystemExit('not in a sandbox')\n"


class Attack:
    """One run's worth of attacks, by the models of its tasks."""

    def __init__(self, seed: int, *, parent: Path, out: Path, sandboxed: bool, tasks: int, calls: int) -> None:
        self._seed = seed
        self._places = {"{parent}": str(parent), "{out}": str(out)}
        self._sandboxed = sandboxed
        self._tasks = tasks
        rng = random.Random(seed)
        self._plan = scripted.plan(
            [scripted.task(n, [d for d in range(1, n) if rng.random() < 0.3]) for n in range(1, tasks + 1)],
            verify=["true"],
        )
        self._turns = {
            f"task_{n}": self._conversation(random.Random(f"{seed}:{n}"), n, calls) for n in range(1, tasks + 1)
        }

    def plan(self) -> dict[str, Any]:
        """The plan: as many tasks as asked for, of which some depend on others."""
        return self._plan

    def build(self, body: Body) -> list[Block]:
        """The next turn of a task's model; when its turns are used up, it says that it has finished."""
        turns, before = self._turns[scripted.task_of(body)], scripted.answers_before(body)
        return turns[before] if before < len(turns) else [text("It is done.")]

    def _conversation(self, rng: random.Random, number: int, calls: int) -> list[Turn]:
        """Attacks, the task's honest work or some of it, a report; the same for what may be sent back, often tidied."""
        turns = []
        body = {"messages": [{"content": f"# Your task: task_{number}"}]}
        for part in range(3):
            attacks = [self._call(rng, number) for _ in range(calls // (part + 1))]
            while attacks:
                size = rng.randint(1, 8)
                turns.append(attacks[:size])
                del attacks[:size]
            if rng.random() < 0.3 + 0.3 * part:
                turns.append([bash(_TIDY)])
            turns += [scripted.build_part(body, turn) for turn in (1, 2, 3) if rng.random() < 0.9]
            turns.append([text("It is done.")])
        return turns

    def _call(self, rng: random.Random, number: int) -> Block:
        kinds = [self._edit] * 3 + [self._link, self._file] * 2 + [self._command] * 4 + [self._wrong]
        return rng.choice(kinds)(rng, number)

    def _edit(self, rng: random.Random, number: int) -> Block:
        path = self._fill(rng, rng.choice(STARTS) + "/".join(rng.choices(PIECES, k=rng.randint(1, 5))))
        return rng.choice(
            [
                create(path),
                edit(command="view", path=path),
                edit(command="view", path=path, view_range=[rng.randint(-2, 3), rng.randint(-2, 10**9)]),
                edit(command="str_replace", path=path, old_str=rng.choice(["", "e", "value"]), new_str="attacked"),
                edit(command="insert", path=path, insert_line=rng.randint(-1, 3), insert_text="attacked\n"),
            ]
        )

    def _link(self, rng: random.Random, number: int) -> Block:
        name = rng.choice(["link", "up", "loop", *["{name}"] * self._sandboxed])
        return self._bash(rng, f"ln {rng.choice(['-s', '-s', '-sfn', ''])} {rng.choice(TARGETS)} {{root}}/{name}")

    def _file(self, rng: random.Random, number: int) -> Block:
        if not self._sandboxed:
            return self._edit(rng, number)
        if rng.random() < 0.4:
            names = (f"tests/test_part_{number}.py", f"tests/test_evil_{rng.randint(1, 9)}.py", f"src/part_{number}.py")
            return create(rng.choice(names), _TEST_INSIDE + self._fill(rng, rng.choice(TESTS)))
        content = self._fill(rng, rng.choice(TEXTS))
        return self._bash(rng, f"cd {{root}} && printf '%b' {shlex.quote(content)} > {{name}}")

    def _command(self, rng: random.Random, number: int) -> Block:
        if self._sandboxed and rng.random() < 0.6:
            return self._bash(rng, _INSIDE + rng.choice(ONLY_INSIDE))
        return self._bash(rng, rng.choice(LEFT_BEHIND))

    def _bash(self, rng: random.Random, command: str) -> Block:
        """A command that may wait for ever, on a FIFO for instance, but not longer than this test has time for."""
        return bash(f"timeout -k 1 {_SECONDS} bash -c {shlex.quote(self._fill(rng, command))}")

    def _wrong(self, rng: random.Random, number: int) -> Block:
        arguments: dict[str, Any] = {
            "command": rng.choice([None, 1, ["ls"], "", "a\0b", "x" * 200_000]),
            "path": rng.choice([1, None, ".", {}]),
        }
        return tool_use(f"toolu_wrong_{rng.getrandbits(64)}", rng.choice(["bash", scripted.EDITOR, "rm"]), **arguments)

    def _fill(self, rng: random.Random, words: str) -> str:
        places = {"{root}": rng.choice(["src", "tests", "docs", "."]), "{name}": rng.choice(NAMES), **self._places}
        for place, value in places.items():
            words = words.replace(place, value)
        return words
