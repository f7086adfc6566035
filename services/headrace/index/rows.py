"""Rows of vectors in columns: what is written to a segment and read from it."""

# N rows, D dimension

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
I32 = NDArray[np.int32]
I64 = NDArray[np.int64]
U32 = NDArray[np.uint32]
U8 = NDArray[np.uint8]
Mask = NDArray[np.bool_]

NO_ORDINALS: U32 = np.empty(0, np.uint32)


@dataclass(frozen=True)
class Rows:
    """Items with their vectors, the sequence that wrote each, and the log offset it reflects."""

    ordinals: U32
    vectors_ND: F32
    sequences: I64
    log_offsets: I64

    def __len__(self) -> int:
        return len(self.ordinals)

    @classmethod
    def none(cls, dimension: int) -> Rows:
        """No rows at all."""
        empty = np.empty(0, np.int64)
        return cls(NO_ORDINALS, np.empty((0, dimension), np.float32), empty, empty)

    @classmethod
    def concatenated(cls, dimension: int, parts: Iterable[Rows]) -> Rows:
        """All rows of `parts`, one after the other."""
        found = [cls.none(dimension), *parts]
        return cls(
            np.concatenate([rows.ordinals for rows in found]),
            np.concatenate([rows.vectors_ND for rows in found]),
            np.concatenate([rows.sequences for rows in found]),
            np.concatenate([rows.log_offsets for rows in found]),
        )

    def taken(self, which: NDArray[np.intp]) -> Rows:
        """The rows at positions `which`, in that order."""
        return Rows(self.ordinals[which], self.vectors_ND[which], self.sequences[which], self.log_offsets[which])


@dataclass(frozen=True)
class Change:
    """What becomes visible at once. No ordinal occurs twice, in or across its two halves."""

    upserts: Rows
    deletes: U32
    sequence: int
    log_offset: int


@dataclass(frozen=True)
class Found:
    """The nearest of each query, best first; equal scores go by ordinal.

    Beyond a query's count, ordinals are 0xFFFFFFFF and scores -inf.
    """

    counts_Q: U32
    ordinals_QK: U32
    scores_QK: F32
    sequence: int
