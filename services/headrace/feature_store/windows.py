"""Counts over sliding windows, by sparse ring buckets.

A window of length W is 64 buckets of W/64: an event leaves the count when its whole bucket has left the window,
so a count is exact for a window between 63/64 W and W. Only buckets in which something happened exist, and a
closed bucket holds each key once: memory follows what happened, not how long the window is.
"""

# R rows (one an entity: item, user, category or brand), W windows × K kinds of event, E events

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from headrace.feature_store.columns import Columns
from headrace.model.events import COUNTED_NAMES
from headrace.model.growing import grown
from headrace.model.items import WINDOWS_US

BUCKETS = 64
KINDS = len(COUNTED_NAMES)
WIDTH = len(WINDOWS_US) * KINDS

# pending changes of a bucket are summed up when there are this many bytes of them, and as many as the sums
_COMPACT_BYTES = 1 << 16


class WindowedCounts:
    """Views, carts and purchases a row, over each of WINDOWS_US, at the newest time given.

    Other windows and another number of kinds of event may be named.
    """

    def __init__(self, windows_us: Sequence[int] = tuple(WINDOWS_US.values()), kinds: int = KINDS) -> None:
        self._kinds = kinds
        self.totals_RW: NDArray[np.int32] = np.zeros((0, len(windows_us) * kinds), np.int32)
        self._rings = [_Ring(window_us) for window_us in windows_us]

    def add(self, rows: NDArray[np.int64], kind: int, time_us: int, now_us: int, sign: int = 1) -> None:
        """Counts one event of `kind` (0 views, 1 carts, 2 purchases) for each of the distinct `rows`.

        An event older than a window doesn't enter it; a late one enters its own bucket and leaves with it.
        `sign` −1 takes such an event back.
        """
        keys = (rows * self._kinds + (kind + 1)).astype(np.int32)
        data = (keys if sign > 0 else -keys).tobytes()
        if len(rows):
            self.totals_RW = grown(self.totals_RW, int(rows.max()) + 1)
        inside = [ring.put(time_us, now_us, data) for ring in self._rings]
        if all(inside):
            self.totals_RW[rows, kind :: self._kinds] += np.int32(sign)
            return
        for number in (number for number, is_inside in enumerate(inside) if is_inside):
            self.totals_RW[rows, number * self._kinds + kind] += np.int32(sign)

    def add_many(
        self, rows_E: NDArray[np.int64], kinds_E: NDArray[np.int64], times_us_E: NDArray[np.int64], now_us: int
    ) -> None:
        """Counts many events, one row each; the same as `add` for one after the other and `advance` in between.

        `now_us` is the newest time given so far, these events' included. What enters a window and leaves it again
        before then is never put anywhere.
        """
        self.advance(now_us)
        if not len(rows_E):
            return
        self.totals_RW = grown(self.totals_RW, int(rows_E.max()) + 1)
        keys_E = rows_E * self._kinds + kinds_E
        # all windows of a row in one pass: most events are inside all of them
        inside_WE = [ring.is_inside(times_us_E, now_us) for ring in self._rings]
        for number, (ring, inside_E) in enumerate(zip(self._rings, inside_WE, strict=True)):
            keys, times_us = (keys_E, times_us_E) if inside_E.all() else (keys_E[inside_E], times_us_E[inside_E])
            self._total(number, keys)
            ring.put_many(keys, times_us)

    def _total(self, window: int, keys: NDArray[np.int64]) -> None:
        # a bincount passes over all rows: dear when there are many more of them than events
        if len(keys) * 8 >= len(self.totals_RW):
            counts = np.bincount(keys, minlength=len(self.totals_RW) * self._kinds).reshape(-1, self._kinds)
            self.totals_RW[:, window * self._kinds : (window + 1) * self._kinds] += counts.astype(np.int32)
            return
        np.add.at(self.totals_RW, (keys // self._kinds, window * self._kinds + keys % self._kinds), np.int32(1))

    def advance(self, now_us: int) -> NDArray[np.int64]:
        """Takes out what has left its window; returns the rows whose counts changed (may repeat)."""
        changed = []
        for number, ring in enumerate(self._rings):
            for keys, counts in ring.expire(now_us):
                rows = keys // self._kinds
                self.totals_RW[rows, number * self._kinds + keys % self._kinds] -= counts
                changed.append(rows)
        return np.concatenate(changed) if changed else np.empty(0, np.int64)

    def of(self, row: int) -> NDArray[np.int32]:
        """The counts of one row, windows from short to long, views, carts and purchases in each."""
        width = self.totals_RW.shape[1]
        return self.totals_RW[row].copy() if row < len(self.totals_RW) else np.zeros(width, np.int32)

    def columns(self, rows: int) -> Columns:
        """The first `rows` rows, for a snapshot, in an order that depends on the counts alone."""
        self.totals_RW = grown(self.totals_RW, rows)
        result: dict[str, NDArray[np.generic]] = {"windows.totals": self.totals_RW[:rows].copy()}
        for number, ring in enumerate(self._rings):
            for name, values in ring.columns().items():
                result[f"windows.{number}.{name}"] = values
        return result

    def restore(self, columns: Columns) -> None:
        self.totals_RW = columns["windows.totals"].astype(np.int32)
        for number, ring in enumerate(self._rings):
            names = ("buckets", "sizes", "keys", "counts")
            ring.restore({name: columns[f"windows.{number}.{name}"] for name in names})


class _Ring:
    """The buckets of one window, by their number since 1970."""

    def __init__(self, window_us: int) -> None:
        self.bucket_us = window_us // BUCKETS
        self._buckets: dict[int, _Bucket] = {}
        self._oldest = 1 << 62

    def put(self, time_us: int, now_us: int, data: bytes) -> bool:
        """Whether the time is inside the window; if so its bucket takes the keys."""
        number = time_us // self.bucket_us
        if number <= now_us // self.bucket_us - BUCKETS:
            return False
        self._bucket(number).put(data)
        return True

    def is_inside(self, times_us: NDArray[np.int64], now_us: int) -> NDArray[np.bool_]:
        """Which times the window holds at `now_us`."""
        inside: NDArray[np.bool_] = times_us >= (now_us // self.bucket_us - BUCKETS + 1) * self.bucket_us
        return inside

    def put_many(self, keys: NDArray[np.int64], times_us: NDArray[np.int64]) -> None:
        """Puts each key into the bucket of its time, which is inside."""
        if not len(keys):
            return
        signed, numbers = (keys + 1).astype(np.int32), times_us // self.bucket_us
        first = int(numbers.min())
        # few buckets: a byte each sorts by radix
        places = (numbers - first).astype(np.uint8 if int(numbers.max()) - first < 256 else np.int64)
        order = np.argsort(places, kind="stable")
        sizes = np.bincount(places)
        ends = np.cumsum(sizes)
        for place in np.flatnonzero(sizes).tolist():
            part = signed[order[ends[place] - sizes[place] : ends[place]]]
            self._bucket(first + place).put(part.tobytes())

    def _bucket(self, number: int) -> _Bucket:
        bucket = self._buckets.get(number)
        if bucket is None:
            bucket = self._buckets[number] = _Bucket()
            self._oldest = min(self._oldest, number)
        return bucket

    def expire(self, now_us: int) -> list[tuple[NDArray[np.int64], NDArray[np.int32]]]:
        last = now_us // self.bucket_us - BUCKETS
        if self._oldest > last:
            return []
        gone = sorted(number for number in self._buckets if number <= last)
        expired = [self._buckets.pop(number).sums() for number in gone]
        self._oldest = min(self._buckets, default=1 << 62)
        return expired

    def columns(self) -> dict[str, NDArray[np.generic]]:
        numbers = sorted(self._buckets)
        sums = [self._buckets[number].sums() for number in numbers]
        return {
            "buckets": np.array(numbers, np.int64),
            "sizes": np.array([len(keys) for keys, _ in sums], np.int64),
            "keys": np.concatenate([keys for keys, _ in sums]) if sums else np.empty(0, np.int64),
            "counts": np.concatenate([counts for _, counts in sums]) if sums else np.empty(0, np.int32),
        }

    def restore(self, columns: Columns) -> None:
        self._buckets = {}
        ends = np.cumsum(columns["sizes"].astype(np.int64))
        keys, counts = columns["keys"].astype(np.int64), columns["counts"].astype(np.int32)
        for number, size, end in zip(
            columns["buckets"].tolist(), columns["sizes"].tolist(), ends.tolist(), strict=True
        ):
            self._buckets[number] = _Bucket(keys[end - size : end], counts[end - size : end])
        self._oldest = min(self._buckets, default=1 << 62)


class _Bucket:
    """Changes of counts: pending ones as signed keys + 1 in the order of arrival, the rest summed up."""

    __slots__ = ("_counts", "_keys", "_pending")

    def __init__(self, keys: NDArray[np.int64] | None = None, counts: NDArray[np.int32] | None = None) -> None:
        self._keys = np.empty(0, np.int64) if keys is None else keys
        self._counts = np.empty(0, np.int32) if counts is None else counts
        self._pending = bytearray()

    def put(self, data: bytes) -> None:
        self._pending += data
        if len(self._pending) > max(_COMPACT_BYTES, self._keys.nbytes):
            self.sums()

    def sums(self) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """Distinct keys in order, and the count of each."""
        if self._pending:
            signed = np.frombuffer(bytes(self._pending), np.int32)
            keys = np.concatenate([self._keys, np.abs(signed).astype(np.int64) - 1])
            changes = np.concatenate([self._counts, np.sign(signed)])
            self._keys, inverse = np.unique(keys, return_inverse=True)
            self._counts = np.bincount(inverse, changes).astype(np.int32)
            self._pending = bytearray()
        return self._keys, self._counts
