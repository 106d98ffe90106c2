"""Running commands: in a bubblewrap sandbox, or without one.

**Bubblewrap**, as root and as an ordinary user, covers:
- Files: of the host only /usr, a few files of /etc and the Python installation are there, read-only. Writable are
  /workspace, for tests /results, and private /tmp and /dev/shm (512 MiB each).
- Network: only a private loopback; no Unix socket of the host, named or abstract, not even the gateway's.
- Secrets: an environment built from nothing, and a private process table, so no other process can be read.
- Rights: no capabilities, and none can be gained; kernel settings read-only; on x86_64 and aarch64 a seccomp filter
  against system calls that commands do not need (listed in `seccomp`).
- Each process: 4 GiB of address space, 1024 open files, files of 256 MiB, no core file.
- All processes together (`resource_monitor`, several looks a second): 256 processes and threads, 2 GiB of memory, and
  1 GiB and 100,000 files in the writable folders. The kernel limits the number of processes, too: for a user by the
  sandbox's user namespace, for root by a control group. Where root may make none (see `root_isolation`) only the
  monitor limits it, and a fork bomb can slow the machine down until the time limit. Between two looks a command can
  exceed a limit by what memory and disk take in that time. Folders at twice their limit get no further command.
- A wall clock. When the call returns, everything that the command started is dead, daemons included. When the caller
  dies, a `reaper` outside the sandbox kills it soon after. bwrap's own --die-with-parent fails when it has only just
  begun: the signal comes too early, or a child stays behind and waits for ever.

Not covered: the mode of the host's device nodes (null, zero, full, random, urandom, tty) where root cannot make
others: there a root command can `chmod 000 /dev/zero` for the whole machine. Faults of the kernel. Load on processor
and disk, except for a lower priority. What is in the project itself, which commands can read and change. What the
host shows there: kernel version and command line, load, memory, users' names, the workspace's path in
/proc/self/mountinfo. Not counted as memory: /tmp and /dev/shm, socket and pipe buffers, and System V segments where
there is no filter. Not counted as written: deleted files that are only mapped, or under way through a socket. Where
memory runs out, commands are marked to be killed first; a command can undo that.

**Plain**, without a sandbox: the command runs as you. It can read, write, reach and end what you can, including the
network and your other processes. These still hold: the clean environment, the limits of each process, the monitor (it
counts the project's folder and the command's home), the wall clock, and that `reaper` kills what the command leaves
running, unless the command kills the reaper first. Root can raise the limits of each process again. Orchestrator and
gateway hide their memory, where the key is, from other processes of the user, but not from root: a root command can
read the key.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache, partial
from io import BufferedReader
from pathlib import Path
from types import MappingProxyType

from parallel_orchestrator.records.command import MOUNT, Command, CommandResult, SandboxMode
from parallel_orchestrator.records.errors import CannotGoOn, UsageError
from parallel_orchestrator.records.scenario import ExecutionEnv
from parallel_orchestrator.sandbox import reaper, root_isolation, seccomp
from parallel_orchestrator.sandbox.guarded_process import GuardedProcess, Namespace
from parallel_orchestrator.sandbox.mounts import (
    RESULTS_MOUNT,
    TMP,
    environment,
    limited_command,
    limited_program,
    minimal_root,
    python_binds,
)
from parallel_orchestrator.sandbox.prewarm import (
    ENTRYPOINTS,
    PrewarmedSandbox,
    RunningSandbox,
    command_result,
    folders_of,
    follow,
    not_run,
)
from parallel_orchestrator.sandbox.resource_monitor import USUAL, ResourceLimits, ResourceMonitor
from parallel_orchestrator.sandbox.service_process import ServiceProcess, ServiceProgram
from parallel_orchestrator.system.files import write_all
from parallel_orchestrator.system.folders import open_up, places, remove_orphans, scratch_folder
from parallel_orchestrator.system.memory import ROOM


def detect(mode: SandboxMode, venv: Path | None = None) -> Runner:
    """Return a runner that was tried out. `venv`: the run's own Python environment, if it has one.

    Raises UsageError when a sandbox is wanted and none works; it names both alternatives.
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


def runner_for(mode: SandboxMode, venv: Path | None = None) -> Runner:
    """Return the runner for a mode that `choose` has tried out already in this session."""
    if mode == "off":
        return PlainRunner(venv)
    program = shutil.which("bwrap")
    if program is None:
        raise _no_sandbox("bubblewrap (bwrap) is not installed")
    return BubblewrapRunner(program, venv)


def choose(mode: SandboxMode, *, our_own_code: bool, key_at_stake: bool) -> tuple[ExecutionEnv, str]:
    """Return where commands run, with `auto` resolved, and a line on it for the user. Raises UsageError as `detect`.

    `our_own_code`: a shipped recording is replayed, which may run without a sandbox where none works.
    """
    try:
        described = _described(mode)
    except UsageError:
        if mode != "auto" or not our_own_code:
            raise
        return ExecutionEnv("off"), "Sandbox: OFF - none works here, and a shipped recording may run without"
    if mode == "off" and os.geteuid() == 0 and key_at_stake:
        described += ", that is as root: they can read the credential from memory"
    return ExecutionEnv("off" if mode == "off" else "required"), described


def clear_up() -> None:
    """Remove the temporary folders and control groups of this user's killed orchestrators and executors."""
    for place in places():
        remove_orphans(place)
    root_isolation.remove_orphaned_groups()


@cache
def _described(mode: SandboxMode) -> str:
    # Cached: a batch asks for each of its scenarios.
    return detect(mode).describe()


def _no_sandbox(why: str) -> UsageError:
    return UsageError(
        f"no sandbox for the commands that agents run: {why}. Install bubblewrap (for instance "
        "`apt install bubblewrap`) where user namespaces are allowed, or run without one: --sandbox off"
    )


_OF_THE_SANDBOX = 8
"""Processes of bwrap itself, in addition to the command's."""


class BubblewrapRunner:
    """Runs each command in a new sandbox."""

    name = "bubblewrap"
    has_own_paths = True
    """Whether a process sees its folder and mounts under the sandbox's paths."""

    def __init__(self, program: str, venv: Path | None = None, limits: ResourceLimits = USUAL) -> None:
        self._program = program
        self._limits = limits
        self._python = python_binds(venv)
        self._environment = environment(TMP, venv)

    def describe(self) -> str:
        """Return one line for the user."""
        return "Sandbox: ON (bubblewrap)"

    def __call__(self, command: Command) -> CommandResult:
        """Run a command to its end. Raises CannotGoOn when the sandbox cannot be set up."""
        with ROOM.shared():
            started = time.monotonic()
            monitor = self.monitor(command)
            if monitor.initial_violation:
                return not_run(monitor)
            with self._start(command, command.argv) as sandbox:
                return sandbox.finish(command, monitor, started)

    def prewarm(self, command: Command) -> PrewarmedSandbox:
        """Start a sandbox in which an entrypoint waits for a command that begins like `command`.

        The caller may fill its folders meanwhile. The sandbox dies with the thread that started it.
        """
        entrypoint = next(entrypoint for entrypoint in ENTRYPOINTS if entrypoint.fits(command))
        sandbox = self._start(command, entrypoint.program, stdin=subprocess.PIPE)
        return PrewarmedSandbox(self, entrypoint, sandbox, command)

    def monitor(self, command: Command) -> ResourceMonitor:
        """Return the monitor of a command that starts now, in a folder whose permissions are restored."""
        open_up(command.folder)
        return ResourceMonitor(self._limits, folders_of(command))

    def _start(self, command: Command, argv: Sequence[str], stdin: int = subprocess.DEVNULL) -> RunningSandbox:
        binds = ["--bind", str(command.results.resolve()), RESULTS_MOUNT] if command.results else []
        limited = limited_command(argv, RESULTS_MOUNT, processes=self._limits.processes)
        with contextlib.ExitStack() as resources:
            sandbox = self._sandbox(
                command.folder, binds, limited, processes=self._limits.processes, kept=command.output_limit, stdin=stdin
            )
            guarded, reports = resources.enter_context(sandbox)
            return RunningSandbox(guarded, reports, resources.pop_all())

    @contextlib.contextmanager
    def service(self, program: ServiceProgram) -> Iterator[ServiceProcess]:
        """Run a program for the length of the block, then end it with everything that it started."""
        monitor = ResourceMonitor(program.limits, [program.folder])
        binds = [word for mount in program.mounts for word in (mount.option, str(mount.path.resolve()), mount.inside)]
        sandbox = self._sandbox(
            program.folder,
            binds,
            limited_program(program.argv),
            program.environment,
            processes=program.limits.processes,
            stdin=program.stdin,
            stderr=program.stderr,
        )
        with sandbox as (guarded, reports), Namespace(reports.readline(), monitor) as namespace:
            yield ServiceProcess(guarded.process, monitor, namespace.is_within_limits)

    @contextlib.contextmanager
    def _sandbox(
        self,
        folder: Path,
        binds: Sequence[str],
        arguments: Sequence[str],
        variables: Mapping[str, str] = MappingProxyType({}),
        *,
        processes: int,
        kept: int = 0,
        **streams: int,
    ) -> Iterator[tuple[GuardedProcess, BufferedReader]]:
        """Start bwrap with a program, and keep `kept` characters of output. Yields its process and its reports."""
        status, status_end = os.pipe()
        with (
            os.fdopen(status, "rb") as reports,
            root_isolation.device_nodes() as devices,
            root_isolation.process_group(processes + _OF_THE_SANDBOX) as entry,
        ):
            before, descriptors = self._inside(folder, binds, status_end, devices)
            command_line, env = [*entry, *before, *arguments], {**self._environment, **variables}
            with GuardedProcess(command_line, env, Path("/"), kept, *descriptors, **streams) as guarded:
                yield guarded, reports

    def _inside(
        self, folder: Path, binds: Sequence[str], status: int, devices: Mapping[str, Path]
    ) -> tuple[list[str], list[int]]:
        """Return the words before a command line that put it into a sandbox, and the descriptors that they name."""
        words = [
            *("--unshare-all", "--die-with-parent", "--new-session", "--cap-drop", "ALL"),
            *("--hostname", "workspace", "--json-status-fd", str(status)),
            *minimal_root(devices),
            *("--bind", str(folder.resolve()), MOUNT, *binds),
            *self._python,
            *("--remount-ro", "/", "--chdir", MOUNT),
        ]
        # By descriptor: the command can read bwrap's command line in /proc.
        options = _as_file(b"".join(os.fsencode(word) + b"\0" for word in words))
        arguments = [self._program, "--args", str(options)]
        kept = [status, options]
        if filtering := seccomp.program():
            kept.append(_as_file(filtering))
            arguments += ["--seccomp", str(kept[-1])]
        return [*arguments, "--"], kept


class PlainRunner:
    """Runs each command as the user, below a `reaper` that kills everything it leaves."""

    name = "none"
    has_own_paths = False

    def __init__(self, venv: Path | None = None, limits: ResourceLimits = USUAL) -> None:
        self._venv = venv
        self._limits = limits

    def describe(self) -> str:
        """Return one line for the user."""
        return "Sandbox: OFF - commands run as you"

    def __call__(self, command: Command) -> CommandResult:
        """Run a command to its end. Raises CannotGoOn when it cannot be started."""
        open_up(command.folder)
        # A private home: other commands and users can write to a shared /tmp.
        with ROOM.shared(), scratch_folder("command-") as home:
            started = time.monotonic()
            monitor = ResourceMonitor(self._limits, [*folders_of(command), home])
            if monitor.initial_violation:
                return not_run(monitor)
            results = str(command.results.resolve()) if command.results else ""
            arguments, env = limited_command(command.argv, results), environment(str(home), self._venv)
            with GuardedProcess(arguments, env, command.folder, command.output_limit) as guarded:
                deadline = started + command.timeout_s
                in_time = follow(guarded, monitor, deadline, _limits_check(monitor, guarded), guarded.ask_to_end)
                guarded.end()
                output = guarded.reader.rest().replace(str(home), TMP)
            return command_result(guarded.process, output, monitor, in_time, started)

    @contextlib.contextmanager
    def service(self, program: ServiceProgram) -> Iterator[ServiceProcess]:
        """Run a program for the length of the block, then end it with everything that it started."""
        with scratch_folder("command-") as home:
            monitor = ResourceMonitor(program.limits, [program.folder, home])
            env = {**environment(str(home), self._venv), **program.environment}
            arguments, streams = limited_program(program.argv), {"stdin": program.stdin, "stderr": program.stderr}
            with GuardedProcess(arguments, env, program.folder, 0, **streams) as guarded:
                yield ServiceProcess(guarded.process, monitor, _limits_check(monitor, guarded))


Runner = BubblewrapRunner | PlainRunner


def _limits_check(monitor: ResourceMonitor, guarded: GuardedProcess) -> Callable[[], bool]:
    if sys.platform != "linux":
        return lambda: True
    return partial(monitor.allows, Path("/proc"), partial(reaper.descendants, guarded.process.pid))


def _as_file(content: bytes) -> int:
    """Return a descriptor from which the content can be read."""
    descriptor = os.memfd_create("options")
    write_all(descriptor, content)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor
