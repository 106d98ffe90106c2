"""What a command gets: its limits, its environment and, in the sandbox, its file system."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from parallel_orchestrator.records.command import RESULTS

RESULTS_MOUNT = "/results"
# S108 warns of shared temporary folders; both are private in the sandbox.
TMP = "/tmp"  # noqa: S108
_SHARED_MEMORY = "/dev/shm"  # noqa: S108
_TMPFS_BYTES = str(512 * 2**20)

SET_LIMITS = """
ulimit -c 0; ulimit -n 1024; ulimit -v 4194304; ulimit -f 524288
echo 1000 > /proc/self/oom_score_adj; renice -n 10 -p $$ > /dev/null
"""
"""Memory in KiB, file size in blocks of 512 bytes, as in POSIX `sh`.

The kernel kills commands first when memory runs out (oom_score_adj). The lower priority keeps the resource monitor
quicker than processes that multiply.
"""


def limited_command(argv: Sequence[str], results: str, processes: int | None = None) -> list[str]:
    """Return a command line whose shell sets the limits and then becomes the command.

    Give `processes` only inside the sandbox's user namespace. Elsewhere the kernel counts all processes of the user.
    """
    # dash knows only -p.
    count = f"ulimit -u {processes} || ulimit -p {processes}" if processes else ""
    script = f'{{ {SET_LIMITS}{count}\n}} 2>/dev/null; exec "$@"'
    return ["/bin/sh", "-c", script, "sh", *(part.replace(RESULTS, results) for part in argv)]


def limited_program(argv: Sequence[str]) -> list[str]:
    """Return a service's command line with its limits. Its address space is not limited: such programs reserve much."""
    return ["/bin/sh", "-c", '{ ulimit -f 524288\nulimit -c 0\n} 2>/dev/null; exec "$@"', "sh", *argv]


def environment(home: str, venv: Path | None) -> dict[str, str]:
    """Return a command's whole environment. It is built from nothing, so it holds nothing by mistake."""
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
    """Return bwrap's arguments for the smallest system in which Python, a shell and the usual tools run.

    `devices`: by name, the nodes that replace the host's.
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
    """Return bwrap's arguments that make kernel settings read-only.

    Root may write some without any capability, in every namespace. One of them, sys/kernel/core_pattern, names a
    program that the host's kernel runs.
    """
    names = ("sys", "sysrq-trigger", "mtrr", "fs", "pressure")
    return [part for name in names for part in ("--ro-bind-try", f"/proc/{name}", f"/proc/{name}")]


_OF_PYTHON = ("bin", "include", "lib", "lib32", "lib64", "libexec", "share", "ssl", "pyvenv.cfg")


def python_binds(venv: Path | None) -> list[str]:
    """Return bwrap's arguments that mount this Python at its own path, even inside a home directory.

    Mounts only what Python created there: after `python -m venv .` the user's project lies in the same folder.
    """
    real = Path(sys.executable).resolve().parent.parent
    prefixes = [Path(sys.prefix), Path(sys.base_prefix), real, *([venv] if venv else [])]
    arguments: list[str] = []
    for path in dict.fromkeys([*prefixes, *(prefix.resolve() for prefix in prefixes)]):
        if path != Path("/") and not path.is_relative_to("/usr"):
            for part in (path / name for name in _OF_PYTHON):
                arguments += ["--ro-bind-try", str(part), str(part)]
    return arguments
