"""The vectors of several shards as one stream: a snapshot until the last shard's is whole, then every change."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

from headrace.ranker.peers import VectorsUpdate
from headrace.runtime.errors import HeadraceError, UnavailableError

# messages of up to 2 MB that wait for the reader, beside one a shard
_WAITING = 4


async def joined_watch(streams: Sequence[AsyncIterator[VectorsUpdate]]) -> AsyncIterator[VectorsUpdate]:
    """Messages of all streams as they come; ends with the first stream that ends, with its error."""
    queue: asyncio.Queue[tuple[int, VectorsUpdate] | HeadraceError] = asyncio.Queue(_WAITING)
    pumps = [asyncio.create_task(_pump(shard, stream, queue)) for shard, stream in enumerate(streams)]
    joined = _Joined(len(streams))
    try:
        while not isinstance(message := await queue.get(), HeadraceError):
            yield joined.of(*message)
        raise message
    finally:
        for pump in pumps:
            pump.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)


async def _pump(
    shard: int, stream: AsyncIterator[VectorsUpdate], queue: asyncio.Queue[tuple[int, VectorsUpdate] | HeadraceError]
) -> None:
    try:
        async for update in stream:
            await queue.put((shard, update))
        await queue.put(UnavailableError(f"the stream of shard {shard} ended"))
    except HeadraceError as error:
        await queue.put(error)


class _Joined:
    """Makes a shard's message one of the whole space: a space is as far as the shard that is behind."""

    def __init__(self, shards: int) -> None:
        self._reached = [(0, 0)] * shards
        self._incomplete = set(range(shards))

    def of(self, shard: int, update: VectorsUpdate) -> VectorsUpdate:
        in_snapshot = bool(self._incomplete)
        if update.ends_snapshot or not update.is_snapshot:
            self._reached[shard] = (update.applied_sequence, update.log_offset)
            self._incomplete.discard(shard)
        return replace(
            update,
            is_snapshot=in_snapshot,
            ends_snapshot=in_snapshot and not self._incomplete,
            applied_sequence=min(sequence for sequence, _ in self._reached),
            log_offset=min(offset for _, offset in self._reached),
        )
