"""`python -m parallel_orchestrator.gateway`: started by `GatewayProcess`, not by people."""

from __future__ import annotations

from parallel_orchestrator.gateway.control import main

main()
