"""What each person did before the step and in it: columns, from which the sums of the arms are made at every look."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace.trainer.analysis.evidence import MetricEvidence
from headrace.trainer.analysis.policy import Metric
from headrace.trainer.analysis.variance_reduction import Floats, moments, person_covariates, visit_covariates

# columns of several types
Arrays = dict[str, NDArray[Any]]

_LEAST_ROOM = 1_024
# how much of what was done before still counts after so long
_HALF_LIFE_US = 28 * 86_400_000_000


class People:
    """At most `limit` people. When there are more, those go who were longest away and are in no arm; while all are in
    an arm, new people are passed over, whatever their arm.

    `past` and `now`: visits, then outcomes by metric. `arm`: 0 stable, 1 canary, −1 neither.
    """

    def __init__(self, metrics: Sequence[Metric], limit: int) -> None:
        self._metrics = metrics
        self._limit = limit
        self.passed_over = 0
        self._rows: dict[int, int] = {}
        self._clear(0)

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, person: int, time_us: int, visits_and_outcomes: Sequence[float], arm: int) -> None:
        """Adds a visit that is over to what was before (arm −1) or to the arm that the person is in."""
        row = self._row(person)
        if row < 0:
            return
        self._last_us[row] = max(self._last_us[row], time_us)
        if arm < 0:
            self._past[row] += visits_and_outcomes
        else:
            self._now[row] += visits_and_outcomes

    def arm_of(self, person: int, arm: int) -> int:
        """The arm that somebody is in: the first of theirs in this step, so `arm` if there is none (−1 when full)."""
        row = self._row(person)
        if row < 0:
            return -1
        if self._arm[row] < 0:
            self._arm[row] = arm
        return int(self._arm[row])

    def begin(self, elapsed_us: int) -> None:
        """A step begins: what was done up to now, less than it was by `elapsed_us`, is what is known before."""
        size = len(self)
        self._past[:size] = self._past[:size] * 0.5 ** (max(elapsed_us, 0) / _HALF_LIFE_US) + self._now[:size]
        self._now[:size] = 0.0
        self._arm[:size] = -1

    def counts(self) -> tuple[int, int]:
        """People in the stable and in the canary arm."""
        arm = self._arm[: len(self)]
        return int((arm == 0).sum()), int((arm == 1).sum())

    def evidence(self) -> tuple[MetricEvidence, ...]:
        """The sums of both arms, metric by metric."""
        size = len(self)
        return tuple(
            metric_evidence(
                metric, self._past[:size, [0, 1 + place]], self._now[:size, [0, 1 + place]], self._arm[:size]
            )
            for place, metric in enumerate(self._metrics)
        )

    def forget(self, people: frozenset[int]) -> None:
        gone = [row for person, row in self._rows.items() if person in people]
        self._keep(np.delete(np.arange(len(self)), gone))

    def arrays(self) -> Arrays:
        size = len(self)
        person = np.fromiter(self._rows, dtype=np.uint64, count=size)
        columns: Arrays = {"past": self._past, "now": self._now, "arm": self._arm, "last_us": self._last_us}
        return {"person": person} | {name: column[:size].copy() for name, column in columns.items()}

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        size = len(arrays["person"])
        self._clear(size)
        self._rows = {person: row for row, person in enumerate(arrays["person"].tolist())}
        self._past[:size], self._now[:size] = arrays["past"], arrays["now"]
        self._arm[:size], self._last_us[:size] = arrays["arm"], arrays["last_us"]

    def _row(self, person: int) -> int:
        row = self._rows.get(person)
        if row is not None:
            return row
        if len(self) >= self._limit:
            self._make_room()
        if len(self) >= self._limit:
            self.passed_over += 1
            return -1
        if len(self) == len(self._arm):
            self._grow(2 * len(self))
        self._rows[person] = row = len(self)
        self._past[row] = self._now[row] = 0.0
        self._arm[row], self._last_us[row] = -1, 0
        return row

    def _make_room(self) -> None:
        # a tenth at once, so that it is rare
        idle = np.flatnonzero(self._arm[: len(self)] < 0)
        oldest = idle[np.argsort(self._last_us[idle], kind="stable")][: max(1, self._limit // 10)]
        self._keep(np.delete(np.arange(len(self)), oldest))

    def _keep(self, rows: NDArray[np.int64]) -> None:
        person = np.fromiter(self._rows, dtype=np.uint64, count=len(self))[rows]
        size = len(rows)
        for column in (self._past, self._now):
            column[:size] = column[rows]
        self._arm[:size], self._last_us[:size] = self._arm[rows], self._last_us[rows]
        self._rows = {int(one): row for row, one in enumerate(person)}

    def _clear(self, size: int) -> None:
        room = max(size, _LEAST_ROOM)
        self._rows = {}
        self._past = np.zeros((room, 1 + len(self._metrics)))
        self._now = np.zeros_like(self._past)
        self._arm = np.full(room, -1, dtype=np.int8)
        self._last_us = np.zeros(room, dtype=np.int64)

    def _grow(self, room: int) -> None:
        more = room - len(self._arm)
        self._past, self._now = (np.pad(column, ((0, more), (0, 0))) for column in (self._past, self._now))
        self._arm = np.pad(self._arm, (0, more))
        self._last_us = np.pad(self._last_us, (0, more))


def metric_evidence(metric: Metric, past: Floats, now: Floats, arm: NDArray[np.int8]) -> MetricEvidence:
    """One metric's sums. `past` and `now`: visits and outcome, one row a person."""
    if metric.per == "person":
        known, exposure = person_covariates(past[:, 0]), (now[:, 0] > 0).astype(np.float64)
        outcome = np.minimum(now[:, 1], metric.cap)
    else:
        known, exposure, outcome = visit_covariates(past[:, 1], past[:, 0]), now[:, 0], now[:, 1]
    stable, canary = (moments(outcome[arm == one], exposure[arm == one], known[arm == one]) for one in (0, 1))
    return MetricEvidence(metric.name, stable, canary)
