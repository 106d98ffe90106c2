"""One name stands for one thing: each class of the program has a name of its own."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
STILL_SHARED: frozenset[str] = frozenset({"Job"})
"""Names that several classes have: `Job` is the worker's class, and the part of it that executor_agent.py uses."""


def test_no_two_classes_share_a_name() -> None:
    files = defaultdict(list)
    for path in [*(ROOT / "parallel_orchestrator").rglob("*.py"), *ROOT.glob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                files[node.name].append(str(path.relative_to(ROOT)))
    shared = {name: sorted(paths) for name, paths in files.items() if len(paths) > 1}
    assert {name: paths for name, paths in shared.items() if name not in STILL_SHARED} == {}
    assert sorted(STILL_SHARED - shared.keys()) == [], "unique by now: take them out of the list"
