"""The guards that `make attacks` removes stand where their list says: else a removal would remove nothing."""

from __future__ import annotations

from tests.checks.guards import listed


def test_every_listed_guard_can_be_removed() -> None:
    assert [fault for guard in listed() if (fault := guard.fault())] == []
