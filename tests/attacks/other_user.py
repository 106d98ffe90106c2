"""Running the program as an ordinary user, from tests that run as root."""

from __future__ import annotations

import os
import shlex
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
UID = 61_000 + os.getpid() % 4_000
"""A user of this test process alone, so that nobody else's processes count for its limits."""


@contextmanager
def ordinary_user() -> Iterator[tuple[Path, list[str]]]:
    """A directory that an ordinary user owns, and the words before a command that make that user run it.

    Skips nothing by itself: `impossible` says why it could not work.
    """
    with tempfile.TemporaryDirectory(prefix="user-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        if os.geteuid() != 0:
            yield folder, []
            return
        os.chown(folder, UID, UID)
        yield folder, _become(folder)


def impossible() -> str:
    """Why nothing can be run as an ordinary user here; empty when it can."""
    if os.geteuid() != 0:
        return ""
    if sys.platform != "linux" or not all(map(shutil.which, ("unshare", "setpriv", "mount"))):
        return "to become an ordinary user takes unshare, setpriv and mount of util-linux"
    with ordinary_user() as (_, become):
        done = subprocess.run([*become, sys.executable, "-c", ""], capture_output=True, text=True, check=False)
        return done.stderr.strip()


def _become(folder: Path) -> list[str]:
    """In a mount namespace of its own, where what lies behind root's closed directories is laid open."""
    behind = {str(folder / f"hold-{number}"): path for number, path in enumerate(_behind_closed_doors())}
    doors = {next(filter(_is_closed, reversed(path.parents))) for path in behind.values()}
    script = ["set -e"]
    script += [f"mkdir {hold}; mount --bind {shlex.quote(str(path))} {hold}" for hold, path in behind.items()]
    script += [f"mount -t tmpfs -o mode=755 tmpfs {shlex.quote(str(door))}" for door in doors]
    script += [f"mkdir -p {quoted}; mount --move {hold} {quoted}; rmdir {hold}" for hold, quoted in _quoted(behind)]
    script.append(f'exec setpriv --reuid {UID} --regid {UID} --clear-groups --inh-caps=-all "$@"')
    return ["unshare", "--mount", "sh", "-c", "\n".join(script), "sh"]


def _quoted(paths: dict[str, Path]) -> list[tuple[str, str]]:
    return [(hold, shlex.quote(str(path))) for hold, path in paths.items()]


def _behind_closed_doors() -> list[Path]:
    """What the program needs and only root can reach: its code and its Python."""
    needed = [ROOT, Path(sys.prefix).resolve(), Path(sys.base_prefix).resolve()]
    closed = [path for path in dict.fromkeys(needed) if any(map(_is_closed, path.parents))]
    return [path for path in closed if not any(path != other and path.is_relative_to(other) for other in closed)]


def _is_closed(folder: Path) -> bool:
    return not folder.stat().st_mode & stat.S_IXOTH
