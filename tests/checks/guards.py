"""Remove each guard in turn: the test that proves it must fail. `python -m tests.checks.guards [I/N] [WORD ...]`.

`guards/*.yaml` list them. Each is `guard` (what it keeps), `file`, `old` (text that stands there once), `new` (what
it becomes without the guard; nothing by default) and `test` (one or more pytest ids). The project is copied aside,
so nothing here changes; with WORDs only the guards are tried whose description, file, test or list (`paths` for
`guards/paths.yaml`) holds one, with I/N only the I-th of N parts of them.

First all those tests must pass on an unchanged copy. Then each guard is removed alone, and its tests must fail: end
with 1, as any other code would mean that they did not run. Exit code 1 when a guard's removal went unnoticed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
LEFT_OUT = shutil.ignore_patterns(".git", ".venv*", ".*_cache", "outputs", ".bench", ".emptied")
AT_ONCE = os.cpu_count() or 2


@dataclass(frozen=True)
class Guard:
    """One guard, and how to take it away."""

    guard: str
    file: str
    old: str
    test: str
    new: str = ""
    listed_in: str = ""
    """The file that lists it, without its ending."""

    @property
    def tests(self) -> list[str]:
        """Its pytest ids."""
        return self.test.split()

    def fault(self) -> str | None:
        """Why it cannot be removed as described."""
        found = (ROOT / self.file).read_text().count(self.old)
        return None if found == 1 else f"{self.guard}: its text stands {found} times in {self.file}"


def main(words: list[str]) -> int:
    """Try all guards, or those that hold one of `words`, or one part of them."""
    part, parts = (int(number) for number in words.pop(0).split("/")) if words and "/" in words[0][:3] else (1, 1)
    found = [guard for guard in listed() if not words or any(word in str(guard) for word in words)]
    found = found[len(found) * (part - 1) // parts : len(found) * part // parts]
    faults = [fault for guard in found if (fault := guard.fault())]
    if faults or not found:
        print("\n".join(faults or ["no such guard"]))
        return 2
    print(f"{len(found)} guards; first their tests on an unchanged copy", flush=True)
    whole = sorted({test for guard in found for test in guard.tests})
    if code := in_copy(None, whole):
        print(f"the tests end with {code} while all guards stand")
        return 1
    with ThreadPoolExecutor(AT_ONCE) as pool:
        unnoticed = [guard for guard, code in zip(found, pool.map(removed, found), strict=True) if code != 1]
    print(f"{len(found) - len(unnoticed)} of {len(found)} removals were noticed")
    return 1 if unnoticed else 0


def listed() -> list[Guard]:
    """Every guard of `guards/*.yaml`."""
    files = sorted((Path(__file__).parent / "guards").glob("*.yaml"))
    return [Guard(**entry, listed_in=file.stem) for file in files for entry in yaml.safe_load(file.read_text())]


def removed(guard: Guard) -> int:
    """The exit code of its tests without the guard."""
    code = in_copy(guard, guard.tests)
    print(f"{'noticed  ' if code == 1 else f'UNNOTICED ({code})'} {guard.guard}", flush=True)
    return code


def in_copy(without: Guard | None, tests: list[str]) -> int:
    """The exit code of these tests in a copy of the project, in which `without` is taken away."""
    with tempfile.TemporaryDirectory(prefix="guards-", ignore_cleanup_errors=True) as folder:
        copy = Path(folder, "project")
        shutil.copytree(ROOT, copy, ignore=LEFT_OUT)
        if without:
            path = copy / without.file
            path.write_text(path.read_text().replace(without.old, without.new))
        # Before the editable installation's own path, so that the copy is what is imported. Its bytecode is copied,
        # too: most of these tests start many processes.
        environment = {**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": ""}
        command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests]
        done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, check=False)
        if without is None and done.returncode:
            print(done.stdout[-3000:])
        return done.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
