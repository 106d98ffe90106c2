"""Programs that do the same work in their own way, each in a process of its own.

`python -m benchmarks.contestants.NAME FILE` reads what to do from a JSON file and prints what came of it as the last
line. The peers run in `.venv-bench`; of this package they import only what needs nothing installed.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
OWN = Path(sys.executable)
PEERS = ROOT / ".venv-bench" / "bin" / "python"

Job = dict[str, Any]


class NotMeasured(Exception):
    """Why a contestant has no figure: it is not installed, cannot express the work, or took too long."""


def ask(contestant: str, job: Job, *, python: Path = OWN, timeout: float = 300.0) -> Any:
    """What the contestant answers to `job`. Raises NotMeasured."""
    if not python.exists():
        raise NotMeasured("not installed: `make bench` installs it")
    with tempfile.TemporaryDirectory() as name:
        # Files, not pipes: processes that it leaves behind would hold these open.
        file, output, errors = (Path(name) / part for part in ("job", "output", "errors"))
        file.write_text(json.dumps(job))
        command = [str(python), "-m", f"benchmarks.contestants.{contestant}", str(file)]
        with output.open("w") as out, errors.open("w") as err:
            process = subprocess.Popen(command, cwd=ROOT, stdout=out, stderr=err, start_new_session=True)
        try:
            process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise NotMeasured(f"stopped after {timeout:.0f} s") from None
        finally:
            _end_session(process)
        said, complained = output.read_text().strip(), errors.read_text().strip()
    if process.returncode or not said:
        last = complained.splitlines()[-1] if complained else f"exit code {process.returncode}"
        raise NotMeasured(f"it failed: {last[:200]}")
    return json.loads(said.splitlines()[-1])


def _end_session(process: subprocess.Popen[bytes]) -> None:
    """Kill it and all that it started: it was given a session of its own."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def answer(work: Callable[[Job], Any]) -> None:
    """The main function of a contestant."""
    job = json.loads(Path(sys.argv[1]).read_text())
    result = work(job)
    sys.stdout.flush()
    print("\n" + json.dumps(result), flush=True)
    os._exit(0)  # without waiting for whatever a framework wants to tidy up
