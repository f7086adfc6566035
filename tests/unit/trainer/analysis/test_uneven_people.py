"""No difference, uneven people, a look every hour: what cries wolf, and what does not."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.rollouts_naive import msprt_bound
from headrace.trainer.analysis.evidence import ArmCounts, CanaryEvidence, MetricEvidence
from headrace.trainer.analysis.policy import CLICKS, CanaryPolicy, Metric
from headrace.trainer.analysis.variance_reduction import moments, visit_covariates
from headrace.trainer.analysis.verdict import ROLL_BACK, canary_verdict

Column = NDArray[Any]

RUNS, PEOPLE, LOOKS, SHOWN = 80, 1_200, 48, 10
ONE_METRIC = CanaryPolicy(metrics=(Metric(CLICKS, ("detail-page-view",), share=1.0),))


def _worlds() -> tuple[float, float]:
    """Shares of A/A runs in which verdicts ever say worse, and in which an mSPRT on impressions ever says different."""
    rng = np.random.default_rng(11)
    verdicts = alarms = 0
    for _ in range(RUNS):
        # a few come often, and some open much and some little
        often = rng.lognormal(-2.5, 1.3, PEOPLE)
        rate = rng.beta(0.5, 3.0, PEOPLE)
        is_canary = rng.random(PEOPLE) < 0.3
        visits, clicks = np.zeros(PEOPLE), np.zeros(PEOPLE)
        is_rolled_back = is_alarmed = False
        for hour in range(1, LOOKS + 1):
            came = rng.poisson(often)
            visits += came
            clicks += rng.binomial(came * SHOWN, rate)
            if hour % 3:
                continue
            is_rolled_back |= _verdict(clicks, visits, is_canary, hour) == ROLL_BACK
            is_alarmed |= _is_alarmed(clicks, visits * SHOWN, is_canary)
        verdicts += is_rolled_back
        alarms += is_alarmed
    return verdicts / RUNS, alarms / RUNS


def _verdict(clicks: Column, visits: Column, is_canary: Column, hour: int) -> str:
    known = visit_covariates(np.zeros(PEOPLE), np.zeros(PEOPLE))
    arms = [moments(clicks[rows], visits[rows], known[rows]) for rows in (~is_canary, is_canary)]
    counts = [ArmCounts(people=arm.people) for arm in arms]
    metrics = (MetricEvidence(CLICKS, *arms),)
    evidence = CanaryEvidence("ro-000001", 0, (3_000,), float(hour), 0.05, metrics, *counts)
    return canary_verdict(evidence, ONE_METRIC).decision


def _is_alarmed(clicks: Column, shown: Column, is_canary: Column) -> bool:
    sums = [(clicks[rows].sum(), shown[rows].sum()) for rows in (~is_canary, is_canary)]
    if min(count for _, count in sums) < 1_000:
        return False
    rate = clicks.sum() / shown.sum()
    error = np.sqrt(rate * (1.0 - rate) * sum(1.0 / count for _, count in sums))
    difference = sums[1][0] / sums[1][1] - sums[0][0] / sums[0][1]
    return bool(abs(difference) / error > msprt_bound(np.array([error]), np.array([0.1 * rate]))[0])


def test_verdicts_hold_their_level_where_a_test_on_impressions_does_not() -> None:
    false_verdicts, false_alarms = _worlds()
    assert false_verdicts <= 0.05
    # the same worlds: this shows that they are uneven enough to tell
    assert false_alarms > 0.3
