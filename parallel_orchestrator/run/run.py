"""One run: what was asked for, what it is made of, and whom it speaks to. The steps of its life take it as argument."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from parallel_orchestrator.claude_code.binary import acting
from parallel_orchestrator.config.options import ResolvedRun, is_shipped, lacks_agreement
from parallel_orchestrator.gateway.config import RunConfig, StartConfig
from parallel_orchestrator.gateway.endpoints.prices import PriceTable, require_prices
from parallel_orchestrator.gateway.endpoints.recording import require_recording
from parallel_orchestrator.records.scenario import ExecutionEnv, Scenario
from parallel_orchestrator.report.live.view import View
from parallel_orchestrator.report.pages.summary_text import replay_note
from parallel_orchestrator.sandbox.runner import choose
from parallel_orchestrator.store.paths import RunDirectory
from parallel_orchestrator.store.run_directory import OwnedRun
from parallel_orchestrator.system.process import hide_memory

log = logging.getLogger("parallel_orchestrator.orchestrator")

Ask = Callable[[str], bool]
"""Asks the person a question and returns whether the answer is yes."""


@dataclass
class Run:
    """A run that can begin."""

    resolved: ResolvedRun
    view: View
    retry: Sequence[str] | None = None
    """Failed tasks to try again; empty: all of them; None: none."""
    name: str = ""
    """Of the scenario; empty for a run outside a batch."""
    ask: Ask | None = None
    """Asks the person a question; None where no person can answer."""
    owned: OwnedRun | None = None
    """Its directory, once this process owns it."""
    env: ExecutionEnv | None = None
    """Where its commands run, once it is checked."""
    env_notice: str = ""
    """A line on that for people."""
    found_finished: bool = False
    """Whether it had ended before this session, which did nothing."""

    @property
    def scenario(self) -> Scenario:
        """What it does."""
        return self.resolved.scenario

    @property
    def directory(self) -> RunDirectory:
        """Where it lies."""
        return RunDirectory(self.resolved.directory)

    @property
    def folder(self) -> str:
        """The name of its directory."""
        return self.resolved.directory.name

    def check(self) -> ExecutionEnv:
        """Find what is wrong before a directory is touched. Returns where commands will run. Raises UsageError."""
        ours, key_at_stake = self.check_files(), self.resolved.credential is not None
        claude_code = acting(self.scenario)
        self.env, notice = choose(self.scenario.sandbox, our_own_code=ours, key_at_stake=key_at_stake)
        self.env_notice = f"{notice}. {claude_code}" if claude_code else notice
        return self.env

    def check_files(self) -> bool:
        """Refuse prices and recordings that cannot be used. Returns whether a shipped recording is replayed."""
        hide_memory()  # credentials stay in this process's environment, which commands of the same user could read
        require_prices(self.scenario)
        recording = self.resolved.recording
        if recording is None or is_shipped(recording):
            return recording is not None
        require_recording(recording)
        return False

    def needs_agreement(self) -> bool:
        """Whether to ask the person before executors start, because nothing limits the cost."""
        return self.ask is not None and lacks_agreement(self.resolved)

    def billing_notice(self) -> str:
        """Which credential pays for which endpoint; a replay says that no model is asked."""
        scenario, credential = self.scenario, self.resolved.credential
        if self.resolved.recording:
            return replay_note(self.resolved.recording, scenario.speed, scenario.requirements)
        if credential is None:
            return f"no key is set, so {scenario.endpoint} is asked without one"
        return f"paid by {credential.describe()} at {scenario.endpoint}"

    def price(self, usage: Mapping[str, int]) -> float | None:
        """USD that such a usage costs at the executors' model; None when that is not known."""
        return PriceTable.of(self.scenario).cost(self.scenario.executor_model, dict(usage))

    def gateway_config(self) -> StartConfig:
        """How a gateway for this run starts."""
        return StartConfig.of(self.scenario, self.resolved.credential)

    def run_config(self, owned: OwnedRun) -> RunConfig:
        """What the gateway needs to know of this run."""
        return RunConfig.of(owned.scenario, owned.run.ledger, self.resolved.recording)

    def say(self, text: str) -> None:
        """Print the text for the person, and log it."""
        self.note(text)
        self.view.say(text)

    def note(self, text: str) -> None:
        """Log the text."""
        log.info("%s%s", f"{self.name}: " if self.name else "", text)
