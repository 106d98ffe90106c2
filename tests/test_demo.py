"""The demonstration's comparison of a live run: its sequential side is computed, and said to be."""

from __future__ import annotations

from pathlib import Path

import demo


def test_the_sequential_side_of_a_live_run_is_computed_from_its_own_tasks() -> None:
    shown = demo.computed(demo.Measured({"makespan_s": 10.0, "work_s": 25.0}, 12.0, Path("/x"))).splitlines()
    assert shown[0].endswith("25.0 s, computed from this run's own tasks, not run")
    assert shown[1].endswith("10.0 s, measured")
    assert (shown[0].count("█"), shown[1].count("█")) == (demo.BAR, demo.BAR * 10 // 25)
    assert shown[2].split() == ["speedup", "2.50"]
    assert "nothing to compare" in demo.computed(demo.Measured({"makespan_s": 0.0, "work_s": 0.0}, 1.0, Path("/x")))
