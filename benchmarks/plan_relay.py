"""A registry with a plan of our own: a real one's stable release is the canary's too, and the share is as told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc

from headrace.v1 import trainer_pb2, trainer_pb2_grpc

_HEARTBEAT_S = 1.0
_VALID_FOR_MS = 30_000


class PlanRelay(trainer_pb2_grpc.TrainerServiceServicer):
    """Serves the plan, and parts of releases from the registry behind it."""

    rollout = "ro-000001"

    def __init__(self, registry: trainer_pb2_grpc.TrainerServiceAsyncStub, stable: trainer_pb2.Release) -> None:
        self.release = stable.release
        self._registry = registry
        self._plan = self._with(1, stable, 0)
        self._changed = asyncio.Condition()

    @classmethod
    async def of(cls, registry: trainer_pb2_grpc.TrainerServiceAsyncStub) -> PlanRelay:
        """With what is stable at the registry now."""
        async for plan in registry.WatchServingPlan(trainer_pb2.WatchServingPlanRequest()):
            if plan.stable.release:
                return cls(registry, plan.stable)
        raise AssertionError("the stream of plans ended")

    async def share(self, share_bp: int) -> None:
        """Puts so many of 10,000 people on the canary."""
        async with self._changed:
            self._plan = self._with(self._plan.sequence + 1, self._plan.stable, share_bp)
            self._changed.notify_all()

    def _with(self, sequence: int, stable: trainer_pb2.Release, share_bp: int) -> trainer_pb2.WatchServingPlanResponse:
        return trainer_pb2.WatchServingPlanResponse(
            sequence=sequence,
            stable=stable,
            canary=stable,
            assignment=trainer_pb2.Assignment(rollout=self.rollout, salt=self.rollout, share_bp=share_bp),
            valid_for_ms=_VALID_FOR_MS,
        )

    async def WatchServingPlan(
        self, request: trainer_pb2.WatchServingPlanRequest, context: Any
    ) -> AsyncIterator[trainer_pb2.WatchServingPlanResponse]:
        while True:
            plan = self._plan
            yield plan
            await self._moved(plan)

    async def _moved(self, plan: trainer_pb2.WatchServingPlanResponse) -> None:
        """Waits for a change of the plan, or the time to say it again."""
        try:
            async with asyncio.timeout(_HEARTBEAT_S), self._changed:
                await self._changed.wait_for(lambda: self._plan is not plan)
        except TimeoutError:
            return

    async def FetchArtifact(
        self, request: trainer_pb2.FetchArtifactRequest, context: Any
    ) -> AsyncIterator[trainer_pb2.FetchArtifactResponse]:
        async for chunk in self._registry.FetchArtifact(request):
            yield chunk


@asynccontextmanager
async def served_plan(relay: PlanRelay) -> AsyncIterator[str]:
    """The relay's address while it serves."""
    server = grpc.aio.server()
    trainer_pb2_grpc.add_TrainerServiceServicer_to_server(relay, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(0)
