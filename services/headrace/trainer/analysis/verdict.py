"""Gate 2: what becomes of a canary, from what is known of it at one look. The same evidence gives the same verdict."""

from __future__ import annotations

from headrace.trainer.analysis.evidence import CanaryEvidence, CanaryVerdict, Difference, MetricEvidence
from headrace.trainer.analysis.guardrails import Alarm, alarms
from headrace.trainer.analysis.non_inferiority import OPEN, UNKNOWN, WORSE, Bounds, Side, bounds
from headrace.trainer.analysis.policy import CanaryPolicy, Metric
from headrace.trainer.analysis.variance_reduction import contrast

GO_ON, ADVANCE, PROMOTE, ROLL_BACK, INCONCLUSIVE = "go on", "advance", "promote", "roll back", "inconclusive"


def canary_verdict(evidence: CanaryEvidence, policy: CanaryPolicy) -> CanaryVerdict:
    """Guardrails first, then harm, then whether the step is passed; whoever has shown nothing goes on.

    Harm: an upper bound is below 0. The rollout's alpha is shared out over its steps, equally, and over the metrics by
    their shares. Passed: the primary metric's lower bound is above minus the step's margin.
    """
    guarded = guardrail_verdict(evidence, policy)
    found = tuple(_difference(metric, evidence, policy) for metric in policy.metrics)
    if guarded.decision != GO_ON:
        return CanaryVerdict(guarded.decision, guarded.reason, (*guarded.differences, *found))
    for difference in found:
        if difference.verdict == WORSE:
            return CanaryVerdict(ROLL_BACK, _says(difference), found)
    primary = next(difference for difference in found if difference.metric == policy.primary)
    margin = margin_of(evidence.step, len(evidence.steps_bp), policy)
    if primary.verdict != OPEN:
        decision = PROMOTE if evidence.step == len(evidence.steps_bp) - 1 else ADVANCE
        return CanaryVerdict(decision, f"{_says(primary)} (margin {margin:.1%})", found)
    if evidence.hours >= policy.most_hours:
        return CanaryVerdict(INCONCLUSIVE, f"nothing was shown in {evidence.hours:.0f} hours: {_says(primary)}", found)
    return CanaryVerdict(GO_ON, _says(primary), found)


def guardrail_verdict(evidence: CanaryEvidence, policy: CanaryPolicy) -> CanaryVerdict:
    """Guardrails alone, for the phases in which nothing is compared: roll back, inconclusive or go on."""
    fired = alarms(evidence, policy.guardrails)
    if not fired:
        return CanaryVerdict(GO_ON, "no guardrail fired", ())
    return CanaryVerdict(_ending(fired[0]), fired[0].reason, tuple(alarm.difference for alarm in fired))


def margin_of(step: int, steps: int, policy: CanaryPolicy) -> float:
    """How much worse the canary may still be when a step is passed: the last margin is the last step's.

    >>> [margin_of(step, 3, CanaryPolicy(margins=(0.5, 0.2, 0.05))) for step in range(3)]
    [0.5, 0.2, 0.05]
    >>> margin_of(0, 1, CanaryPolicy(margins=(0.5, 0.2, 0.05)))
    0.05
    """
    if step == steps - 1:
        return policy.margins[-1]
    return policy.margins[:-1][min(step, len(policy.margins) - 2)] if len(policy.margins) > 1 else policy.margins[-1]


def _ending(alarm: Alarm) -> str:
    return ROLL_BACK if alarm.aborts else INCONCLUSIVE


def _difference(metric: Metric, evidence: CanaryEvidence, policy: CanaryPolicy) -> Difference:
    sums = next(sums for sums in evidence.metrics if sums.name == metric.name)
    found = contrast(sums.stable, sums.canary)
    steps = len(evidence.steps_bp)
    judged, stable, canary = UNKNOWN, _rate(sums, 0), _rate(sums, 1)
    if found is not None and _is_enough(sums, evidence, policy):
        harm = Side(evidence.alpha * metric.share / steps, metric.tightest_at)
        judged = bounds(found, Side(policy.alpha_pass, policy.pass_tightest_at), harm)
    says = _verdict(judged, margin_of(evidence.step, steps, policy))
    people = sums.stable.people, sums.canary.people
    return Difference(metric.name, stable, canary, judged.difference, judged.lower, judged.upper, *people, says)


def _is_enough(sums: MetricEvidence, evidence: CanaryEvidence, policy: CanaryPolicy) -> bool:
    # by both arms' outcomes: to wait for the canary's own would let a canary off in which nothing happens
    outcomes = sums.stable.sums[0] + sums.canary.sums[0]
    share = sums.canary.sums[1] / max(sums.stable.sums[1] + sums.canary.sums[1], 1.0)
    expected = outcomes * min(share, 1.0 - share)
    people = min(sums.stable.people, sums.canary.people)
    enough = people >= policy.least_people and expected >= policy.least_outcomes
    return enough and evidence.hours >= policy.least_hours


def _verdict(judged: Bounds, margin: float) -> str:
    return OPEN if judged is UNKNOWN else judged.says(margin)


def _rate(sums: MetricEvidence, arm: int) -> float:
    found = (sums.stable, sums.canary)[arm].sums
    return found[0] / found[1] if found[1] else 0.0


def _says(difference: Difference) -> str:
    name, low, high = difference.metric, difference.lower, difference.upper
    if low < -0.99:
        return f"{name}: too few people to tell ({difference.canary_count} in the canary arm)"
    return f"{name} {difference.difference:+.1%}, surely within {low:+.1%} … {high:+.1%}"
