"""What a step of a rollout does to the serving plan."""

from __future__ import annotations

from dataclasses import replace

from headrace.model.arms import CANARY
from headrace.trainer.plan_rows import PlanChange
from headrace.trainer.rollouts.evidence import LINEAGE, Decision
from headrace.trainer.rollouts.phases import Phase
from headrace.trainer.rollouts.rollout import Rollout
from headrace.trainer.tables import PlanRow


def effect(rollout: Rollout, decision: Decision, plan: PlanRow, target: int) -> PlanChange:
    """The change that goes with the decision. `target`: where an undo goes to; 0: what served before."""
    match decision.to_phase:
        case Phase.SHADOWING:
            # the canary track takes it meanwhile, with nobody in its arm: a share waits for it
            canary = rollout.release if rollout.kind == LINEAGE else None
            return PlanChange(shadow=rollout.release, canary=canary)
        case Phase.CANARY:
            share_bp = rollout.steps_bp[decision.step]
            return PlanChange(
                canary=rollout.release,
                shadow=_without(rollout, plan),
                rollout=rollout.name,
                salt=rollout.salt,
                share_bp=share_bp,
            )
        case Phase.PROMOTING:
            return _promotion(rollout, plan)
        case Phase.ROLLING_BACK:
            return _way_back(rollout, plan, target)
        case Phase.INCONCLUSIVE | Phase.SUPERSEDED:
            return _ending(rollout, plan)
        case _:
            return PlanChange()


def _promotion(rollout: Rollout, plan: PlanRow) -> PlanChange:
    if rollout.track == CANARY:
        return PlanChange(canary=rollout.release, shadow=_without(rollout, plan))
    return _slot_given_up(rollout, PlanChange(stable=rollout.release, shadow=_without(rollout, plan)))


def _way_back(rollout: Rollout, plan: PlanRow, target: int) -> PlanChange:
    before = target or rollout.baseline
    if rollout.track == CANARY:
        canary = before if plan.canary == rollout.release else None
        return PlanChange(canary=canary, shadow=_without(rollout, plan))
    stable = before if plan.stable == rollout.release else None
    return _slot_given_up(rollout, PlanChange(stable=stable, shadow=_without(rollout, plan)))


def _ending(rollout: Rollout, plan: PlanRow) -> PlanChange:
    return _slot_given_up(rollout, PlanChange(shadow=_without(rollout, plan)))


def _without(rollout: Rollout, plan: PlanRow) -> int | None:
    return 0 if plan.shadow == rollout.release else None


def _slot_given_up(rollout: Rollout, change: PlanChange) -> PlanChange:
    """With nobody in the canary arm of a lineage's rollout any more."""
    if rollout.kind != LINEAGE:
        return change
    return replace(change, canary=0, rollout="", salt="", share_bp=0)
