"""Running commands: in a bubblewrap sandbox, or without one.

**Bubblewrap**, as root and as an ordinary user, covers:
- Files: of the host only /usr, a few files of /etc and the Python installation are there, read-only. /workspace, for
  tests /results, and private /tmp and /dev/shm (512 MiB each) are all that can be written.
- Network: none but a loopback of its own; no Unix socket of the host, named or abstract, the gateway's neither.
- Secrets: an environment built from nothing, and a process table of its own: no other process is there to be read.
- Rights: no capabilities, none to be gained; kernel settings read-only; on x86_64 and aarch64 a seccomp filter
  against system calls that nothing here needs (`seccomp` lists them).
- Each process: 4 GiB of address space, 1024 open files, files of 256 MiB, no core file.
- All together, by a watch that looks several times a second (`watch.Limits`): 256 processes and threads, 2 GiB of
  memory, and in the writable folders 1 GiB and 100,000 files. The number of processes is the kernel's to hold, too:
  for a user by a limit of the sandbox's user namespace, for root by a control group. Where root may make none (see
  `asroot`) the watch is alone, and a fork bomb can slow the machine down until the time limit. Until the watch looks,
  a command gets further by what memory and disk take in that time. Folders twice beyond their limit get no further
  command.
- A wall clock. Everything that it started, daemons too, is dead when the call returns.

It does not cover: the mode of the host's device nodes (null, zero, full, random, urandom, tty) where root cannot make
others: there a command of root's can `chmod 000 /dev/zero` for the whole machine. Neither does it cover: faults of
the kernel; load on processor and disk, but for a lower priority; what is in the project itself, which can be read and
changed; what of the host can be seen there (kernel version and command line, load, memory, users' names, the
workspace's path in /proc/self/mountinfo). Not counted as memory: /tmp and /dev/shm, memory of no process (System V
segments, socket and pipe buffers). Not counted as written: deleted files that are only mapped, or under way through a
socket. Where memory runs out, the kernel's out-of-memory killer is told to take commands first, which a command can
take back.

**Plain**, without a sandbox: the command runs as you, and can read, write, reach and end what you can, the network
and your other processes included. What holds is the clean environment, the limits of each process, the watch (it
counts the project's folder and its own home, nothing else), the wall clock, and that what it leaves
running is killed, unless it kills the process that sees to that first (`reaper`). Root can raise the limits of each
process again. Orchestrator and gateway bar others of the same user from their memory, where the key is; root is not
barred, so as root a command can read the key.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

from parallel_orchestrator.agent import asroot, reaper, seccomp
from parallel_orchestrator.agent.ahead import STARTERS, Ahead, Begun, finished, folders_of, refused
from parallel_orchestrator.agent.capture import Follower
from parallel_orchestrator.agent.namespace import LAST_WAIT_S
from parallel_orchestrator.agent.paths import MOUNT
from parallel_orchestrator.agent.rootfs import RESULTS_MOUNT, TMP, environment, limited, minimal_root, python_binds
from parallel_orchestrator.agent.watch import USUAL, Limits, Watch
from parallel_orchestrator.records.command import Command, Finished
from parallel_orchestrator.records.errors import CannotGoOn, UsageError
from parallel_orchestrator.records.scenario import SandboxMode, Surroundings


def detect(mode: SandboxMode, venv: Path | None = None) -> BubblewrapRunner | PlainRunner:
    """The runner for a run; `venv` is the run's own Python environment, if it has one.

    Raises UsageError, with both ways on, where a sandbox is wanted and none works.
    """
    if mode == "off":
        return PlainRunner(venv)
    program = shutil.which("bwrap")
    if program is None:
        raise _no_sandbox("bubblewrap (bwrap) is not installed")
    runner = BubblewrapRunner(program, venv)
    with tempfile.TemporaryDirectory() as folder:
        try:
            probe = runner(Command(("true",), Path(folder), timeout_s=30))
        except CannotGoOn as error:
            raise _no_sandbox(f"bubblewrap does not work on this machine ({error})") from error
    if probe.code != 0:
        raise _no_sandbox(f"bubblewrap does not work on this machine ({probe.output.strip()})")
    return runner


def choose(mode: SandboxMode, *, our_own_code: bool, key_at_stake: bool) -> tuple[Surroundings, str]:
    """Where commands run, `auto` settled, and a line on it for a person. Raises UsageError as `detect` does.

    `our_own_code`: a recording of ours is replayed, and goes on without a sandbox where none works.
    """
    try:
        described = _described(mode)
    except UsageError:
        if mode == "required" or not our_own_code:
            raise
        return Surroundings("off"), "Sandbox: OFF - none works here, and a shipped recording may run without"
    if mode == "off" and os.geteuid() == 0 and key_at_stake:
        described += ", that is as root: they can read the credential from memory"
    return Surroundings("off" if mode == "off" else "required"), described


@cache
def _described(mode: SandboxMode) -> str:
    """Tried out once in the life of a process; a batch asks for each of its scenarios."""
    return detect(mode).describe()


def _no_sandbox(why: str) -> UsageError:
    return UsageError(
        f"no sandbox for the commands that agents run: {why}. Install bubblewrap (for instance "
        "`apt install bubblewrap`) where user namespaces are allowed, or run without one: --sandbox off"
    )


_OF_THE_SANDBOX = 8
"""Processes of bwrap itself, beside those of a command."""


class BubblewrapRunner:
    """Runs each command in a sandbox of its own."""

    name = "bubblewrap"

    def __init__(self, program: str, venv: Path | None = None, limits: Limits = USUAL) -> None:
        self._program = program
        self._limits = limits
        self._python = python_binds(venv)
        self._environment = environment(TMP, venv)

    def describe(self) -> str:
        """One line for a person."""
        return "Sandbox: ON (bubblewrap)"

    def __call__(self, command: Command) -> Finished:
        """Run it to its end. Raises CannotGoOn when the sandbox cannot be set up."""
        started = time.monotonic()
        watch = self.watch(command)
        if watch.refusal:
            return refused(watch)
        with self._begin(command) as begun:
            return begun.finish(command, watch, started)

    def ahead(self, command: Command) -> Ahead:
        """Start a sandbox now in which what `command` begins with (`STARTERS`) waits for the rest of it.

        Its folders may be filled in the meantime. The sandbox dies with the thread that made it.
        """
        starter = next(starter for starter in STARTERS if starter.fits(command))
        begun = self._begin(replace(command, argv=starter.program), stdin=subprocess.PIPE)
        return Ahead(self, starter, begun, command)

    def watch(self, command: Command) -> Watch:
        """A watch over a command that begins now."""
        return Watch(self._limits, folders_of(command))

    def _begin(self, command: Command, stdin: int = subprocess.DEVNULL) -> Begun:
        with contextlib.ExitStack() as around:
            status, status_end = os.pipe()
            reports = around.enter_context(os.fdopen(status, "rb"))
            devices = around.enter_context(asroot.device_nodes())
            entry = around.enter_context(asroot.process_group(self._limits.processes + _OF_THE_SANDBOX))
            process = around.enter_context(self._start(command, status_end, devices, entry, stdin))
            return Begun(process, reports, around.pop_all())

    def _start(
        self, command: Command, status: int, devices: Mapping[str, Path], entry: Sequence[str], stdin: int
    ) -> subprocess.Popen[bytes]:
        # By descriptor: what is on its command line, the command could read in /proc.
        words = self._options(command, status, devices)
        options = _as_file(b"".join(os.fsencode(word) + b"\0" for word in words))
        arguments = [*entry, self._program, "--args", str(options)]
        kept = [status, options]
        if filtering := seccomp.program():
            kept.append(_as_file(filtering))
            arguments += ["--seccomp", str(kept[-1])]
        arguments += ["--", *limited(command, RESULTS_MOUNT, processes=self._limits.processes)]
        return _start(arguments, self._environment, Path("/"), *kept, stdin=stdin)

    def _options(self, command: Command, status: int, devices: Mapping[str, Path]) -> list[str]:
        folder = str(command.folder.resolve())
        results = ["--bind", str(command.results.resolve()), RESULTS_MOUNT] if command.results else []
        return [
            *("--unshare-all", "--die-with-parent", "--new-session", "--cap-drop", "ALL"),
            *("--hostname", "workspace", "--json-status-fd", str(status)),
            *minimal_root(devices),
            *("--bind", folder, MOUNT, *results),
            *self._python,
            *("--remount-ro", "/", "--chdir", MOUNT),
        ]


class PlainRunner:
    """Runs each command as the user, below a `reaper` that leaves nothing of it behind."""

    name = "none"

    def __init__(self, venv: Path | None = None, limits: Limits = USUAL) -> None:
        self._venv = venv
        self._limits = limits

    def describe(self) -> str:
        """One line for a person."""
        return "Sandbox: OFF - commands run as you"

    def __call__(self, command: Command) -> Finished:
        """Run it to its end. Raises CannotGoOn when it cannot be started."""
        started = time.monotonic()
        # A home of its own: what other commands or users put into a shared /tmp is not trusted.
        with tempfile.TemporaryDirectory(prefix="command-", ignore_cleanup_errors=True) as home:
            folders = [folder for folder in (command.folder, command.results, Path(home)) if folder]
            watch = Watch(self._limits, folders)
            if watch.refusal:
                return refused(watch)
            leash, leash_end = os.pipe()
            results = str(command.results.resolve()) if command.results else ""
            arguments = [sys.executable, "-I", "-S", reaper.__file__, str(leash)]
            arguments += limited(command, results)
            process = _start(arguments, environment(home, self._venv), command.folder, leash)
            with process:
                follower = Follower(process, command.output_limit)
                try:
                    allowed = partial(_is_within_limits, watch, process)
                    in_time = follower.until_end(started + command.timeout_s, allowed)
                    if not in_time and not watch.verdict:
                        with contextlib.suppress(BrokenPipeError):
                            os.write(leash_end, b"T")
                        follower.until_end(time.monotonic() + reaper.GRACE_S)
                finally:
                    os.close(leash_end)
                    if not follower.until_end(time.monotonic() + LAST_WAIT_S):
                        process.kill()
                output = follower.rest().replace(home, TMP)
            return finished(process, output, watch, in_time, started)


def _is_within_limits(watch: Watch, process: subprocess.Popen[bytes]) -> bool:
    if sys.platform != "linux":
        return True
    return watch.allows(Path("/proc"), partial(reaper.descendants, process.pid))


def _start(
    arguments: list[str], environment: dict[str, str], folder: Path, *kept: int, stdin: int = subprocess.DEVNULL
) -> subprocess.Popen[bytes]:
    """Start it in a session of its own, so that a Ctrl-C for us is none for it. `kept` are handed over to it."""
    try:
        return subprocess.Popen(
            arguments,
            env=environment,
            cwd=folder,
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=kept,
        )
    except OSError as error:
        raise CannotGoOn(f"cannot start {arguments[0]}: {error.strerror or error}") from error
    finally:
        for descriptor in kept:
            os.close(descriptor)


def _as_file(content: bytes) -> int:
    """A descriptor to read it from."""
    descriptor = os.memfd_create("options")
    os.write(descriptor, content)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor
