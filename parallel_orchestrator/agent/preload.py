"""For the forkserver's preload: pays for importing the SDK once, in the process that all workers are forked from.

The SDK does much at the first client and the first call alone. So one is made, of a gateway that is not there: a
connection must not be shared by fork.
"""

from __future__ import annotations

import contextlib
import gc
from pathlib import Path

from parallel_orchestrator.agent.model_client import ModelClient
from parallel_orchestrator.records.errors import EndpointUnavailable

# The SDK makes thousands of classes that stay: looking for garbage among them takes a fifth of the time, and in each
# worker it would write to the memory that they share.
gc.disable()
_nobody_there = contextlib.suppress(EndpointUnavailable)
with contextlib.closing(ModelClient(Path("/nobody/listens"), "none", patience_s=0)) as _client, _nobody_there:
    _client.ask({"model": "none", "max_tokens": 1, "messages": []}, turn=1, phase="work", phase_turn=1)
gc.freeze()
gc.enable()
