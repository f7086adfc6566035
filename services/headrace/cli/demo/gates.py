"""What a demo does about releases: it lets a bad one try to reach people, and takes a good one back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import grpc

from headrace.cli.client import Client
from headrace.cli.demo.bad_release import LINEAGE, publish_upside_down
from headrace.cli.demo.record import Stopped, Undone
from headrace.cli.demo.visitors import Visits
from headrace.cli.rollout.screen import is_over, phase_name
from headrace.v1.ranker_pb2 import GetRankerStatusRequest
from headrace.v1.trainer_pb2 import (
    CreateRolloutRequest,
    GetRolloutHistoryRequest,
    GetRolloutRequest,
    ResumeRolloutRequest,
    Rollout,
    UndoRolloutRequest,
    WatchServingPlanRequest,
    WatchServingPlanResponse,
)

T = TypeVar("T")

_ACTOR = "demo"
_TIMEOUT_S = 10.0
_LOOK_S = 0.1
_PATIENCE_S = 90.0


async def let_bad_release_try(client: Client, data_dir: Path, visits: Visits) -> Stopped:
    """A release whose order is upside down, its rollout to the end, and whom it answered meanwhile."""
    serving = await _served(client)
    bad = await asyncio.to_thread(publish_upside_down, data_dir, serving)
    before, begun = visits.answers, time.monotonic()
    request = CreateRolloutRequest(lineage=LINEAGE, actor=_ACTOR, reason="a release gone bad on purpose")
    name = (await _taken(lambda: client.trainer.CreateRollout(request, timeout=_TIMEOUT_S))).rollout
    await _until(lambda: _has_ended(client, name), f"{name} to end")
    seconds = time.monotonic() - begun
    asked = GetRolloutHistoryRequest(rollout=name)
    steps = (await client.trainer.GetRolloutHistory(asked, timeout=_TIMEOUT_S)).transitions
    course = [f"{phase_name(step.to_phase)}: {step.reason}" for step in steps]
    return Stopped(bad, serving, name, course, seconds, visits.answers - before, visits.by_release[bad])


async def undo(client: Client) -> Undone:
    """What served before the present release serves again; how long until the ranker answers by it."""

    async def order() -> tuple[str, float, str]:
        present, begun = await _settled(client), time.monotonic()
        request = UndoRolloutRequest(actor=_ACTOR, reason="to show the way back")
        return present, begun, (await client.trainer.UndoRollout(request, timeout=_TIMEOUT_S)).stable.release

    present, begun, back = await _taken(order)
    await _until(lambda: _serves(client, back), f"{back} to serve")
    took_ms = (time.monotonic() - begun) * 1e3
    # increments are held until somebody says that what is learned next may come again
    resume = ResumeRolloutRequest(actor=_ACTOR, reason="it was shown")
    await client.trainer.ResumeRollout(resume, timeout=_TIMEOUT_S)
    return Undone(present, back, took_ms)


async def _served(client: Client) -> str:
    return (await client.ranker.GetRankerStatus(GetRankerStatusRequest(), timeout=_TIMEOUT_S)).release


async def _settled(client: Client) -> str:
    """The release that is to serve, once the ranker answers by it."""

    async def is_settled() -> bool:
        return await _served(client) == await _stable(client)

    await _until(is_settled, "the ranker to answer by the stable release")
    return await _served(client)


async def _stable(client: Client) -> str:
    plans = client.trainer.WatchServingPlan(WatchServingPlanRequest(), timeout=_TIMEOUT_S)
    plan: WatchServingPlanResponse = await anext(aiter(plans))
    plans.cancel()
    return plan.stable.release


async def _serves(client: Client, release: str) -> bool:
    return await _served(client) == release


async def _has_ended(client: Client, name: str) -> bool:
    found: Rollout = (await client.trainer.GetRollout(GetRolloutRequest(rollout=name), timeout=_TIMEOUT_S)).found
    return is_over(found)


async def _taken(order: Callable[[], Awaitable[T]]) -> T:
    """An order is refused while another rollout is about to end, or nothing served before: it is given again."""
    end = time.monotonic() + _PATIENCE_S
    while True:
        try:
            return await order()
        except grpc.aio.AioRpcError as error:
            if error.code() != grpc.StatusCode.FAILED_PRECONDITION or time.monotonic() > end:
                raise
        await asyncio.sleep(_LOOK_S)


async def _until(holds: Callable[[], Awaitable[bool]], what: str) -> None:
    end = time.monotonic() + _PATIENCE_S
    while not await holds():
        if time.monotonic() > end:
            raise TimeoutError(f"waited {_PATIENCE_S:g} s for {what}")
        await asyncio.sleep(_LOOK_S)
