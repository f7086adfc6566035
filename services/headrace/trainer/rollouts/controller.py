"""Moves rollouts on: looks at what runs, decides, and begins what is due. One process at a time does it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

from sqlalchemy.exc import OperationalError

from headrace.model.arms import CANARY
from headrace.runtime.clock import now_us
from headrace.runtime.errors import HeadraceError, UnavailableError
from headrace.trainer.registry import Registry, Release, ServingPlan, name_of
from headrace.trainer.rollouts.beginning import Next, beginning_record
from headrace.trainer.rollouts.commands import CREATE, SUPERSEDE
from headrace.trainer.rollouts.decisions import decide
from headrace.trainer.rollouts.evidence import LINEAGE, Command, Record, RolloutEvidence, RolloutPolicy
from headrace.trainer.rollouts.gathering import Gathering, bare_evidence, marks
from headrace.trainer.rollouts.increments import next_increment
from headrace.trainer.rollouts.lease import Lease
from headrace.trainer.rollouts.phases import RUNNING, Phase, may_follow
from headrace.trainer.rollouts.reports import RankerReport, RankerReports
from headrace.trainer.rollouts.rollout import Rollout
from headrace.trainer.rollouts.sources import Deployments
from headrace.trainer.rollouts.storage import CONTROLLER, ConflictError, Rollouts
from headrace.trainer.rollouts.telling import note_step

log = logging.getLogger(__name__)


class Controller:
    """Decides about every rollout for as long as it holds the lease. `told` is awaited after each step."""

    def __init__(
        self,
        registry: Registry,
        rollouts: Rollouts,
        reports: RankerReports,
        gathering: Gathering,
        lease: Lease,
        policy: RolloutPolicy,
        look_every_s: float,
        deployments: Deployments | None,
        told: Callable[[], Awaitable[None]],
    ) -> None:
        self._registry = registry
        self._rollouts = rollouts
        self._reports = reports
        self._gathering = gathering
        self._lease = lease
        self._policy = policy
        self._look_every_s = look_every_s
        self._deployments = deployments
        self._told_all = told
        self._woken = asyncio.Event()
        gathering.on_answer = self.wake
        self._decides_since: float | None = None

    async def run(self) -> None:
        """Looks for ever. What is away is asked again; what goes wrong with one look is said and the next one taken."""
        try:
            while True:
                if not await self._look_safely():
                    await self._pause()
        finally:
            self._gathering.close()
            await asyncio.to_thread(self._lease.give_up)

    @property
    def decides(self) -> bool:
        """Whether it is this process that does."""
        return self._decides_since is not None

    def wake(self) -> None:
        """Lets the next look be at once, since something is new."""
        self._woken.set()

    async def _pause(self) -> None:
        try:
            async with asyncio.timeout(self._look_every_s):
                await self._woken.wait()
        except TimeoutError:
            return
        finally:
            self._woken.clear()

    async def _look_safely(self) -> bool:
        try:
            return await self.look()
        except (HeadraceError, OperationalError) as error:
            log.warning("look_failed", extra={"reason": str(error)})
        except Exception:
            # one rollout's fault must not leave all others without a guardrail
            log.exception("look_failed")
        return False

    async def look(self) -> bool:
        """One look: every rollout moves by at most one step, and at most one begins; whether anything did."""
        if not await asyncio.to_thread(self._lease.is_mine):
            self._decides_since = None
            return False
        if self._decides_since is None:
            self._decides_since = time.monotonic()
            log.info("decides")
        running = await asyncio.to_thread(self._rollouts.open)
        reports = await asyncio.to_thread(self._reports.all) if running else []
        moved = False
        for rollout in running:
            try:
                moved |= await self._decide(rollout, running, reports)
            except ConflictError as error:
                log.info("moved_by_another", extra={"reason": str(error)})
        return await self._begin_next() or moved

    async def _decide(self, rollout: Rollout, running: Sequence[Rollout], reports: Sequence[RankerReport]) -> bool:
        evidence = await self._evidence(rollout, running, reports)
        decision = decide(evidence, self._policy)
        if not decision.moves:
            if decision.comparisons or (decision.reason != rollout.reason and rollout.phase in RUNNING):
                await asyncio.to_thread(self._rollouts.note, rollout, decision)
            return False
        record = Record(evidence, self._policy, decision)
        actor = evidence.command.actor if evidence.command else CONTROLLER
        found = marks(rollout, decision.to_phase, reports)
        moved = await asyncio.to_thread(self._rollouts.move, rollout, record, actor, found)
        await self._told(rollout.phase, moved)
        return True

    async def _evidence(
        self, rollout: Rollout, running: Sequence[Rollout], reports: Sequence[RankerReport]
    ) -> RolloutEvidence:
        if (reason := _lost_ground(rollout, running, await asyncio.to_thread(self._registry.plan))) != "":
            command = Command(SUPERSEDE, CONTROLLER, reason)
            return replace(bare_evidence(rollout, now_us()), command=command)
        releases = await asyncio.to_thread(self._named, rollout)
        newest = await asyncio.to_thread(self._registry.newest_of, rollout.lineage)
        newer = newest.name if newest and newest.number > rollout.release else ""
        listened_s = time.monotonic() - self._decides_since if self._decides_since is not None else 0.0
        return self._gathering.evidence(rollout, releases, newer, reports, now_us(), listened_s)

    def _named(self, rollout: Rollout) -> dict[int, Release]:
        return {rollout.release: self._registry.release(name_of(rollout.release))}

    async def _begin_next(self) -> bool:
        plan = await asyncio.to_thread(self._registry.plan)
        running = await asyncio.to_thread(self._rollouts.open)
        due = await asyncio.to_thread(next_increment, self._registry, self._rollouts, plan, running)
        if due is None or await self._is_unsettled():
            return False
        rollout = await asyncio.to_thread(self._begin, due)
        await self._told(None, rollout)
        return True

    def _begin(self, due: Next) -> Rollout:
        command = Command(CREATE, CONTROLLER, f"the newest release of lineage {due.release.lineage}")
        record = beginning_record(due, command, self._policy)
        return self._rollouts.begin(due.beginning, record, CONTROLLER)

    async def _is_unsettled(self) -> bool:
        if self._deployments is None:
            return False
        try:
            found = await self._deployments.unsettled()
        except UnavailableError as error:
            found = [str(error)]
        if found:
            log.info("waits_for_deployments", extra={"reason": "; ".join(found)})
        return bool(found)

    async def _told(self, before: Phase | None, rollout: Rollout) -> None:
        note_step(before, rollout)
        await self._told_all()


def _lost_ground(rollout: Rollout, running: Sequence[Rollout], plan: ServingPlan) -> str:
    """Why an increment has nothing to end in any more; empty: it has."""
    if not may_follow(Phase.SUPERSEDED, rollout.phase) or rollout.kind == LINEAGE:
        return ""
    if rollout.track == CANARY:
        fed = next((each for each in running if each.number == rollout.feeds), None)
        is_there = fed is not None and fed.at == Phase.CANARY
        return "" if is_there else "the canary slot that it was for is given up"
    if plan.stable is None or not rollout.baseline or plan.stable.number == rollout.baseline:
        return ""
    return f"{plan.stable.name} serves by now, not {name_of(rollout.baseline)}"
