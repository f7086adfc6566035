"""What ends a canary without any metric: fallbacks, errors, slowness, wrong probabilities, wrongly shared arms."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from headrace.trainer.analysis.evidence import LATENCY_BOUNDS_MS, ArmCounts, CanaryEvidence, Difference
from headrace.trainer.analysis.policy import Guardrails
from headrace.trainer.analysis.sample_ratio import is_mismatched

FIRED = "fired"


@dataclass(frozen=True, slots=True)
class Alarm:
    """A guardrail that fired. `aborts`: the canary is rolled back; else the run is inconclusive."""

    aborts: bool
    reason: str
    difference: Difference


def alarms(evidence: CanaryEvidence, limits: Guardrails) -> list[Alarm]:
    """Those that fired, the ones that abort first."""
    fired = [*_sample_ratio(evidence, limits), *_calibration(evidence, limits)]
    if evidence.canary.answers >= limits.answers:
        fired += [*_fallbacks(evidence.canary, limits), *_errors(evidence, limits)]
        if evidence.stable.answers >= limits.answers:
            fired += _latency(evidence, limits)
    return sorted(fired, key=lambda alarm: not alarm.aborts)


def latency_quantile(histogram: Sequence[int], quantile: float) -> float:
    """Milliseconds below which this share of answers was, along straight lines within the columns; 0.0 of none.

    >>> latency_quantile((0, 0, 0, 10, 0, 0, 0, 0, 0, 0, 0), 0.5)
    7.5
    """
    total, seen = sum(histogram), 0
    for column, count in enumerate(histogram):
        if count and seen + count >= quantile * total:
            low = LATENCY_BOUNDS_MS[column - 1] if column else 0.0
            # the last column is open: as if it ended at twice its beginning
            high = LATENCY_BOUNDS_MS[column] if column < len(LATENCY_BOUNDS_MS) else 2.0 * low
            return low + (high - low) * (quantile * total - seen) / count
        seen += count
    return 0.0


def _fallbacks(canary: ArmCounts, limits: Guardrails) -> Iterator[Alarm]:
    share = canary.fallbacks / canary.answers
    if share > limits.fallbacks_inconclusive:
        aborts = share > limits.fallbacks_abort
        limit = limits.fallbacks_abort if aborts else limits.fallbacks_inconclusive
        reason = f"{share:.1%} of the canary arm's answers were made by stable, above {limit:.0%}"
        yield Alarm(aborts, reason, _fired("fallback_share", 0.0, share, 0, canary.answers))


def _errors(evidence: CanaryEvidence, limits: Guardrails) -> Iterator[Alarm]:
    stable, canary = (arm.errors / max(arm.answers, 1) for arm in (evidence.stable, evidence.canary))
    if canary - stable > limits.errors:
        reason = f"{canary:.1%} of the canary arm's answers failed, {stable:.1%} of stable's"
        yield Alarm(True, reason, _compared("error_share", stable, canary, evidence))


def _latency(evidence: CanaryEvidence, limits: Guardrails) -> Iterator[Alarm]:
    for quantile in limits.latency_quantiles:
        stable, canary = (latency_quantile(arm.latency, quantile) for arm in (evidence.stable, evidence.canary))
        if canary > limits.latency_factor * stable and canary - stable > limits.latency_slack_ms:
            name = f"latency_p{100 * quantile:g}_ms"
            reason = f"{name} of the canary arm is {canary:.0f}, of stable {stable:.0f}"
            yield Alarm(True, reason, _compared(name, stable, canary, evidence))


def _calibration(evidence: CanaryEvidence, limits: Guardrails) -> Iterator[Alarm]:
    stable, canary = evidence.stable, evidence.canary
    if min(stable.clicked, canary.clicked) < limits.calibration_clicks or not stable.predicted:
        return
    usual, found = (arm.predicted / arm.clicked for arm in (stable, canary))
    if not 1.0 / limits.calibration_factor <= found / usual <= limits.calibration_factor:
        reason = f"the canary predicts {found:.2f} clicks for each that comes, stable {usual:.2f}"
        yield Alarm(True, reason, _fired("calibration", usual, found, int(stable.clicked), int(canary.clicked)))


def _sample_ratio(evidence: CanaryEvidence, limits: Guardrails) -> Iterator[Alarm]:
    share = evidence.steps_bp[evidence.step] / 10_000
    canary, stable = evidence.canary.people, evidence.stable.people
    if is_mismatched(canary, stable, share, limits.sample_ratio_alpha):
        found = canary / (canary + stable)
        reason = f"{found:.2%} of people are in the canary arm where {share:.2%} should be"
        yield Alarm(True, reason, _fired("sample_ratio", share, found, stable, canary))


def _compared(name: str, stable: float, canary: float, evidence: CanaryEvidence) -> Difference:
    return _fired(name, stable, canary, evidence.stable.answers, evidence.canary.answers)


def _fired(name: str, stable: float, canary: float, stable_count: int, canary_count: int) -> Difference:
    difference = min(canary / stable - 1.0, 999.0) if stable else 0.0
    return Difference(name, stable, canary, difference, difference, difference, stable_count, canary_count, FIRED)
