"""Vectors that moved: what the index has to be told.

N items, D width.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace.model.growing import grown
from headrace.trainer.arrays import Arrays


@dataclass(frozen=True, slots=True)
class Deltas:
    """Absolute vectors of distinct items, ascending by ordinal; a tombstone's vector is zeros."""

    ordinals: NDArray[np.uint32]
    vectors: NDArray[np.float32]
    tombstones: NDArray[np.uint8]

    @classmethod
    def empty(cls, width: int) -> Deltas:
        return cls(np.zeros(0, np.uint32), np.zeros((0, width), np.float32), np.zeros(0, np.uint8))

    def __len__(self) -> int:
        return len(self.ordinals)

    def digest(self) -> str:
        """SHA-256 of all rows: equal for equal deltas."""
        columns = (self.ordinals.astype("<u4"), self.vectors.astype("<f4"), self.tombstones)
        return hashlib.sha256(b"".join(column.tobytes() for column in columns)).hexdigest()


class Sent:
    """The vector of every item as it was last sent, and which items are there at all.

    One thread writes; `all` may be asked from any other.
    """

    def __init__(self, width: int) -> None:
        self._lock = threading.Lock()
        self._vectors_ND = np.zeros((0, width), np.float32)
        self._is_live_N = np.zeros(0, np.bool_)

    def grow(self, count: int) -> None:
        with self._lock:
            self._vectors_ND = grown(self._vectors_ND, count)
            self._is_live_N = grown(self._is_live_N, count)

    def moved(
        self, ordinals: NDArray[np.int64], vectors: NDArray[np.float32], deleted: NDArray[np.bool_], threshold: float
    ) -> Deltas:
        """The given items that are new, gone, or moved by more than `threshold` of their length."""
        before = self._vectors_ND[ordinals]
        moves = np.linalg.norm(vectors - before, axis=1) > threshold * np.linalg.norm(before, axis=1)
        was_live = self._is_live_N[ordinals]
        chosen = np.where(deleted, was_live, ~was_live | moves)
        gone = deleted[chosen]
        rows = np.where(gone[:, None], np.float32(0), vectors[chosen])
        return Deltas(ordinals[chosen].astype(np.uint32), rows, gone.astype(np.uint8))

    def note(self, deltas: Deltas) -> None:
        """Takes deltas as sent."""
        if len(deltas):
            self.grow(int(deltas.ordinals.max()) + 1)
        with self._lock:
            self._vectors_ND[deltas.ordinals] = deltas.vectors
            self._is_live_N[deltas.ordinals] = deltas.tombstones == 0

    def difference(self, stored: Deltas) -> Deltas:
        """What turns `stored` (every live row that somebody else holds) into this state."""
        theirs = Sent(self._vectors_ND.shape[1])
        theirs.note(stored)
        count = max(len(self._is_live_N), len(theirs._is_live_N))
        mine_ND, mine_N = _padded(self._vectors_ND, count), _padded(self._is_live_N, count)
        their_ND, their_N = _padded(theirs._vectors_ND, count), _padded(theirs._is_live_N, count)
        gone_N = their_N & ~mine_N
        changed = np.flatnonzero((mine_N & (~their_N | (mine_ND != their_ND).any(axis=1))) | gone_N)
        rows = np.where(gone_N[changed][:, None], np.float32(0), mine_ND[changed])
        return Deltas(changed.astype(np.uint32), rows, gone_N[changed].astype(np.uint8))

    def all(self) -> Deltas:
        """Every live vector."""
        with self._lock:
            live = np.flatnonzero(self._is_live_N).astype(np.uint32)
            vectors = self._vectors_ND[live]
        return Deltas(live, vectors, np.zeros(len(live), np.uint8))

    def dense(self) -> NDArray[np.float32]:
        """N × D, a copy; zeros for items that are not there."""
        return self._vectors_ND * self._is_live_N[:, None]

    def arrays(self) -> Arrays:
        return {"vectors_ND": self._vectors_ND, "is_live_N": self._is_live_N}

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        self._vectors_ND = arrays["vectors_ND"].copy()
        self._is_live_N = arrays["is_live_N"].copy()


def _padded(array: NDArray[Any], rows: int) -> NDArray[Any]:
    return np.concatenate([array, np.zeros((rows - len(array), *array.shape[1:]), array.dtype)])


def vectors_digest(live: Deltas) -> str:
    """SHA-256 over (ordinal uint32, vector float32, little-endian) in ordinal order: what the index reports too."""
    width = live.vectors.shape[1]
    rows = np.empty(len(live), np.dtype([("ordinal", "<u4"), ("vector", "<f4", (width,))]))
    rows["ordinal"], rows["vector"] = live.ordinals, live.vectors
    return hashlib.sha256(rows.tobytes()).hexdigest()
