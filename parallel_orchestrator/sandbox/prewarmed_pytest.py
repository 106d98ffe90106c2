"""A pytest that has done its imports and waits for its arguments: most of a short test run is starting.

`main` runs inside the sandbox as `python -c`, before there is anything in the project's folder. It takes one line of
standard input, its arguments as JSON, and becomes `python -m pytest` with them. Each process runs once: what tests do
to it is gone with it. Without a line it ends.
"""

from __future__ import annotations

import inspect

STANDS_FOR = ("python", "-m", "pytest")


def main() -> None:
    """Wait, then be pytest. Everything is imported in here: its source is all that the sandbox gets."""
    import gc
    import importlib
    import json
    import os
    import runpy
    import sys

    import pytest  # noqa: F401 - this is what takes the time

    # Its plugins, and what a run with failures and a report imports only then.
    for name in (
        *("_argcomplete", "faulthandler", "helpconfig", "junitxml", "pastebin", "setuponly", "setupplan", "skipping"),
        *("threadexception", "tracemalloc", "unittest", "unraisableexception", "warnings"),
    ):
        try:
            importlib.import_module(f"_pytest.{name}")
        except ImportError:
            continue  # another version has it elsewhere, and will find it
    for name in ("coverage", "difflib", "pdb", "tomllib", "unittest", "xml.etree.ElementTree", "zoneinfo"):
        importlib.import_module(name)
    gc.collect()
    gc.freeze()  # pytest collects garbage five times as it ends; what was imported here is none
    line = b""
    while not line.endswith(b"\n"):
        if not (read := os.read(0, 65536)):
            os._exit(0)
        line += read
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    sys.argv = json.loads(line)
    if not any(argument.endswith("_lines") for argument in sys.argv):
        # Nothing is recorded: a module of the project can have that name.
        for name in [name for name in sys.modules if name.partition(".")[0] == "coverage"]:
            del sys.modules[name]
    sys.path[0] = os.getcwd()  # noqa: PTH109 - as -m has it
    runpy.run_module("pytest", run_name="__main__", alter_sys=True)


def read_text() -> str:
    """The program, for `python -c`."""
    return f"{inspect.getsource(main)}\nmain()\n"
