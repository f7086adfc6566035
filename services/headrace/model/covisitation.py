"""Which items go together: decayed counts of pairs within a visit, updated by every event.

Each item keeps at most 72 others; when they are full, the 32 heaviest stay. A new item of a visit is paired with
the last 20 distinct items before it, so a basket of n lines costs 20 n pairs, not n². What lies a few moments
back counts less: a pair weighs 0.8 for every moment between its two (on click sessions recall@20 of the counts
alone .508 instead of .495); the lines of one basket are one moment.
"""

# N items, S slots an item, K neighbours sent, P pairs

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from headrace.model.growing import grown
from headrace.model.items import LANDMARK_US, NEIGHBOURS, NO_NEIGHBOUR, tau_us

PAIRED = 20
# after a pruning there is room for all that one event can bring: 20 items before and 20 after
SLOTS = NEIGHBOURS + 2 * PAIRED
_MOMENT_DECAY = 0.8
# pairs looked up at once
_AT_ONCE = 1 << 16

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

    def add(self, before: Sequence[int], moments: Sequence[int], new: Sequence[int], time_us: int) -> NDArray[np.int64]:
        """Pairs each new item with the up to 20 before it, in both directions; all are distinct.

        `moments` says how many moments back each of `before` was (at least 1).
        Returns the items whose neighbours changed.
        """
        weight = self._weight(time_us)
        sequence = np.array([*before[-PAIRED:], *new], np.int64)
        back = np.array([*moments[-PAIRED:], *[0] * len(new)], np.int64)
        self._totals_N[sequence[len(sequence) - len(new) :]] += weight
        later, earlier = _pairs(len(sequence), len(new))
        if len(later):
            weights_P = weight * _nearness(np.maximum(back[earlier] - back[later], 1))
            self._add_pairs(sequence[later], sequence[earlier], weights_P)
        self.stale_N[sequence] = True
        return sequence

    def add_visits(
        self,
        ordinals_E: NDArray[np.int64],
        visits_E: NDArray[np.int64],
        times_us_E: NDArray[np.int64],
        is_new_E: NDArray[np.bool_],
    ) -> None:
        """Pairs every new event of many visits with the up to 20 events before it in its visit, at once.

        Events stand in order, those of a visit together. A repeated item is paired again: over a whole slice
        that is what the events said.
        """
        weights_E = np.exp((times_us_E - LANDMARK_US) / self._tau_us)
        np.add.at(self._totals_N, ordinals_E[is_new_E], weights_E[is_new_E])
        is_later = np.zeros(len(visits_E), np.int64)
        is_later[1:] = (visits_E[1:] != visits_E[:-1]) | (times_us_E[1:] != times_us_E[:-1])
        moments_E = np.cumsum(is_later)
        parts = [_at_distance(back, ordinals_E, visits_E, is_new_E) for back in range(1, PAIRED + 1)]
        later, earlier = (np.concatenate(places) for places in zip(*parts, strict=True))
        weights_P = weights_E[later] * _nearness(np.maximum(moments_E[later] - moments_E[earlier], 1))
        if len(later):
            self._add_pairs(ordinals_E[later], ordinals_E[earlier], weights_P)
        self.stale_N[ordinals_E] = True

    def add_followers(
        self,
        ordinals_E: NDArray[np.int64],
        visits_E: NDArray[np.int64],
        times_us_E: NDArray[np.int64],
        is_new_E: NDArray[np.bool_],
    ) -> None:
        """Counts what came directly after what, in that direction alone, from events as in `add_visits`."""
        weights_E = np.exp((times_us_E - LANDMARK_US) / self._tau_us)
        later, earlier = _at_distance(1, ordinals_E, visits_E, is_new_E)
        np.add.at(self._totals_N, ordinals_E[earlier], weights_E[later])
        if len(later):
            self._add_directed(ordinals_E[earlier] << 32 | ordinals_E[later], weights_E[later])
        self.stale_N[ordinals_E[earlier]] = True

    def _weight(self, time_us: int) -> float:
        return math.exp((time_us - LANDMARK_US) / self._tau_us)

    def _add_pairs(
        self, ones_P: NDArray[np.int64], others_P: NDArray[np.int64], weights_P: NDArray[np.float64]
    ) -> None:
        """Adds each pair in both directions; pairs may repeat."""
        keys = np.concatenate([ones_P << 32 | others_P, others_P << 32 | ones_P])
        self._add_directed(keys, np.concatenate([weights_P, weights_P]))

    def _add_directed(self, keys: NDArray[np.int64], weights: NDArray[np.float64]) -> None:
        """Adds weights to (item, other) pairs, an int64 each; pairs may repeat."""
        distinct, inverse = np.unique(keys, return_inverse=True)
        sums = np.bincount(inverse, weights).astype(np.float64)
        for start in range(0, len(distinct), _AT_ONCE):
            part = slice(start, start + _AT_ONCE)
            self._bump(distinct[part] >> 32, distinct[part] & 0xFFFFFFFF, sums[part])

    def _bump(self, rows_P: NDArray[np.int64], others_P: NDArray[np.int64], weights_P: NDArray[np.float64]) -> None:
        is_other_PS = self._others_NS[rows_P] == others_P.astype(np.uint32)[:, None]
        slots_P = is_other_PS.argmax(axis=1)
        is_known_P = is_other_PS[np.arange(len(rows_P)), slots_P]
        self._weights_NS[rows_P[is_known_P], slots_P[is_known_P]] += weights_P[is_known_P]
        if not is_known_P.all():
            self._insert(rows_P[~is_known_P], others_P[~is_known_P], weights_P[~is_known_P])

    def _insert(self, rows_P: NDArray[np.int64], others_P: NDArray[np.int64], weights_P: NDArray[np.float64]) -> None:
        """Puts distinct new pairs in; of more than there can be room for, the heaviest of a row."""
        order = np.lexsort((-weights_P, rows_P))
        places = _places_in_runs(rows_P[order])
        order, places = order[places < SLOTS - NEIGHBOURS], places[places < SLOTS - NEIGHBOURS]
        rows_P, others_P, weights_P = rows_P[order], others_P[order], weights_P[order]
        rows, counts = np.unique(rows_P, return_counts=True)
        full = rows[self._used_N[rows] + counts > SLOTS]
        if len(full):
            self._prune(full)
        slots_P = self._used_N[rows_P] + places
        self._others_NS[rows_P, slots_P] = others_P
        self._weights_NS[rows_P, slots_P] = weights_P
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

    def columns(self, count: int) -> dict[str, NDArray[np.generic]]:
        return {
            "covisitation.others": self._others_NS[:count].copy(),
            "covisitation.weights": self._weights_NS[:count].copy(),
            "covisitation.used": self._used_N[:count].copy(),
            "covisitation.totals": self._totals_N[:count].copy(),
        }

    def restore(self, columns: Mapping[str, NDArray[np.generic]]) -> None:
        self._others_NS = columns["covisitation.others"].astype(np.uint32)
        self._weights_NS = columns["covisitation.weights"].astype(np.float64)
        self._used_N = columns["covisitation.used"].astype(np.int64)
        self._totals_N = columns["covisitation.totals"].astype(np.float64)
        self.stale_N = np.ones(len(self._used_N), np.bool_)


def moments_back(times_us: Sequence[int], now_us: int) -> list[int]:
    """How many moments back each event of a visit was, seen from one at `now_us`; at least 1.

    >>> moments_back([5, 7, 7, 9], 9), moments_back([5, 7, 7, 9], 11)
    ([2, 1, 1, 1], [3, 2, 2, 1])
    """
    found: list[int] = []
    back, newest = 0, now_us
    for time_us in reversed(times_us):
        back += time_us != newest
        newest = time_us
        found.append(max(back, 1))
    return found[::-1]


def _nearness(moments_P: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.asarray(_MOMENT_DECAY ** (moments_P - 1))


def _at_distance(
    back: int, ordinals_E: NDArray[np.int64], visits_E: NDArray[np.int64], is_new_E: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Places of (later, earlier) events, `back` apart in one visit, the later one new, of two items."""
    later = np.flatnonzero(is_new_E[back:]) + back
    earlier = later - back
    kept = (visits_E[later] == visits_E[earlier]) & (ordinals_E[later] != ordinals_E[earlier])
    return later[kept], earlier[kept]


def _places_in_runs(sorted_P: NDArray[np.int64]) -> NDArray[np.int64]:
    """0, 1, 2 … within each run of equal values."""
    starts = np.flatnonzero(np.concatenate([[True], sorted_P[1:] != sorted_P[:-1]]))
    return np.arange(len(sorted_P)) - np.repeat(starts, np.diff(np.append(starts, len(sorted_P))))


def _pairs(length: int, new: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Places of (later, earlier) items: the last `new` of `length` with the up to 20 before each."""
    later = np.repeat(np.arange(length - new, length), PAIRED)
    earlier = later - np.tile(_BACK, new)
    exists = earlier >= 0
    return later[exists], earlier[exists]
