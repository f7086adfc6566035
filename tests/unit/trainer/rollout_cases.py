"""Evidence about rollouts, put together for tests."""

from __future__ import annotations

from dataclasses import replace

from headrace.model.arms import STABLE
from headrace.runtime.settings import load
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
from headrace.trainer.rollouts.evidence import INCREMENT, RankersSeen, RolloutEvidence, RolloutPolicy
from headrace.trainer.rollouts.phases import Phase
from headrace.trainer.rollouts.settings import RolloutSettings

POLICY: RolloutPolicy = load(RolloutSettings, {}).policy()
SECOND = 1_000_000


def evidence(phase: Phase, elapsed_s: float = 0.0, **changed: object) -> RolloutEvidence:
    """An increment that two rankers know of, `elapsed_s` after it came into `phase`."""
    seen = RankersSeen(stable=2, on_track=2, with_release=0, listened_s=1_000.0)
    found = RolloutEvidence(
        now_us=int(elapsed_s * SECOND),
        phase=phase,
        phase_time_us=0,
        resumes_in=None,
        kind=INCREMENT,
        track=STABLE,
        release="r-000002",
        baseline="r-000001",
        step=0,
        steps_bp=(100, 1_000),
        rankers=seen,
        reason="it came there",
    )
    return replace(found, **changed)  # type: ignore[arg-type]


def shadow(pairs: int, overlap: float = 0.9, seconds: float = 0.0, **changed: float) -> ShadowEvidence:
    """So many live requests that both releases scored."""
    live = LiveShadow(
        pairs=pairs,
        sum_overlap_at_10=overlap * pairs,
        sum_overlap_at_20=overlap * pairs,
        sum_rank_correlation=overlap * pairs,
        sum_tower_correlation=overlap * pairs,
        sum_ms=1.0 * pairs,
        sum_baseline_ms=1.0 * pairs,
    )
    return ShadowEvidence("r-000002", True, seconds, 0.001, replace(live, **changed), None)  # type: ignore[arg-type]


def logged_shadow(seconds: float) -> ShadowEvidence:
    """No live request, and logged lists of enough people on which both releases do alike."""
    loss, sound, kept = PairedMean(0.4, 0.4, 0.0, 0.002, 500), Calibration(0.1, 0.1, 0.01), Kept(500, 90, 90, 0, 0)
    values = (Value(1.0, 0.9, 1.1, 500.0),) * 4
    logged = LoggedEvidence(900, 500, loss, loss, sound, sound, 0.9, *values, kept, kept, 0)
    return replace(shadow(0, seconds=seconds), logged=logged)


def canary(clicks: float, people: int, errors: int = 0, hours: float = 48.0, step: int = 1) -> CanaryEvidence:
    """Everybody in the stable arm clicks once a visit, in the canary arm `clicks` times, ten visits a person."""
    metrics = tuple(MetricEvidence(metric.name, _moments(people, 1.0), _moments(people, clicks)) for metric in METRICS)
    latency = (0, 0, 0, 100 * people, 0, 0, 0, 0, 0, 0, 0)
    share = (0.01, 0.1)[step]
    stable = ArmCounts(people=round(people / share) - people, answers=100 * people, latency=latency)
    tried = ArmCounts(people=people, answers=100 * people, errors=errors, latency=latency)
    return CanaryEvidence("ro-000001", step, (100, 1_000), hours, 0.05, metrics, stable, tried)


def _moments(people: int, clicks: float) -> Moments:
    # half of the people click a little more, half a little less
    exposure, spread = 10.0, 2.0
    each = exposure * clicks
    products = (people * (each**2 + spread**2), people * each * exposure, 0.0, 0.0, people * exposure**2, *([0.0] * 5))
    return Moments(people, (people * each, people * exposure, 0.0, 0.0), products)
