"""One run of each question of the rollouts benchmark: everything in it follows from its seed."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.rollouts_gate_two import Step, World, looks
from benchmarks.rollouts_naive import false_alarms
from benchmarks.rollouts_shop import STABLE_ERROR
from headrace.trainer.analysis.error_budget import CANARY, ErrorBudget
from headrace.trainer.analysis.evidence import CanaryEvidence
from headrace.trainer.analysis.policy import BudgetPolicy, CanaryPolicy
from headrace.trainer.analysis.variance_reduction import Contrast, contrast
from headrace.trainer.analysis.verdict import ADVANCE, PROMOTE, ROLL_BACK, canary_verdict

POLICY = CanaryPolicy()
ALPHA, _ = ErrorBudget().allotted(20_000, CANARY, BudgetPolicy())


@dataclass(frozen=True)
class Held:
    """A canary that is held at one share: when it was rolled back (None: never), and its bounds by look."""

    change: float
    rolled_back_hour: float | None
    reason: str
    path: list[tuple[float, float, float, float]]


def held(
    seed: int, active: int, days: int, share_bp: int, errors: dict[float, float], traced: bool
) -> tuple[list[Held], dict[str, bool]]:
    """The same people with canaries of each change, a look every hour over the whole horizon; and which of the usual
    tests would have cried wolf where nothing changed.
    """
    world = World.of(seed, days, active, STABLE_ERROR)
    found = []
    for change, error in errors.items():
        step = Step(world, world.canary(seed, error, share_bp), 0, (share_bp,), 0, POLICY)
        found.append(_held(change, step, 24 * days, traced))
    return found, false_alarms(world, share_bp, 24 * days)


@dataclass(frozen=True)
class Ramped:
    """How a rollout through all its steps ended: promote, roll back, or "" (it went on beyond the horizon)."""

    change: float
    decision: str
    hours: float
    step_hours: list[float]
    # of the last step: what it took, and the relative variance of a unit of exposure
    exposure: float
    variance: float
    explained: float


def ramped(seed: int, active: int, days: int, steps_bp: tuple[int, ...], errors: dict[float, float]) -> list[Ramped]:
    """Rollouts of each change as the controller would run them, on the same people."""
    world = World.of(seed, days, active, STABLE_ERROR)
    return [_ramped(world, seed, days, steps_bp, change, error) for change, error in errors.items()]


def _ramped(world: World, seed: int, days: int, steps_bp: tuple[int, ...], change: float, error: float) -> Ramped:
    canary = world.canary(seed, error, steps_bp[-1])
    begin, ends = 0, []
    for number in range(len(steps_bp)):
        step = Step(world, canary, begin, steps_bp, number, POLICY)
        decision, evidence = _ended(step, 24 * days - begin)
        begin += int(evidence.hours)
        ends.append(float(begin))
        if decision != ADVANCE:
            break
    found = primary(evidence) if number == len(steps_bp) - 1 else None
    if found is None:
        return Ramped(change, decision, float(begin), ends, 0.0, 0.0, 0.0)
    unit = found.variance / found.exposure
    return Ramped(change, decision, float(begin), ends, found.exposure, unit, found.explained)


def _ended(step: Step, hours: int) -> tuple[str, CanaryEvidence]:
    """How a step ends, with the evidence of that look; "" at the horizon."""
    for evidence in looks(step, ALPHA, hours):
        decision = canary_verdict(evidence, POLICY).decision
        if decision in (ADVANCE, PROMOTE, ROLL_BACK):
            return decision, evidence
    return "", evidence


def primary(evidence: CanaryEvidence) -> Contrast | None:
    """The primary metric's difference."""
    return next(contrast(one.stable, one.canary) for one in evidence.metrics if one.name == POLICY.primary)


def _held(change: float, step: Step, hours: int, traced: bool) -> Held:
    path = []
    rolled_back, reason = None, ""
    for evidence in looks(step, ALPHA, hours):
        verdict = canary_verdict(evidence, POLICY)
        if traced:
            one = next(one for one in verdict.differences if one.metric == POLICY.primary)
            path.append((evidence.hours, one.difference, one.lower, one.upper))
        if verdict.decision == ROLL_BACK and rolled_back is None:
            rolled_back, reason = evidence.hours, verdict.reason
            if not traced:
                break
    return Held(change, rolled_back, reason, path)
