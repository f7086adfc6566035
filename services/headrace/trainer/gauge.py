"""How well log time long past is still foreseen: a sample of old windows, even in time, ranked at each publish.

The windows are ordinary past data: they were learned when they were new, and replay may draw them again.
Nothing is learned because it is here.

B windows, P pairs (one a window), N items, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace.trainer.arrays import Arrays
from headrace.trainer.forecast import target_ranks
from headrace.trainer.prequential import TOP
from headrace.trainer.sequences import Pairs, Windows, pairs_of

# what stretches begin with; doubled whenever there are too many of them
_FIRST_STRETCH_US = 3_600 * 1_000_000
_AT_ONCE = 64
_UNMEASURED = -1

Wants = Callable[[Windows, Pairs], NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class Stretch:
    """Means over the sampled windows of a stretch of log time, every item ranked."""

    begin_us: int
    windows: int
    recall: float
    reciprocal_rank: float
    # what `recall` was at the first publish after each window was learned
    fresh_recall: float


@dataclass(frozen=True, slots=True)
class Reading:
    """All stretches as of one publish, oldest first; the last one is the new one. There is at least one."""

    stretches: tuple[Stretch, ...]

    def metrics(self) -> dict[str, float]:
        """`new_*` of the newest stretch; `old_*` and `forgetting` as means over the others, when there are any."""
        new, old = self.stretches[-1], self.stretches[:-1]
        shown = {"new_recall_at_20": new.recall, "new_mrr_at_20": new.reciprocal_rank}
        if old:
            recall = float(np.mean([stretch.recall for stretch in old]))
            fresh = float(np.mean([stretch.fresh_recall for stretch in old]))
            shown |= {"old_recall_at_20": recall, "old_fresh_recall_at_20": fresh, "forgetting": fresh - recall}
            shown["old_mrr_at_20"] = float(np.mean([stretch.reciprocal_rank for stretch in old]))
        return shown


class Gauge:
    """At most `size` windows of each of at most `stretches` equal stretches of log time.

    Every window of a stretch is kept with equal chance: each draws a number once, and the lowest stay. When
    there are too many stretches, two and two become one (twice as long) and thin out by the same numbers.
    So the sample of a stretch that is over changes by thinning alone. A `size` of 0 keeps nothing.
    """

    def __init__(self, size: int, stretches: int, width: int) -> None:
        self._size = size
        self._stretches = stretches
        self._length_us = _FIRST_STRETCH_US
        self._windows = Windows.empty(0, width)
        self._times_us_B = np.zeros(0, np.int64)
        self._draws_B = np.zeros(0, np.float64)
        # whether the target was among the first 20 when first measured
        self._fresh_B = np.zeros(0, np.int8)
        self.reading: Reading | None = None

    def __len__(self) -> int:
        return len(self._windows)

    def add(self, windows: Windows, rng: np.random.Generator) -> None:
        """Offers the windows of a slice; those in which nothing followed anything are of no use."""
        pairs = _last_pairs(windows)
        if not len(pairs) or not self._size:
            return
        self._windows = self._windows.joined(windows.at(pairs.rows_P))
        # a pair of neighbours: the event at the state's place is the target
        times_us = windows.times_us_BW[pairs.rows_P, pairs.states_P]
        self._times_us_B = np.concatenate([self._times_us_B, times_us])
        self._draws_B = np.concatenate([self._draws_B, rng.random(len(pairs))])
        self._fresh_B = np.concatenate([self._fresh_B, np.full(len(pairs), _UNMEASURED, np.int8)])
        self._thin_out()

    def _thin_out(self) -> None:
        while len(np.unique(self._numbers())) > self._stretches:
            self._length_us *= 2
        numbers_B = self._numbers()
        order = np.lexsort((self._draws_B, numbers_B))
        places = np.arange(len(order)) - np.searchsorted(numbers_B[order], numbers_B[order])
        self._keep(np.sort(order[places < self._size]))

    def erase(self, owners: Collection[int]) -> int:
        """Forgets the windows of people; how many."""
        is_kept = ~np.isin(self._windows.owners_B, list(owners))
        self._keep(np.flatnonzero(is_kept))
        return int((~is_kept).sum())

    def _keep(self, kept: NDArray[np.int64]) -> None:
        self._windows = self._windows.at(kept)
        self._times_us_B, self._draws_B = self._times_us_B[kept], self._draws_B[kept]
        self._fresh_B = self._fresh_B[kept]

    def _numbers(self) -> NDArray[np.int64]:
        """B: the stretch that each window is in."""
        return self._times_us_B // self._length_us

    def measure(self, wants: Wants, items_ND: NDArray[np.float32]) -> Reading:
        """Ranks each window's last event among all items; there must be windows.

        What is measured for the first time is noted as fresh.
        """
        starts = range(0, len(self), _AT_ONCE)
        ranks_B = np.concatenate([self._ranks(slice(start, start + _AT_ONCE), wants, items_ND) for start in starts])
        is_hit_B = ranks_B <= TOP
        self._fresh_B = np.where(self._fresh_B == _UNMEASURED, is_hit_B, self._fresh_B).astype(np.int8)
        numbers_B = self._numbers()
        self.reading = Reading(
            tuple(self._stretch(int(at), numbers_B == at, is_hit_B, ranks_B) for at in np.unique(numbers_B))
        )
        return self.reading

    def _ranks(self, part: slice, wants: Wants, items_ND: NDArray[np.float32]) -> NDArray[np.int64]:
        windows = self._windows.at(np.arange(len(self))[part])
        pairs = _last_pairs(windows)
        return target_ranks(wants(windows, pairs) @ items_ND.T, pairs.targets_P)

    def _stretch(
        self, number: int, chosen_B: NDArray[np.bool_], is_hit_B: NDArray[np.bool_], ranks_B: NDArray[np.int64]
    ) -> Stretch:
        return Stretch(
            begin_us=number * self._length_us,
            windows=int(chosen_B.sum()),
            recall=float(is_hit_B[chosen_B].mean()),
            reciprocal_rank=float(np.where(is_hit_B, 1 / ranks_B, 0)[chosen_B].mean()),
            fresh_recall=float(self._fresh_B[chosen_B].mean()),
        )

    def arrays(self) -> Arrays:
        columns = {f"windows{at}": column for at, column in enumerate(self._windows.columns())}
        return columns | {
            "times_us_B": self._times_us_B,
            "draws_B": self._draws_B,
            "fresh_B": self._fresh_B,
            "length_us": np.array([self._length_us]),
        }

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        count = len(self._windows.columns())
        self._windows = Windows(*(arrays[f"windows{at}"].copy() for at in range(count)))
        self._times_us_B = arrays["times_us_B"].copy()
        self._draws_B = arrays["draws_B"].copy()
        self._fresh_B = arrays["fresh_B"].copy()
        self._length_us = int(arrays["length_us"][0])


def _last_pairs(windows: Windows) -> Pairs:
    """The last new event of each window with what came before it, in the windows' order; not all have one."""
    pairs = pairs_of(windows).followed()
    return pairs.at(np.append(pairs.rows_P[1:] != pairs.rows_P[:-1], True)[: len(pairs)])
