"""For the forkserver's preload: pays for importing the SDK once, in the process that all workers are forked from.

Building a client imports what the SDK otherwise imports at the first one. It is thrown away unused: a
connection must not be shared by fork.
"""

from __future__ import annotations

import anthropic

anthropic.Anthropic(api_key="none").close()
