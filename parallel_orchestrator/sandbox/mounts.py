"""What a command finds around it: its limits, its environment and, in the sandbox, its file system."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from parallel_orchestrator.records.command import RESULTS, Command

RESULTS_MOUNT = "/results"
# Both are private in the sandbox, which is what S108 asks about.
TMP = "/tmp"  # noqa: S108
_SHARED_MEMORY = "/dev/shm"  # noqa: S108
_TMPFS_BYTES = str(512 * 2**20)

SET_LIMITS = """
ulimit -c 0; ulimit -n 1024; ulimit -v 4194304; ulimit -f 524288
echo 1000 > /proc/self/oom_score_adj; renice -n 10 -p $$ > /dev/null
"""
"""Memory in KiB, file size in blocks of 512 bytes, as POSIX has it for `sh`.

Where memory runs out, commands go first; where processes multiply, whoever watches them is quicker.
"""


def limited(command: Command, results: str, processes: int | None = None) -> list[str]:
    """The command's arguments behind a shell that sets its limits and then becomes the command.

    `processes` only inside the sandbox's user namespace: elsewhere it counts all that the user runs.
    """
    # dash knows only -p.
    count = f"ulimit -u {processes} || ulimit -p {processes}" if processes else ""
    script = f'{{ {SET_LIMITS}{count}\n}} 2>/dev/null; exec "$@"'
    return ["/bin/sh", "-c", script, "sh", *(part.replace(RESULTS, results) for part in command.argv)]


def limited_program(argv: Sequence[str]) -> list[str]:
    """A program's arguments behind a shell that sets what limits it can live with: its address space is its own."""
    return ["/bin/sh", "-c", '{ ulimit -f 524288\nulimit -c 0\n} 2>/dev/null; exec "$@"', "sh", *argv]


def environment(home: str, venv: Path | None) -> dict[str, str]:
    """All that a command finds in its environment: built from nothing, so nothing can be forgotten in it."""
    own = [f"{venv}/bin"] * bool(venv) + [f"{sys.prefix}/bin", f"{sys.base_prefix}/bin"]
    return {
        "PATH": os.pathsep.join(dict.fromkeys([*own, "/usr/local/bin", "/usr/bin", "/bin"])),
        "HOME": home,
        "TMPDIR": home,
        "LANG": "C.UTF-8",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONHASHSEED": "0",
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
    }


def minimal_root(devices: Mapping[str, Path]) -> list[str]:
    """bwrap arguments: the least of a system in which Python, a shell and the usual tools run.

    `devices`: nodes that stand in for the host's, by name.
    """
    arguments = ["--ro-bind", "/usr", "/usr"]
    for name in ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"):
        path = Path(name)
        if path.is_symlink():
            arguments += ["--symlink", str(path.readlink()), name]
        elif path.is_dir():
            arguments += ["--ro-bind", name, name]
    for name in (
        *("ld.so.cache", "ld.so.conf", "ld.so.conf.d", "alternatives", "passwd", "group", "nsswitch.conf", "hosts"),
        *("localtime", "ssl/certs", "ssl/openssl.cnf", "mime.types"),
    ):
        arguments += ["--ro-bind-try", f"/etc/{name}", f"/etc/{name}"]
    arguments += ["--proc", "/proc", *_kernel_settings(), "--dev", "/dev"]
    for name, node in devices.items():
        arguments += ["--dev-bind", str(node), f"/dev/{name}"]
    arguments += ["--size", _TMPFS_BYTES, "--tmpfs", _SHARED_MEMORY, "--remount-ro", "/dev"]
    return [*arguments, "--size", _TMPFS_BYTES, "--tmpfs", TMP]


def _kernel_settings() -> list[str]:
    """Make them read-only. Root may write some without any capability, in every namespace.

    One of them, sys/kernel/core_pattern, names a program that the host's kernel runs.
    """
    names = ("sys", "sysrq-trigger", "mtrr", "fs", "pressure")
    return [part for name in names for part in ("--ro-bind-try", f"/proc/{name}", f"/proc/{name}")]


_OF_PYTHON = ("bin", "include", "lib", "lib32", "lib64", "libexec", "share", "ssl", "pyvenv.cfg")


def python_binds(venv: Path | None) -> list[str]:
    """bwrap arguments: this Python where it is, also when it lies in a home directory that is not shown.

    No more of its folder than Python made there: who ran `python -m venv .` has the project around it.
    """
    real = Path(sys.executable).resolve().parent.parent
    prefixes = [Path(sys.prefix), Path(sys.base_prefix), real, *([venv] if venv else [])]
    arguments: list[str] = []
    for path in dict.fromkeys([*prefixes, *(prefix.resolve() for prefix in prefixes)]):
        if path != Path("/") and not path.is_relative_to("/usr"):
            for part in (path / name for name in _OF_PYTHON):
                arguments += ["--ro-bind-try", str(part), str(part)]
    return arguments
