"""Going on with a batch: what is said of the folders that scenarios have, and which tasks have failed."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import pytest

from tests.batch import scenarios
from tests.end_to_end import harness, scripted
from tests.fake_api import Answer, Block, Body, text


@pytest.mark.thorough
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


def test_what_failed_before_a_kill_is_found_though_no_summary_is_left(tmp_path: Path) -> None:
    again = tmp_path / "again"

    def build(body: Body) -> Answer | list[Block]:
        first = scripted.task_of(body) == "task_1"
        if first and not again.exists():
            return [text("Done, all tests pass.")]
        slow = not first and not again.exists()
        return Answer(scripted.build_part(body), latency_s=60 if slow else None)

    config, folder = scenarios.write_batch(tmp_path / "batch.yaml", {"a": "Project a: 1 layers of 2"}), tmp_path / "out"
    with scenarios.api(build) as api:
        with harness.started("batch", str(config), "--output-dir", str(folder), url=api.url) as process:
            harness.wait_until((folder / "a" / "queue.jsonl").exists)
            harness.wait_until(lambda: "failed" in [move["state"] for move in harness.moves(folder / "a")])
            process.send_signal(signal.SIGKILL)
        harness.wait_until(lambda: harness.family(folder) == set())
        assert not (folder / "a" / "execution_summary.json").exists()
        again.touch()
        harness.run("retry", str(folder), "--failed", api=api)
    assert {move["attempt"] for move in harness.moves(folder / "a") if move["task"] == "task_1"} == {1, 2}
    assert harness.summary(folder / "a")["status"] == "done"
