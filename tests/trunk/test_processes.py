"""Many processes at one trunk: all land, one after the other, and nothing gets lost."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from parallel_orchestrator.records.plan import Task
from tests.trunk.bench import Bench, task, write

ROOT = Path(__file__).parents[2]
SUBMITTER = """
import sys
from pathlib import Path
from tests.trunk.bench import Bench, Claim, merged
from tests.trunk.test_processes import part
bench = Bench(Path(sys.argv[1]))
claim = Claim()
evidence = merged(bench.submit(part(int(sys.argv[2])), sys.argv[3], claim=claim)).evidence
assert claim.merged_with == [evidence]
"""
MANY = 5


def part(number: int) -> Task:
    """Task `number`: one module and its test."""
    return task(number, f"src/part_{number}.py", f"tests/test_part_{number}.py")


def test_processes_that_submit_at_once_each_land(bench: Bench) -> None:
    base = bench.trunk.head()
    for number in range(1, MANY + 1):
        test = f"from part_{number} import VALUE\n\n\ndef test_value():\n    assert VALUE == {number}\n"
        files = {f"src/part_{number}.py": f"VALUE = {number}\n", f"tests/test_part_{number}.py": test}
        write(bench.workspace(part(number)), files)
    processes = [
        subprocess.Popen([sys.executable, "-c", SUBMITTER, str(bench.run.root), str(number), base], cwd=ROOT)
        for number in range(1, MANY + 1)
    ]
    assert [process.wait(timeout=120) for process in processes] == [0] * MANY
    assert sorted(bench.subjects()) == ["Begin", *(f"task_{n}: Part {n}" for n in range(1, MANY + 1))]
    assert bench.git("rev-list", "--merges", "main") == ""
    assert bench.git("rev-list", "--count", "main") == str(MANY + 1)
    passed = bench.git("log", "--reverse", "--format=%(trailers:key=Tests-Passed,valueonly)", "main").split()
    assert passed == [str(n) for n in range(1, MANY + 1)]
    assert bench.git("status", "--porcelain") == ""
    assert len(list((bench.run.root / "src").glob("part_*.py"))) == MANY
