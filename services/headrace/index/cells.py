"""Rows of a segment in cells: vectors near one centre share blocks of 16 rows, so that a search looks into few blocks.

A block belongs to one cell, or to none, or is free. A changed vector goes to its nearest centre's cell; a block whose
16 rows are all free goes back to all cells.
"""

# N vectors, D dimension, C cells, B blocks

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import faiss
import numpy as np

from headrace.index.rows import F32, I32, I64

BLOCK_ROWS = 16
FREE, IN_NO_CELL = -1, -2
_ALL_FREE = (1 << BLOCK_ROWS) - 1
_LANES = np.arange(BLOCK_ROWS)
# k-means: rounds, and vectors a centre that it looks at
_ROUNDS, _SAMPLE = 6, 64


@dataclass(frozen=True)
class Cells:
    """The centres, and the cell of each block, as of one view."""

    centres_CD: F32
    cell_of_block: I32


def centres_of(vectors_ND: F32, count: int, seed: int) -> F32:
    """`count` centres by k-means over a sample; the same vectors give the same."""
    rng = np.random.default_rng(seed)
    sample = rng.permutation(len(vectors_ND))[: count * _SAMPLE]
    means = faiss.Kmeans(vectors_ND.shape[1], count, niter=_ROUNDS, seed=seed, min_points_per_centroid=1)
    means.train(np.ascontiguousarray(vectors_ND[np.sort(sample)]))
    return np.ascontiguousarray(means.centroids, np.float32)


def nearest(vectors_ND: F32, centres_CD: F32) -> I64:
    """N: the cell of each vector, by Euclidean distance to the centres."""
    halves_C = np.einsum("cd,cd->c", centres_CD, centres_CD) / 2
    return np.asarray((vectors_ND @ centres_CD.T - halves_C).argmax(axis=1))


class CellPlaces:
    """`Places` by cell; one cell for all until there are centres."""

    def __init__(self) -> None:
        self.centres_CD: F32 | None = None
        self._cell_of_block = np.full(0, FREE, np.int32)
        # a bit a row that nobody uses
        self._free_of_block = np.zeros(0, np.uint16)
        self._free_blocks: list[int] = []
        self._open: dict[int, list[int]] = {}
        # rows of each cell that are taken
        self._used: dict[int, int] = {}
        self._layout: Cells | None = None

    def begin(self, centres_CD: F32) -> None:
        """Places vectors by these centres from now on; blocks of before are in no cell until their rows moved."""
        self.centres_CD = centres_CD
        self._cell_of_block[self._cell_of_block != FREE] = IN_NO_CELL
        self._open, self._used, self._layout = {}, {}, None

    def split(self, cell: int, centres_2D: F32) -> None:
        """Puts two centres in the place of one: the second is a new cell's."""
        assert self.centres_CD is not None
        centres_CD = np.concatenate([self.centres_CD, centres_2D[1:]])
        centres_CD[cell] = centres_2D[0]
        self.centres_CD, self._layout = centres_CD, None

    def fullest(self, most: float, but: Collection[int], let_be: Mapping[int, int]) -> int | None:
        """The cell with the most rows, if they are more than `most` and than `let_be` says of it; none of `but`."""
        used = {cell: used for cell, used in self._used.items() if used > most and cell not in but}
        full = [(used, cell) for cell, used in used.items() if used > let_be.get(cell, 0)]
        return max(full)[1] if full else None

    def cells_of(self, rows: I64) -> I32:
        """The cell that each row's block belongs to."""
        return self._cell_of_block[rows // BLOCK_ROWS]

    def take(self, vectors_ND: F32) -> I64:
        if self.centres_CD is None:
            return self._from(IN_NO_CELL, len(vectors_ND))
        cells_N = nearest(vectors_ND, self.centres_CD)
        order = np.argsort(cells_N, kind="stable")
        cells, counts = np.unique(cells_N, return_counts=True)
        rows = np.empty(len(vectors_ND), np.int64)
        taken = [self._from(cell, count) for cell, count in zip(cells.tolist(), counts.tolist(), strict=True)]
        rows[order] = np.concatenate(taken) if taken else np.empty(0, np.int64)
        return rows

    def put(self, rows: I64) -> None:
        blocks = rows // BLOCK_ROWS
        cells, counts = np.unique(self._cell_of_block[blocks], return_counts=True)
        for cell, count in zip(cells.tolist(), counts.tolist(), strict=True):
            self._used[cell] = self._used.get(cell, 0) - count
        np.bitwise_or.at(self._free_of_block, blocks, (1 << (rows % BLOCK_ROWS)).astype(np.uint16))
        for block in np.unique(blocks).tolist():
            if self._free_of_block[block] == _ALL_FREE:
                self._cell_of_block[block] = FREE
                self._free_blocks.append(block)
                self._layout = None
            else:
                self._open.setdefault(int(self._cell_of_block[block]), []).append(block)

    def layout(self) -> Cells | None:
        if self.centres_CD is None:
            return None
        if self._layout is None:
            self._layout = Cells(self.centres_CD, self._cell_of_block.copy())
        return self._layout

    def _from(self, cell: int, wanted: int) -> I64:
        """Free rows of a cell's blocks, then of blocks that it gets."""
        self._used[cell] = self._used.get(cell, 0) + wanted
        taken: list[I64] = []
        while wanted and self._open.get(cell):
            rows = self._some_of(self._open[cell].pop(), cell, wanted)
            taken.append(rows)
            wanted -= len(rows)
        blocks = self._new_blocks(cell, -(-wanted // BLOCK_ROWS))
        rows = (blocks[:, None] * BLOCK_ROWS + _LANES).ravel()
        self._free_of_block[blocks] = 0
        if len(rows) > wanted:
            last = int(blocks[-1])
            self._free_of_block[last] = _ALL_FREE & ~((1 << (wanted - len(rows) + BLOCK_ROWS)) - 1)
            self._open.setdefault(cell, []).append(last)
        return np.concatenate([*taken, rows[:wanted]])

    def _some_of(self, block: int, cell: int, wanted: int) -> I64:
        """Up to `wanted` free rows of a block, if it is the cell's still."""
        bits = int(self._free_of_block[block])
        if int(self._cell_of_block[block]) != cell or not bits:
            return np.empty(0, np.int64)
        lanes = [lane for lane in range(BLOCK_ROWS) if bits >> lane & 1]
        if len(lanes) > wanted:
            self._open[cell].append(block)
        for lane in lanes[:wanted]:
            bits &= ~(1 << lane)
        self._free_of_block[block] = bits
        return np.array(lanes[:wanted], np.int64) + block * BLOCK_ROWS

    def _new_blocks(self, cell: int, count: int) -> I64:
        again = [self._free_blocks.pop() for _ in range(min(count, len(self._free_blocks)))]
        high = len(self._cell_of_block)
        beyond = np.arange(high, high + count - len(again))
        self._cell_of_block = np.concatenate([self._cell_of_block, np.full(len(beyond), cell, np.int32)])
        self._free_of_block = np.concatenate([self._free_of_block, np.zeros(len(beyond), np.uint16)])
        self._cell_of_block[again] = cell
        if count:
            self._layout = None
        return np.concatenate([np.array(again, np.int64), beyond])
