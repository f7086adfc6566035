"""Population stability: no drift is told where there is none, and a shift is told by its size."""

from __future__ import annotations

import math

import numpy as np

from headrace.feature_store.drift import Period, not_finite, periods
from headrace.feature_store.stability import MOVED, STABLE, stability, thinned
from headrace.model.candidates import CANDIDATE_FEATURES


def test_two_samples_of_one_distribution_are_stable() -> None:
    chance = np.random.default_rng(1)
    for draw in (chance.normal, chance.exponential, lambda size: chance.poisson(0.3, size)):
        before, now = (np.asarray(draw(size=5_000), np.float32) for _ in range(2))
        assert stability(before, now) < STABLE / 5


def test_a_shift_has_the_index_that_the_formula_says() -> None:
    """Two values, of which the second comes with 1/4, later with 3/4: ½·ln 9 by hand."""
    before = np.array([0] * 7_500 + [1] * 2_500, np.float32)
    now = np.array([0] * 2_500 + [1] * 7_500, np.float32)
    assert math.isclose(stability(before, now), 0.5 * math.log(9), rel_tol=1e-3)
    assert math.isclose(stability(now, before), 0.5 * math.log(9), rel_tol=1e-3)


def test_a_constant_that_becomes_another_has_moved_either_way() -> None:
    constant = np.ones(500, np.float32)
    assert stability(constant, constant) == 0
    assert stability(constant, constant + 1) > MOVED
    assert stability(constant, constant - 1) > MOVED


def test_a_period_without_values_has_not_moved() -> None:
    assert stability(np.empty(0, np.float32), np.ones(5, np.float32)) == 0


def test_rows_are_thinned_evenly() -> None:
    parts = [np.arange(start, start + 37, dtype=np.float32)[:, None] for start in range(0, 3_700, 37)]
    kept = thinned(parts, 500)[:, 0]
    assert 250 <= len(kept) <= 500
    assert np.unique(np.diff(kept)).tolist() == [8]


def test_values_that_are_no_numbers_are_counted_by_feature() -> None:
    features = np.zeros((4, len(CANDIDATE_FEATURES)), np.float32)
    features[1, 2], features[3, 2], features[0, 5] = np.nan, np.inf, -np.inf
    assert not_finite(features) == {CANDIDATE_FEATURES[2]: 2, CANDIDATE_FEATURES[5]: 1}


def test_the_default_periods_lie_one_before_the_other() -> None:
    assert periods(0, 1_000) == (Period(0, 450), Period(900, 1_000))
