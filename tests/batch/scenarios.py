"""Batches for tests: YAML files of layered projects, and the scripted model that builds any of them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tests.end_to_end import scripted
from tests.fake_api import Answer, Block, Body, FakeApi, text

Build = Callable[[Body], Answer | list[Block]]


def write_batch(path: Path, scenarios: Mapping[str, str], **defaults: Any) -> Path:
    """A file of scenarios: name to requirement. A requirement says "L layers of W" for `model`."""
    lines = ["defaults: " + json.dumps(defaults), "scenarios:"]
    lines += [
        f"  - {{name: {name}, requirements: {json.dumps(requirement)}}}" for name, requirement in scenarios.items()
    ]
    path.write_text("\n".join(lines) + "\n")
    return path


def model(body: Body, build: Build = scripted.build_part) -> Answer | list[Block]:
    """Plans as many layers of as many tasks as the requirement says, and builds their parts."""
    if scripted.task_of(body) != "plan":
        return build(body)
    found = re.search(r"(\d+) layers of (\d+)", json.dumps(body["messages"]))
    assert found
    return [text(json.dumps(scripted.layered(int(found[1]), int(found[2]))))]


def of_scenario(body: Body) -> str:
    """What a request is about, told apart by requirement: for `FakeApi(task_of=…)`."""
    found = re.search(r"Project (\w+)", json.dumps(body))
    return f"{found[1] if found else '?'}/{scripted.task_of(body)}"


def api(build: Build = scripted.build_part, latency_s: float = 0.05, **options: Any) -> FakeApi:
    """A fake server whose model builds batches."""
    return FakeApi(lambda body: model(body, build), latency_s=latency_s, task_of=of_scenario, **options)
