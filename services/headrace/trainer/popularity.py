"""How often each item was chosen lately: a floor to beat, and where popular negatives come from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace.model.growing import grown
from headrace.trainer.arrays import Arrays

_HALF_LIFE_US = 7 * 86_400 * 1_000_000


class Popularity:
    """Counts of N items that halve every seven days of log time."""

    def __init__(self) -> None:
        self._counts_N = np.zeros(0, np.float64)
        self._newest_us = 0

    def grow(self, count: int) -> None:
        self._counts_N = grown(self._counts_N, count)

    def counts(self, count: int) -> NDArray[np.float64]:
        """Of items 0 .. count − 1."""
        return self._counts_N[:count]

    def add(self, ordinals: NDArray[np.uint32], times_us: NDArray[np.int64]) -> None:
        if not len(ordinals):
            return
        newest_us = max(self._newest_us, int(times_us.max()))
        self._counts_N *= 0.5 ** ((newest_us - self._newest_us) / _HALF_LIFE_US)
        self._newest_us = newest_us
        weights = 0.5 ** ((newest_us - times_us) / _HALF_LIFE_US)
        self._counts_N += np.bincount(ordinals, weights, minlength=len(self._counts_N))

    def arrays(self) -> Arrays:
        return {"counts_N": self._counts_N, "newest_us": np.array([self._newest_us])}

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        self._counts_N = arrays["counts_N"].copy()
        self._newest_us = int(arrays["newest_us"][0])
