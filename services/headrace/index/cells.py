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

from headrace.index import _scan
from headrace.index.rows import F32, I32, I64

BLOCK_ROWS = 16
FREE, IN_NO_CELL = -1, -2
_BEFORE_CELLS = 2
_ALL_FREE, _NO_BLOCK = (1 << BLOCK_ROWS) - 1, -1
_FEWEST_BLOCKS = 64
# k-means: rounds, and vectors a centre that it looks at
_ROUNDS, _SAMPLE = 6, 32


@dataclass(frozen=True)
class Cells:
    """The centres, and the numbers of each cell's blocks, as of one view (`_scan.numbers_by_cell`)."""

    centres_CD: F32
    starts: I32
    numbers: I32


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
        # as scan/places.hpp has them
        self._blocks = _free_blocks(0)
        self._cells = _empty_cells(0)
        self._layout: Cells | None = None

    @property
    def _cell_of_block(self) -> I32:
        return self._blocks[:, 0]

    def begin(self, centres_CD: F32) -> None:
        """Places vectors by these centres from now on; blocks of before are in no cell until their rows moved."""
        self.centres_CD = centres_CD
        self._cell_of_block[self._cell_of_block != FREE] = IN_NO_CELL
        self._cells, self._layout = _empty_cells(len(centres_CD)), None
        _scan.link_blocks(self._blocks, self._cells)

    def split(self, cell: int, centres_2D: F32) -> None:
        """Puts two centres in the place of one: the second is a new cell's."""
        assert self.centres_CD is not None
        centres_CD = np.concatenate([self.centres_CD, centres_2D[1:]])
        centres_CD[cell] = centres_2D[0]
        self._cells = np.concatenate([self._cells, _empty_cells(0)[:1]])
        self.centres_CD, self._layout = centres_CD, None

    def fullest(self, most: float, but: Collection[int], let_be: Mapping[int, int]) -> int | None:
        """The cell with the most rows, if they are more than `most` and than `let_be` says of it; none of `but`."""
        used_C = self._cells[_BEFORE_CELLS:, 1]
        full = [cell for cell in np.flatnonzero(used_C > most).tolist() if cell not in but]
        return max((cell for cell in full if used_C[cell] > let_be.get(cell, 0)), key=used_C.__getitem__, default=None)

    def cells_of(self, rows: I64) -> I32:
        """The cell that each row's block belongs to."""
        return self._cell_of_block[rows // BLOCK_ROWS]

    def take(self, vectors_ND: F32) -> I64:
        if self.centres_CD is None:
            cells_N = np.full(len(vectors_ND), IN_NO_CELL, np.int64)
        else:
            cells_N = nearest(vectors_ND, self.centres_CD)
        rows = np.empty(len(vectors_ND), np.int64)
        taken = 0
        while (taken := taken + _scan.take_rows(self._blocks, self._cells, cells_N[taken:], rows[taken:])) < len(rows):
            self._grow()
        self._layout = None
        return rows

    def put(self, rows: I64) -> None:
        _scan.put_rows(self._blocks, self._cells, rows)
        self._layout = None

    def layout(self) -> Cells | None:
        if self.centres_CD is None:
            return None
        if self._layout is None:
            starts, numbers = np.empty(len(self._cells) + 1, np.int32), np.empty(len(self._blocks), np.int32)
            _scan.numbers_by_cell(self._blocks, self._cells, starts, numbers)
            self._layout = Cells(self.centres_CD, starts, numbers)
        return self._layout

    def memory_bytes(self) -> int:
        return self._blocks.nbytes + self._cells.nbytes

    def _grow(self) -> None:
        """Half as many blocks again."""
        self._blocks = np.concatenate([self._blocks, _free_blocks(max(_FEWEST_BLOCKS, len(self._blocks) // 2))])
        _scan.link_blocks(self._blocks, self._cells)


def _free_blocks(count: int) -> I32:
    """Blocks (cell, bits of free rows, neighbours in its list) that are in no list yet."""
    return np.tile(np.array([FREE, _ALL_FREE, _NO_BLOCK, _NO_BLOCK], np.int32), (count, 1))


def _empty_cells(count: int) -> I32:
    """Cells (first block with a free row, rows taken), and before them those of blocks in no cell and of free ones."""
    return np.tile(np.array([_NO_BLOCK, 0], np.int32), (_BEFORE_CELLS + count, 1))
