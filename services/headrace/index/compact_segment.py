"""Exact search that reads a quarter of the bytes: an int8 copy is scanned, few rows are scored by their vectors.

What coding lost of a row is known, so the scan leaves out only what cannot be among the best (scan/search.cpp): the
answer is the exact one. 100,000 vectors of 64 numbers take 0.15 ms a query on one core, where Faiss Flat takes 1.
"""

# N rows, D dimension, Q queries, K wanted

from __future__ import annotations

import numpy as np

from headrace.index import _scan
from headrace.index.flat_segment import FlatSegment
from headrace.index.row_table import View
from headrace.index.rows import F32, I64, NO_ORDINALS, U8, U32, Found
from headrace.index.ties import nobody

_BLOCK_ROWS = 16


class CompactSegment(FlatSegment):
    """A `Segment` in main memory with an int8 copy. `kernels`: one of `_scan.kernels()`, the best by default."""

    kind = "compact-cpu"

    def __init__(self, dimension: int, kernels: str | None = None) -> None:
        super().__init__(dimension)
        self._kernels = kernels or _scan.kernels()[0]
        self._codes = np.zeros(self._code_bytes(self._table.capacity), np.uint8)

    def search(self, queries_QD: F32, k: int, allow: U8 | None = None, deny: U32 = NO_ORDINALS) -> Found:
        with self._table.pinned_with(deny) as (view, denied_rows):
            found = nobody(len(queries_QD), k, view.sequence)
            _scan.search(
                self._kernels,
                # read after the view: memory only grows, and holds every row of the view unchanged
                self._codes,
                self._vectors_ND,
                view.ordinals_N,
                _without(view, denied_rows[denied_rows >= 0]),
                allow,
                np.ascontiguousarray(queries_QD, np.float32),
                self.dimension,
                k,
                found.ordinals_QK,
                found.scores_QK,
                found.counts_Q,
            )
            return found

    def memory_bytes(self) -> int:
        return super().memory_bytes() + self._codes.nbytes

    def _store(self, rows: I64, vectors_ND: F32) -> None:
        super()._store(rows, vectors_ND)
        wanted = self._code_bytes(self._table.capacity)
        if wanted > len(self._codes):
            # readers keep the smaller memory until they are done with it
            bigger = np.zeros(wanted, np.uint8)
            bigger[: len(self._codes)] = self._codes
            self._codes = bigger
        _scan.write(self._codes, rows, np.ascontiguousarray(vectors_ND, np.float32), self.dimension)

    def _code_bytes(self, rows: int) -> int:
        return -(-rows // _BLOCK_ROWS) * _scan.block_bytes(self.dimension)


def _without(view: View, denied_rows: I64) -> U8:
    if not len(denied_rows):
        return view.live_bits
    bits = view.live_bits.copy()
    np.bitwise_and.at(bits, denied_rows >> 3, ~(np.uint8(1) << (denied_rows & 7).astype(np.uint8)))
    return bits
