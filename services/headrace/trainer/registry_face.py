"""The calls about releases and the serving plan."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from headrace.runtime.door import Context
from headrace.trainer.messages import plan_message, release_message
from headrace.trainer.paging import page_of
from headrace.trainer.plan_board import PlanBoard
from headrace.trainer.registry import Registry, number_of
from headrace.trainer.releases import Releases
from headrace.v1 import trainer_pb2

_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class RegistryParts:
    """What the calls need."""

    registry: Registry
    releases: Releases
    board: PlanBoard
    plan_valid_ms: int


class RegistryCalls:
    """The part of TrainerService that is about releases and who serves them."""

    def __init__(self, parts: Callable[[], RegistryParts]) -> None:
        self._parts = parts

    async def ListReleases(
        self, request: trainer_pb2.ListReleasesRequest, context: Context
    ) -> trainer_pb2.ListReleasesResponse:
        size, token = page_of(request.page_size, request.page_token, _is_release)
        before = number_of(token) if token else 0
        releases = await asyncio.to_thread(self._parts().registry.releases, size + 1, before)
        return trainer_pb2.ListReleasesResponse(
            releases=[release_message(release) for release in releases[:size]],
            next_page_token=releases[size - 1].name if len(releases) > size else "",
        )

    async def GetRelease(
        self, request: trainer_pb2.GetReleaseRequest, context: Context
    ) -> trainer_pb2.GetReleaseResponse:
        release = await asyncio.to_thread(self._parts().registry.release, request.release)
        return trainer_pb2.GetReleaseResponse(release=release_message(release))

    async def WatchServingPlan(
        self, request: trainer_pb2.WatchServingPlanRequest, context: Context
    ) -> AsyncIterator[trainer_pb2.WatchServingPlanResponse]:
        parts = self._parts()
        async for plan in parts.board.watch():
            yield plan_message(plan, parts.plan_valid_ms)

    async def FetchArtifact(
        self, request: trainer_pb2.FetchArtifactRequest, context: Context
    ) -> AsyncIterator[trainer_pb2.FetchArtifactResponse]:
        release = await asyncio.to_thread(self._parts().registry.release, request.release)
        sha256 = release.part(request.part).sha256
        data = await asyncio.to_thread(self._parts().releases.read, release, request.part)
        for start in range(0, max(len(data), 1), _CHUNK_BYTES):
            is_last = start + _CHUNK_BYTES >= len(data)
            chunk = data[start : start + _CHUNK_BYTES]
            yield trainer_pb2.FetchArtifactResponse(data=chunk, sha256=sha256 if is_last else "")


def _is_release(token: str) -> bool:
    return token.startswith("r-") and token[2:].isascii() and token[2:].isdecimal()
