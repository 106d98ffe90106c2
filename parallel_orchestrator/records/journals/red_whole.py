"""Why a whole is red, and how a verify command of its plan was corrected: facts that the queue keeps."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from msgspec import Struct, structs

LONGEST_OUTPUT = 4_000
"""Characters of a command's output, and of a failing test's message, that a fix task is given: the last ones."""
MOST_FACTS = 25


class FailedCommand(Struct, frozen=True):
    """A verify command that failed on the whole."""

    command: str
    code: int
    output: str = ""
    timed_out: bool = False
    correctable: bool = False
    """It is the plan's, and no change of the project could make it pass: the command itself is wrong."""


class RedWhole(Struct, frozen=True):
    """Why the whole is red."""

    commit: str = ""
    """The trunk's commit that was tested."""
    tests: list[str] = []
    """What the tests said, a text for each fact."""
    verify: list[FailedCommand] = []

    @classmethod
    def of(cls, commit: str, tests: Sequence[str], verify: Iterable[FailedCommand]) -> RedWhole:
        """The facts, cut to what a conversation can hold."""
        facts = [_tail(fact) for fact in tests[:MOST_FACTS]]
        more = [f"{len(tests) - MOST_FACTS} more facts"] if len(tests) > MOST_FACTS else []
        cut = [structs.replace(command, output=_tail(command.output)) for command in verify]
        return cls(commit=commit, tests=facts + more, verify=cut)

    def reasons(self, *, output: bool = False) -> list[str]:
        """One sentence for each fact. `output`: with what was printed."""
        lines = [fact.strip() for fact in self.tests]
        lines = lines if output else [line.partition("\n")[0].rstrip(":") for line in lines]
        for failed in self.verify:
            printed = f": {failed.output.strip()}" if output else ""
            lines.append(f"`{failed.command}` {how_it_failed(failed.code, failed.timed_out)}{printed}")
        return lines


def how_it_failed(code: int, timed_out: bool = False) -> str:
    """How a command ended, as a predicate."""
    return "did not end in time" if timed_out else f"ended with exit code {code}"


def _tail(text: str) -> str:
    return text if len(text) <= LONGEST_OUTPUT else f"…{text[-LONGEST_OUTPUT:]}"


class Correction(Struct, frozen=True):
    """A verify command of the plan that cannot work, and what a fix task put in its place."""

    command: str
    replacement: str
    reason: str
    fix: str
    """The fix task's id."""

    def as_json(self) -> dict[str, str]:
        """For evidence and summary."""
        return structs.asdict(self)


def corrected(commands: Sequence[str], corrections: Iterable[Correction]) -> list[str]:
    """The plan's commands with each correction made."""
    made = list(commands)
    for one in corrections:
        made = [one.replacement if command == one.command else command for command in made]
    return made
