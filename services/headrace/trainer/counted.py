"""What counting alone says comes next: seen along with, chosen before, popular.

B windows, P states, E entries, N items, K sources.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace.model.covisitation import Covisitation
from headrace.model.items import NEIGHBOURS, NO_NEIGHBOUR
from headrace.trainer.arrays import Arrays
from headrace.trainer.sequences import Grown, Windows

# the last events that count, and how much less each older one does
_RECENT = 20
_AGE_DECAY = 0.7
_LAST_DECAY = 0.3


@dataclass(frozen=True, slots=True)
class Shares:
    """A distribution over items for each of P states, as entries by state, then ordinal; absent ones are 0."""

    states_E: NDArray[np.int64]
    ordinals_E: NDArray[np.int64]
    shares_E: NDArray[np.float64]

    def of(self, ordinals_PM: NDArray[np.int64]) -> NDArray[np.float64]:
        """P × M: each state's shares of some items of its own."""
        if not len(self.shares_E):
            return np.zeros(ordinals_PM.shape)
        keys_E = _keys(self.states_E, self.ordinals_E)
        wanted_PM = _keys(np.arange(len(ordinals_PM))[:, None], ordinals_PM)
        at_PM = np.minimum(np.searchsorted(keys_E, wanted_PM), len(keys_E) - 1)
        return np.where(keys_E[at_PM] == wanted_PM, self.shares_E[at_PM], 0.0)


class Counted:
    """Pairs of items that the same people chose, and forecasts from them; counts halve in `half_life_days`."""

    names = ("covisitation", "covisitation_last", "followers", "own")

    def __init__(self, half_life_days: float) -> None:
        self._pairs = Covisitation(half_life_days)
        self._followers = Covisitation(half_life_days)
        self._count = 0

    def grow(self, count: int) -> None:
        self._pairs.grow(count)
        self._followers.grow(count)
        self._count = max(self._count, count)

    def add(self, people: Sequence[Grown]) -> None:
        """Counts what people did in a slice with the 20 events before it."""
        if not people:
            return
        starts = [max(0, person.old - _RECENT) for person in people]
        parts = list(zip(people, starts, strict=True))
        events = (
            np.concatenate([person.ordinals[start:] for person, start in parts]).astype(np.int64),
            np.repeat(np.arange(len(people)), [len(person) - start for person, start in parts]),
            np.concatenate([person.times_us[start:] for person, start in parts]),
            np.concatenate([np.arange(start, len(person)) >= person.old for person, start in parts]),
        )
        self._pairs.add_visits(*events)
        self._followers.add_followers(*events)

    def forecasts(self, windows: Windows, rows_P: NDArray[np.int64], states_P: NDArray[np.int64]) -> tuple[Shares, ...]:
        """The sources of `names` for states of windows (a window's row, and how many of its events were seen)."""
        states_E, ordinals_E, ages_E = _seen(windows, rows_P, states_P)
        near_E, last_E = _AGE_DECAY**ages_E, _LAST_DECAY**ages_E
        count, is_last_E = len(rows_P), ages_E == 0
        return (
            _along(self._pairs, states_E, ordinals_E, near_E, count),
            _along(self._pairs, states_E, ordinals_E, last_E, count),
            _along(self._followers, states_E[is_last_E], ordinals_E[is_last_E], near_E[is_last_E], count),
            _shares(states_E, ordinals_E, near_E, count),
        )

    def arrays(self) -> Arrays:
        pairs = {f"pairs.{name}": column for name, column in self._pairs.columns(self._count).items()}
        followers = {f"followers.{name}": column for name, column in self._followers.columns(self._count).items()}
        return {**pairs, **followers, "count": np.array([self._count])}

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        self._count = int(arrays["count"][0])
        for prefix, counts in (("pairs.", self._pairs), ("followers.", self._followers)):
            counts.restore({name.removeprefix(prefix): arrays[name] for name in arrays if name.startswith(prefix)})
            counts.grow(self._count)


def _along(
    pairs: Covisitation,
    states_E: NDArray[np.int64],
    ordinals_E: NDArray[np.int64],
    weights_E: NDArray[np.floating[Any]],
    count: int,
) -> Shares:
    distinct, at = np.unique(ordinals_E, return_inverse=True)
    others_DK, shares_DK = pairs.neighbours(distinct)
    shares_DK = shares_DK / np.maximum(shares_DK.sum(axis=1, keepdims=True), 1e-30)
    others_EK, shares_EK = others_DK[at], shares_DK[at] * weights_E[:, None]
    kept = (others_EK != NO_NEIGHBOUR) & (shares_EK > 0)
    states_EK = np.repeat(states_E[:, None], NEIGHBOURS, axis=1)
    return _shares(states_EK[kept], others_EK[kept].astype(np.int64), shares_EK[kept], count)


def _seen(
    windows: Windows, rows_P: NDArray[np.int64], states_P: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """The last events that each state had seen: (state, ordinal, age), age 0 for the newest."""
    ages = np.arange(_RECENT)
    places_PA = states_P[:, None] - 1 - ages
    state, age = np.nonzero(places_PA >= 0)
    ordinals = windows.ordinals_BW[rows_P[state], places_PA[state, age]].astype(np.int64)
    return state, ordinals, age


def _shares(
    states_E: NDArray[np.int64], ordinals_E: NDArray[np.int64], weights_E: NDArray[np.floating[Any]], count: int
) -> Shares:
    """Entries of one state and item added up, and each state's to 1."""
    keys, inverse = np.unique(_keys(states_E, ordinals_E), return_inverse=True)
    sums = np.bincount(inverse, weights_E, minlength=len(keys))
    states = keys >> 32
    totals_P = np.bincount(states, sums, minlength=count)
    return Shares(states, keys & 0xFFFFFFFF, sums / totals_P[states])


def _keys(states: NDArray[np.int64], ordinals: NDArray[np.int64]) -> NDArray[np.int64]:
    return states << 32 | ordinals
