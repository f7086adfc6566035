"""Many vectors in cells: a search looks into the cells whose centres score best, by the scan of int8 codes.

Up to `cells_from` rows every search is exact. Then the rows are put into √N / 2 to √N cells, which are made anew
whenever there are four times as many rows; a cell that grows too large is split where it stands. How many cells a query
looks into follows the recall that is measured: at first of rows of the segment as queries, then of the queries
themselves (checking.py); where more than a quarter of them are needed, all is scanned as before. A search with a filter
is exact always.
"""

# N rows, D dimension, Q queries, K wanted, C cells

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from headrace.index.cells import CellPlaces, Cells, centres_of, nearest
from headrace.index.compact_segment import CompactSegment
from headrace.index.row_table import View
from headrace.index.rows import F32, I64, NO_ORDINALS, U8, U32, Change, Found, Rows

_AGAIN = 4  # times as many rows: cells are made anew
_FULL = 4  # times the mean: a cell is split
_SPLITS_AT_ONCE = 4
_MOVED_AT_ONCE = 8_192
_ASKED, _K = 64, 100
# by how much the mean of recalls follows a new one, and how near the goal it may lie
_FOLLOW, _NEAR = 0.05, 0.01
# share of the cells beyond which looking into them is slower than scanning all (1,000,000 × 64, where half of them
# were needed: 2.2 ms against 2.1 alone, 498 queries/s against 2,087 together)
_WORTH = 0.25
_SEED = 7
# rows of a cell where there are many: with half as many cells 1,000,000 × 64 in tight clusters answer 16,100 queries/s
# together instead of 22,600, and with more of them the writer is the slower
_CELL_ROWS = 1_000
# more cells than there are ever
_ALL = 1 << 30


class CellSegment(CompactSegment):
    """A `Segment` in main memory that looks into some of its rows when there are many.

    `recall_goal`: the share of the true best that searches are to find; 1 looks into every cell.
    """

    def __init__(
        self, dimension: int, kernels: str | None = None, *, cells_from: int = 250_000, recall_goal: float = 0.97
    ) -> None:
        self._places = CellPlaces()
        super().__init__(dimension, kernels, self._places)
        self._cells_from = cells_from
        self._goal = recall_goal
        self._rows_when_made = 0
        # rows up to which a cell that could not be split is let be
        self._stay_together: dict[int, int] = {}
        self._probes = 0
        self._recall = recall_goal

    @property
    def kind(self) -> str:  # type: ignore[override]
        """compact-cpu while all of it is scanned, cells-cpu from then on."""
        return "cells-cpu" if self._probes else super().kind

    @property
    def probes(self) -> int:
        """Cells that a search looks into; 0 while all of it is scanned."""
        return self._probes

    def write(self, change: Change) -> None:
        super().write(change)
        self._keep_cells()

    def fill(self, parts: Iterable[Rows], sequence: int, log_offset: int) -> None:
        for rows in parts:
            super().write(Change(rows, NO_ORDINALS, 0, 0))
        super().write(Change(Rows.none(self.dimension), NO_ORDINALS, sequence, log_offset))
        # once for all of it
        self._keep_cells()

    def memory_bytes(self) -> int:
        return super().memory_bytes() + self._places.memory_bytes()

    def _keep_cells(self) -> None:
        rows = len(self)
        if rows >= max(self._cells_from, _AGAIN * self._rows_when_made):
            self._make_cells()
        elif self._rows_when_made:
            self._split_full()

    def check(self, queries_QD: F32, k: int, allow: U8 | None = None, deny: U32 = NO_ORDINALS) -> float:
        """`recall`, which decides how many cells later searches look into."""
        found = self.recall(queries_QD, k, allow, deny)
        if 0 < self._probes < _ALL and allow is None:
            self._follow(found)
        return found

    def _follow(self, recall: float) -> None:
        """Looks into more cells when too little was found lately, into fewer when more than needed."""
        self._recall += _FOLLOW * (recall - self._recall)
        if self._recall < self._goal:
            self._probes = self._worth(self._probes + 1 + self._probes // 20)
        elif self._recall > self._goal + _NEAR:
            self._probes = max(1, self._probes - 1)

    def _found(self, view: View, queries_QD: F32, k: int, allow: U8 | None, denied_rows: I64) -> Found:
        cells = view.layout
        probes = self._probes
        if not isinstance(cells, Cells) or allow is not None or not probes:
            return super()._found(view, queries_QD, k, allow, denied_rows)
        found = self._scanned(view, queries_QD, k, None, denied_rows, cells, probes)
        least = min(k, view.count - int((denied_rows >= 0).sum()))
        # the cells that were looked into had fewer than there are
        return found if int(found.counts_Q.min()) >= least else super()._found(view, queries_QD, k, allow, denied_rows)

    def _make_cells(self) -> None:
        view = self._table.view
        rows = view.rows_by_ordinal()
        self._places.begin(centres_of(self._vectors_ND[rows], _cells_for(len(rows)), _SEED))
        self._rows_when_made, self._stay_together = len(rows), {}
        # all is scanned until it is known how many cells are enough
        self._probes = 0
        for start in range(0, len(rows), _MOVED_AT_ONCE):
            self._move(rows[start : start + _MOVED_AT_ONCE])
        self._probes = self._worth(self._calibrated())
        self._recall = self._goal

    def _worth(self, probes: int) -> int:
        """As many cells, or 0 where so many are needed that scanning all is quicker."""
        centres_CD = self._places.centres_CD
        assert centres_CD is not None
        return probes if probes <= _WORTH * len(centres_CD) or probes == _ALL else 0

    def _split_full(self) -> None:
        """Splits cells that have far more rows than others, some at a time."""
        tried: set[int] = set()
        for _ in range(_SPLITS_AT_ONCE):
            centres_CD = self._places.centres_CD
            assert centres_CD is not None
            most = _FULL * len(self) / len(centres_CD) + _K
            cell = self._places.fullest(most, tried, self._stay_together)
            if cell is None:
                return
            tried.add(cell)
            self._split(cell, most)

    def _split(self, cell: int, most: float) -> None:
        rows = np.flatnonzero(self._table.view.live_N)
        rows = rows[self._places.cells_of(rows) == cell]
        if len(rows) <= most:  # the others are of before, and go when nobody looks at them any more
            return
        halves_2D = centres_of(self._vectors_ND[rows], 2, _SEED)
        moved = rows[nearest(self._vectors_ND[rows], halves_2D) == 1]
        if 0 < len(moved) < len(rows):
            self._places.split(cell, halves_2D)
            self._move(moved)
        else:  # vectors that are all alike stay together
            self._stay_together[cell] = 2 * len(rows)

    def _move(self, rows: I64) -> None:
        """Writes rows once more, to where they belong now."""
        view = self._table.view
        moved = view.read(rows, self._vectors_ND[rows])
        super().write(Change(moved, NO_ORDINALS, view.sequence, view.log_offset))

    def _calibrated(self) -> int:
        """The fewest cells in which rows of the segment, as queries, find what they are to find."""
        if self._goal >= 1:
            return _ALL
        with self._table.pinned() as view:
            cells = view.layout
            assert isinstance(cells, Cells)
            rows = np.flatnonzero(view.live_N)
            asked = np.random.default_rng(_SEED).choice(rows, min(_ASKED, len(rows)), replace=False)
            queries_QD = self._vectors_ND[asked]
            truth = super()._found(view, queries_QD, min(_K, view.count), None, np.empty(0, np.int64))
            with self._table.pinned_with(truth.ordinals_QK.ravel()) as (_, found_rows):
                cells_QK = self._places.cells_of(found_rows).reshape(truth.ordinals_QK.shape)
        order_QC = np.argsort(-(queries_QD @ cells.centres_CD.T), axis=1)
        rank_QC = np.argsort(order_QC, axis=1)
        needed = np.sort(np.take_along_axis(rank_QC, cells_QK.astype(np.int64), axis=1).ravel()) + 1
        # rows find themselves, which queries do not: half of what may be missed is asked for
        return int(needed[int(np.ceil((1 + self._goal) / 2 * len(needed))) - 1])


def _cells_for(rows: int) -> int:
    """√N / 2 cells of few rows; of many, cells of 1,000 rows, but no more than √N."""
    root = math.sqrt(rows)
    return max(1, round(max(root / 2, min(root, rows / _CELL_ROWS))))
