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


def held(seed: int, active: int, days: int, share_bp: int, errors: dict[float, float], traced: bool) -> list[Held]:
    """The same people with canaries of each change, a look every hour over the whole horizon."""
    world = World.of(seed, days, active, STABLE_ERROR)
    found = []
    for change, error in errors.items():
        step = Step(world, world.canary(seed, error, share_bp), 0, (share_bp,), 0, POLICY)
        found.append(_held(change, step, 24 * days, traced))
    return found


def naive(seed: int, active: int, days: int, share_bp: int) -> dict[str, bool]:
    return false_alarms(World.of(seed, days, active, STABLE_ERROR), share_bp, 24 * days)


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


def ramped(seed: int, active: int, days: int, steps_bp: tuple[int, ...], change: float, error: float) -> Ramped:
    """A rollout as the controller would run it: a look every hour, the next step when one is passed."""
    world = World.of(seed, days, active, STABLE_ERROR)
    canary = world.canary(seed, error, steps_bp[-1])
    begin, ends = 0, []
    for number in range(len(steps_bp)):
        step = Step(world, canary, begin, steps_bp, number, POLICY)
        decision, evidence = "", None
        for evidence in looks(step, ALPHA, 24 * days - begin):
            decision = canary_verdict(evidence, POLICY).decision
            if decision in (ADVANCE, PROMOTE, ROLL_BACK):
                break
            decision = ""
        begin += int(evidence.hours) if evidence else 0
        ends.append(float(begin))
        if decision != ADVANCE:
            break
    found = primary(evidence) if evidence else None
    if found is None or number < len(steps_bp) - 1:
        return Ramped(change, decision, float(begin), ends, 0.0, 0.0, 0.0)
    return Ramped(
        change, decision, float(begin), ends, found.exposure, found.variance / found.exposure, found.explained
    )


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
