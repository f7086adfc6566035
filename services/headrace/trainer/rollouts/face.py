"""The calls about rollouts: translate in, one order at the desk, translate out."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from headrace.runtime.clock import now_us
from headrace.runtime.door import Context
from headrace.runtime.errors import FailedPreconditionError, Faults
from headrace.trainer.messages import release_message
from headrace.trainer.paging import page_of
from headrace.trainer.rollouts.desk import Desk, Wish
from headrace.trainer.rollouts.messages import ranker_report, rollout_message, transition_message
from headrace.trainer.rollouts.reports import RankerReports
from headrace.trainer.rollouts.rollout import Rollout, rollout_name, rollout_number
from headrace.trainer.rollouts.sources import Deployments
from headrace.v1 import trainer_pb2

_MAX_ACTOR, _MAX_REASON = 200, 2_000
_MAX_STEPS = 50


@dataclass(frozen=True, slots=True)
class RolloutParts:
    """What the calls need; `told` is awaited after each order, so that everybody hears of it at once."""

    desk: Desk
    reports: RankerReports
    deployments: Deployments | None
    told: Callable[[], Awaitable[None]]


class RolloutCalls:
    """The part of TrainerService that is about rollouts."""

    def __init__(self, rollouts: Callable[[], RolloutParts]) -> None:
        self._rollouts = rollouts

    async def CreateRollout(
        self, request: trainer_pb2.CreateRolloutRequest, context: Context
    ) -> trainer_pb2.CreateRolloutResponse:
        wish, parts = _wish(request), self._rollouts()
        if parts.deployments is not None and (unsettled := await parts.deployments.unsettled()):
            raise FailedPreconditionError("; ".join(unsettled), retry_after_s=10.0)
        created = await asyncio.to_thread(parts.desk.create, wish)
        await parts.told()
        return trainer_pb2.CreateRolloutResponse(rollout=created.name, created=rollout_message(created))

    async def GetRollout(
        self, request: trainer_pb2.GetRolloutRequest, context: Context
    ) -> trainer_pb2.GetRolloutResponse:
        found = await asyncio.to_thread(self._rollouts().desk.found, request.rollout)
        return trainer_pb2.GetRolloutResponse(rollout=found.name, found=rollout_message(found))

    async def ListRollouts(
        self, request: trainer_pb2.ListRolloutsRequest, context: Context
    ) -> trainer_pb2.ListRolloutsResponse:
        size, token = page_of(request.page_size, request.page_token, _is_rollout)
        before = rollout_number(token) if token else 0
        desk = self._rollouts().desk
        found = await asyncio.to_thread(desk.newest, size + 1, before, request.with_increments)
        return trainer_pb2.ListRolloutsResponse(
            rollouts=[rollout_message(rollout) for rollout in found[:size]],
            next_page_token=found[size - 1].name if len(found) > size else "",
        )

    async def GetRolloutHistory(
        self, request: trainer_pb2.GetRolloutHistoryRequest, context: Context
    ) -> trainer_pb2.GetRolloutHistoryResponse:
        size, token = page_of(request.page_size, request.page_token, _is_number)
        desk = self._rollouts().desk
        found = await asyncio.to_thread(desk.history, size + 1, int(token or 0), request.rollout)
        return trainer_pb2.GetRolloutHistoryResponse(
            transitions=[transition_message(transition) for transition in found[:size]],
            next_page_token=str(found[size - 1].number) if len(found) > size else "",
        )

    async def PromoteRollout(
        self, request: trainer_pb2.PromoteRolloutRequest, context: Context
    ) -> trainer_pb2.PromoteRolloutResponse:
        rollout = await self._ordered(self._rollouts().desk.promote, request)
        return trainer_pb2.PromoteRolloutResponse(rollout=rollout_message(rollout))

    async def AbortRollout(
        self, request: trainer_pb2.AbortRolloutRequest, context: Context
    ) -> trainer_pb2.AbortRolloutResponse:
        rollout = await self._ordered(self._rollouts().desk.abort, request)
        return trainer_pb2.AbortRolloutResponse(rollout=rollout_message(rollout))

    async def PauseRollout(
        self, request: trainer_pb2.PauseRolloutRequest, context: Context
    ) -> trainer_pb2.PauseRolloutResponse:
        rollout = await self._ordered(self._rollouts().desk.pause, request)
        return trainer_pb2.PauseRolloutResponse(rollout=rollout_message(rollout))

    async def ResumeRollout(
        self, request: trainer_pb2.ResumeRolloutRequest, context: Context
    ) -> trainer_pb2.ResumeRolloutResponse:
        rollout = await self._ordered(self._rollouts().desk.resume, request)
        return trainer_pb2.ResumeRolloutResponse(rollout=rollout_message(rollout))

    async def UndoRollout(
        self, request: trainer_pb2.UndoRolloutRequest, context: Context
    ) -> trainer_pb2.UndoRolloutResponse:
        parts = self._rollouts()
        actor = _asker(request.actor, request.reason)
        plan = await asyncio.to_thread(parts.desk.undo, request.release, actor, request.reason)
        await parts.told()
        stable = release_message(plan.stable) if plan.stable else None
        return trainer_pb2.UndoRolloutResponse(stable=stable, plan_sequence=plan.sequence)

    async def ReportServing(
        self, request: trainer_pb2.ReportServingRequest, context: Context
    ) -> trainer_pb2.ReportServingResponse:
        self._rollouts().reports.take(ranker_report(request, now_us()))
        return trainer_pb2.ReportServingResponse()

    async def _ordered(self, order: Callable[[str, str, str], Rollout], request: _Order) -> Rollout:
        actor = _asker(request.actor, request.reason)
        rollout = await asyncio.to_thread(order, request.rollout, actor, request.reason)
        await self._rollouts().told()
        return rollout


_Order = (
    trainer_pb2.PromoteRolloutRequest
    | trainer_pb2.AbortRolloutRequest
    | trainer_pb2.PauseRolloutRequest
    | trainer_pb2.ResumeRolloutRequest
)


def _wish(request: trainer_pb2.CreateRolloutRequest) -> Wish:
    faults = Faults()
    faults.check(bool(request.release or request.lineage), "release", "must be given, or a lineage")
    _check_asker(faults, request.actor, request.reason)
    steps = tuple(request.steps_bp)
    faults.check(len(steps) <= _MAX_STEPS, "steps_bp", f"must be at most {_MAX_STEPS}, got {len(steps)}")
    for at, step in enumerate(steps):
        faults.check(1 <= step <= 10_000, f"steps_bp[{at}]", f"must be 1..10000, got {step}")
    faults.check(list(steps) == sorted(set(steps)), "steps_bp", "must grow from step to step")
    faults.raise_if_any()
    actor = request.actor or _SOMEBODY
    return Wish(request.release, request.lineage, steps, request.supersede, actor, request.reason)


_SOMEBODY = "somebody"


def _asker(actor: str, reason: str) -> str:
    faults = Faults()
    _check_asker(faults, actor, reason)
    faults.raise_if_any()
    return actor or _SOMEBODY


def _check_asker(faults: Faults, actor: str, reason: str) -> None:
    for field, text, limit in (("actor", actor, _MAX_ACTOR), ("reason", reason, _MAX_REASON)):
        faults.check(len(text) <= limit, field, f"must have at most {limit} characters, got {len(text)}")
        faults.check(text.isprintable(), field, "must be of printable characters")


def _is_number(token: str) -> bool:
    return token.isascii() and token.isdecimal() and len(token) <= 18


def _is_rollout(token: str) -> bool:
    digits = token.removeprefix("ro-")
    return digits != token and _is_number(digits) and rollout_name(int(digits)) == token
