"""Pushes the delta log to every replica of every shard of the index, each by a stream of its own.

Rows that the log no longer holds one by one can be had from another replica. Where all replicas of a shard have lost
them, a new space is begun with everything in it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from headrace.runtime.quantiles import RecentQuantiles
from headrace.runtime.shards import Shard
from headrace.trainer.delta_log import DeltaLog
from headrace.trainer.index_channels import IndexChannels
from headrace.trainer.index_progress import IndexProgress, ReplicaProgress
from headrace.trainer.index_replica import Fit, IndexReplica, Pushing
from headrace.trainer.rotation import LOST, note_rotation


class Publisher:
    """Keeps the index at the end of the delta log. `wake` tells it that there may be more."""

    def __init__(
        self, channels: IndexChannels, delta_log: DeltaLog, dimension: int, compact_rows: int, fit: Fit
    ) -> None:
        self._delta_log = delta_log
        self._compact_rows = compact_rows
        self._beginning = asyncio.Lock()
        self.lag_ms = RecentQuantiles()
        # the lineage that serves: only that one's space takes the default place from another's
        self.serving: Callable[[], str] = lambda: ""
        self._progress = IndexProgress([[ReplicaProgress(address) for address, _ in shard] for shard in channels])
        pushing = Pushing(
            delta_log,
            dimension,
            fit,
            self.lag_ms,
            self._begin_space_if_lost,
            self._compact,
            lambda: self.serving(),
        )
        self._replicas = [
            IndexReplica(channel, Shard(number, len(channels)), progress, pushing)
            for number, (shard, replicas) in enumerate(zip(channels, self._progress.shards, strict=True))
            for (_, channel), progress in zip(shard, replicas, strict=True)
        ]
        # called when the space changes, so that a release for it is published
        self.on_new_space: Callable[[], None] = lambda: None

    def wake(self) -> None:
        for replica in self._replicas:
            replica.wake()

    @property
    def acknowledged(self) -> int:
        """What the index holds of the space, in every shard."""
        return self._progress.acknowledged(self._delta_log.space)

    def has_filled(self, space: str) -> bool:
        """Whether the index holds all that the space began with, and answers by it."""
        return self._progress.has_filled(space)

    async def run(self) -> None:
        """Pushes for ever; replicas that are away are tried again quietly."""
        async with asyncio.TaskGroup() as group:
            for replica in self._replicas:
                group.create_task(replica.run())

    async def _begin_space_if_lost(self, space: str, is_overtaken: bool) -> None:
        """Begins a new space where nobody has what `space` lacks, or where an index took what was never sent."""
        async with self._beginning:
            # another replica may have asked for it meanwhile
            if self._delta_log.space != space or not (is_overtaken or self._progress.is_lost(space)):
                return
            begun = await asyncio.to_thread(self._delta_log.begin_space, self._progress.taken(), LOST)
            note_rotation(begun, LOST)
            self.on_new_space()
            self.wake()

    async def _compact(self, space: str) -> None:
        acknowledged = self._progress.acknowledged(space)
        await asyncio.to_thread(self._delta_log.compact, space, acknowledged, self._compact_rows)
