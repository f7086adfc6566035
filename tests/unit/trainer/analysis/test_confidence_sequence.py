"""Bounds that hold at every look."""

from __future__ import annotations

import math

import numpy as np
import pytest

from headrace.trainer.analysis.confidence_sequence import bound, clock_of


def test_the_bound_is_the_papers() -> None:
    # one-sided: sqrt(2 (1 + 1/x) log(1 + sqrt(1 + x) / 2α)), at x = 3: 8/3 · log(1 + 2 / 0.1) = 8/3 · log 21
    assert bound(0.05, 3.0) == pytest.approx(math.sqrt(8.0 / 3.0 * math.log(21.0)))


def test_before_anything_was_seen_the_truth_may_be_anywhere() -> None:
    assert bound(0.05, 0.0) == math.inf


def test_the_bound_is_about_tightest_where_it_was_asked_to_be() -> None:
    variances = np.geomspace(10.0, 1e6, 200)
    widths = [bound(0.02, clock_of(variance, 1_000.0, 0.02)) / math.sqrt(variance) for variance in variances]
    at = [bound(0.02, clock_of(1_000.0, tightest, 0.02)) for tightest in np.geomspace(10.0, 1e5, 200)]
    assert widths == sorted(widths, reverse=True)
    assert bound(0.02, clock_of(1_000.0, 1_000.0, 0.02)) <= min(at) * 1.01


def test_brownian_motion_seldom_ever_leaves_the_bound_and_often_leaves_a_fixed_one() -> None:
    rng = np.random.default_rng(3)
    clock = np.arange(1, 401) / 20.0
    z = np.cumsum(rng.normal(0.0, math.sqrt(1.0 / 20.0), (4_000, 400)), axis=1) / np.sqrt(clock)
    bounds = np.array([bound(0.05, time) for time in clock])
    crossed = (z > bounds).any(axis=1).mean()
    assert 0.01 < crossed <= 0.05
    assert (z > 1.645).any(axis=1).mean() > 0.25


def test_people_whose_visits_agree_leave_it_no_more_often() -> None:
    rng = np.random.default_rng(4)
    # 300 people; each look some of them come again, with a deviation that is mostly their own
    own, looks = rng.normal(size=(1_500, 300)), 30
    total, crossed = np.zeros((1_500, 300)), np.zeros(1_500, bool)
    for _ in range(looks):
        comes = rng.random((1_500, 300)) < 0.2
        total += comes * (own + 0.5 * rng.normal(size=own.shape))
        variance = (total**2).sum(axis=1)
        limits = np.array([bound(0.05, clock_of(one, 500.0, 0.05)) for one in variance])
        crossed |= total.sum(axis=1) > limits * np.sqrt(variance)
    assert crossed.mean() <= 0.05
