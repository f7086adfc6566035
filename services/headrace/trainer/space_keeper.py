"""Frees the spaces that nobody can go back to any more: first the releases that name them, then the vectors."""

from __future__ import annotations

import asyncio
import logging

import grpc

from headrace.runtime.outage import Outage
from headrace.trainer.delta_log import DeltaLog
from headrace.trainer.index_channels import IndexChannels
from headrace.trainer.releases import Releases
from headrace.trainer.rotation import needless_spaces
from headrace.trainer.served_lineage import ServedLineage
from headrace.v1 import index_pb2, index_pb2_grpc

log = logging.getLogger(__name__)

_LOOK_S = 1.0
_ANSWER_S = 30.0


class SpaceKeeper:
    """Keeps the newest `keep` spaces of this trainer's, and what releases need that are served or rolled out.

    Spaces of other lineages are left alone. A crash in between leaves the rest to be done again.
    """

    def __init__(
        self, channels: IndexChannels, delta_log: DeltaLog, releases: Releases, served: ServedLineage, keep: int
    ) -> None:
        self._stubs: list[index_pb2_grpc.IndexServiceAsyncStub] = [
            index_pb2_grpc.IndexServiceStub(channel) for shard in channels for _, channel in shard
        ]
        self._delta_log = delta_log
        self._releases = releases
        self._served = served
        self._keep = keep

    async def run(self) -> None:
        """Looks for ever."""
        patience = Outage("registry", "free spaces")
        while True:
            for space in await patience.attempt(lambda: asyncio.to_thread(self._unnamed)) or ():
                await self._drop(space)
            await asyncio.sleep(_LOOK_S)

    def _unnamed(self) -> list[str]:
        """Needless spaces that no kept release names."""
        self._served.look()
        needless = needless_spaces(self._delta_log.spaces(), self._keep, self._served.spaces)
        if not needless:
            return []
        named = self._releases.forget_spaces(needless)
        return [space for space in needless if space not in named]

    async def _drop(self, space: str) -> None:
        dropped = await asyncio.gather(*(_has_dropped(stub, space) for stub in self._stubs))
        if all(dropped):
            await asyncio.to_thread(self._delta_log.forget_space, space)
            log.info("space_dropped", extra={"space": space})


async def _has_dropped(stub: index_pb2_grpc.IndexServiceAsyncStub, space: str) -> bool:
    try:
        await stub.DropSpace(index_pb2.DropSpaceRequest(space=space), timeout=_ANSWER_S)
    except grpc.aio.AioRpcError:
        # away, or the space is active still: at the next look
        return False
    return True
