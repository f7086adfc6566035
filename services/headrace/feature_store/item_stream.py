"""All items as they stand, then every change, for those who keep them in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace

from headrace.feature_store.fold import State
from headrace.feature_store.state_owner import StateOwner
from headrace.feature_store.watchers import ItemChunk, Watchers, batches, chunks


@dataclass(frozen=True, slots=True)
class WatchedChunk:
    """A part of the snapshot, or a delta."""

    chunk: ItemChunk
    snapshot: bool
    snapshot_end: bool


class ItemStream:
    """The items of one state. `publish` runs for as long as it lives."""

    def __init__(self, state: State, owner: StateOwner, publish_every_s: float) -> None:
        self._state = state
        self._run = owner.run
        self._publish_every_s = publish_every_s
        self._watchers = Watchers()

    async def publish(self) -> None:
        """Tells the watchers what changed, for ever."""
        while True:
            await asyncio.sleep(self._publish_every_s)
            await self._tell_changes()

    async def _tell_changes(self) -> None:
        if self._state.of_items.changed_items:
            self._watchers.note(*await self._run(self._state.of_items.taken_changes))

    async def watch(self) -> AsyncIterator[WatchedChunk]:
        """All items, then what changes; a slow reader gets fewer and newer deltas, never a growing queue."""
        # a new watcher need not be told again what its snapshot holds
        await self._tell_changes()
        watcher = self._watchers.join()
        try:
            async for snapshot in self._snapshot_chunks():
                yield snapshot
            while True:
                for items, documents in batches(*await watcher.take()):
                    for chunk in await self._chunks(items, documents):
                        yield WatchedChunk(chunk, snapshot=False, snapshot_end=False)
        finally:
            self._watchers.leave(watcher)

    async def _snapshot_chunks(self) -> AsyncIterator[WatchedChunk]:
        count, documents = await self._run(lambda: (self._state.items.count, self._state.catalogue.described()))
        last: WatchedChunk | None = None
        for items, described in batches(list(range(count)), documents):
            for chunk in await self._chunks(items, described):
                if last is not None:
                    yield last
                last = WatchedChunk(chunk, snapshot=True, snapshot_end=False)
        if last is None:
            last = WatchedChunk((await self._chunks([], []))[0], snapshot=True, snapshot_end=False)
        yield replace(last, snapshot_end=True)

    async def _chunks(self, items: list[int], documents: list[int]) -> list[ItemChunk]:
        return await self._run(lambda: chunks(self._state, items, documents))
