"""Why an answer of the canary arm was made by stable."""

from __future__ import annotations

from enum import StrEnum


class Reason(StrEnum):
    """As metrics and reports name it."""

    ABSENT = "no canary"
    BREAKER = "breaker"
    NO_TIME = "no time"
    # the search was begun by stable, and goes on there
    PAGE = "page"
    OVERLOADED = "overloaded"
    TIMEOUT = "timeout"
    UNAVAILABLE = "unavailable"
    ERROR = "error"
    INVALID = "invalid"
    NOT_FINITE = "not finite"
    EMPTY = "empty"
    RELEASE = "release"

    @property
    def is_fault(self) -> bool:
        """Whether it speaks against asking the canary again at once. Refusing work in time does not."""
        return self not in (Reason.ABSENT, Reason.BREAKER, Reason.NO_TIME, Reason.PAGE, Reason.OVERLOADED)


class FallbackError(Exception):
    """The canary gave no answer that may be shown; it never leaves the ranker."""

    def __init__(self, reason: Reason, details: str = "") -> None:
        super().__init__(f"{reason}: {details}" if details else reason)
        self.reason = reason
