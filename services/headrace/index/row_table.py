"""Which row holds which item: rows are written once, then shown, and used again when nobody looks.

A changed item goes to a free row and the old row is hidden in the same step, so a search sees all
of a change or nothing of it and neither readers nor writers ever wait for each other. A row is used
again as soon as no pinned view can see it.
"""

# N rows, D dimension

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np

from headrace.index.rows import F32, I64, U8, U32, Change, Mask, Rows

_NONE = -1
_FIRST_CAPACITY = 1024
# NumPy's indexing holds the interpreter lock: a chunk of this many rows keeps it for well under a millisecond
_CHUNK_ROWS = 2048


@dataclass(frozen=True)
class Columns:
    """What is known of each row besides its vector; replaced as a whole when it grows."""

    ordinals: U32
    sequences: I64
    log_offsets: I64

    @classmethod
    def sized(cls, capacity: int) -> Columns:
        return cls(np.zeros(capacity, np.uint32), np.zeros(capacity, np.int64), np.zeros(capacity, np.int64))

    def grown(self, capacity: int) -> Columns:
        bigger = Columns.sized(capacity)
        for old, new in (
            (self.ordinals, bigger.ordinals),
            (self.sequences, bigger.sequences),
            (self.log_offsets, bigger.log_offsets),
        ):
            new[: len(old)] = old
        return bigger

    def row_bytes(self) -> int:
        """Bytes of one row."""
        return self.ordinals.itemsize + self.sequences.itemsize + self.log_offsets.itemsize


@dataclass(frozen=True)
class View:
    """A segment as it was after one change: its rows keep their values while the view is pinned."""

    generation: int
    columns: Columns
    live_N: Mask
    count: int
    sequence: int
    log_offset: int
    # how the places of rows were laid out then
    layout: object = None

    @cached_property
    def ordinals_N(self) -> U32:
        return self.columns.ordinals[: len(self.live_N)]

    @cached_property
    def live_bits(self) -> U8:
        """`live_N` packed, bit r % 8 of byte r / 8."""
        return np.packbits(self.live_N, bitorder="little")

    def selected_N(self, allow: U8 | None, denied_rows: I64) -> Mask:
        """The live rows that a filter leaves: `allow` is a bitmap over ordinals."""
        selected_N = self.live_N.copy()
        if allow is not None:
            # ordinals beyond the bitmap fall on the zero at its end
            allowed = np.append(np.unpackbits(allow, bitorder="little"), np.uint8(0)).view(np.bool_)
            selected_N &= allowed.take(self.ordinals_N, mode="clip")
        selected_N[denied_rows] = False
        return selected_N

    def rows_by_ordinal(self) -> I64:
        """The live rows, in ascending order of their items' ordinals."""
        rows = np.flatnonzero(self.live_N)
        return rows[np.argsort(self.ordinals_N[rows])]

    def chunks(self) -> Iterator[I64]:
        """`rows_by_ordinal` in pieces that are quick to read."""
        rows = self.rows_by_ordinal()
        for start in range(0, len(rows), _CHUNK_ROWS):
            yield rows[start : start + _CHUNK_ROWS]

    def read(self, rows: I64, vectors_ND: F32) -> Rows:
        """The rows, given their vectors."""
        columns = self.columns
        return Rows(columns.ordinals[rows], vectors_ND, columns.sequences[rows], columns.log_offsets[rows])


class Places(Protocol):
    """Says which row a vector goes to. One thread uses it."""

    def take(self, vectors_ND: F32) -> I64:
        """A row for each vector, that no view shows."""
        ...

    def put(self, rows: I64) -> None:
        """Takes back rows that nobody looks at."""
        ...

    def layout(self) -> object:
        """What readers need to know of it as it is now; never changed afterwards."""
        ...


class AnyPlace:
    """Any free row will do."""

    def __init__(self) -> None:
        self._free: list[I64] = []
        self._high = 0

    def take(self, vectors_ND: F32) -> I64:
        wanted = len(vectors_ND)
        taken: list[I64] = []
        while wanted and self._free:
            rows = self._free.pop()
            taken.append(rows[:wanted])
            if len(rows) > wanted:
                self._free.append(rows[wanted:])
            wanted -= len(taken[-1])
        self._high += wanted
        return np.concatenate([*taken, np.arange(self._high - wanted, self._high, dtype=np.int64)])

    def put(self, rows: I64) -> None:
        self._free.append(rows)

    def layout(self) -> object:
        return None


class RowTable:
    """The rows of one segment, whatever memory holds their vectors.

    One thread writes (`begin`, then the vectors, then `show`); any number read through pinned views.
    """

    def __init__(self, places: Places | None = None) -> None:
        self._places = places or AnyPlace()
        self._lock = threading.Lock()
        self._columns = Columns.sized(_FIRST_CAPACITY)
        self._directory = np.full(_FIRST_CAPACITY, _NONE, np.int64)
        self._pins: Counter[int] = Counter()
        # rows hidden by a generation: free once no older view is pinned
        self._hidden: deque[tuple[int, I64]] = deque()
        self.view = View(0, self._columns, np.zeros(0, np.bool_), 0, 0, 0)

    @property
    def capacity(self) -> int:
        return len(self._columns.ordinals)

    @property
    def rows(self) -> int:
        """Rows that were ever used."""
        return len(self.view.live_N)

    @contextmanager
    def pinned(self) -> Iterator[View]:
        """The current view; its rows are not used again while this is open."""
        with self.pinned_with(np.empty(0, np.uint32)) as (view, _):
            yield view

    @contextmanager
    def pinned_with(self, ordinals: U32) -> Iterator[tuple[View, I64]]:
        """The current view, and in it the row of each ordinal (-1: not there)."""
        with self._lock:
            view = self.view
            self._pins[view.generation] += 1
            rows = self._rows_of(ordinals)
        try:
            yield view, rows
        finally:
            with self._lock:
                self._pins[view.generation] -= 1
                if not self._pins[view.generation]:
                    del self._pins[view.generation]

    def held(self) -> Mask:
        """For each ordinal up to some end whether there is a row of it; beyond there are none."""
        with self._lock:
            held: Mask = self._directory != _NONE
            return held

    def begin(self, change: Change) -> I64:
        """Rows for the change's upserts, which no view shows. Their vectors must be written before `show`."""
        self._reclaim()
        rows = self._places.take(change.upserts.vectors_ND)
        self._reserve_rows(int(rows.max()) + 1 if len(rows) else 0)
        columns, upserts = self._columns, change.upserts
        columns.ordinals[rows] = upserts.ordinals
        columns.sequences[rows] = upserts.sequences
        columns.log_offsets[rows] = upserts.log_offsets
        return rows

    def show(self, change: Change, rows: I64) -> None:
        """Makes the change visible, all at once."""
        ordinals = change.upserts.ordinals
        high = max(len(self.view.live_N), int(rows.max()) + 1 if len(rows) else 0)
        live_N = np.zeros(high, np.bool_)
        live_N[: len(self.view.live_N)] = self.view.live_N
        if len(ordinals):
            self._reserve_ordinals(int(ordinals.max()) + 1)
        with self._lock:
            hidden = self._rows_of(np.concatenate([ordinals, change.deletes]))
            hidden = hidden[hidden != _NONE]
            live_N[hidden] = False
            live_N[rows] = True
            self._directory[change.deletes[change.deletes < len(self._directory)]] = _NONE
            self._directory[ordinals] = rows
            generation, count = self.view.generation + 1, self.view.count + len(rows) - len(hidden)
            layout = self._places.layout()
            self.view = View(generation, self._columns, live_N, count, change.sequence, change.log_offset, layout)
            self._hidden.append((generation, hidden))

    def memory_bytes(self) -> int:
        return self.rows * self._columns.row_bytes() + self._directory.nbytes + self.view.live_N.nbytes

    def _rows_of(self, ordinals: U32) -> I64:
        rows = np.full(len(ordinals), _NONE, np.int64)
        known = ordinals < len(self._directory)
        rows[known] = self._directory[ordinals[known]]
        return rows

    def _reclaim(self) -> None:
        with self._lock:
            oldest = min(self._pins, default=self.view.generation)
        while self._hidden and self._hidden[0][0] <= oldest:
            self._places.put(self._hidden.popleft()[1])

    def _reserve_rows(self, wanted: int) -> None:
        if wanted > self.capacity:
            # views keep the columns that they were made with
            self._columns = self._columns.grown(_doubled(self.capacity, wanted))

    def _reserve_ordinals(self, wanted: int) -> None:
        if wanted <= len(self._directory):
            return
        directory = np.full(_doubled(len(self._directory), wanted), _NONE, np.int64)
        with self._lock:
            directory[: len(self._directory)] = self._directory
            self._directory = directory


def _doubled(capacity: int, wanted: int) -> int:
    while capacity < wanted:
        capacity *= 2
    return capacity
