"""What became of one event or product that was brought to the door."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple

from headrace.ingest.limits import Violation


class Outcome(StrEnum):
    """The three things that can happen; `value` is the word in metrics."""

    ACCEPTED = "accepted"
    DUPLICATE = "duplicate"
    REJECTED = "rejected"


# a tuple is made in a third of the time of a frozen dataclass, and there is one an event
class Result(NamedTuple):
    """The event's or product's id, what became of it, and where it is in the log (0 when rejected)."""

    id: str
    outcome: Outcome
    offset: int = 0
    violations: Sequence[Violation] = ()
    # the rule that marked it, when it was taken nevertheless
    mark: str = ""
    # why its attribution token counts for nothing; empty: it counts, or there is none
    token_fault: str = ""

    @property
    def reason(self) -> str:
        """The rule that refused it: the first one broken; empty when it was taken."""
        return self.violations[0].reason if self.violations else ""
