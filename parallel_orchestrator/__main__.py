"""`python -m parallel_orchestrator`: the same as the command `parallel-orchestrator`."""

from __future__ import annotations

from parallel_orchestrator.system.invocation import require_packages

if __name__ == "__main__":
    require_packages()

    from orchestrator import main

    main()
