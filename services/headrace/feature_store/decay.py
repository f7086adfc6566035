"""Decayed counts of items, kept as logs of forward-decayed sums.

Cormode et al., "Forward Decay" (ICDE 2009): an event at time t weighs exp((t − landmark) / τ) for ever, and the
decayed count at any later time is the sum over exp((now − landmark) / τ). Late events need no special care.
"""

# N items, H half-lives of views, then of purchases

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from headrace.feature_store.columns import Columns
from headrace.model.events import EventCode
from headrace.model.growing import grown
from headrace.model.items import DECAY_FEATURES, HALF_LIVES_DAYS, LANDMARK_US, MARKED_FEATURES, NEVER, tau_us

_TAUS_US = np.array([tau_us(days) for days in HALF_LIVES_DAYS])
_PLACES = {
    EventCode.VIEW: slice(0, len(_TAUS_US)),
    EventCode.PURCHASE: slice(len(_TAUS_US), 2 * len(_TAUS_US)),
}

_MARKED_TAUS_US = {name: tau_us(int(name.rsplit("_", 1)[1].removesuffix("d"))) for name in MARKED_FEATURES}


class DecayedCounts:
    """`logs_NH`: the columns DECAY_FEATURES of every item, in double precision."""

    def __init__(self) -> None:
        self.logs_NH: NDArray[np.float64] = np.empty((0, len(DECAY_FEATURES)))

    def grow(self, count: int) -> None:
        self.logs_NH = grown(self.logs_NH, count, NEVER)

    def add(self, ordinals: NDArray[np.int64], code: EventCode, time_us: int) -> None:
        """Adds one event to each of the distinct items; carts are not decayed."""
        places = _PLACES.get(code)
        if places is not None:
            self.logs_NH[ordinals, places] = np.logaddexp(self.logs_NH[ordinals, places], _weights(time_us))

    def add_marked(self, name: str, ordinals: NDArray[np.int64], time_us: int) -> None:
        """Adds one purchase to the count `name` (of MARKED_FEATURES) of each of the distinct items."""
        place = DECAY_FEATURES.index(name)
        weight = (time_us - LANDMARK_US) / _MARKED_TAUS_US[name]
        self.logs_NH[ordinals, place] = np.logaddexp(self.logs_NH[ordinals, place], weight)

    def take_back(self, ordinal: int, code: EventCode, time_us: int) -> None:
        """Removes one event that was added at that time."""
        places = _PLACES.get(code)
        if places is None:
            return
        logs = self.logs_NH[ordinal, places]
        share = np.exp(np.minimum(_weights(time_us) - logs, 0.0))
        # what is left of a count of one is rounding, not a count
        left = np.where(share < 1 - 1e-9, logs + np.log1p(-np.minimum(share, 1 - 1e-12)), NEVER)
        self.logs_NH[ordinal, places] = left

    def columns(self, count: int) -> Columns:
        return {"decay.logs": self.logs_NH[:count].copy()}

    def restore(self, columns: Columns) -> None:
        self.logs_NH = columns["decay.logs"].astype(np.float64)


def _weights(time_us: int) -> NDArray[np.float64]:
    return (time_us - LANDMARK_US) / _TAUS_US
