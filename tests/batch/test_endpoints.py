"""A batch that finds itself at another endpoint: what was bought at the first is not silently bought again."""

from __future__ import annotations

from pathlib import Path

from tests.batch import scenarios
from tests.end_to_end import harness

WANTED = {"a": "Project a: 1 layers of 1", "b": "Project b: 1 layers of 1"}


def test_a_batch_is_not_bought_again_elsewhere(tmp_path: Path) -> None:
    config, folder = scenarios.write_batch(tmp_path / "batch.yaml", WANTED), tmp_path / "out"
    batch = ("batch", str(config), "--output-dir", str(folder))
    with scenarios.api() as first, scenarios.api() as second:
        harness.run(*batch, api=first)
        before = harness.fingerprint(folder)
        for again in (batch, (*batch, "--plan-only")):
            told = harness.run(*again, api=second, code=2)
            assert f"was begun at {first.url}, and now {second.url} is asked" in told
            assert harness.fingerprint(folder) == before
        harness.run("resume", str(folder), api=second)  # another endpoint may be asked, and nothing is left to ask
        assert second.requests == []
        # An edited scenario runs anew wherever that is.
        scenarios.write_batch(config, {"b": "Project b2: 1 layers of 1"})
        harness.run(*batch, api=second)
        assert {request.task.partition("/")[0] for request in second.requests} == {"b2"}
