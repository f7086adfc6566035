"""Which items may have a row of their own: those that were met often enough, and not too long ago.

An item is met once by each of its events in the log; being drawn as a negative, or read again in a replayed
window, is no meeting. Without a row of its own an item is its content alone.

E events, N items, R rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace.model.growing import grown
from headrace.trainer.arrays import Arrays

_DAY_US = 86_400 * 1_000_000


class Admission:
    """Counts meetings. `admit_after` of them admit an item; `expire_days` of log time without one undo that.

    0 days: an item once admitted stays.
    """

    def __init__(self, admit_after: int, expire_days: float) -> None:
        self._admit_after = admit_after
        self._expire_us = int(expire_days * _DAY_US)
        self._met_N = np.zeros(0, np.int64)
        self._last_us_N = np.zeros(0, np.int64)
        self._newest_us = 0

    def grow(self, count: int) -> None:
        self._met_N = grown(self._met_N, count)
        self._last_us_N = grown(self._last_us_N, count)

    def meet(self, ordinals_E: NDArray[np.uint32], times_us_E: NDArray[np.int64]) -> None:
        """Takes in new events, each once."""
        if not len(ordinals_E):
            return
        self._met_N += np.bincount(ordinals_E, minlength=len(self._met_N))
        np.maximum.at(self._last_us_N, ordinals_E, times_us_E)
        self._newest_us = max(self._newest_us, int(times_us_E.max()))

    def are_admitted(self, ordinals_R: NDArray[np.int64]) -> NDArray[np.bool_]:
        """R: whether each item's row may move."""
        return np.asarray(self._met_N[ordinals_R] >= self._admit_after)

    def expire(self) -> NDArray[np.int64]:
        """Items last met too long before the newest event, ascending, each said once: they must be met anew."""
        if not self._expire_us:
            return np.empty(0, np.int64)
        is_stale_N = self._last_us_N < self._newest_us - self._expire_us
        stale = np.flatnonzero(is_stale_N & (self._met_N > 0))
        self._met_N[stale] = 0
        return stale

    def arrays(self) -> Arrays:
        newest = np.array([self._newest_us])
        return {"met_N": self._met_N, "last_us_N": self._last_us_N, "newest_us": newest}

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        self._met_N = arrays["met_N"].copy()
        self._last_us_N = arrays["last_us_N"].copy()
        self._newest_us = int(arrays["newest_us"][0])
