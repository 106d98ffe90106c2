"""Running the program as an ordinary user, also from a test that root runs out of directories closed to others."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

USER = 65534


def as_user(*places: Path) -> list[str] | None:
    """A command that runs what follows it as a user who can reach Python and `places`, and owns `places`.

    Empty where the tests run as a user already; None where root may not mount.
    """
    if os.geteuid() != 0:
        return []
    for place in places:
        for path in [place, *place.rglob("*")]:
            os.lchown(path, USER, USER)
    needed = [Path(sys.prefix), Path(sys.base_prefix).resolve(), Path(__file__).resolve().parents[2], *places]
    user = ["setpriv", "--reuid", str(USER), "--regid", str(USER), "--clear-groups"]
    script = "\n".join(["set -e", *_opened(needed), f'exec {shlex.join(user)} "$@"'])
    command = ["unshare", "--mount", "sh", "-c", script, "sh"]
    if shutil.which("unshare") is None or shutil.which("setpriv") is None:
        return None
    return None if subprocess.run([*command, "true"], check=False, capture_output=True).returncode else command


def _opened(needed: list[Path]) -> list[str]:
    """Shell lines that put an open directory over each closed one, with only what is needed in it.

    They hold in a mount namespace of their own: nothing changes for anybody else.
    """
    lines = ["mount -t tmpfs -o mode=755 tmpfs /mnt"]
    closed: dict[Path, list[Path]] = {}
    for path in needed:
        outermost = next((p for p in reversed([path, *path.parents]) if not p.stat().st_mode & 0o001), None)
        if outermost not in (None, path):
            closed.setdefault(outermost, []).append(path)
    for number, (directory, inside) in enumerate(closed.items()):
        aside = f"/mnt/{number}"
        lines += [f"mkdir {aside}", shlex.join(["mount", "--rbind", str(directory), aside])]
        lines += [shlex.join(["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", str(directory)])]
        for path in inside:
            lines += [shlex.join(["mkdir", "-p", str(path)])]
            lines += [shlex.join(["mount", "--bind", f"{aside}/{path.relative_to(directory)}", str(path)])]
    return lines
