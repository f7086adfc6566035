"""What people ask of rollouts, carried out: in any registry process, whoever decides."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

from headrace.model.arms import STABLE
from headrace.runtime.clock import now_us
from headrace.runtime.errors import FailedPreconditionError, NotFoundError
from headrace.trainer.plan_rows import NO_CHANGE, PlanChange
from headrace.trainer.registry import Registry, Release, ServingPlan
from headrace.trainer.rollouts.beginning import Beginning, Next, beginning_record
from headrace.trainer.rollouts.commands import ABORT, CREATE, PAUSE, PROMOTE, RESUME, SUPERSEDE, UNDO
from headrace.trainer.rollouts.decisions import decide
from headrace.trainer.rollouts.evidence import INCREMENT, LINEAGE, Command, Record, RolloutPolicy
from headrace.trainer.rollouts.gathering import bare_evidence, marks
from headrace.trainer.rollouts.phases import PROMOTION, TERMINAL, Phase
from headrace.trainer.rollouts.reports import RankerReports
from headrace.trainer.rollouts.rollout import Rollout, Transition, rollout_name, rollout_number
from headrace.trainer.rollouts.storage import ConflictError, Rollouts
from headrace.trainer.rollouts.telling import note_step

log = logging.getLogger(__name__)

# whoever else moves a rollout does so now and then: looking again is enough
_TRIES = 5
_SERVING = (Phase.PROMOTED, Phase.PAUSED, *PROMOTION)


@dataclass(frozen=True, slots=True)
class Wish:
    """A rollout that somebody asks for: of a release, or of the newest one of a lineage."""

    release: str
    lineage: str
    steps_bp: tuple[int, ...]
    supersede: bool
    actor: str
    reason: str


class Desk:
    """Takes orders. Each waits for the database: not to be called from an event loop."""

    def __init__(
        self,
        registry: Registry,
        rollouts: Rollouts,
        reports: RankerReports,
        policy: RolloutPolicy,
        ramp: tuple[int, ...],
    ) -> None:
        self._registry = registry
        self._rollouts = rollouts
        self._reports = reports
        self._policy = policy
        self._ramp = ramp

    def create(self, wish: Wish) -> Rollout:
        """A rollout that begins. NotFoundError, FailedPreconditionError."""
        release = self._wished(wish)
        plan = self._registry.plan()
        if plan.stable is None:
            raise FailedPreconditionError("nothing serves yet: the first release is rolled out by itself")
        if release.number in {served.number for served in (plan.stable, plan.canary) if served}:
            raise FailedPreconditionError(f"{release.name} serves already")
        kind = INCREMENT if release.lineage == plan.stable.lineage else LINEAGE
        self._make_room(kind, wish)
        steps = (wish.steps_bp or self._ramp) if kind == LINEAGE else ()
        beginning = Beginning(kind, STABLE, 0, release.number, plan.stable.number, release.lineage, steps)
        due, command = Next(beginning, release, plan.stable), Command(CREATE, wish.actor, wish.reason)
        return self._begin(due, command, PlanChange(hold="") if kind == INCREMENT else NO_CHANGE)

    def _wished(self, wish: Wish) -> Release:
        if wish.release:
            return self._registry.release(wish.release)
        newest = self._registry.newest_of(wish.lineage)
        if newest is None:
            raise NotFoundError(f"no release of lineage {wish.lineage!r}")
        return newest

    def _make_room(self, kind: str, wish: Wish) -> None:
        """Increments make way; another lineage's rollout only when that is asked for."""
        for other in self._rollouts.open():
            if kind == other.kind == LINEAGE:
                if not wish.supersede:
                    raise FailedPreconditionError(
                        f"{other.name} of lineage {other.lineage} is {other.phase}: supersede is not set"
                    )
                self._superseded(other, wish)
            elif other.holds_shadow:
                if other.kind == LINEAGE:
                    raise FailedPreconditionError(f"{other.name} of lineage {other.lineage} is {other.phase}")
                self._superseded(other, wish)
            elif other.is_taking_over and kind == INCREMENT:
                raise FailedPreconditionError(f"{other.name} is {other.phase}: it is about to end", 5.0)

    def _superseded(self, other: Rollout, wish: Wish) -> None:
        reason = f"{wish.actor} asked for {wish.release or wish.lineage}"
        self._commanded(other.number, Command(SUPERSEDE, wish.actor, reason))

    def promote(self, name: str, actor: str, reason: str) -> Rollout:
        return self._commanded(self.found(name).number, Command(PROMOTE, actor, reason))

    def abort(self, name: str, actor: str, reason: str) -> Rollout:
        return self._commanded(self.found(name).number, Command(ABORT, actor, reason))

    def pause(self, name: str, actor: str, reason: str) -> Rollout:
        return self._commanded(self.found(name).number, Command(PAUSE, actor, reason))

    def resume(self, name: str, actor: str, reason: str) -> Rollout:
        """Also lets increments begin by themselves again after an undo, when no rollout is named."""
        held = self._registry.plan().hold
        if not name and held:
            self._registry.change_plan(PlanChange(hold=""))
            log.info("increments_resume", extra={"actor": actor, "reason": reason, "held": held})
            return self._rollouts.newest(1)[0]
        return self._commanded(self.found(name).number, Command(RESUME, actor, reason))

    def undo(self, release: str, actor: str, reason: str) -> ServingPlan:
        """The plan with a kept release as stable; increments wait until somebody resumes."""
        plan = self._registry.plan()
        if plan.stable is None:
            raise FailedPreconditionError("nothing serves yet")
        target = self._target(plan.stable, release)
        command = Command(UNDO, actor, reason or f"{actor} went back to {target.name}", target.name)
        hold = f"{actor} went back from {plan.stable.name} to {target.name}"
        carrier = self._rollouts.of_release(plan.stable.number, _SERVING)
        if carrier is not None:
            self._commanded(carrier.number, command, hold)
        else:
            self._take_over(plan.stable, target, command, hold)
        return self._registry.plan()

    def _target(self, stable: Release, release: str) -> Release:
        if release:
            target = self._registry.release(release)
            if target.number == stable.number:
                raise FailedPreconditionError(f"{release} serves already")
            return target
        before = self._registry.predecessor(stable.number)
        if before is None:
            raise FailedPreconditionError(f"nothing is known to have served before {stable.name}")
        return before

    def _take_over(self, stable: Release, target: Release, command: Command, hold: str) -> None:
        """No rollout brought what serves: one of the target begins where it ends."""
        beginning = Beginning(
            INCREMENT, STABLE, 0, target.number, stable.number, target.lineage, (), phase=Phase.PROMOTED
        )
        change = PlanChange(stable=target.number, hold=hold)
        self._begin(Next(beginning, target, stable), replace(command, name=CREATE), change)

    def found(self, name: str) -> Rollout:
        """The rollout of that name; of none the one that runs (a lineage's before an increment), or the newest.

        NotFoundError.
        """
        if name:
            return self._rollouts.get(rollout_number(name))
        running = sorted(self._rollouts.open(), key=lambda each: (each.kind != LINEAGE, -each.number))
        found = next(iter(running or self._rollouts.newest(1)), None)
        if found is None:
            raise NotFoundError("there is no rollout yet")
        return found

    def newest(self, limit: int, before: int, with_increments: bool) -> Sequence[Rollout]:
        return self._rollouts.newest(limit, before, with_increments=with_increments)

    def history(self, limit: int, after: int, name: str) -> Sequence[Transition]:
        """NotFoundError: no such rollout."""
        number = self._rollouts.get(rollout_number(name)).number if name else 0
        return self._rollouts.history(limit, after, number)

    def _begin(self, due: Next, command: Command, change: PlanChange) -> Rollout:
        record = beginning_record(due, command, self._policy)
        try:
            rollout = self._rollouts.begin(due.beginning, record, command.actor, change)
        except ConflictError as error:
            raise FailedPreconditionError(str(error), retry_after_s=1.0) from error
        note_step(None, rollout)
        return rollout

    def _commanded(self, number: int, command: Command, hold: str = "") -> Rollout:
        for _ in range(_TRIES):
            rollout = self._rollouts.get(number)
            evidence = replace(bare_evidence(rollout, now_us()), command=command)
            try:
                decision = decide(evidence, self._policy)
            except FailedPreconditionError as error:
                over = " and over" if rollout.phase in TERMINAL else ""
                raise FailedPreconditionError(f"{rollout.name} is {rollout.phase}{over}: {error}") from error
            record = Record(evidence, self._policy, decision)
            found = marks(rollout, decision.to_phase, self._reports.all())
            try:
                moved = self._rollouts.move(rollout, record, command.actor, found, hold)
            except ConflictError:
                continue
            note_step(rollout.phase, moved)
            return moved
        raise FailedPreconditionError(f"{rollout_name(number)} moves too fast", retry_after_s=1.0)
