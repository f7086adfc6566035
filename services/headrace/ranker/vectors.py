"""All item vectors of one space in memory, for exact scores and for the user tower's input."""

# N ordinals, D width, C candidates

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from headrace.ranker.changes import Changes

_FIRST_CAPACITY = 1024


class Vectors:
    """Vectors by item ordinal, as the index serves them; unknown items have a row of zeros.

    Written by one thread and read by others while it is: a reader may see a row of which some values
    are one delta older than the others. Rows of one space are comparable, so that is harmless.
    """

    def __init__(self, space: str) -> None:
        self.space = space
        self.applied_sequence = 0
        self.log_offset = 0
        self.is_whole = False
        self.changes = Changes()
        self._matrix_ND: NDArray[np.float32] = np.zeros((0, 0), np.float32)
        self._present_N: NDArray[np.bool_] = np.zeros(0, np.bool_)

    @property
    def dimension(self) -> int:
        """Width of a vector; 0 before the first one came."""
        return int(self._matrix_ND.shape[1])

    @property
    def count(self) -> int:
        """Items that have a vector."""
        return int(self._present_N.sum())

    def ordinals(self) -> NDArray[np.uint32]:
        """Items that have a vector, ascending."""
        return np.flatnonzero(self._present_N).astype(np.uint32)

    def apply(
        self,
        ordinals: NDArray[np.uint32],
        vectors_ND: NDArray[np.float32],
        tombstones: NDArray[np.bool_],
        applied_sequence: int,
        log_offset: int,
    ) -> None:
        """Takes absolute values in; a later row of the same ordinal wins."""
        if len(ordinals):
            self._reserve(int(ordinals.max()) + 1, vectors_ND.shape[1])
            self._matrix_ND[ordinals] = np.where(tombstones[:, None], np.float32(0), vectors_ND)
            self._present_N[ordinals] = ~tombstones
        self.applied_sequence = max(self.applied_sequence, applied_sequence)
        self.log_offset = max(self.log_offset, log_offset)

    def keep_only(self, ordinals: NDArray[np.uint32]) -> None:
        """Forgets the vectors of all other items."""
        gone_N = self._present_N.copy()
        gone_N[ordinals[ordinals < len(gone_N)]] = False
        self._matrix_ND[gone_N] = 0
        self._present_N[gone_N] = False

    def rows(self, ordinals: NDArray[np.uint32]) -> NDArray[np.float32]:
        """One row an ordinal (C × D); zeros where there is no vector."""
        matrix_ND = self._matrix_ND
        known_C = ordinals < len(matrix_ND)
        if known_C.all():
            rows_CD: NDArray[np.float32] = matrix_ND[ordinals]
            return rows_CD
        rows_CD = np.zeros((len(ordinals), matrix_ND.shape[1]), np.float32)
        rows_CD[known_C] = matrix_ND[ordinals[known_C]]
        return rows_CD

    def nearest(
        self, query_D: NDArray[np.float32], k: int, allowed_N: NDArray[np.bool_]
    ) -> tuple[NDArray[np.uint32], NDArray[np.float32]]:
        """Ordinals and inner products of the k nearest allowed items, best first: the index's stand-in."""
        matrix_ND, present_N = self._matrix_ND, self._present_N
        count = min(len(matrix_ND), len(present_N), len(allowed_N))
        ordinals = np.flatnonzero(present_N[:count] & allowed_N[:count])
        scores = matrix_ND[ordinals] @ query_D if len(ordinals) else np.zeros(0, np.float32)
        best = np.argsort(-scores, kind="stable")[:k]
        return ordinals[best].astype(np.uint32), scores[best].astype(np.float32)

    def most_alike(
        self, ordinals: NDArray[np.uint32], k: int, allowed_N: NDArray[np.bool_]
    ) -> tuple[NDArray[np.uint32], NDArray[np.float32]]:
        """The k allowed items of greatest cosine with any of `ordinals`, best first: alike, however popular.

        Inner products would favour long vectors, which are those of popular items.
        """
        directions_QD = _directions(self.rows(ordinals))
        matrix_ND, present_N = self._matrix_ND, self._present_N
        count = min(len(matrix_ND), len(present_N), len(allowed_N))
        candidates = np.flatnonzero(present_N[:count] & allowed_N[:count])
        if not len(candidates):
            return np.zeros(0, np.uint32), np.zeros(0, np.float32)
        cosines = (_directions(matrix_ND[candidates]) @ directions_QD.T).max(axis=1)
        best = np.argsort(-cosines, kind="stable")[:k]
        return candidates[best].astype(np.uint32), cosines[best].astype(np.float32)

    def _reserve(self, count: int, dimension: int) -> None:
        if dimension != self.dimension and self.dimension:
            raise ValueError(f"space {self.space} has dimension {self.dimension}, got a vector of {dimension}")
        held = len(self._matrix_ND)
        if count <= held and self.dimension:
            return
        capacity = max(count, 2 * held, _FIRST_CAPACITY)
        matrix_ND = np.zeros((capacity, dimension), np.float32)
        present_N = np.zeros(capacity, np.bool_)
        if held:
            matrix_ND[:held], present_N[:held] = self._matrix_ND, self._present_N
        self._matrix_ND, self._present_N = matrix_ND, present_N


def _directions(rows_CD: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows of length 1; rows of zeros stay."""
    lengths_C1 = np.linalg.norm(rows_CD, axis=1, keepdims=True)
    directions_CD: NDArray[np.float32] = rows_CD / np.maximum(lengths_C1, np.float32(1e-12))
    return directions_CD
