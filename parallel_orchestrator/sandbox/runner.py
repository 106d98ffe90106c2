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
- A wall clock. Everything that it started, daemons too, is dead when the call returns, and soon after the death of
  whoever made the call: a `reaper` outside the sandbox sees to that. bwrap's own --die-with-parent does not when it
  has only just begun: it is then too early for the signal, or leaves a child behind that waits for it for ever.

It does not cover: the mode of the host's device nodes (null, zero, full, random, urandom, tty) where root cannot make
others: there a command of root's can `chmod 000 /dev/zero` for the whole machine. Neither does it cover: faults of
the kernel; load on processor and disk, but for a lower priority; what is in the project itself, which can be read and
changed; what of the host can be seen there (kernel version and command line, load, memory, users' names, the
workspace's path in /proc/self/mountinfo). Not counted as memory: /tmp and /dev/shm, memory of no process (socket and
pipe buffers; System V segments where there is no filter). Not counted as written: deleted files that are only mapped,
or under way through a socket. Where memory runs out, the kernel's out-of-memory killer is told to take commands
first, which a command can take back.

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
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

from parallel_orchestrator.records.command import MOUNT, Command, CommandResult
from parallel_orchestrator.records.errors import CannotGoOn, UsageError
from parallel_orchestrator.records.scenario import ExecutionEnv, SandboxMode
from parallel_orchestrator.sandbox import reaper, root_isolation, seccomp
from parallel_orchestrator.sandbox.guarded_process import GuardedProcess
from parallel_orchestrator.sandbox.mounts import (
    RESULTS_MOUNT,
    TMP,
    environment,
    limited,
    limited_program,
    minimal_root,
    python_binds,
)
from parallel_orchestrator.sandbox.namespace import Namespace
from parallel_orchestrator.sandbox.prewarm import (
    ENTRYPOINTS,
    PrewarmedSandbox,
    RunningSandbox,
    command_result,
    folders_of,
    refused,
)
from parallel_orchestrator.sandbox.resource_monitor import USUAL, Limits, ResourceMonitor
from parallel_orchestrator.sandbox.service_process import ServiceProcess, ServiceProgram
from parallel_orchestrator.system.files import write_all
from parallel_orchestrator.system.folders import open_up, places, remove_orphans, scratch_folder
from parallel_orchestrator.system.memory import ROOM


def detect(mode: SandboxMode, venv: Path | None = None) -> BubblewrapRunner | PlainRunner:
    """The runner for a run; `venv` is the run's own Python environment, if it has one.

    Raises UsageError, with both ways on, where a sandbox is wanted and none works.
    """
    runner = runner_for(mode, venv)
    if isinstance(runner, PlainRunner):
        return runner
    with scratch_folder("probe-") as folder:
        try:
            probe = runner(Command(("true",), folder, timeout_s=30))
        except CannotGoOn as error:
            raise _no_sandbox(f"bubblewrap does not work on this machine ({error})") from error
    if probe.code != 0:
        raise _no_sandbox(f"bubblewrap does not work on this machine ({probe.output.strip()})")
    return runner


def runner_for(mode: SandboxMode, venv: Path | None = None) -> BubblewrapRunner | PlainRunner:
    """As `detect`, without trying it out: for what `choose` has settled on in this session."""
    if mode == "off":
        return PlainRunner(venv)
    program = shutil.which("bwrap")
    if program is None:
        raise _no_sandbox("bubblewrap (bwrap) is not installed")
    return BubblewrapRunner(program, venv)


def choose(mode: SandboxMode, *, our_own_code: bool, key_at_stake: bool) -> tuple[ExecutionEnv, str]:
    """Where commands run, `auto` settled, and a line on it for a person. Raises UsageError as `detect` does.

    `our_own_code`: a recording of ours is replayed, and goes on without a sandbox where none works.
    """
    try:
        described = _described(mode)
    except UsageError:
        if mode == "required" or not our_own_code:
            raise
        return ExecutionEnv("off"), "Sandbox: OFF - none works here, and a shipped recording may run without"
    if mode == "off" and os.geteuid() == 0 and key_at_stake:
        described += ", that is as root: they can read the credential from memory"
    return ExecutionEnv("off" if mode == "off" else "required"), described


def clear_up() -> None:
    """Remove the temporary folders and control groups that killed orchestrators and executors of this user left."""
    for place in places():
        remove_orphans(place)
    root_isolation.remove_orphaned_groups()


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
    has_own_paths = True
    """Whether what runs sees its folder, and what it is shown, in places of the sandbox's own."""

    def __init__(self, program: str, venv: Path | None = None, limits: Limits = USUAL) -> None:
        self._program = program
        self._limits = limits
        self._python = python_binds(venv)
        self._environment = environment(TMP, venv)

    def describe(self) -> str:
        """One line for a person."""
        return "Sandbox: ON (bubblewrap)"

    def __call__(self, command: Command) -> CommandResult:
        """Run it to its end. Raises CannotGoOn when the sandbox cannot be set up."""
        with ROOM.shared():
            started = time.monotonic()
            monitor = self.monitor(command)
            if monitor.initial_violation:
                return refused(monitor)
            with self._start_sandbox(command) as sandbox:
                return sandbox.finish(command, monitor, started)

    def prewarm(self, command: Command) -> PrewarmedSandbox:
        """Start a sandbox now in which what `command` begins with (`STARTERS`) waits for the rest of it.

        Its folders may be filled in the meantime. The sandbox dies with the thread that made it.
        """
        entrypoint = next(entrypoint for entrypoint in ENTRYPOINTS if entrypoint.fits(command))
        sandbox = self._start_sandbox(replace(command, argv=entrypoint.program), stdin=subprocess.PIPE)
        return PrewarmedSandbox(self, entrypoint, sandbox, command)

    def monitor(self, command: Command) -> ResourceMonitor:
        """A watch over a command that begins now, in a folder that can be entered."""
        open_up(command.folder)
        return ResourceMonitor(self._limits, folders_of(command))

    def _start_sandbox(self, command: Command, stdin: int = subprocess.DEVNULL) -> RunningSandbox:
        with contextlib.ExitStack() as resources:
            status, status_end = os.pipe()
            reports = resources.enter_context(os.fdopen(status, "rb"))
            devices = resources.enter_context(root_isolation.device_nodes())
            entry = resources.enter_context(root_isolation.process_group(self._limits.processes + _OF_THE_SANDBOX))
            guarded = resources.enter_context(self._start(command, status_end, devices, entry, stdin))
            return RunningSandbox(guarded, reports, resources.pop_all())

    def _start(
        self, command: Command, status: int, devices: Mapping[str, Path], entry: Sequence[str], stdin: int
    ) -> GuardedProcess:
        results = ["--bind", str(command.results.resolve()), RESULTS_MOUNT] if command.results else []
        before, kept = self._inside(command.folder, results, status, devices)
        arguments = [*entry, *before, *limited(command, RESULTS_MOUNT, processes=self._limits.processes)]
        return GuardedProcess(arguments, self._environment, Path("/"), command.output_limit, *kept, stdin=stdin)

    @contextlib.contextmanager
    def service(self, program: ServiceProgram) -> Iterator[ServiceProcess]:
        """Run it beside us, and end it with everything that it started when the block ends."""
        monitor = ResourceMonitor(program.limits, [program.folder])
        mounts = [word for each in program.mounts for word in (each.option, str(each.path.resolve()), each.inside)]
        status, status_end = os.pipe()
        with (
            os.fdopen(status, "rb") as reports,
            root_isolation.device_nodes() as devices,
            root_isolation.process_group(program.limits.processes + _OF_THE_SANDBOX) as entry,
        ):
            before, kept = self._inside(program.folder, mounts, status_end, devices)
            arguments = [*entry, *before, *limited_program(program.argv)]
            variables = {**self._environment, **program.environment}
            streams = {"stdin": program.stdin, "stderr": program.stderr}
            with (
                GuardedProcess(arguments, variables, Path("/"), 0, *kept, **streams) as guarded,
                Namespace(reports.readline(), monitor) as namespace,
            ):
                yield ServiceProcess(guarded.process, monitor, namespace.is_within_limits)

    def _inside(
        self, folder: Path, more: Sequence[str], status: int, devices: Mapping[str, Path]
    ) -> tuple[list[str], list[int]]:
        """The words that put what follows them into a sandbox around `folder`, and the descriptors that they name."""
        words = [
            *("--unshare-all", "--die-with-parent", "--new-session", "--cap-drop", "ALL"),
            *("--hostname", "workspace", "--json-status-fd", str(status)),
            *minimal_root(devices),
            *("--bind", str(folder.resolve()), MOUNT, *more),
            *self._python,
            *("--remount-ro", "/", "--chdir", MOUNT),
        ]
        # By descriptor: what is on its command line, the command could read in /proc.
        options = _as_file(b"".join(os.fsencode(word) + b"\0" for word in words))
        arguments = [self._program, "--args", str(options)]
        kept = [status, options]
        if filtering := seccomp.program():
            kept.append(_as_file(filtering))
            arguments += ["--seccomp", str(kept[-1])]
        return [*arguments, "--"], kept


class PlainRunner:
    """Runs each command as the user, below a `reaper` that leaves nothing of it behind."""

    name = "none"
    has_own_paths = False

    def __init__(self, venv: Path | None = None, limits: Limits = USUAL) -> None:
        self._venv = venv
        self._limits = limits

    def describe(self) -> str:
        """One line for a person."""
        return "Sandbox: OFF - commands run as you"

    def __call__(self, command: Command) -> CommandResult:
        """Run it to its end. Raises CannotGoOn when it cannot be started."""
        open_up(command.folder)
        # A home of its own: what other commands or users put into a shared /tmp is not trusted.
        with ROOM.shared(), scratch_folder("command-") as private:
            started = time.monotonic()
            home = str(private)
            folders = [folder for folder in (command.folder, command.results, private) if folder]
            monitor = ResourceMonitor(self._limits, folders)
            if monitor.initial_violation:
                return refused(monitor)
            results = str(command.results.resolve()) if command.results else ""
            arguments = limited(command, results)
            with GuardedProcess(
                arguments, environment(home, self._venv), command.folder, command.output_limit
            ) as guarded:
                process, follower = guarded.process, guarded.follower
                allowed = partial(_is_within_limits, monitor, process)
                in_time = follower.until_end(started + command.timeout_s, allowed)
                if not in_time and not monitor.violation:
                    guarded.ask_to_end()
                    follower.until_end(time.monotonic() + reaper.GRACE_S)
                guarded.end()
                output = follower.rest().replace(home, TMP)
            return command_result(process, output, monitor, in_time, started)

    @contextlib.contextmanager
    def service(self, program: ServiceProgram) -> Iterator[ServiceProcess]:
        """Run it beside us, and end it with everything that it started when the block ends."""
        with scratch_folder("command-") as home:
            monitor = ResourceMonitor(program.limits, [program.folder, home])
            variables = {**environment(str(home), self._venv), **program.environment}
            arguments, streams = limited_program(program.argv), {"stdin": program.stdin, "stderr": program.stderr}
            with GuardedProcess(arguments, variables, program.folder, 0, **streams) as guarded:
                process = guarded.process
                yield ServiceProcess(process, monitor, partial(_is_within_limits, monitor, process))


def _is_within_limits(monitor: ResourceMonitor, process: subprocess.Popen[bytes]) -> bool:
    if sys.platform != "linux":
        return True
    return monitor.allows(Path("/proc"), partial(reaper.descendants, process.pid))


def _as_file(content: bytes) -> int:
    """A descriptor to read it from."""
    descriptor = os.memfd_create("options")
    write_all(descriptor, content)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor
