"""`python -m parallel_orchestrator.gateway`: `GatewayProcess` starts it, not people."""

from __future__ import annotations

from parallel_orchestrator.gateway.control import main

main()
