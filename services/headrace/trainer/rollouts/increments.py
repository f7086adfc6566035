"""Which release is next to be rolled out by itself."""

from __future__ import annotations

from collections.abc import Sequence

from headrace.model.arms import CANARY, STABLE
from headrace.trainer.registry import Registry, Release, ServingPlan
from headrace.trainer.rollouts.beginning import Beginning, Next
from headrace.trainer.rollouts.evidence import INCREMENT, LINEAGE
from headrace.trainer.rollouts.phases import Phase
from headrace.trainer.rollouts.rollout import Rollout
from headrace.trainer.rollouts.storage import Rollouts


def next_increment(
    registry: Registry, rollouts: Rollouts, plan: ServingPlan, running: Sequence[Rollout]
) -> Next | None:
    """The newest release of the lineage that serves, or of that in the canary slot, in turns; None: nothing is due.

    One at a time: rankers hold one shadow release. Before anything serves, the newest release of any lineage is due.
    """
    if plan.hold or any(each.holds_shadow or each.is_taking_over for each in running):
        return None
    if plan.stable is None:
        return _first(registry, rollouts)
    due = [_of_stable(registry, rollouts, plan.stable)]
    if (lineage := _in_canary(running)) is not None and plan.canary is not None:
        due.append(_of_canary(registry, rollouts, lineage, plan.canary))
    found = [(rollouts.newest_tried(each.release.lineage)[1], each) for each in due if each is not None]
    # whose turn was longest ago
    return min(found, key=lambda pair: pair[0])[1] if found else None


def _first(registry: Registry, rollouts: Rollouts) -> Next | None:
    newest = next(iter(registry.releases(1)), None)
    if newest is None or newest.number <= rollouts.newest_tried(newest.lineage)[0]:
        return None
    return Next(Beginning(INCREMENT, STABLE, 0, newest.number, 0, newest.lineage, ()), newest, None)


def _of_stable(registry: Registry, rollouts: Rollouts, stable: Release) -> Next | None:
    newest = _untried(registry, rollouts, stable.lineage, stable.number)
    if newest is None:
        return None
    beginning = Beginning(INCREMENT, STABLE, 0, newest.number, stable.number, stable.lineage, ())
    return Next(beginning, newest, stable)


def _of_canary(registry: Registry, rollouts: Rollouts, lineage: Rollout, canary: Release) -> Next | None:
    newest = _untried(registry, rollouts, lineage.lineage, canary.number)
    if newest is None:
        return None
    beginning = Beginning(INCREMENT, CANARY, lineage.number, newest.number, canary.number, lineage.lineage, ())
    return Next(beginning, newest, canary)


def _untried(registry: Registry, rollouts: Rollouts, lineage: str, served: int) -> Release | None:
    newest = registry.newest_of(lineage)
    if newest is None or newest.number <= max(served, rollouts.newest_tried(lineage)[0]):
        return None
    return newest


def _in_canary(running: Sequence[Rollout]) -> Rollout | None:
    return next((each for each in running if each.kind == LINEAGE and each.phase == Phase.CANARY), None)
