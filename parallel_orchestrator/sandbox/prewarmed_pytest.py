"""A pytest that has done its imports and waits for its arguments: most of a short test run is imports.

`main` runs inside the sandbox as `python -c`, before anything is in the project's folder. It reads one line of
standard input, its arguments as JSON, and becomes `python -m pytest` with them. Each process runs tests once, so
nothing that tests change in it is left. Without a line it ends.
"""

from __future__ import annotations

import inspect

STANDS_FOR = ("python", "-m", "pytest")


def main() -> None:
    """Wait, then become pytest. All imports are inside: the sandbox gets only this function's source."""
    import gc, importlib, json, os, runpy, sys  # noqa: E401, I001 - see above

    import pytest  # noqa: F401 - this is what takes the time

    # Its plugins, and what pytest imports only for failures and reports.
    for name in (
        *("_argcomplete", "faulthandler", "helpconfig", "junitxml", "pastebin", "setuponly", "setupplan", "skipping"),
        *("threadexception", "tracemalloc", "unittest", "unraisableexception", "warnings"),
    ):
        try:
            importlib.import_module(f"_pytest.{name}")
        except ImportError:
            continue  # another version of pytest has it elsewhere and imports it itself
    for name in ("coverage", "difflib", "pdb", "tomllib", "unittest", "xml.etree.ElementTree", "zoneinfo"):
        importlib.import_module(name)
    gc.collect()
    gc.freeze()  # pytest collects garbage five times at its end, and would traverse these imports each time
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
        # No lines are recorded. The project may have a module named coverage.
        for name in [name for name in sys.modules if name.partition(".")[0] == "coverage"]:
            del sys.modules[name]
    sys.path[0] = os.getcwd()  # noqa: PTH109 - as -m has it
    runpy.run_module("pytest", run_name="__main__", alter_sys=True)


def read_text() -> str:
    """Return the program for `python -c`."""
    return f"{inspect.getsource(main)}\nmain()\n"
