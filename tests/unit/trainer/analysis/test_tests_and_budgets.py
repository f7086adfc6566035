"""Sample ratio, the power statement and α a day."""

from __future__ import annotations

import math

import numpy as np
import pytest

from headrace.trainer.analysis.error_budget import CANARY, INCREMENT, ErrorBudget
from headrace.trainer.analysis.non_inferiority import Side, exposure_needed
from headrace.trainer.analysis.policy import BudgetPolicy
from headrace.trainer.analysis.sample_ratio import is_mismatched, log_bayes_factor


def test_the_bayes_factor_of_one_person_is_that_of_two_betas() -> None:
    # one person in the canary arm: the mixture's mean is the share itself, so nothing is learned
    assert log_bayes_factor(1, 0, 0.25) == pytest.approx(0.0, abs=1e-9)
    # two: a·(a+1) / (c·(c+1)) / p² with a = 25, c = 100
    assert log_bayes_factor(2, 0, 0.25) == pytest.approx(math.log(25 * 26 / (100 * 101) / 0.0625), abs=1e-9)


def test_arms_that_are_drawn_as_intended_are_seldom_ever_called_mismatched() -> None:
    rng = np.random.default_rng(6)
    canary = np.cumsum(rng.random((400, 3_000)) < 0.1, axis=1)
    ever = [
        any(is_mismatched(int(run[seen - 1]), seen - int(run[seen - 1]), 0.1, 0.05) for seen in range(1, 3_001, 20))
        for run in canary
    ]
    assert np.mean(ever) <= 0.05


def test_a_canary_that_loses_a_tenth_of_its_people_is_found() -> None:
    assert is_mismatched(9_000, 100_000 - 10_000, 0.1, 0.001)
    assert not is_mismatched(10_000, 90_000, 0.1, 0.001)
    assert not is_mismatched(0, 500, 0.0, 0.001)


def test_a_purse_is_never_overdrawn_and_its_day_ends() -> None:
    budget, policy, spent = ErrorBudget(), BudgetPolicy(), 0.0
    for _ in range(1_000):
        alpha, budget = budget.allotted(20_000, INCREMENT, policy)
        assert alpha > 0.0
        spent += alpha
    assert spent < policy.increment_alpha
    assert budget.allotted(20_000, CANARY, policy)[0] == pytest.approx(policy.canary_alpha * policy.canary_part)
    assert budget.allotted(20_001, INCREMENT, policy)[0] == pytest.approx(policy.increment_alpha / 144)


def test_a_clock_that_is_set_back_refunds_nothing() -> None:
    _, budget = ErrorBudget().allotted(20_000, CANARY, BudgetPolicy())
    assert budget.allotted(19_999, CANARY, BudgetPolicy())[0] == budget.allotted(20_000, CANARY, BudgetPolicy())[0]


def test_the_power_statement_asks_for_more_where_less_is_allowed_or_more_varies() -> None:
    side = Side(0.05, 7_000.0)
    usual = exposure_needed(0.05, 1.0, side, 0.9)
    assert 4_000 < usual < 9_000
    assert exposure_needed(0.1, 1.0, side, 0.9) < usual < exposure_needed(0.05, 2.0, side, 0.9)
    assert exposure_needed(0.05, 1.0, side, 0.9, truth=0.05) < usual
