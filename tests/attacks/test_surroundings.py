"""Awkward surroundings: the run works there, or says in one message what is wrong, where, and what to do next.

What can be seen at the start is told before a call is made, and leaves nothing behind.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from parallel_orchestrator.config.options import make_scenario
from parallel_orchestrator.system.files import write_json
from tests.attacks.stage import REQUIREMENT, fingerprint
from tests.end_to_end import harness, scripted
from tests.fake_api import Block, Body, FakeApi

ANY_ROOT = ("bwrap", "--dev-bind", "/", "/")
USER = (*ANY_ROOT, "--unshare-user", "--uid", "1000", "--gid", "1000")
"""Runs what follows `--` as an ordinary user, whom the modes of files hold; whoever runs the tests."""


def _works(prefix: Sequence[str]) -> bool:
    try:
        return subprocess.run([*prefix, "--", "true"], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


pytestmark = pytest.mark.skipif(not _works(USER), reason="no bubblewrap to make the surroundings with")


@dataclass(frozen=True)
class Place:
    """Where and how the program is started, and what must come of it."""

    name: str
    told: Sequence[str]
    """Words of the message."""
    code: int = 2
    before: Sequence[str] = ()
    """Put in front of the program, such as a wrapper that takes something away."""
    out: Path | None = None
    arguments: Sequence[str] = ()
    variables: Mapping[str, str] = field(default_factory=dict)
    left_out: Sequence[str] = ()
    """Variables that are taken away."""


def _start(place: Place, out: Path, url: str, **streams: object) -> subprocess.Popen[str]:
    environment = {**harness.environment(url), **place.variables}
    for name in place.left_out:
        environment.pop(name, None)
    return subprocess.Popen(  # type: ignore[call-overload, no-any-return]
        [*place.before, *harness.command(REQUIREMENT, "--output-dir", str(out), *place.arguments)],
        env=environment,
        text=True,
        **{"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, **streams},
    )


def _api() -> FakeApi:
    return FakeApi(scripted.model(scripted.plan([scripted.task(1, [])])), task_of=scripted.task_of)


def _programs(folder: Path, **scripts: str | None) -> str:
    """A PATH with the usual programs, some replaced by a shell script, some (None) missing."""
    folder.mkdir()
    for name in ("sh", "env", "git", "bwrap", "renice"):
        found = shutil.which(name)
        if found and name not in scripts:
            (folder / name).symlink_to(found)
    for name, script in scripts.items():
        if script is not None:
            (folder / name).write_text(script)
            (folder / name).chmod(0o755)
    return str(folder)


# Trouble that can be seen at the start


def _bad_places(tmp: Path) -> Iterator[Place]:
    """Each in a folder of its own."""
    shut, full, taken = tmp / "shut", tmp / "full", tmp / "taken"
    shut.mkdir(mode=0o555)
    full.mkdir()
    taken.write_text("a file\n")
    (tmp / "nowhere").symlink_to("/nonexistent/target")
    user, nobody = (*USER, "--"), (*USER, "--disable-userns", "--")
    yield Place("a folder that may not be written", (f"cannot write in {shut}", "--output-dir"), before=user, out=shut)
    yield Place("below such a folder", (f"cannot write in {shut}", "--output-dir"), before=user, out=shut / "a" / "b")
    readonly = (*ANY_ROOT, "--ro-bind", str(full), str(full), "--")
    yield Place("a read-only disk", (f"cannot write in {full}", "read-only"), before=readonly, out=full / "out")
    small = (*ANY_ROOT, "--size", "65536", "--tmpfs", str(full), "--")
    yield Place("a full disk", (f"the disk of {full} is full", "MiB free", "Make room"), 3, before=small)
    yield Place("a file in its place", (f"{taken} is not a directory",), out=taken)
    yield Place("a file on the way", (f"{taken / 'out'} is not a directory",), out=taken / "out")
    yield Place("a dangling link", ("cannot make", "--output-dir"), out=tmp / "nowhere")
    yield Place("a name too long", ("File name too long",), out=tmp / ("x" * 300))

    def programs(name: str, **scripts: str | None) -> dict[str, str]:
        return {"PATH": _programs(tmp / name, **scripts)}

    wanted = "git 2.38 or newer"
    yield Place("no git", ("git was not found", wanted), variables=programs("no-git", git=None))
    old = programs("old-git", git="#!/bin/sh\necho git version 2.20.1\n")
    yield Place("an old git", ("found git version 2.20.1", wanted), variables=old)
    yield Place("a git that is none", ("git on PATH does not start", wanted), variables=programs("bad-git", git="\n"))
    ways = ("no sandbox", "Install bubblewrap", "--sandbox off")
    yield Place("no bubblewrap", ("not installed", *ways), variables=programs("no-bwrap", bwrap=None))
    refuses = programs("bwrap", bwrap="#!/bin/sh\necho 'bwrap: setting up uid map: Permission denied' >&2\nexit 1\n")
    yield Place("a kernel that forbids it", ("setting up uid map: Permission denied", *ways), variables=refuses)
    yield Place("no user namespaces, a user", ("does not work on this machine", *ways), before=nobody)
    root = (*ANY_ROOT, "--unshare-user", "--uid", "0", "--gid", "0", "--disable-userns", "--")
    yield Place("no user namespaces, root", ("does not work on this machine", *ways), before=root)
    required = ("--sandbox", "required")
    yield Place("though it is required", ("does not work on this machine", *ways), before=nobody, arguments=required)
    keyless = ("ANTHROPIC_API_KEY=…", "ANTHROPIC_BASE_URL=", "--replay")
    yield Place("no key", keyless, left_out=("ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL"))
    broken = {"ANTHROPIC_API_KEY": "sk-ant-two words"}
    yield Place("a key with a space", ("ANTHROPIC_API_KEY holds white space", "set it again"), variables=broken)
    yield Place("no URL", ("ANTHROPIC_BASE_URL is 'nonsense'",), variables={"ANTHROPIC_BASE_URL": "nonsense"})


@pytest.mark.long
def test_trouble_at_the_start_is_told_before_anything_is_paid(tmp_path: Path, subtests: pytest.Subtests) -> None:
    with _api() as api:
        for place in _bad_places(tmp_path):
            with subtests.test(place.name):
                before = fingerprint(tmp_path)
                process = _start(place, place.out or tmp_path / "full" / "out", api.url)
                output, _ = process.communicate(timeout=100)
                assert process.returncode == place.code, output
                assert len(re.findall("^error: ", output, re.MULTILINE)) == 1, output
                assert "Traceback" not in output
                assert "to go on" not in output, "there is nothing to go on with"
                assert all(words in output for words in place.told), output
                assert fingerprint(tmp_path) == before
        assert api.requests == []


# Trouble that only the endpoint can tell


def test_a_wrong_key_is_one_call(tmp_path: Path) -> None:
    with _api() as api:
        place = Place("wrong key", (), variables={"ANTHROPIC_API_KEY": "sk-ant-of-another-0123456789"})
        process = _start(place, tmp_path / "out", api.url)
        output, _ = process.communicate(timeout=100)
        assert process.returncode == 2, output
        assert "error: the endpoint refused the credential (HTTP 401)" in output
        assert "Traceback" not in output
        assert "sk-ant-of-another" not in output
        assert len(api.requests) == 1
        # The right one goes on, in the same directory.
        harness.run(REQUIREMENT, "--output-dir", str(tmp_path / "out"), api=api)
    assert harness.summary(tmp_path / "out")["status"] == "done"


def test_an_endpoint_that_is_not_there_ends_the_run_resumable(tmp_path: Path) -> None:
    urls = {"refused": "http://127.0.0.1:9", "unknown": "http://no-such-host.invalid"}
    processes = {}
    for name, url in urls.items():
        (tmp_path / name).mkdir()
        scenario = make_scenario({
            "requirements": REQUIREMENT, "run": name, "endpoint": url, "endpoint_profile": "compatible",
            "endpoint_patience": 3,
        })  # fmt: skip
        write_json(tmp_path / name / "scenario.json", scenario.model_dump())
        processes[name] = subprocess.Popen(
            harness.command("resume", str(tmp_path / name)),
            env=harness.environment(url),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
    for name, process in processes.items():
        output, _ = process.communicate(timeout=100)
        assert process.returncode == 3, output
        assert "error: the endpoint has sent nothing for 3 s" in output
        assert f"to go on: {harness.typed('resume', tmp_path / name)}" in output
        assert "Traceback" not in output
        assert harness.family(tmp_path / name) == set()
    logged = {name: (tmp_path / name / "orchestrator.log").read_text() for name in urls}
    assert "connect, ConnectError" in logged["refused"]
    assert "Name or service not known" in logged["unknown"] or "name resolution" in logged["unknown"]


# Surroundings in which it works

EVIL = """
[core]
    hooksPath = {hooks}
    fsmonitor = {hooks}/fsmonitor
    autocrlf = true
    bigFileThreshold = nonsense
    attributesFile = {hooks}/attributes
[commit]
    gpgSign = true
[gpg]
    program = {hooks}/gpg
[init]
    templateDir = {hooks}/template
    defaultBranch = trunk-of-theirs
[filter "theirs"]
    clean = {hooks}/filter
    smudge = {hooks}/filter
    required = true
[alias]
    commit-tree = !{hooks}/alias
"""


def _evil_home(home: Path) -> Path:
    """A home whose git configuration has a program run by whatever git does; the file that they all make."""
    hooks, mark = home / "hooks", home / "MARK"
    (hooks / "template" / "hooks").mkdir(parents=True)
    for name in ("fsmonitor", "gpg", "filter", "alias", "reference-transaction", "post-checkout", "post-index-change"):
        for folder in (hooks, hooks / "template" / "hooks"):
            (folder / name).write_text(f"#!/bin/sh\necho {name} >> '{mark}'\nexit 1\n")
            (folder / name).chmod(0o755)
    (hooks / "attributes").write_text("* filter=theirs\n")
    (home / ".gitconfig").write_text(EVIL.format(hooks=hooks))
    return mark


def _deep(folder: Path) -> Path:
    """A folder below it whose path has spaces, quotes, Unicode and more than 200 characters."""
    while len(str(folder)) < 220:
        folder = folder / "ein langer Ördner, π's \N{BLACK HEART SUIT}"
    folder.mkdir(parents=True)
    return folder


def _finish(process: subprocess.Popen[str], out: Path) -> str:
    output, _ = process.communicate(timeout=230)
    assert process.returncode == 0, output
    assert harness.summary(out)["status"] == "done"
    assert harness.recount(out) == []
    assert harness.family(out) == set()
    return output or ""


def test_a_user_with_an_unhelpful_environment_of_every_kind(tmp_path: Path) -> None:
    """An ordinary user, a hostile git configuration, another repository around, a dead proxy, no locale, long paths."""
    mark = _evil_home(tmp_path / "home")
    deep = _deep(tmp_path / "outer")
    outer = tmp_path / "outer"
    theirs = ["git", "-c", "user.name=n", "-c", "user.email=e", "-C", str(outer)]
    for command in (["init", "--quiet"], ["commit", "--quiet", "--allow-empty", "-m", "theirs"]):
        subprocess.run([*theirs, *command], check=True, capture_output=True)
    (outer / ".gitignore").write_text("ein*\n")
    (outer / "tracked.txt").write_text("theirs\n")
    subprocess.run([*theirs, "add", "tracked.txt"], check=True)

    def state() -> tuple[str, str]:
        status = subprocess.run([*theirs, "status", "--porcelain"], check=True, capture_output=True, text=True).stdout
        return status, (outer / ".git" / "index").read_bytes().hex()

    before = state()
    awkward = Place(
        "awkward",
        (),
        # Standard input is closed, not empty.
        before=(*USER, "--", "sh", "-c", 'exec "$@" <&-', "sh"),
        variables={
            "HOME": str(tmp_path / "home"),
            "PATH": _programs(tmp_path / "programs"),
            "TMPDIR": str(deep),
            "LC_ALL": "C",
            **dict.fromkeys(("HTTP_PROXY", "http_proxy"), "http://127.0.0.1:9"),
            "ALL_PROXY": "socks5://127.0.0.1:9",
            "GIT_DIR": str(outer / ".git"),
            "GIT_WORK_TREE": str(outer),
            "GIT_INDEX_FILE": str(outer / ".git" / "index"),
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": "core.hooksPath",
            "GIT_CONFIG_VALUE_0": str(tmp_path / "home" / "hooks"),
        },
        left_out=("VIRTUAL_ENV", "LANG", "XDG_RUNTIME_DIR"),
    )
    out = deep / "out put"
    with _api() as api:
        output = _finish(_start(awkward, out, api.url), out)
        assert len(api.requests) == 5
    assert "Exception ignored" not in output
    assert shlex.quote(str(out)) in output
    assert not mark.exists(), mark.read_text()
    assert state() == before
    assert [path.name for path in deep.iterdir()] == ["out put"], "what is temporary is gone"


@pytest.mark.thorough
def test_without_home_streams_temporary_directory_or_search_path(tmp_path: Path) -> None:
    closed = ("sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh")
    place = Place(
        "bare",
        (),
        before=closed,
        variables={"TMPDIR": "/nonexistent", "PYTHONIOENCODING": "ascii"},
        left_out=("HOME", "PATH", "LANG", "LC_ALL", "TERM", "XDG_RUNTIME_DIR"),
    )
    with _api() as api:
        _finish(_start(place, tmp_path / "out", api.url), tmp_path / "out")
    # Nothing that was meant for a closed stream has landed in a file under its number.
    lines = (tmp_path / "out" / "orchestrator.log").read_text().splitlines()
    assert all(line[:2] == "20" for line in lines), lines


@pytest.mark.thorough
def test_nobody_reads_what_is_printed(tmp_path: Path) -> None:
    with _api() as api:
        full = os.open("/dev/full", os.O_WRONLY)
        process = _start(Place("full", ()), tmp_path / "a", api.url, stderr=full)
        os.close(full)
        assert "done: 1 of 1" in _finish(process, tmp_path / "a")
        read, write = os.pipe()
        os.close(read)
        process = _start(Place("gone", ()), tmp_path / "b", api.url, stderr=write)
        os.close(write)
        assert "done: 1 of 1" in _finish(process, tmp_path / "b")


# A disk that fills up while the run works


@contextlib.contextmanager
def _small_disk(folder: Path, command: Sequence[str], url: str) -> Iterator[subprocess.Popen[str]]:
    """Run the command twice on a disk of its own at `folder`, rid of `filler` in between. It first prints its pid."""
    twice = f'echo $$; for round in 1 2; do "$@"; echo "code $?"; rm -f {shlex.quote(str(folder / "filler"))}; done'
    process = subprocess.Popen(
        [*ANY_ROOT, "--size", str(24 * 2**20), "--tmpfs", str(folder), "--", "sh", "-c", twice, "sh", *command],
        env=harness.environment(url),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def _fill(disk: Path) -> None:
    """Leave no byte free, of a small disk."""
    assert shutil.disk_usage(disk).total < 2**27, f"{disk} is not the small disk; never fill the machine's own"
    with (disk / "filler").open("ab", buffering=0) as filler, contextlib.suppress(OSError):
        for size in (2**20, 2**12, 1):
            with contextlib.suppress(OSError):
                while filler.write(b"x" * size) == size:
                    pass


@pytest.mark.thorough
@pytest.mark.parametrize("moment", ["plan", "task_1"])
def test_a_disk_that_fills_up_stops_all_calls_and_is_gone_on_with(moment: str, tmp_path: Path) -> None:
    inside: list[Path] = []
    asked_when_full: list[int] = []

    def script(body: Body) -> list[Block]:
        if scripted.task_of(body) == moment and not asked_when_full:
            _fill(inside[0])
            asked_when_full.append(len(api.requests))
        answer = scripted.model(scripted.plan([scripted.task(1, [])]))(body)
        assert isinstance(answer, list)
        return answer

    command = harness.command(REQUIREMENT, "--output-dir", str(tmp_path / "out"))
    with FakeApi(script, task_of=scripted.task_of) as api, _small_disk(tmp_path, command, api.url) as process:
        assert process.stdout
        inside.append(Path(f"/proc/{int(process.stdout.readline())}/root{tmp_path}"))
        first = ""
        for line in process.stdout:
            first += line
            if line.startswith("code "):
                break
        asked_at_the_end = len(api.requests)
        second = process.stdout.read()
    assert first.endswith("code 3\n"), first
    assert first.count("error: ") == 1, first
    assert str(tmp_path / "out") in first.partition("error: ")[2]
    assert "MiB free" in first
    assert "Traceback" not in first + second
    assert "Logging error" not in first + second
    assert asked_when_full == [asked_at_the_end], "a call was made after a record could not be written"
    assert "done: 1 of 1" in second, second
    assert second.endswith("code 0\n")
    # The answer that could not be recorded is the only one that is bought again.
    assert len(api.answered_twice()) <= 1
