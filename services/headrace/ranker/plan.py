"""The serving plan as it came: what each track serves, who is sent to the canary, and for how long that holds.

A ranker acts on the newest plan that it has seen and on no older one. Nobody confirming it any more costs the canary
its share, for a rollout must not go on with nobody in charge of it; the stable release goes on.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from headrace.model.arms import CANARY


@dataclass(frozen=True, slots=True)
class ReleaseManifest:
    """What a release consists of. `checksums` maps part names to SHA-256."""

    release: str
    space: str
    delta_sequence: int
    feature_schema: str
    dimension: int
    checksums: tuple[tuple[str, str], ...]
    # of the manifest itself, and the learner's signature over all of this; empty: not signed
    checksum: str = ""
    signature: str = ""


@dataclass(frozen=True, slots=True)
class Assignment:
    """Of 10,000 people, `share_bp` are in the canary arm of `rollout`; `salt` says which."""

    rollout: str
    salt: str
    share_bp: int


@dataclass(frozen=True, slots=True)
class ServingPlan:
    """What the tracks serve; `stable` is None before the first release, the others outside a rollout."""

    sequence: int
    stable: ReleaseManifest | None
    canary: ReleaseManifest | None = None
    assignment: Assignment | None = None
    shadow: ReleaseManifest | None = None
    valid_for_s: float = 0.0

    def of(self, track: str) -> ReleaseManifest | None:
        """What a track is to serve."""
        return self.canary if track == CANARY else self.stable

    @property
    def rollout(self) -> str:
        return self.assignment.rollout if self.assignment else ""


class HeldPlan:
    """The newest plan, None before the first, and when it was confirmed last.

    >>> held = HeldPlan()
    >>> held.take(ServingPlan(2, None)), held.take(ServingPlan(1, None)), held.newest.sequence
    (True, False, 2)
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.newest: ServingPlan | None = None
        self._clock = clock
        self._valid_until = 0.0
        self._earlier_canary = ""
        self._earlier_until = 0.0

    def take(self, plan: ServingPlan) -> bool:
        """Notes a plan; whether it is newer than all before. The newest one again confirms it, an older one nothing."""
        last = self.newest
        if last is not None and plan.sequence < last.sequence:
            return False
        self._valid_until = self._clock() + plan.valid_for_s
        if last is not None and plan.sequence == last.sequence:
            return False
        self._note_increment(last, plan)
        self.newest = plan
        return True

    @property
    def is_stale(self) -> bool:
        """Whether there is no plan, or none that was confirmed within its time."""
        return self._clock() >= self._valid_until

    def assignment(self) -> Assignment | None:
        """Who is sent to the canary now; None: nobody."""
        plan = self.newest
        # the common case costs no look at the clock
        if plan is None or plan.assignment is None or plan.canary is None or not plan.assignment.share_bp:
            return None
        return None if self.is_stale else plan.assignment

    def is_canary(self, release: str, plan_sequence: int) -> bool:
        """Whether the canary, which acts on the plan of this number, may answer with this release.

        It may be ahead of this ranker; or behind, while it loads the next increment of the rollout.
        """
        plan = self.newest
        if plan is None or not release:
            return False
        if plan_sequence > plan.sequence or (plan.canary is not None and release == plan.canary.release):
            return True
        return release == self._earlier_canary and self._clock() < self._earlier_until

    def _note_increment(self, last: ServingPlan | None, plan: ServingPlan) -> None:
        if last is None or last.canary is None or last.rollout != plan.rollout:
            self._earlier_canary = ""
        elif plan.canary is not None and plan.canary.release != last.canary.release:
            self._earlier_canary = last.canary.release
            self._earlier_until = self._clock() + plan.valid_for_s
