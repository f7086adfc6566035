"""The items that come first by a column, kept while items change instead of looked for in all of them each time.

A pool holds every item at or before a certain place of the column's order, so as long as enough of them may be
shown, the first few are among them, exactly. It is made anew, from all items, only when too few are left.
"""

# N items, M members of a pool

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# a pool begins with so many times what is asked for, and is made anew when it has so many times more
_ROOM = 4
_MOST = 4
# changes of more items than these at once are not followed one by one
_FOLLOWED = 1_000


@dataclass(frozen=True, slots=True)
class _Pool:
    """All items of more than `value`, and of those that equal it the ones up to `ordinal`."""

    value: float
    ordinal: int
    members_M: NDArray[np.uint32]
    known: frozenset[int]
    most: int

    def holds(self, value: float, ordinal: int) -> bool:
        return value > self.value or (value == self.value and ordinal <= self.ordinal)


class Leaders:
    """First items by columns. Any thread may ask; whoever changes items says so afterwards, by `note`.

    `changes` grows whenever an answer may have become another.
    """

    def __init__(self, lowest: float) -> None:
        self.changes = 0
        self._lowest = lowest
        self._pools: dict[int, _Pool] = {}
        self._lock = threading.Lock()

    def first(
        self, column: int, values_N: NDArray[np.float32], allowed_N: NDArray[np.bool_], limit: int
    ) -> NDArray[np.uint32]:
        """The allowed items of the greatest values above `lowest`, at most `limit`; equal ones go by ordinal."""
        pool = self._pools.get(column)
        if pool is not None:
            found = _first(pool, values_N, allowed_N, limit)
            if len(found) == limit or pool.value == self._lowest:
                return found
        # whoever changes an item meanwhile waits, and then says so to the new pool
        with self._lock:
            pool = self._pools[column] = _pool(values_N, allowed_N, limit * _ROOM, self._lowest)
        return _first(pool, values_N, allowed_N, limit)

    def note(self, columns: Sequence[int], ordinals: NDArray[np.integer], values: NDArray[np.float32]) -> None:
        """Says that items have these values (ordinals × columns) now."""
        if not self._pools:
            return
        with self._lock:
            if len(ordinals) > _FOLLOWED:
                self._pools.clear()
                self.changes += 1
                return
            # plain numbers: an event changes an item or two
            names, rows = ordinals.tolist(), values.tolist()
            for place, column in enumerate(columns):
                if (pool := self._pools.get(column)) is not None:
                    self._follow(column, pool, names, [row[place] for row in rows])

    def _follow(self, column: int, pool: _Pool, ordinals: list[int], values: list[float]) -> None:
        inside = [ordinal for ordinal, value in zip(ordinals, values, strict=True) if pool.holds(value, ordinal)]
        if inside or not pool.known.isdisjoint(ordinals):
            self.changes += 1
        known = pool.known.union(inside)
        if len(known) == len(pool.known):
            return
        if len(known) > pool.most:
            del self._pools[column]
            return
        members_M = np.array(sorted(known), np.uint32)
        self._pools[column] = _Pool(pool.value, pool.ordinal, members_M, known, pool.most)


def _first(pool: _Pool, values_N: NDArray[np.float32], allowed_N: NDArray[np.bool_], limit: int) -> NDArray[np.uint32]:
    members = pool.members_M[: np.searchsorted(pool.members_M, len(allowed_N))]
    values = values_N[members]
    # some have fallen out of the pool's range since they came
    inside = (values > pool.value) | ((values == pool.value) & (members <= pool.ordinal))
    kept = allowed_N[members] & inside
    members, values = members[kept], values[kept]
    # members ascend, so a stable order puts equal ones by ordinal
    found: NDArray[np.uint32] = members[np.argsort(-values, kind="stable")[:limit]]
    return found


def _pool(values_N: NDArray[np.float32], allowed_N: NDArray[np.bool_], room: int, lowest: float) -> _Pool:
    """The pool that holds the first `room` allowed items; all items when there are no more."""
    values = np.where(allowed_N, values_N, lowest)
    value, ordinal = lowest, -1
    if room and np.count_nonzero(values > lowest) > room:
        value = float(np.partition(values, len(values) - room)[len(values) - room])
        above = int(np.count_nonzero(values > value))
        ordinal = int(np.flatnonzero(values == value)[room - above - 1])
    ties = (values_N == value) & (np.arange(len(values_N)) <= ordinal)
    members_M = np.flatnonzero((values_N > value) | ties).astype(np.uint32)
    return _Pool(value, ordinal, members_M, frozenset(members_M.tolist()), _MOST * max(room, len(members_M)))
