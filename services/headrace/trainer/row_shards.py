"""Training rows of a feature store in shards, as those of one store: in the order of the log.

A shard has the groups of its own people. They are learned up to the offset up to which all shards have told theirs, by
offset, and by the shard's number where offsets are equal: so it does not matter which shard answers first.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, aclosing
from itertools import chain

import grpc
import numpy as np

from headrace.model.candidates import CANDIDATE_FEATURES
from headrace.trainer.rows import RowPart, RowSource, TrainingRows


def training_rows(channels: Sequence[Sequence[grpc.aio.Channel]]) -> TrainingRows:
    """The rows of shards, each of one or more replicas."""
    if sum(map(len, channels)) == 1:
        return RowSource(channels[0][0])
    return RowShards([RowReplicas([RowSource(channel) for channel in shard]) for shard in channels])


class RowReplicas:
    """One shard's rows, from a replica; from the next one when that fails."""

    def __init__(self, sources: Sequence[TrainingRows]) -> None:
        self._sources = tuple(sources)
        self._turn = 0

    async def parts(self, after: int, until: int) -> AsyncGenerator[RowPart, None]:
        """Its parts. What fails after the first part fails the call: the next call asks the next replica."""
        for attempt in range(1, len(self._sources) + 1):
            has_begun = False
            try:
                async for part in self._sources[self._turn].parts(after, until):
                    has_begun = True
                    yield part
                return
            except grpc.aio.AioRpcError:
                self._turn = (self._turn + 1) % len(self._sources)
                if has_begun or attempt == len(self._sources):
                    raise


class RowShards:
    """The rows of all shards."""

    def __init__(self, shards: Sequence[RowReplicas]) -> None:
        self._shards = tuple(shards)

    async def parts(self, after: int, until: int) -> AsyncIterator[RowPart]:
        """Groups closed at after < offset ≤ until, up to where all shards are complete."""
        async with AsyncExitStack() as stack:
            parts = [await stack.enter_async_context(aclosing(shard.parts(after, until))) for shard in self._shards]
            streams = [_Stream(one, after) for one in parts]
            while not (behind := min(streams, key=lambda stream: stream.complete_offset)).has_ended:
                await behind.read()
                complete_offset = min(stream.complete_offset for stream in streams)
                groups = [group for stream in streams for group in stream.taken(complete_offset)]
                # equal offsets stay in the order of the shards
                groups.sort(key=lambda group: int(group.offsets_G[0]))
                if groups or behind.has_ended:
                    yield _joined(groups, complete_offset)


class _Stream:
    """One shard's groups as they come; those that wait are newer than what all shards have told."""

    def __init__(self, parts: AsyncIterator[RowPart], after: int) -> None:
        self._parts = parts
        self._waiting: list[RowPart] = []
        self.complete_offset = after
        self.has_ended = False

    async def read(self) -> None:
        part = await anext(self._parts, None)
        if part is None:
            self.has_ended = True
            return
        self._waiting += _groups(part)
        self.complete_offset = max(self.complete_offset, part.complete_offset)

    def taken(self, offset: int) -> list[RowPart]:
        """The groups that wait and were closed up to the offset, which wait no more."""
        count = sum(int(group.offsets_G[0]) <= offset for group in self._waiting)
        taken, self._waiting = self._waiting[:count], self._waiting[count:]
        return taken


def _groups(part: RowPart) -> Iterator[RowPart]:
    ends = np.cumsum(part.sizes_G).tolist()
    for place, (start, end) in enumerate(zip([0, *ends], ends, strict=False)):
        one, rows = slice(place, place + 1), slice(start, end)
        yield RowPart(
            part.ordinals_R[rows],
            part.features_RF[rows],
            part.labels_R[rows],
            part.weights_R[rows],
            part.sizes_G[one],
            part.times_us_G[one],
            part.offsets_G[one],
            part.histories[one],
            part.user_keys[one],
            part.complete_offset,
        )


def _joined(groups: Sequence[RowPart], complete_offset: int) -> RowPart:
    parts = [_NOTHING, *groups]
    return RowPart(
        np.concatenate([part.ordinals_R for part in parts]),
        np.concatenate([part.features_RF for part in parts]),
        np.concatenate([part.labels_R for part in parts]),
        np.concatenate([part.weights_R for part in parts]),
        np.concatenate([part.sizes_G for part in parts]),
        np.concatenate([part.times_us_G for part in parts]),
        np.concatenate([part.offsets_G for part in parts]),
        tuple(chain.from_iterable(part.histories for part in parts)),
        tuple(chain.from_iterable(part.user_keys for part in parts)),
        complete_offset,
    )


_NOTHING = RowPart(
    np.empty(0, np.uint32),
    np.empty((0, len(CANDIDATE_FEATURES)), np.float32),
    np.empty(0, np.uint8),
    np.empty(0, np.float32),
    np.empty(0, np.int64),
    np.empty(0, np.int64),
    np.empty(0, np.int64),
    (),
    (),
    0,
)
