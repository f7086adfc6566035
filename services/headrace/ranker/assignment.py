"""Where a call is answered: by the person's arm, which nobody has to remember.

The arm follows the key that was seen first. A request that names a visitor goes by the visitor, so somebody who logs
in stays in the arm of the device that they came with; one that names a user alone goes by the user. A person with
several devices may so meet both arms, at most 2 · share · (1 - share) of them with two; the analysis counts each in the
arm of their first impression. Going by the user instead would move that many of *all* who log in, and asking the
feature store whose device it is would move them just the same at their first log-in, and cost every call a hop.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from headrace.model.arms import CANARY, STABLE, arm_of
from headrace.ranker.exposure import CANARY_OUTSIDE, OUTSIDE, Exposure
from headrace.ranker.marks import FORCE_ARM, Marks
from headrace.ranker.plan import HeldPlan
from headrace.runtime.errors import FailedPreconditionError, InvalidRequestError


@dataclass(frozen=True, slots=True)
class Placement:
    """Who is to answer a call, and as what this ranker's own answer to it counts."""

    exposure: Exposure
    is_for_canary: bool = False
    # the ranker that sends a call on counts it; an arm that the caller chose says nothing about the people in it
    is_counted: bool = True


_HERE = Placement(OUTSIDE)
_CANARY_HERE = Placement(CANARY_OUTSIDE)


def key_of(visitor_id: str, user_id: str) -> str:
    """By what a person is assigned; empty: nobody.

    >>> key_of("phone", "eve"), key_of("", "eve"), key_of("", "")
    ('v:phone', 'u:eve', '')
    """
    if visitor_id:
        return f"v:{visitor_id}"
    return f"u:{user_id}" if user_id else ""


class Assigner:
    """Places calls by the plan as it is now. `may_force`: whether a caller may choose its arm."""

    def __init__(self, held: HeldPlan, track: str, may_force: Callable[[Marks], bool]) -> None:
        self._held = held
        self._track = track
        self._may_force = may_force

    def placed(self, visitor_id: str, user_id: str, marks: Marks) -> Placement:
        """Where a call of this person goes. A call from another ranker is answered here or refused, never sent on."""
        if marks.forwarded_to:
            return self._forwarded(marks)
        if self._track == CANARY:
            return _CANARY_HERE
        if marks.forced_arm:
            return self._forced(marks)
        assignment = self._held.assignment()
        key = key_of(visitor_id, user_id)
        if assignment is None or not key:
            return _HERE
        arm = arm_of(assignment.salt, assignment.share_bp, key)
        return Placement(Exposure(assignment.rollout, arm), is_for_canary=arm == CANARY)

    def _forwarded(self, marks: Marks) -> Placement:
        if marks.forwarded_to != self._track:
            raise FailedPreconditionError(f"a call for track {marks.forwarded_to!r} has come to track {self._track!r}")
        return Placement(Exposure(marks.rollout, marks.arm, self._track, is_forwarded=True), is_counted=False)

    def _forced(self, marks: Marks) -> Placement:
        if not self._may_force(marks):
            raise InvalidRequestError.of(FORCE_ARM, "this caller may not choose its arm")
        if marks.forced_arm not in (STABLE, CANARY):
            raise InvalidRequestError.of(FORCE_ARM, f"must be {STABLE} or {CANARY}, got {marks.forced_arm!r}")
        return Placement(OUTSIDE, is_for_canary=marks.forced_arm == CANARY, is_counted=False)
