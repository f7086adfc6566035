"""Evidence of canaries and shadows that nothing is wrong with, to be changed by tests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from headrace.trainer.analysis.evidence import (
    ArmCounts,
    Calibration,
    CanaryEvidence,
    Kept,
    LiveShadow,
    LoggedEvidence,
    MetricEvidence,
    Moments,
    PairedMean,
    ShadowEvidence,
    Value,
)
from headrace.trainer.analysis.policy import METRICS
from headrace.trainer.analysis.variance_reduction import moments, visit_covariates

SOUND = ArmCounts(answers=10_000, latency=(0, 0, 0, 5_000, 4_900, 100, 0, 0, 0, 0, 0))

Canary = Callable[..., CanaryEvidence]


@pytest.fixture
def canary() -> Canary:
    """Evidence of a canary whose people do `change` more of everything; `visits` a person in both arms."""

    def made(
        change: float = 0.0, people: int = 2_000, steps_bp: tuple[int, ...] = (5_000,), step: int = 0
    ) -> CanaryEvidence:
        rng = np.random.default_rng(8)
        arms = [_arm(rng, people, 1.0), _arm(rng, people, 1.0 + change)]
        metrics = tuple(MetricEvidence(metric.name, *arms) for metric in METRICS)
        counts = replace(SOUND, people=people)
        return CanaryEvidence("ro-000001", step, steps_bp, 48.0, 0.025, metrics, counts, counts)

    return made


@pytest.fixture
def shadow() -> ShadowEvidence:
    """Evidence of a release that is a little better than the one that serves."""
    loss = PairedMean(0.40, 0.41, -0.01, 0.002, 1_000)
    sound = Calibration(0.1, 0.1, 0.01)
    value = Value(1.0, 0.9, 1.1, 500.0)
    kept = Kept(1_000, 300, 310, 20, 30)
    logged = LoggedEvidence(3_000, 1_000, loss, loss, sound, sound, 0.9, value, value, value, value, kept, kept, 0)
    live = LiveShadow(500, 450.0, 450.0, 480.0, 480.0, 50.0, 50.0, 0, 0, 500.0, 500.0)
    return ShadowEvidence("r-000002", True, 60.0, 0.0003, live, logged)


def _arm(rng: np.random.Generator, people: int, rate: float) -> Moments:
    visits = (1 + rng.poisson(1.0, people)).astype(np.float64)
    past = rng.poisson(1.0, people).astype(np.float64)
    outcomes = rng.poisson(rate * visits).astype(np.float64)
    return moments(outcomes, visits, visit_covariates(past, past))
