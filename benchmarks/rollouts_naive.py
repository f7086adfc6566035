"""The tests that are commonly run on a canary, hour by hour: what they would have said."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.rollouts_gate_two import World
from benchmarks.rollouts_shop import SHOWN, Floats, Ints

# 5 %, two-sided
_ALPHA, _Z = 0.05, 1.96
# mSPRT: the mixture's standard deviation, as a share of the click rate
_EFFECT = 0.1
# looks begin when both arms have so many
_LEAST_PEOPLE = 100

Z_IMPRESSIONS, MSPRT_IMPRESSIONS, Z_PEOPLE = "z on impressions", "mSPRT on impressions", "z on people"


def false_alarms(world: World, share_bp: int, hours: int) -> dict[str, bool]:
    """Whether each test ever finds a difference between two arms that the same release answers."""
    since = world.visits.hour >= 0.0
    person, clicks = world.visits.person[since], world.stable.clicks[since].astype(np.float64)
    hour = np.ceil(world.visits.hour[since]).astype(np.int64)
    is_canary = world.place[person] < share_bp
    stable, canary = (_Hourly.of(person[rows], hour[rows], clicks[rows], hours) for rows in (~is_canary, is_canary))
    looked = (stable.people >= _LEAST_PEOPLE) & (canary.people >= _LEAST_PEOPLE)
    stable, canary = stable.take(looked), canary.take(looked)
    rate = (stable.clicks + canary.clicks) / (stable.shown + canary.shown)
    spread = np.sqrt(rate * (1.0 - rate) * (1.0 / stable.shown + 1.0 / canary.shown))
    z = np.abs(canary.clicks / canary.shown - stable.clicks / stable.shown) / spread
    return {
        Z_IMPRESSIONS: bool((z > _Z).any()),
        MSPRT_IMPRESSIONS: bool((z > msprt_bound(spread, _EFFECT * rate)).any()),
        Z_PEOPLE: bool((np.abs(_welch(stable, canary)) > _Z).any()),
    }


def msprt_bound(standard_error: Floats, mixture: Floats) -> Floats:
    """How many standard errors the mixture sequential probability ratio test asks for (Johari, Koomen, Pekelis and
    Walsh, "Peeking at A/B tests", KDD 2017), of draws that it takes to be independent.
    """
    ratio = (mixture / standard_error) ** 2
    return np.sqrt((1.0 + 1.0 / ratio) * (np.log1p(ratio) - 2.0 * math.log(_ALPHA)))


@dataclass(frozen=True)
class _Hourly:
    # cumulative, by hour; squares are of a person's clicks so far
    people: Floats
    shown: Floats
    clicks: Floats
    squares: Floats

    def take(self, looks: NDArray[np.bool_]) -> _Hourly:
        return _Hourly(self.people[looks], self.shown[looks], self.clicks[looks], self.squares[looks])

    @classmethod
    def of(cls, person: Ints, hour: Ints, clicks: Floats, hours: int) -> _Hourly:
        order = np.lexsort((np.arange(len(person)), person))
        person, hour, clicks = person[order], hour[order], clicks[order]
        is_first = np.r_[True, person[1:] != person[:-1]][: len(person)]
        starts = np.flatnonzero(is_first)
        total = np.cumsum(clicks)
        so_far = total - np.repeat(total[starts] - clicks[starts], np.diff(np.r_[starts, len(clicks)]))
        changes = is_first, np.full(len(clicks), float(SHOWN)), clicks, so_far**2 - (so_far - clicks) ** 2
        found = [np.cumsum(np.bincount(hour, change, minlength=hours + 1))[1 : hours + 1] for change in changes]
        return cls(*(column.astype(np.float64) for column in found))


def _welch(stable: _Hourly, canary: _Hourly) -> Floats:
    means = [arm.clicks / arm.people for arm in (stable, canary)]
    variance = sum(
        (arm.squares / arm.people - mean**2) / arm.people for arm, mean in zip((stable, canary), means, strict=True)
    )
    return np.asarray((means[1] - means[0]) / np.sqrt(variance))
