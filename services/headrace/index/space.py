"""One embedding space: its vectors, how far they have come, and who waits for more."""

# N rows, D dimension

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from headrace.index.batch import Batch
from headrace.index.rolling_hash import RollingHash
from headrace.index.rows import U32, Change, Rows
from headrace.index.segment import Segment, SegmentView
from headrace.index.watcher import Watcher
from headrace.runtime.errors import DeadlineError, NotFoundError


@dataclass(frozen=True)
class Digest:
    """SHA-256 of all vectors of a space, and where the space stood."""

    sequence: int
    log_offset: int
    vectors: int
    sha256: str


class Space:
    """A named space of one dimension.

    `apply` and `view` may be called from any thread; waiting, watching and announcing belong to the event loop.
    """

    def __init__(self, name: str, dimension: int, segment: Segment, rolling_hash: RollingHash | None = None) -> None:
        self.name = name
        self.dimension = dimension
        self.segment = segment
        self.rolling_hash = rolling_hash or RollingHash()
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []
        self._watchers: set[Watcher] = set()
        self._digest: Digest | None = None
        self._dropped = False

    @property
    def applied_sequence(self) -> int:
        return self.segment.sequence

    @property
    def log_offset(self) -> int:
        return self.segment.log_offset

    def take(self, batch: Batch) -> None:
        """Makes a batch visible to searches, and notes it in the rolling hash."""
        self.apply(batch.change())
        self.rolling_hash = self.rolling_hash.after(batch)

    def apply(self, change: Change) -> None:
        """Makes a change visible to searches."""
        self.segment.write(change)

    def become(self, other: Space) -> U32:
        """Takes over the rows of another space; the ordinals of all that may have changed."""
        changed = np.union1d(self.ordinals(), other.ordinals())
        self.segment, self.rolling_hash = other.segment, other.rolling_hash
        return changed

    def ordinals(self) -> U32:
        """Of all items that it holds, ascending."""
        return np.flatnonzero(self.segment.held()).astype(np.uint32)

    def announce(self, ordinals: U32, at: tuple[int, int] | None = None) -> None:
        """Wakes whoever waits for what was applied; called before anything else is applied.

        `at` are the sequence and log offset that it brought the space to, where it has gone on meanwhile.
        """
        sequence, log_offset = at or (self.applied_sequence, self.log_offset)
        for watcher in self._watchers:
            watcher.note(ordinals, sequence, log_offset)
        reached = [done for sequence, done in self._waiting if sequence <= self.applied_sequence]
        self._waiting = [waiting for waiting in self._waiting if waiting[0] > self.applied_sequence]
        for done in reached:
            _settle(done)

    def end(self) -> None:
        """Ends all waiting and watching: the space is gone."""
        self._dropped = True
        reason = f"space {self.name!r} was dropped"
        for watcher in self._watchers:
            watcher.end(reason)
        for _, done in self._waiting:
            if not done.done():
                done.set_exception(NotFoundError(reason))
        self._waiting = []

    async def reached(self, sequence: int, timeout_s: float) -> None:
        """Returns once `sequence` is applied. DeadlineError when that takes longer than `timeout_s`."""
        if self.applied_sequence >= sequence:
            return
        if self._dropped:
            raise NotFoundError(f"space {self.name!r} was dropped")
        done = asyncio.get_running_loop().create_future()
        self._waiting.append((sequence, done))
        try:
            async with asyncio.timeout(timeout_s):
                await done
        except TimeoutError as error:
            at = self.applied_sequence
            raise DeadlineError(f"space {self.name!r} is at sequence {at}, not yet at {sequence}") from error
        finally:
            self._waiting = [waiting for waiting in self._waiting if waiting[1] is not done]

    @contextmanager
    def watched(self) -> Iterator[Watcher]:
        """A watcher that misses no change after this, while open."""
        watcher = Watcher()
        if self._dropped:
            watcher.end(f"space {self.name!r} was dropped")
        self._watchers.add(watcher)
        try:
            yield watcher
        finally:
            self._watchers.discard(watcher)

    def digest(self) -> Digest:
        """The digest of what is applied; computed once a sequence."""
        with self.segment.view() as view:
            known = self._digest
            if known is None or (known.sequence, known.log_offset) != (view.sequence, view.log_offset):
                known = Digest(view.sequence, view.log_offset, view.count, digest_of(view, self.dimension))
                self._digest = known
            return known

    def extent(self) -> Digest:
        """What is applied, without the hash: `sha256` is empty."""
        with self.segment.view() as view:
            return Digest(view.sequence, view.log_offset, view.count, "")

    def all_rows(self) -> tuple[int, Rows]:
        """A sequence, and all rows as of it by ascending ordinal."""
        with self.segment.view() as view:
            return view.sequence, Rows.concatenated(self.dimension, view.chunks())


def digest_of(view: SegmentView, dimension: int) -> str:
    """SHA-256 over (ordinal uint32, vector float32) little-endian, by ascending ordinal."""
    hashed = hashlib.sha256()
    for rows in view.chunks():
        hashed.update(interleaved(rows, dimension))
    return hashed.hexdigest()


def interleaved(rows: Rows, dimension: int) -> bytes:
    """Each row's ordinal followed by its vector."""
    packed = np.empty(len(rows), np.dtype([("ordinal", "<u4"), ("vector", "<f4", (dimension,))]))
    packed["ordinal"] = rows.ordinals
    packed["vector"] = rows.vectors_ND
    return packed.tobytes()


def _settle(done: asyncio.Future[None]) -> None:
    if not done.done():
        done.set_result(None)
