"""Drift of the features of training rows: a recent period of the log beside a reference period."""

# N rows, F features

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headrace.feature_store.row_columns import RowColumns
from headrace.feature_store.row_store import Reading
from headrace.feature_store.stability import stability, thinned
from headrace.model.candidates import CANDIDATE_FEATURES

_MOST_ROWS = 100_000


@dataclass(frozen=True, slots=True)
class Period:
    """Moments closed by a record with after < offset ≤ until."""

    after: int
    until: int


@dataclass(frozen=True, slots=True)
class FeatureDrift:
    """How one feature has moved; means are of finite values."""

    feature: str
    stability: float
    reference_mean: float
    recent_mean: float
    not_finite: int


@dataclass(frozen=True, slots=True)
class Drift:
    """One entry a feature of CANDIDATE_FEATURES, in that order."""

    features: Sequence[FeatureDrift]
    reference_rows: int
    recent_rows: int


def periods(begin: int, end: int) -> tuple[Period, Period]:
    """The stated defaults for what is kept: the oldest half of what is before the newest tenth, and that tenth."""
    recent = end - max((end - begin) // 10, 1)
    return Period(begin, begin + (recent - begin + 1) // 2), Period(recent, end)


def drift_of(reference: Reading, recent: Reading) -> Drift:
    """Reads both periods, at most about 100,000 rows of each, evenly."""
    before_NF, now_NF = _features(reference), _features(recent)
    features = [_feature(name, before_NF[:, place], now_NF[:, place]) for place, name in enumerate(CANDIDATE_FEATURES)]
    return Drift(features, len(before_NF), len(now_NF))


def _features(reading: Reading) -> NDArray[np.float32]:
    return thinned(_whole(reading.read()), _MOST_ROWS).reshape(-1, len(CANDIDATE_FEATURES))


def _whole(parts: Iterator[RowColumns]) -> Iterator[NDArray[np.float32]]:
    for part in parts:
        yield part.features


def _feature(name: str, before: NDArray[np.float32], now: NDArray[np.float32]) -> FeatureDrift:
    finite_before, finite_now = before[np.isfinite(before)], now[np.isfinite(now)]
    return FeatureDrift(
        name,
        stability(finite_before, finite_now),
        float(finite_before.mean()) if len(finite_before) else 0.0,
        float(finite_now.mean()) if len(finite_now) else 0.0,
        len(now) - len(finite_now),
    )


def not_finite(features_NF: NDArray[np.float32]) -> dict[str, int]:
    """How many values are no finite numbers, of the features that have any."""
    counts = (~np.isfinite(features_NF)).sum(axis=0)
    return {CANDIDATE_FEATURES[place]: int(counts[place]) for place in np.flatnonzero(counts).tolist()}
