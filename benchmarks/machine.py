"""What was measured on, for the reader of the figures."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any


def describe() -> dict[str, Any]:
    """Processor, memory, kernel, file system, Python and load."""
    cores = len(os.sched_getaffinity(0))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    processor = found[1] if found else platform.machine()
    told = ["stat", "-f", "-c", "%T", "."]
    disk = subprocess.run(told, capture_output=True, text=True, check=False).stdout.strip() or "unknown"
    load = os.getloadavg()[0]
    summary = (
        f"{cores} cores ({processor}), {memory:.0f} GiB, Linux {platform.release()}, {disk}, "
        f"CPython {platform.python_version()}; load average when it began {load:.1f}."
    )
    return {
        "summary": summary,
        "cores": cores,
        "processor": processor,
        "memory_gib": round(memory, 1),
        "kernel": platform.release(),
        "disk": disk,
        "python": platform.python_version(),
        "load": round(load, 2),
        "versions": {name: metadata.version(name) for name in ("anthropic", "typer", "pydantic")},
    }
