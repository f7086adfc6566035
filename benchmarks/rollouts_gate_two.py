"""Rollouts by gate 2 in the shop, run by run: real arms, real verdicts, a look every hour."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.rollouts_shop import Floats, Ints, Outcomes, Shop, Visits, respond
from headrace.model.arms import place_of
from headrace.trainer.analysis.evidence import LATENCY_BOUNDS_MS, ArmCounts, CanaryEvidence, MetricEvidence, Moments
from headrace.trainer.analysis.policy import CanaryPolicy, Metric
from headrace.trainer.analysis.variance_reduction import person_covariates, visit_covariates

# people are known for so long before a rollout
DAYS_BEFORE = 14

_UPPER = np.triu_indices(4)


@dataclass(frozen=True)
class World:
    """One run: what happened before, who stands where in the rollout's hash, and the visits to come.

    `counted_before`: by visit before the rollout, the outcomes of the policy's metrics.
    """

    visits: Visits
    stable: Outcomes
    place: Ints
    people: int

    @classmethod
    def of(cls, seed: int, days: int, active: int, error: float) -> World:
        rng = np.random.default_rng(seed)
        shop = Shop(rng, active)
        visits = shop.visits(rng, -DAYS_BEFORE, DAYS_BEFORE + days)
        people = len(shop.visits_a_day)
        salt = f"ro-{seed:06d}"
        place = np.array([place_of(salt, f"u:{number}") for number in range(people)])
        return cls(visits, respond(rng, visits, error), place, people)

    def canary(self, seed: int, error: float, most_share_bp: int) -> Outcomes:
        """What comes of the visits of those who may get into the canary arm, had the canary answered; others' stand."""
        rows = np.flatnonzero((self.place[self.visits.person] < most_share_bp) & (self.visits.hour >= 0.0))
        found = respond(np.random.default_rng([seed, 1]), self.visits.take(rows), error)
        return Outcomes(*(_replaced(getattr(self.stable, name), rows, getattr(found, name)) for name in _NAMES))


_NAMES = ("clicks", "carts", "purchases")


class Step:
    """A step of a rollout from an hour on: the sums of both arms at every hour that follows."""

    def __init__(
        self,
        world: World,
        canary: Outcomes,
        begin_hour: int,
        steps_bp: tuple[int, ...],
        step: int,
        policy: CanaryPolicy,
    ) -> None:
        self._steps_bp, self._step, self._begin = steps_bp, step, begin_hour
        visits = world.visits
        is_canary = world.place < steps_bp[step]
        earlier = visits.hour < begin_hour
        since = ~earlier
        self._is_canary, self._person, self._hour = is_canary, visits.person[since], visits.hour[since]
        # a visit counts at the first look at which it is over
        over = np.ceil(self._hour + (policy.visit_s + max(metric.window_s for metric in policy.metrics)) / 3600.0)
        hours = int(np.ceil(visits.hour[-1])) + 2 - begin_hour
        look = (over.astype(np.int64) - begin_hour).clip(max=hours - 1)
        chosen = is_canary[visits.person]
        self.metrics: list[tuple[Metric, list[HourlySums]]] = []
        before = np.bincount(visits.person[earlier], minlength=world.people).astype(np.float64)
        for metric in policy.metrics:
            outcome = np.minimum(_merged(metric, world.stable, canary, chosen), metric.cap)
            past = np.bincount(visits.person[earlier], outcome[earlier], minlength=world.people).astype(np.float64)
            known = person_covariates(before) if metric.per == "person" else visit_covariates(past, before)
            arms = [
                HourlySums(metric, self._person[rows], look[rows], outcome[since][rows], known, hours)
                for rows in (~chosen[since], chosen[since])
            ]
            self.metrics.append((metric, arms))
        self._seen = [self._people(arm, hours) for arm in (False, True)]
        self._answers = [np.cumsum(np.bincount(look[chosen[since] == arm], minlength=hours)) for arm in (False, True)]

    def evidence(self, hours: int, alpha: float) -> CanaryEvidence:
        """What is known so many hours after the step began."""
        stable, canary = (
            _counts(int(seen[hours]), int(answers[hours]))
            for seen, answers in zip(self._seen, self._answers, strict=True)
        )
        found = tuple(MetricEvidence(metric.name, *(arm.at(hours) for arm in arms)) for metric, arms in self.metrics)
        return CanaryEvidence("ro-bench", self._step, self._steps_bp, float(hours), alpha, found, stable, canary)

    def _people(self, is_canary: bool, hours: int) -> Ints:
        rows = self._is_canary[self._person] == is_canary
        _, first = np.unique(self._person[rows], return_index=True)
        look = np.ceil(self._hour[rows][first]).astype(np.int64) - self._begin
        return np.asarray(np.cumsum(np.bincount(look, minlength=hours)))


class HourlySums:
    """The moments of one arm and metric at every hour: the same as `moments` of all people then, at once."""

    def __init__(self, metric: Metric, person: Ints, look: Ints, outcome: Floats, known: Floats, hours: int) -> None:
        order = np.lexsort((np.arange(len(person)), person))
        person, look, outcome = person[order], look[order], outcome[order]
        starts = np.flatnonzero(np.r_[True, person[1:] != person[:-1]][: len(person)])
        visits = _running(np.ones(len(person)), starts)
        done = _running(outcome, starts)
        if metric.per == "person":
            after, before = np.minimum(visits, metric.cap), np.minimum(visits - 1.0, metric.cap)
            exposures = np.ones(len(person)), np.where(visits > 1.0, 1.0, 0.0)
        else:
            after, before, exposures = done, done - outcome, (visits, visits - 1.0)
        change = _columns(after, exposures[0], known[person]) - _columns(before, exposures[1], known[person])
        by_hour = np.stack([np.bincount(look, column, minlength=hours) for column in change.T], axis=1)
        self._sums = np.cumsum(by_hour, axis=0)
        self._people = np.cumsum(np.bincount(look[starts], minlength=hours))

    def at(self, hour: int) -> Moments:
        sums = self._sums[hour].tolist()
        return Moments(int(self._people[hour]), tuple(sums[:4]), tuple(sums[4:]))


def looks(step: Step, alpha: float, last_hour: int, every: int = 1) -> Iterator[CanaryEvidence]:
    """The evidence of every hour up to the last."""
    for hour in range(every, last_hour + 1, every):
        yield step.evidence(hour, alpha)


def _columns(outcome: Floats, exposure: Floats, known: Floats) -> Floats:
    rows = np.column_stack([outcome, exposure, known * exposure[:, None]])
    return np.column_stack([rows, rows[:, _UPPER[0]] * rows[:, _UPPER[1]]])


def _running(values: Floats, starts: Ints) -> Floats:
    # cumulative sums that begin anew at each start
    total = np.cumsum(values)
    base = np.repeat(total[starts] - values[starts], np.diff(np.r_[starts, len(values)]))
    return np.asarray(total - base)


def _merged(metric: Metric, stable: Outcomes, canary: Outcomes, chosen: NDArray[np.bool_]) -> Floats:
    if not metric.event_types:
        return np.ones(len(chosen))
    name = {"clicks_per_visit": "clicks", "carts_per_visit": "carts", "purchases_per_visit": "purchases"}[metric.name]
    return np.asarray(np.where(chosen, getattr(canary, name), getattr(stable, name)), dtype=np.float64)


def _replaced(values: Ints, rows: Ints, by: Ints) -> Ints:
    found = values.copy()
    found[rows] = by
    return found


def _counts(people: int, answers: int) -> ArmCounts:
    return ArmCounts(people, answers, 0, 0, (0, 0, 0, answers, *[0] * (len(LATENCY_BOUNDS_MS) - 3)))
