"""A space as a follower gets it: all vectors as of one sequence, then what changes."""

# N rows, D dimension

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Executor
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass

import numpy as np

from headrace.index.rows import F32, NO_ORDINALS, U32, Mask, Rows
from headrace.index.segment import SegmentView
from headrace.index.space import Space
from headrace.index.watcher import Changed
from headrace.runtime.errors import UnavailableError

_PART_BYTES = 2 << 20


@dataclass(frozen=True)
class Part:
    """A piece of a snapshot or of a change; `sequence` is what the follower has once it has this."""

    ordinals: U32
    vectors_ND: F32
    tombstones_N: Mask
    sequence: int
    log_offset: int
    snapshot: bool = False
    snapshot_end: bool = False


async def followed(space: Space, readers: Executor, snapshot_limit_s: float) -> AsyncIterator[Part]:
    """Parts of at most 2 MB, for ever.

    A follower that is slow gets the newest value of each item. UnavailableError when it takes longer
    than `snapshot_limit_s` over the snapshot, whose rows are kept for it alone; NotFoundError when
    the space is dropped.
    """
    loop = asyncio.get_running_loop()
    with space.watched() as watcher:
        sequence, log_offset = 0, 0
        async for part in _snapshot(space, readers, snapshot_limit_s):
            sequence, log_offset = part.sequence, part.log_offset
            yield part
        while True:
            changed = await watcher.take()
            rows = await loop.run_in_executor(readers, space.segment.get, changed.ordinals)
            before = (sequence, log_offset)
            if changed.sequence >= sequence:
                sequence, log_offset = changed.sequence, changed.log_offset
            for part in _change_parts(rows, changed, before, (sequence, log_offset), space.dimension):
                yield part


async def _snapshot(space: Space, readers: Executor, limit_s: float) -> AsyncIterator[Part]:
    loop = asyncio.get_running_loop()
    with Lease(space.segment.view(), limit_s) as lease:
        view, chunks = lease.view, lease.view.chunks()
        while (rows := await loop.run_in_executor(readers, lease.read, chunks)) is not None:
            for start in range(0, len(rows), _part_rows(space.dimension)):
                part = rows.taken(np.arange(start, min(len(rows), start + _part_rows(space.dimension))))
                none_N = np.zeros(len(part), np.bool_)
                yield Part(part.ordinals, part.vectors_ND, none_N, view.sequence, view.log_offset, snapshot=True)
        nothing = Rows.none(space.dimension).vectors_ND
        none_N = np.zeros(0, np.bool_)
        yield Part(NO_ORDINALS, nothing, none_N, view.sequence, view.log_offset, snapshot=True, snapshot_end=True)


class Lease:
    """A pinned view that is let go after a while, so that a stalled follower holds no rows back."""

    def __init__(self, view: AbstractContextManager[SegmentView], limit_s: float) -> None:
        self._pins = ExitStack()
        self.view: SegmentView = self._pins.enter_context(view)
        self._limit_s = limit_s
        self._reading = False
        self._expired = False

    def __enter__(self) -> Lease:
        self._timer = asyncio.get_running_loop().call_later(self._limit_s, self._expire)
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()
        self._pins.close()

    def read(self, chunks: Iterator[Rows]) -> Rows | None:
        """The next rows, None after the last."""
        self._reading = True
        try:
            if self._expired:
                raise UnavailableError(f"the snapshot was not taken within {self._limit_s} s: begin again")
            return next(chunks, None)
        finally:
            self._reading = False

    def _expire(self) -> None:
        self._expired = True
        # rows that are being read stay; the next read ends the lease
        if not self._reading:
            self._pins.close()


def _change_parts(
    rows: Rows, changed: Changed, before: tuple[int, int], after: tuple[int, int], dimension: int
) -> Iterator[Part]:
    rows = rows.taken(np.argsort(rows.sequences, kind="stable"))
    gone = np.setdiff1d(changed.ordinals, rows.ordinals)
    ordinals = np.concatenate([rows.ordinals, gone])
    vectors_ND = np.concatenate([rows.vectors_ND, np.zeros((len(gone), dimension), np.float32)])
    tombstones_N = np.arange(len(ordinals)) >= len(rows)
    step = _part_rows(dimension)
    for start in range(0, max(1, len(ordinals)), step):
        end = start + step
        # only the last part brings the follower to the new sequence
        sequence, log_offset = after if end >= len(ordinals) else before
        yield Part(ordinals[start:end], vectors_ND[start:end], tombstones_N[start:end], sequence, log_offset)


def _part_rows(dimension: int) -> int:
    return max(1, _PART_BYTES // (4 * dimension + 8))
