"""A task that owns source shows, by coverage, that its own tests run its code; honest work of any form is taken."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from parallel_orchestrator.sandbox.runner import BubblewrapRunner, detect
from parallel_orchestrator.trunk import Submission, TestsFailed, Trunk
from parallel_orchestrator.trunk.testing.proof import parse_record
from tests.trunk.bench import ADD, TEST_ADD, Bench, Claim, merged, plan, task, write

CALC = task(1, "src/calc.py", "tests/test_calc.py")
NOT_CALLED = "Your tests run no line inside the functions of src/calc.py: "
MAIN = ADD + "\n\nif __name__ == '__main__':\n    import sys\n    print(add(1, int(sys.argv[1])))\n"
RUN = "import os, subprocess, sys\n\n\ndef test_it():\n    "
SLEEPS = ADD + "\n\nif __name__ == '__main__':\n    import time\n    print(add(1, 2), flush=True)\n    time.sleep(60)\n"
AT_IMPORT = "def make():\n    return [1]\n\n\nMADE = make()\n"


def offered(bench: Bench, source: str, test: str, **more: str) -> Any:
    """The result of a task that owns calc.py and its test; `more`: other files of its, by names without suffix."""
    extra = {f"{path}.py": content for path, content in more.items()}
    owner = task(1, "src/calc.py", "tests/test_calc.py", *extra)
    return bench.offer(owner, {"src/calc.py": source, "tests/test_calc.py": test, **extra})


def ran(bench: Bench, source: str, test: str) -> dict[str, Any]:
    """What the evidence of a merge says about the files of a task."""
    coverage: dict[str, Any] = merged(offered(bench, source, test)).evidence.as_json()["own_coverage"]
    return coverage


@pytest.mark.parametrize(
    ("source", "test"),
    [
        (ADD, "import calc\n\n\ndef test_it():\n    assert True\n"),
        (ADD, "def test_it():\n    import calc\n    assert calc.add\n"),
        ("def one(): return 1\n", "def test_it():\n    import calc\n    assert calc.one\n"),
        (ADD, "def test_it():\n    assert 'def add' in open('src/calc.py').read()\n"),
        (ADD, "import ast\n\n\ndef test_it():\n    ast.parse(open('src/calc.py').read())\n"),
        (ADD, "def add(a, b):\n    return a + b\n\n\ndef test_it():\n    assert add(1, 2) == 3\n"),
        (AT_IMPORT, "import calc\n\n\ndef test_it():\n    assert calc.MADE\n"),
        (AT_IMPORT, "def test_it():\n    import calc\n    assert calc.MADE\n"),
        (ADD, f"import calc\n{RUN}subprocess.run([sys.executable, '-c', 'pass'], check=True)\n"),
        (ADD, f"import calc\n{RUN}subprocess.run(['true'], check=True)\n"),
        (ADD, f"{RUN}subprocess.run([sys.executable, '-c', 'import calc'], check=True, env={{'PYTHONPATH': 'src'}})\n"),
        (MAIN, "import calc\n\n\ndef test_it():\n    assert True\n"),
    ],
    ids=[
        *("import", "late import", "one line", "reads", "parses", "own stub", "at import", "at late import"),
        *("idle child", "another child", "child that imports", "main"),
    ],
)
def test_tests_that_run_none_of_its_code_are_sent_back(bench: Bench, source: str, test: str) -> None:
    head = bench.trunk.head()
    result = offered(bench, source, test)
    assert isinstance(result, TestsFailed), result
    (fact,) = result.facts
    assert fact.startswith(NOT_CALLED)
    assert "call what these files define" in fact
    assert result.head == head == bench.trunk.head()


def test_what_another_task_runs_is_no_proof(bench: Bench) -> None:
    merged(bench.offer(CALC, {"src/calc.py": ADD, "tests/test_calc.py": TEST_ADD}))
    second = task(2, "src/calc.py", "tests/test_second.py")
    idle = "import calc\n\n\ndef test_second():\n    assert True\n"
    result = bench.offer(second, {"src/calc.py": ADD + "# more\n", "tests/test_second.py": idle})
    assert isinstance(result, TestsFailed)
    assert result.facts[0].startswith(NOT_CALLED)


def test_what_it_says_lists_the_share_of_each_file(bench: Bench) -> None:
    other = '"""Text."""\n\n\ndef shout(text: str) -> str:\n    """Loud."""\n'
    other += '    if not text:\n        return ""\n    return text\n'
    evidence = merged(
        offered(bench, ADD + "\n\nX: int\n", TEST_ADD, **{"src/text": other, "src/pack/__init__": ""})
    ).evidence.as_json()
    assert evidence["own_coverage"] == {
        "files": {"src/calc.py": {"lines": 1, "run": 1}, "src/text.py": {"lines": 3, "run": 0}},
        "doubt": "",
    }
    assert merged(bench.offer(task(2, "docs/a.md"), {"docs/a.md": "a"})).evidence.as_json()["own_coverage"] is None


CHILD = f"{RUN}done = subprocess.run({{}}, capture_output=True, text=True, check=True, {{}})\n"
CHILD += "    assert (done.stdout, done.stderr) == ('3\\n', '')\n"
POOL = "from calc import add\nfrom {} import {}\n\n\ndef test_it():\n    with {}(2{}) as pool:\n        {}\n"


@pytest.mark.parametrize(
    "test",
    [
        TEST_ADD,
        "import unittest\nimport calc\n\n\nclass TestIt(unittest.TestCase):\n    def setUp(self):\n"
        "        self.made = calc.add(1, 2)\n\n    def test_it(self):\n        assert self.made == 3\n",
        "import pytest\nimport calc\n\n\n@pytest.fixture(scope='module')\ndef made():\n    return calc.add(1, 2)\n\n\n"
        "def test_it(made):\n    assert made == 3\n",
        "import calc\n\nMADE = calc.add(1, 2)\n\n\ndef test_it():\n    assert MADE == 3\n",
        "import pytest, calc\n\n\n@pytest.mark.parametrize('made', [calc.add(1, 2)])\ndef test_it(made):\n"
        "    assert made == 3\n",
        CHILD.format("[sys.executable, 'src/calc.py', '2']", ""),
        CHILD.format("[sys.executable, '-m', 'calc', '2']", "cwd='src'"),
        CHILD.format("[sys.executable, '-m', 'calc', '2']", "env={'PYTHONPATH': 'src'}"),
        CHILD.format("[sys.executable, '-I', 'src/calc.py', '2']", "env={}"),
        CHILD.format("'exec python src/calc.py 2'", "shell=True"),
        f"{RUN}assert os.system('python src/calc.py 2 > /dev/null') == 0\n",
        "import runpy, sys\n\n\ndef test_it(monkeypatch):\n    monkeypatch.setattr(sys, 'argv', ['calc', '2'])\n"
        "    runpy.run_path('src/calc.py', run_name='__main__')\n",
        "import asyncio, sys\n\n\nasync def run():\n    process = await asyncio.create_subprocess_exec(\n"
        "        sys.executable, 'src/calc.py', '2', stdout=-1)\n    return await process.communicate()\n\n\n"
        "def test_it():\n    assert asyncio.run(run())[0] == b'3\\n'\n",
        "import threading, calc\n\n\ndef test_it():\n    made = []\n"
        "    thread = threading.Thread(target=lambda: made.append(calc.add(1, 2)))\n"
        "    thread.start()\n    thread.join()\n    assert made == [3]\n",
        POOL.format(
            "concurrent.futures", *["ThreadPoolExecutor"] * 2, "", "assert pool.submit(add, 1, 2).result() == 3"
        ),
        POOL.format(
            "concurrent.futures", *["ProcessPoolExecutor"] * 2, "", "assert pool.submit(add, 1, 2).result() == 3"
        ),
        POOL.format("multiprocessing", *["Pool"] * 2, "", "assert pool.starmap(add, [(1, 2)]) == [3]"),
        "import multiprocessing\n"
        + POOL.format(
            *("concurrent.futures", "ProcessPoolExecutor", "ProcessPoolExecutor"),
            ", mp_context=multiprocessing.get_context('spawn')",
            "assert pool.submit(add, 1, 2).result() == 3",
        ),
        "import importlib\n\n\ndef test_it():\n    assert importlib.import_module('calc').add(1, 2) == 3\n",
        "import asyncio, calc\n\n\nasync def made():\n    return await asyncio.to_thread(calc.add, 1, 2)\n\n\n"
        "def test_it():\n    assert asyncio.run(made()) == 3\n",
        "import sys\n\n\ndef test_it():\n    sys.settrace(None)\n    from calc import add\n    assert add(1, 2) == 3\n",
    ],
    ids=[
        *("call", "set-up", "fixture", "at collection", "parameters", "child", "child of a module", "its environment"),
        *("isolated", "shell", "os.system", "runpy", "asyncio child", "thread", "thread pool", "process pool", "pool"),
        *("spawned", "late import", "event loop", "untraced"),
    ],
)
def test_honest_tests_of_any_form_are_taken(bench: Bench, test: str) -> None:
    coverage = ran(bench, MAIN, test)
    assert coverage["doubt"] or coverage["files"]["src/calc.py"]["run"]


SERVER = f"{RUN}process = subprocess.Popen([sys.executable, 'src/calc.py'], stdout=subprocess.PIPE)\n"
SERVER += "    assert process.stdout.readline() == b'3\\n'\n    process.{}()\n    assert process.wait() == {}\n"


@pytest.mark.parametrize(("how", "code"), [("terminate", -15), ("kill", -9)])
def test_a_server_that_its_test_ends_is_taken(bench: Bench, how: str, code: int) -> None:
    coverage = ran(bench, SLEEPS, SERVER.format(how, code))
    assert coverage["files"]["src/calc.py"]["run"] if how == "terminate" else "kill a process" in coverage["doubt"]


def test_only_the_first_processes_are_measured(bench: Bench) -> None:
    many = CHILD.replace(
        "    done =", "    for _ in range(10):\n        subprocess.run(['true'], check=True)\n    done ="
    )
    coverage = ran(bench, MAIN, many.format("[sys.executable, 'src/calc.py', '2']", "env={}"))
    assert coverage["files"]["src/calc.py"]["run"] == 0
    assert coverage["doubt"] == "its tests start more than 10 processes, and no more are measured"


def test_a_fixture_that_another_tests_need_first_counts_for_all(bench: Bench) -> None:
    conftest = "import pytest, calc\n\n\n@pytest.fixture(scope='session')\ndef made():\n    return calc.add(1, 2)\n"
    base = task(1, "src/base.py", "tests/test_a.py", "tests/conftest.py")
    lazy = conftest.replace(", calc", "").replace("    return", "    import calc\n    return")
    first = "from base import add\n\n\ndef test_a():\n    assert add(1, 2) == 3\n"
    merged(bench.offer(base, {"src/base.py": ADD, "tests/test_a.py": first, "tests/conftest.py": lazy}))
    uses = task(2, "src/calc.py", "tests/test_calc.py", "tests/test_a.py")
    files = {"src/calc.py": ADD, "tests/test_a.py": first.replace("test_a()", "test_a(made)")}
    merged(bench.offer(uses, {**files, "tests/test_calc.py": "def test_it(made):\n    assert made == 3\n"}))


IMPORTS = "import calc\n\n\ndef test_it():\n    assert calc\n"
PROTOCOL = "from typing import Protocol, overload\n\n\nclass Shape(Protocol):\n    def area(self) -> float:\n"
PROTOCOL += '        """In m²."""\n        ...\n\n    def name(self) -> str: ...\n'
ABSTRACT = "class Base:\n    def go(self):\n        '''Go.'''\n        raise NotImplementedError('go')\n\n"
ABSTRACT += "    def stay(self):\n        pass\n"


@pytest.mark.parametrize(
    "source",
    [
        "LIMIT = 3\n",
        "from dataclasses import dataclass\n\n\n@dataclass\nclass Point:\n    x: int = 0\n",
        "import enum\n\n\nclass Kind(enum.Enum):\n    A = 1\n",
        PROTOCOL,
        ABSTRACT,
        "double = lambda n: 2 * n\n",
        "",
        '"""Nothing yet."""\n',
    ],
    ids=["constants", "dataclass", "enumeration", "protocol", "abstract", "lambda", "empty", "docstring"],
)
def test_where_nothing_waits_to_be_run_importing_is_enough(bench: Bench, source: str) -> None:
    assert ran(bench, source, IMPORTS)["doubt"] == ""


def test_constants_have_to_be_imported(bench: Bench) -> None:
    result = offered(bench, "LIMIT = 3\n", "def test_it():\n    assert True\n")
    assert isinstance(result, TestsFailed)
    assert result.facts[0].startswith("No test imports src/calc.py. Add tests of yours")


def test_a_script_is_proved_by_running_it(bench: Bench) -> None:
    script = "import sys\n\nprint(1 + int(sys.argv[1]))\n"
    ran(bench, script, CHILD.format("[sys.executable, 'src/calc.py', '2']", ""))


def test_no_file_of_the_project_configures_what_is_measured(bench: Bench) -> None:
    omits = "[run]\nomit = *\n[report]\nexclude_lines = .\n"
    test = f"import pathlib\npathlib.Path('.coveragerc').write_text({omits!r})\n{TEST_ADD}"
    assert ran(bench, "# pragma: no cover\n" + ADD, test)["files"]["src/calc.py"] == {"lines": 1, "run": 1}


def test_a_project_may_have_a_module_named_coverage(bench: Bench) -> None:
    owner = task(1, "src/coverage.py", "tests/test_calc.py")
    test = TEST_ADD.replace("calc", "coverage")
    evidence = merged(bench.offer(owner, {"src/coverage.py": ADD, "tests/test_calc.py": test})).evidence.as_json()
    assert evidence["own_coverage"]["doubt"] == "the project has a module named coverage"


def test_tests_that_work_with_coverage_themselves_are_taken(bench: Bench) -> None:
    uses = (
        "import coverage\nfrom calc import add\n\n\ndef test_it():\n    measured = coverage.Coverage(data_file=None)\n"
    )
    uses += "    with measured.collect():\n        assert add(1, 2) == 3\n"
    ran(bench, ADD, uses)


@pytest.mark.parametrize(
    "record",
    [
        *(None, b"", b"[]", b"{", b"[" * 200_000, b'{"lines": {}}', b'{"lines": [], "imported": [], "doubt": ""}'),
        *(b'{"lines": {"a": 1}, "imported": [], "doubt": ""}', b'{"lines": {}, "imported": 1, "doubt": ""}', b"\xff"),
    ],
)
def test_what_is_no_record_leaves_a_doubt(record: bytes | None) -> None:
    assert parse_record(record).doubt == "it could not be measured"


def test_a_record_that_the_tests_forge_is_believed_as_far_as_it_goes(bench: Bench) -> None:
    """What runs in one process with pytest can claim anything; docs/security.md says so. It has to be meant, though."""
    forges = "import sys\n\n\ndef pytest_sessionfinish():\n"
    forges += "    record = next(m for n, m in sys.modules.items() if n.endswith('_lines'))\n"
    forges += "    record.Recorder.report = lambda self: None\n"
    result = offered(bench, ADD, IMPORTS, **{"tests/conftest": forges})
    assert merged(result).evidence.as_json()["own_coverage"]["doubt"] == "it could not be measured"


def test_in_a_sandbox_that_waits_processes_are_measured_too(bench: Bench) -> None:
    runner = detect("required")
    assert isinstance(runner, BubblewrapRunner)
    trunk = Trunk(bench.run, runner, 60, runner.prewarm)
    base, folder = bench.trunk.head(), bench.workspace(CALC)
    trunk.prepare()
    tests = CHILD.format("[sys.executable, '-m', 'calc', '2']", "env={'PYTHONPATH': 'src'}")
    write(folder, {"src/calc.py": MAIN, "tests/test_calc.py": tests})
    result = merged(trunk.submit(Submission(CALC, plan(CALC), 1, 1, base, folder, CALC.name), Claim()))
    assert result.evidence.as_json()["own_coverage"] == {"files": {"src/calc.py": {"lines": 3, "run": 3}}, "doubt": ""}


def test_warnings_as_errors_are_no_hindrance(bench: Bench, tmp_path: Path) -> None:
    strict = "import pytest\nfrom calc import add\n\npytestmark = pytest.mark.filterwarnings('error')\n\n\n"
    ran(bench, ADD, strict + "def test_it():\n    assert add(1, 2) == 3\n")
