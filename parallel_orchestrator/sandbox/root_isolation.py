"""Isolation of root's commands from two things that the kernel allows root even without any capability.

A root command owns the host's device nodes, so it could `chmod 000 /dev/zero` for the whole machine. It gets private
nodes. And RLIMIT_NPROC does not limit root, so its processes run in a control group with a limit. Nothing is done for
other users, nor where root may not do this (a container without mknod, control groups mounted read-only); `runner`
says what holds then.
"""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from parallel_orchestrator.system.folders import is_foreign, marked, remove_orphans, scratch_folder

_NODES = ("null", "zero", "full", "random", "urandom", "tty")
_EVERYBODY = 0o666
_GROUPS = Path("/sys/fs/cgroup")
_ENTERED_S = 60.0
"""A group is entered right after it is made. An older one without a process is a leftover."""
_ENTER = 'echo $$ > "$0" && exec "$@"'


@contextlib.contextmanager
def device_nodes() -> Iterator[dict[str, Path]]:
    """Make device nodes, by name, and remove them afterwards; none where they cannot be made or used."""
    if os.geteuid() != 0:
        yield {}
        return
    with scratch_folder("devices-") as folder:
        yield _nodes(folder)


def _nodes(folder: Path) -> dict[str, Path]:
    try:
        nodes = {name: _node(folder, name) for name in _NODES}
        nodes["null"].open("wb").close()  # fails on a file system that is mounted nodev
    except OSError:
        return {}
    return nodes


def _node(folder: Path, name: str) -> Path:
    path = folder / name
    os.mknod(path, stat.S_IFCHR | _EVERYBODY, Path(f"/dev/{name}").stat().st_rdev)
    path.chmod(_EVERYBODY)
    return path


@contextlib.contextmanager
def process_group(limit: int) -> Iterator[list[str]]:
    """Make a control group of at most `limit` tasks. Yields the words before a command line that enter it, if any."""
    parent = _parent() if os.geteuid() == 0 else None
    if parent is None:
        yield []
        return
    group = _group(parent, limit)
    try:
        yield ["/bin/sh", "-c", _ENTER, str(group / "cgroup.procs")] if group else []
    finally:
        if group:
            _remove_group(group)  # its processes are gone


def remove_orphaned_groups() -> None:
    """Remove the control groups of killed executors. Groups that still hold a process stay."""
    if os.geteuid() == 0 and (parent := _parent()):
        remove_orphans(parent, _remove_old_group, foreign=True)


def _remove_old_group(group: Path) -> None:
    """Remove a group; the kernel refuses while a process is in it.

    A maker in another pid namespace, such as a removed container, cannot be proven dead. Its group is removed only
    when it is so old that the maker cannot be about to enter it.
    """
    with contextlib.suppress(OSError):
        if not is_foreign(group.name) or time.time() - group.stat().st_mtime > _ENTERED_S:
            group.rmdir()


def _remove_group(group: Path) -> None:
    with contextlib.suppress(OSError):
        group.rmdir()


def _group(parent: Path, limit: int) -> Path | None:
    try:
        group = Path(tempfile.mkdtemp(prefix=marked("command-"), dir=parent))
        (group / "pids.max").write_text(str(limit))
    except OSError:
        return None
    return group


def _parent() -> Path | None:
    """Return where groups with a task limit can be made: the unified root, or this process's group of version 1."""
    with contextlib.suppress(OSError):
        if "pids" in (_GROUPS / "cgroup.subtree_control").read_text().split():
            return _GROUPS
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers == "pids":
                return _GROUPS / "pids" / path.lstrip("/")
    return None
