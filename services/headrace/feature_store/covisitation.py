"""Which items go together: decayed counts of pairs within a visit, updated by every event.

Each item keeps at most 72 others; when they are full, the 32 heaviest stay. A new item of a visit is paired with
the last 20 distinct items before it, so a basket of n lines costs 20 n pairs, not n².
"""

# N items, S slots an item, K neighbours sent, P pairs

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from headrace.feature_store.columns import Columns, grown
from headrace.model.items import LANDMARK_US, NEIGHBOURS, NO_NEIGHBOUR, tau_us

PAIRED = 20
# after a pruning there is room for all that one event can bring: 20 items before and 20 after
SLOTS = NEIGHBOURS + 2 * PAIRED

_BACK = np.arange(1, PAIRED + 1)


class Covisitation:
    """Pair weights by forward decay. `stale` marks the items whose neighbours changed since they were taken."""

    def __init__(self, half_life_days: float) -> None:
        self._tau_us = tau_us(half_life_days)
        self._others_NS: NDArray[np.uint32] = np.empty((0, SLOTS), np.uint32)
        self._weights_NS: NDArray[np.float64] = np.empty((0, SLOTS))
        self._used_N: NDArray[np.int64] = np.empty(0, np.int64)
        self._totals_N: NDArray[np.float64] = np.empty(0)
        self.stale_N: NDArray[np.bool_] = np.empty(0, np.bool_)

    def grow(self, count: int) -> None:
        self._others_NS = grown(self._others_NS, count, NO_NEIGHBOUR)
        self._weights_NS = grown(self._weights_NS, count)
        self._used_N = grown(self._used_N, count)
        self._totals_N = grown(self._totals_N, count)
        self.stale_N = grown(self.stale_N, count)

    def add(self, before: list[int], new: list[int], time_us: int) -> NDArray[np.int64]:
        """Pairs each new item with the up to 20 before it, in both directions; all are distinct.

        Returns the items whose neighbours changed.
        """
        weight = math.exp((time_us - LANDMARK_US) / self._tau_us)
        sequence = np.array(before[-PAIRED:] + new, np.int64)
        fresh = sequence[len(sequence) - len(new) :]
        self._totals_N[fresh] += weight
        later, earlier = _pairs(len(sequence), len(new))
        if len(later):
            a, b = sequence[later], sequence[earlier]
            self._bump(np.concatenate([a, b]), np.concatenate([b, a]), weight)
        self.stale_N[sequence] = True
        return sequence

    def _bump(self, rows_P: NDArray[np.int64], others_P: NDArray[np.int64], weight: float) -> None:
        is_other_PS = self._others_NS[rows_P] == others_P.astype(np.uint32)[:, None]
        slots_P = is_other_PS.argmax(axis=1)
        is_known_P = is_other_PS[np.arange(len(rows_P)), slots_P]
        self._weights_NS[rows_P[is_known_P], slots_P[is_known_P]] += weight
        if not is_known_P.all():
            self._insert(rows_P[~is_known_P], others_P[~is_known_P], weight)

    def _insert(self, rows_P: NDArray[np.int64], others_P: NDArray[np.int64], weight: float) -> None:
        order = np.argsort(rows_P, kind="stable")
        rows_P, others_P = rows_P[order], others_P[order]
        starts = np.concatenate([[0], np.flatnonzero(rows_P[1:] != rows_P[:-1]) + 1])
        counts = np.concatenate([starts[1:], [len(rows_P)]]) - starts
        rows = rows_P[starts]
        full = rows[self._used_N[rows] + counts > SLOTS]
        if len(full):
            self._prune(full)
        slots_P = self._used_N[rows_P] + np.arange(len(rows_P)) - np.repeat(starts, counts)
        self._others_NS[rows_P, slots_P] = others_P
        self._weights_NS[rows_P, slots_P] = weight
        self._used_N[rows] += counts

    def _prune(self, rows: NDArray[np.int64]) -> None:
        others, weights = self._heaviest(rows)
        self._others_NS[rows] = NO_NEIGHBOUR
        self._weights_NS[rows] = 0
        self._others_NS[rows, :NEIGHBOURS] = others
        self._weights_NS[rows, :NEIGHBOURS] = weights
        self._used_N[rows] = np.minimum(self._used_N[rows], NEIGHBOURS)

    def _heaviest(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.uint32], NDArray[np.float64]]:
        weights = self._weights_NS[rows]
        order = np.argsort(-weights, axis=1, kind="stable")[:, :NEIGHBOURS]
        places = np.arange(len(rows))[:, None]
        return self._others_NS[rows[:, None], order], weights[places, order]

    def neighbours(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.uint32], NDArray[np.float32]]:
        """The heaviest 32 others of each item, and the share of the item's visits that they were part of."""
        others, weights = self._heaviest(rows)
        shares = weights / np.maximum(self._totals_N[rows], np.finfo(np.float64).tiny)[:, None]
        return others, shares.astype(np.float32)

    def columns(self, count: int) -> Columns:
        return {
            "covisitation.others": self._others_NS[:count].copy(),
            "covisitation.weights": self._weights_NS[:count].copy(),
            "covisitation.used": self._used_N[:count].copy(),
            "covisitation.totals": self._totals_N[:count].copy(),
        }

    def restore(self, columns: Columns) -> None:
        self._others_NS = columns["covisitation.others"].astype(np.uint32)
        self._weights_NS = columns["covisitation.weights"].astype(np.float64)
        self._used_N = columns["covisitation.used"].astype(np.int64)
        self._totals_N = columns["covisitation.totals"].astype(np.float64)
        self.stale_N = np.ones(len(self._used_N), np.bool_)


def _pairs(length: int, new: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Places of (later, earlier) items: the last `new` of `length` with the up to 20 before each."""
    later = np.repeat(np.arange(length - new, length), PAIRED)
    earlier = later - np.tile(_BACK, new)
    exists = earlier >= 0
    return later[exists], earlier[exists]
