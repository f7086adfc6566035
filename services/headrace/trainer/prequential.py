"""Quality on events before they are learned from (test, then train), a week of log time at a time.

M people evaluated, N items, D width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace.model.events import COUNTED_CODES
from headrace.trainer.arrays import Arrays, packed_json, unpacked_json
from headrace.trainer.sequences import Grown

TOP = 20


@dataclass(frozen=True, slots=True)
class Trial:
    """One person about to do something: what came before, when, and the items that followed at that moment."""

    person: Grown
    time_us: int
    targets: NDArray[np.uint32]


@dataclass(frozen=True, slots=True)
class Quality:
    """Means over the targets of a period; the floors saw the same targets."""

    period: str
    targets: int
    recall: float
    reciprocal_rank: float
    popularity_recall: float
    personal_recall: float


@dataclass(slots=True)
class _Sums:
    targets: int = 0
    hits: float = 0.0
    reciprocal_ranks: float = 0.0
    popularity_hits: float = 0.0
    personal_hits: float = 0.0


class Prequential:
    """Recall@20 and MRR@20 of the learner and of two floors, by ISO week of log time."""

    def __init__(self) -> None:
        self._weeks: dict[str, _Sums] = {}

    def score(self, trials: Sequence[Trial], scores_MN: NDArray[np.float32], popularity_N: NDArray[np.float64]) -> None:
        """Counts the trials in, given the learner's score of every item for each of them."""
        popular_N = popularity_N / (1 + popularity_N.max(initial=0.0))
        for trial, scores_N in zip(trials, scores_MN, strict=True):
            # a whole number of own choices, then popularity
            personal_N = popular_N + np.bincount(trial.person.ordinals[: trial.person.old], minlength=len(popular_N))
            sums = self._weeks.setdefault(_week(trial.time_us), _Sums())
            ranks = _ranks(scores_N, trial.targets)
            sums.targets += len(ranks)
            sums.hits += float((ranks <= TOP).sum())
            sums.reciprocal_ranks += float(np.where(ranks <= TOP, 1 / ranks, 0).sum())
            sums.popularity_hits += float((_ranks(popular_N, trial.targets) <= TOP).sum())
            sums.personal_hits += float((_ranks(personal_N, trial.targets) <= TOP).sum())

    def by_week(self) -> list[Quality]:
        return [_quality(week, sums) for week, sums in sorted(self._weeks.items())]

    def overall(self) -> Quality:
        """Over all weeks; all zeros before the first trial."""
        names = [field.name for field in fields(_Sums)]
        return _quality("all", _Sums(*(sum(getattr(sums, name) for sums in self._weeks.values()) for name in names)))

    def arrays(self) -> Arrays:
        names = [field.name for field in fields(_Sums)]
        return {"weeks": packed_json({week: [getattr(s, name) for name in names] for week, s in self._weeks.items()})}

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        self._weeks = {week: _Sums(*values) for week, values in unpacked_json(arrays["weeks"]).items()}


def trials_of(people: Sequence[Grown], limit: int, rng: np.random.Generator) -> list[Trial]:
    """At most `limit` people, each with what they did first in the slice (all of it that is of one time)."""
    chosen = rng.permutation(len(people))[:limit]
    trials = [_trial(people[i]) for i in np.sort(chosen)]
    return [trial for trial in trials if len(trial.targets)]


def _trial(person: Grown) -> Trial:
    time_us = int(person.times_us[person.old])
    new = slice(person.old, None)
    is_target = np.isin(person.event_types[new], [int(code) for code in COUNTED_CODES])
    is_target &= person.times_us[new] == time_us
    return Trial(person, time_us, np.unique(person.ordinals[new][is_target]))


def _ranks(scores_N: NDArray[np.floating[Any]], targets: NDArray[np.uint32]) -> NDArray[np.int64]:
    own = scores_N[targets][:, None]
    # equal scores go by ordinal
    ahead = (scores_N > own) | ((scores_N == own) & (np.arange(len(scores_N)) < targets[:, None]))
    return np.asarray(ahead.sum(axis=1) + 1, dtype=np.int64)


def _week(time_us: int) -> str:
    year, week, _ = datetime.fromtimestamp(time_us / 1e6, UTC).isocalendar()
    return f"{year}-W{week:02d}"


def _quality(period: str, sums: _Sums) -> Quality:
    count = max(sums.targets, 1)
    return Quality(
        period,
        sums.targets,
        sums.hits / count,
        sums.reciprocal_ranks / count,
        sums.popularity_hits / count,
        sums.personal_hits / count,
    )
