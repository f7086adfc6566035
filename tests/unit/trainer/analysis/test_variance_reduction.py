"""Differences of arms, people as units."""

from __future__ import annotations

import math

import numpy as np
import pytest

from headrace.trainer.analysis.evidence import Moments
from headrace.trainer.analysis.variance_reduction import contrast, moments, visit_covariates

NOTHING_KNOWN = np.zeros((2, 2))


def _plain(outcomes: list[float], visits: list[float]) -> Moments:
    return moments(np.array(outcomes), np.array(visits), np.zeros((len(visits), 2)))


def test_the_standard_error_is_the_delta_methods() -> None:
    # stable: R = 4/4, deviations 2−1, 2−3 → ±1; relative to Σ visits = 4, twice 1/16, times 2/(2−1)
    # canary: R = 6/2 = 3, deviations 2−3, 4−3, relative to R and Σ visits: ±1/6
    found = contrast(_plain([2.0, 2.0], [1.0, 3.0]), _plain([2.0, 4.0], [1.0, 1.0]))
    assert found is not None
    assert found.log_ratio == pytest.approx(math.log(3.0))
    assert found.standard_error == pytest.approx(math.sqrt(2.0 * 2.0 / 16.0 + 2.0 * 2.0 / 36.0))
    assert found.exposure == pytest.approx(1.0 / (1.0 / 4.0 + 1.0 / 2.0))


def test_people_who_were_shown_nothing_do_not_count() -> None:
    assert _plain([2.0, 0.0], [1.0, 0.0]) == _plain([2.0], [1.0])


def test_nothing_is_said_of_one_person_or_of_nothing() -> None:
    assert contrast(_plain([1.0], [1.0]), _plain([1.0, 2.0], [1.0, 1.0])) is None
    assert contrast(_plain([0.0, 0.0], [1.0, 1.0]), _plain([0.0, 0.0], [1.0, 1.0])) is None


def test_an_arm_in_which_nothing_happens_is_surely_worse() -> None:
    found = contrast(_plain([1.0, 2.0] * 200, [1.0, 1.0] * 200), _plain([0.0] * 100, [1.0] * 100))
    assert found is not None
    assert found.log_ratio / found.standard_error < -4.0


def test_what_is_known_before_takes_variance_away_and_no_truth() -> None:
    rng = np.random.default_rng(5)
    differences, spreads, plain = [], [], []
    for _ in range(200):
        rate = rng.gamma(2.0, 0.5, 600)
        past_visits, visits = 4.0 + rng.poisson(4.0, 600), 1.0 + rng.poisson(1.0, 600)
        past, now = (
            rng.poisson(rate * past_visits),
            rng.poisson(rate * visits * np.where(np.arange(600) < 300, 1.0, 0.8)),
        )
        known = visit_covariates(past.astype(np.float64), past_visits.astype(np.float64))
        arms = [(now[rows].astype(float), visits[rows], known[rows]) for rows in (slice(300), slice(300, 600))]
        found, bare = contrast(*(moments(*arm) for arm in arms)), contrast(*(_plain(*arm[:2]) for arm in arms))  # type: ignore[arg-type]
        assert found is not None
        assert bare is not None
        differences.append(found.log_ratio)
        spreads.append(found.standard_error)
        plain.append(bare.standard_error)
    assert np.mean(differences) == pytest.approx(math.log(0.8), abs=0.012)
    # the standard error is what estimates are spread by, and much less than without
    assert np.std(differences) == pytest.approx(np.mean(spreads), rel=0.15)
    assert np.mean(spreads) < 0.8 * np.mean(plain)
