"""Going on with a batch: what is said of the folders that scenarios have."""

from __future__ import annotations

import re
from pathlib import Path

from tests.batch import scenarios
from tests.end_to_end import harness


def test_an_edited_scenario_that_is_gone_on_with_does_not_run_anew(tmp_path: Path) -> None:
    config, folder = scenarios.write_batch(tmp_path / "batch.yaml", {"b": "Project b: 1 layers of 1"}), tmp_path / "out"
    command = ("batch", str(config), "--output-dir", str(folder))
    with scenarios.api() as api:
        harness.run(*command, api=api)
        scenarios.write_batch(config, {"b": "Project b2: 1 layers of 1"})
        told = harness.run(*command, "--max-cost", "0.000001", api=api, code=4)
        found = re.search(r"b differs from what was run before: it runs anew, in (b-[0-9a-f]{6})\n", told)
        assert found
        told = harness.run(*command, api=api)
        assert f"b differs from what was run before: it goes on in {found[1]}\n" in told
        assert "anew" not in told
