"""Quantiles over the last few thousand values of a measurement."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable


class RecentQuantiles:
    """Nearest-rank quantiles of the newest `size` values; 0.0 before the first.

    >>> lag = RecentQuantiles()
    >>> lag.extend([1.0, 2.0, 9.0])
    >>> lag.at(0.5)
    2.0
    """

    def __init__(self, size: int = 2048) -> None:
        self._values: deque[float] = deque(maxlen=size)

    def add(self, value: float) -> None:
        self._values.append(value)

    def extend(self, values: Iterable[float]) -> None:
        self._values.extend(values)

    def at(self, quantile: float) -> float:
        if not self._values:
            return 0.0
        ordered = sorted(self._values)
        return ordered[min(len(ordered) - 1, int(quantile * len(ordered)))]
