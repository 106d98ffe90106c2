"""Shows the figures of all campaigns at the end, whatever came of them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.reliability.accounts import Account

Sound = Callable[[Account], None]

_accounts: list[Account] = []


@pytest.fixture
def sound() -> Sound:
    """Takes note of a campaign, and fails when a run in it was not as it must be."""

    def check(account: Account) -> None:
        _accounts.append(account)
        assert not account.faults, f"{account}\n" + "\n".join(account.faults)
        if account.left:
            pytest.skip(f"{account.left} runs are left to the next piece of this campaign")

    return check


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """One paragraph for each campaign."""
    if _accounts:
        terminalreporter.section("killed and resumed")
        for account in _accounts:
            terminalreporter.write_line(str(account))
