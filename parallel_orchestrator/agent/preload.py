"""For the forkserver's preload: pays for importing the SDK once, in the process that all workers are forked from.

Building a client imports what the SDK otherwise imports at the first one. It is thrown away unused: a
connection must not be shared by fork.
"""

from __future__ import annotations

import anthropic
import httpx2

# Without the environment's proxies: some cannot even be named without a further package.
anthropic.Anthropic(api_key="none", http_client=httpx2.Client(trust_env=False)).close()
