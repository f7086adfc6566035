"""One live request as two releases judge it: how far the shadow's order is from the one that serves."""

# C candidates

from __future__ import annotations

import time
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from headrace.model.history import History
from headrace.model.items import Items
from headrace.ranker.scoring import Person, scored, user_vector
from headrace.ranker.served import Served

Floats = NDArray[np.float32]

_BEST = 20


@dataclass(frozen=True, slots=True)
class Slate:
    """What was asked of the release that serves: a person as of then, and the candidates."""

    history: History
    now_us: int
    items: Items
    ordinals: NDArray[np.uint32]


@dataclass(frozen=True, slots=True)
class Judgement:
    """What one release makes of a slate; no likeness where its space has no vectors, or the person no place in it."""

    scores_C: Floats
    likeness_C: Floats | None
    clicks_C: Floats
    ms: float

    @property
    def is_finite(self) -> bool:
        likeness_C = self.scores_C if self.likeness_C is None else self.likeness_C
        return all(bool(np.isfinite(each).all()) for each in (self.scores_C, likeness_C, self.clicks_C))


@dataclass(frozen=True, slots=True)
class Sums:
    """Sums over the pairs so far, as trainer.proto's ShadowReport describes them."""

    pairs: int = 0
    sum_overlap_at_10: float = 0.0
    sum_overlap_at_20: float = 0.0
    sum_rank_correlation: float = 0.0
    sum_tower_correlation: float = 0.0
    sum_click_probability: float = 0.0
    sum_baseline_click_probability: float = 0.0
    not_finite: int = 0
    failures: int = 0
    sum_ms: float = 0.0
    sum_baseline_ms: float = 0.0

    def plus(self, other: Sums) -> Sums:
        return Sums(**{each.name: getattr(self, each.name) + getattr(other, each.name) for each in fields(Sums)})


def judged(served: Served, slate: Slate) -> Judgement:
    """A release's own user vector, likenesses, features and scores, made as an answer makes them."""
    begun = time.perf_counter()
    vector_D = user_vector(served, slate.history, slate.now_us)
    result = scored(served, Person(slate.history, slate.now_us, vector_D), slate.items, slate.ordinals)
    ms = (time.perf_counter() - begun) * 1e3
    likeness_C = None if vector_D is None else served.rows(slate.ordinals) @ vector_D
    clicks_C = result.scores[:0] if result.clicks is None else result.clicks
    return Judgement(result.scores, likeness_C, clicks_C, ms)


def compared(shadow: Judgement, baseline: Judgement) -> Sums:
    """The pair as sums of one. The baseline's numbers are finite: an answer was made of them."""
    if not shadow.is_finite:
        return Sums(not_finite=1)
    return Sums(
        pairs=1,
        sum_overlap_at_10=_overlap(shadow.scores_C, baseline.scores_C, 10),
        sum_overlap_at_20=_overlap(shadow.scores_C, baseline.scores_C, 20),
        sum_rank_correlation=_correlation(_ranks(shadow.scores_C), _ranks(baseline.scores_C)),
        sum_tower_correlation=_tower_correlation(shadow.likeness_C, baseline.likeness_C),
        sum_click_probability=_best_clicks(shadow),
        sum_baseline_click_probability=_best_clicks(baseline),
        sum_ms=shadow.ms,
        sum_baseline_ms=baseline.ms,
    )


def _overlap(some_C: Floats, others_C: Floats, k: int) -> float:
    # of a short slate the better half: the best 20 of 20 are always the same
    k = min(k, (len(some_C) + 1) // 2)
    return len(np.intersect1d(_best(some_C, k), _best(others_C, k))) / k


def _best(scores_C: Floats, k: int) -> NDArray[np.intp]:
    return np.argsort(-scores_C, kind="stable")[:k]


def _ranks(scores_C: Floats) -> Floats:
    """Ranks from the least on; equal scores share the mean of theirs."""
    _, inverse, counts = np.unique(scores_C, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[inverse].astype(np.float32)


def _tower_correlation(some_C: Floats | None, others_C: Floats | None) -> float:
    if some_C is None and others_C is None:
        # a space without vectors yet: nothing that could differ
        return 1.0
    return 0.0 if some_C is None or others_C is None else _correlation(some_C, others_C)


def _correlation(some_C: Floats, others_C: Floats) -> float:
    """Pearson's; where nothing varies: 1 if that is so of both, else 0."""
    some, others = some_C.astype(np.float64) - some_C.mean(), others_C.astype(np.float64) - others_C.mean()
    lengths = float(np.linalg.norm(some)), float(np.linalg.norm(others))
    if min(lengths) < 1e-9:
        return float(max(lengths) < 1e-9)
    return float(some @ others) / (lengths[0] * lengths[1])


def _best_clicks(judgement: Judgement) -> float:
    return float(judgement.clicks_C[_best(judgement.scores_C, _BEST)].mean())
