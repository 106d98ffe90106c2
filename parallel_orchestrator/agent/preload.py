"""For the forkserver's preload: pays for importing the SDK once, in the process that all workers are forked from.

Building a client imports what the SDK otherwise imports at the first one. It is thrown away unused: a
connection must not be shared by fork.
"""

from __future__ import annotations

import gc

# The SDK makes thousands of classes that stay: looking for garbage among them takes a fifth of the time, and in each
# worker it would write to the memory that they share.
gc.disable()

import anthropic  # noqa: E402 - after the line above
import httpx2  # noqa: E402

# Without the environment's proxies: some cannot even be named without a further package.
anthropic.Anthropic(api_key="none", http_client=httpx2.Client(trust_env=False)).close()
gc.freeze()
gc.enable()
