"""A pytest plugin: which lines of src/ a task's own tests run. PYTEST_DONT_REWRITE

The test bench copies this file into the project's folder, under a name that cannot be guessed, with the names
of the task's test files in a line after it (`TESTS`). At the end it writes a JSON file next to the JUnit report:
`lines` (path to numbers of lines), `imported` (paths), and `doubt` (why there may be more; else empty).

Measured is what runs while a file of these tests is collected and while its tests run, their fixtures included; not
what a module of src/ runs while it is imported. Other tests run without any measurement. Coverage is configured here
alone: no file of the project is read for it.

- Threads are measured. So are the first Python processes that the tests start, by coverage's own .pth file.
- A forked process is not, nor one that is killed by SIGKILL, nor what runs under another tracer: these leave a doubt.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.machinery
import json
import os
import signal
import site
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import coverage
import pytest

TESTS: tuple[str, ...] = ()
_SOURCE = os.path.join(os.getcwd(), "src")  # noqa: PTH109, PTH118 - what pathlib is made of can be patched by tests
_QUIET = (
    *("trace-changed", "module-not-python", "module-not-imported", "no-data-collected", "module-not-measured"),
    *("already-imported", "include-ignored", "couldnt-parse", "no-ctracer", "no-sysmon"),
)
"""Warnings of coverage; a test may look at all that is printed."""
_CHILDREN = "COVERAGE_PROCESS_START"
_FORKS = ("os.fork", "os.forkpty", "os.exec")
_KILLS = ("os.kill", "os.killpg")
_STARTS = ("subprocess.Popen", "os.system", "os.posix_spawn")
_MOST_CHILDREN = 10
"""Processes that are measured: importing coverage costs each of them a fifth of a second of processor time."""


class Recorder:
    """Measures while one of `TESTS` is at work."""

    def __init__(self, results: Path, name: str) -> None:
        self._results = results
        self._name = name
        self._settings = str(results / f"{name}.toml")
        self._thread = threading.get_ident()
        self._depth = 0
        self._switching = False
        self._children = 0
        self._imported: set[str] = set()
        self._doubt = ""
        # The C tracer: only it can be stopped and started within one process without losing lines.
        self._coverage = coverage.Coverage(data_file=None, config_file=False, source=[_SOURCE])
        self._coverage.set_option("run:core", "ctrace")
        self._coverage.set_option("run:disable_warnings", list(_QUIET))

    def install(self) -> None:
        """Have modules of src/ and new processes looked at."""
        options: dict[str, object] = {
            "source": [_SOURCE],
            "data_file": str(self._results / f"{self._name}.data"),
            "patch": ["_exit"],
        }
        options |= {"parallel": True, "sigterm": True, "core": "ctrace", "disable_warnings": list(_QUIET)}
        lines = "".join(f"{key} = {json.dumps(value).replace('$', '$$')}\n" for key, value in options.items())
        Path(self._settings).write_text(f"[tool.coverage.run]\n{lines}")
        loader, popen = importlib.machinery.SourceFileLoader, subprocess.Popen
        loader.exec_module = self._importing(loader.exec_module)  # type: ignore[method-assign]
        popen.__init__ = self._starting(popen.__init__)  # type: ignore[method-assign]
        sys.addaudithook(self._look)

    @contextlib.contextmanager
    def measuring(self, wanted: bool) -> Iterator[None]:
        """Measure this block, if `wanted`."""
        if not wanted:
            yield
            return
        self._depth += 1
        if self._depth == 1:
            self._start()
        try:
            yield
        finally:
            self._depth -= 1
            if not self._depth:
                self._stop()

    def report(self) -> None:
        """Write down what was seen."""
        lines: dict[str, set[int]] = {}
        found = [self._coverage.get_data()]
        for path in self._results.glob(f"{self._name}.data.*"):
            found.append(coverage.CoverageData(str(path)))
            try:
                found[-1].read()
            except coverage.CoverageException:
                self._doubt = "a process ended before it had written down what it ran"
                found.pop()
        for data in found:
            for file in data.measured_files():
                lines.setdefault(_relative(file), set()).update(data.lines(file) or ())
        record = {
            "lines": {path: sorted(numbers) for path, numbers in lines.items()},
            "imported": sorted(self._imported),
            "doubt": self._doubt,
        }
        (self._results / f"{self._name}.json").write_text(json.dumps(record))

    def _start(self) -> None:
        if self._children <= _MOST_CHILDREN:
            os.environ[_CHILDREN] = self._settings
        with self._unsure_after_errors():
            self._coverage.start()

    def _stop(self) -> None:
        os.environ.pop(_CHILDREN, None)
        with self._unsure_after_errors():
            self._coverage.stop()

    @contextlib.contextmanager
    def _unsure_after_errors(self) -> Iterator[None]:
        """Turn an error of the measurement into a doubt, so that it does not fail the tests."""
        self._switching = True
        try:
            yield
        except Exception as error:  # noqa: BLE001 - whatever it is
            self._doubt = f"coverage failed: {error}"
        finally:
            self._switching = False

    def _importing(self, execute: Callable[..., None]) -> Callable[..., None]:
        """Execute a module; while it is one of src/, measure nothing."""

        @functools.wraps(execute)
        def exec_module(loader: Any, module: Any) -> None:
            file = str(getattr(loader, "path", ""))
            if not file.startswith(_SOURCE + os.sep):
                return execute(loader, module)
            self._imported.add(_relative(file))
            if not self._depth or threading.get_ident() != self._thread:
                return execute(loader, module)
            depth, self._depth = self._depth, 0
            self._stop()
            try:
                return execute(loader, module)
            finally:
                self._depth = depth
                self._start()

        return exec_module

    def _starting(self, start: Callable[..., None]) -> Callable[..., None]:
        """Start a process. Python in an environment that the test has made is measured as well."""

        @functools.wraps(start)
        def init(process: Any, args: Any, *positional: Any, **options: Any) -> None:
            if self._depth and not _children_are_measured():
                self._doubt = "its tests start processes, and this Python does not measure them"
            wanted = self._depth and self._children < _MOST_CHILDREN
            if wanted and options.get("env") is not None and _is_python(args):
                options["env"] = {**options["env"], _CHILDREN: self._settings}
            start(process, args, *positional, **options)

        return init

    def _look(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self._depth:
            return
        if event in _FORKS or (event in _KILLS and arguments[1] == signal.SIGKILL):
            self._doubt = "its tests fork, replace or kill a process"
        elif event in _STARTS:
            self._children += 1
            if self._children > _MOST_CHILDREN:
                os.environ.pop(_CHILDREN, None)
                self._doubt = f"its tests start more than {_MOST_CHILDREN} processes, and no more are measured"
        elif event == "sys.settrace" and not self._switching and threading.get_ident() == self._thread:
            self._doubt = "its tests trace what runs, and so hide it"


def _relative(file: str) -> str:
    return os.path.relpath(file, os.path.dirname(_SOURCE)).replace(os.sep, "/")  # noqa: PTH120


def _is_python(args: Any) -> bool:
    """Whether a command begins with a Python."""
    first = args if isinstance(args, str | bytes | os.PathLike) else next(iter(args), "")
    return os.path.basename(os.fsdecode(first)).startswith("python")  # noqa: PTH119


@functools.cache
def _children_are_measured() -> bool:
    """Whether a Python that starts reads a .pth file that begins to measure."""
    files = (path for folder in site.getsitepackages() for path in Path(folder).glob("*.pth"))
    return any(_CHILDREN in path.read_text(errors="replace") for path in files)


def _is_own(node: Any) -> bool:
    return node.nodeid.partition("::")[0] in TESTS


class Hooks:
    """What pytest calls."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_make_collect_report(self, collector: pytest.Collector) -> Iterator[Any]:
        """Modules and classes of the task's tests are read."""
        with self._recorder.measuring(_is_own(collector)):
            return (yield)

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> Iterator[Any]:
        """The fixtures of a test are made."""
        with self._recorder.measuring(_is_own(item)):
            return (yield)

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Iterator[Any]:
        """A test runs."""
        with self._recorder.measuring(_is_own(item)):
            return (yield)

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> Iterator[Any]:
        """The fixtures of a test are cleaned up."""
        with self._recorder.measuring(_is_own(item)):
            return (yield)

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_fixture_setup(self, fixturedef: Any) -> Iterator[Any]:
        """A fixture that tests share is made for whichever of them comes first: it counts for all."""
        file = fixturedef.baseid.partition("::")[0]
        shared = fixturedef.scope != "function" and (file in TESTS or not file.endswith(".py"))
        with self._recorder.measuring(shared):
            return (yield)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self) -> None:
        """All tests have run."""
        with contextlib.suppress(Exception):
            self._recorder.report()


def pytest_configure(config: pytest.Config) -> None:
    """Begin, where coverage can."""
    report = Path(config.option.xmlpath).resolve()
    with contextlib.suppress(Exception):
        recorder = Recorder(report.parent, report.stem)
        recorder.install()
        config.pluginmanager.register(Hooks(recorder))
