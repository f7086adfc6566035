"""A bounded, even sample of everything learned so far, learned again beside what is new."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace.trainer.arrays import Arrays
from headrace.trainer.sequences import Windows

_NAMES = ("ordinals", "event_types", "times_us", "channels", "lengths", "first_targets", "owners")


class Reservoir:
    """At most `size` windows: each one ever added is kept with equal chance (Vitter 1985, algorithm R)."""

    def __init__(self, size: int, width: int) -> None:
        self._size = size
        self._windows = Windows.empty(0, width)
        self._seen = 0

    def __len__(self) -> int:
        return len(self._windows)

    def add(self, windows: Windows, rng: np.random.Generator) -> None:
        free = max(0, self._size - len(self._windows))
        self._windows = self._windows.joined(windows.at(np.arange(min(free, len(windows)))))
        rest = np.arange(min(free, len(windows)), len(windows))
        slots = rng.integers(0, self._seen + rest + 1)
        chosen = slots < self._size
        # when two fall on one slot, the later one stays, as if they came one by one
        for mine, theirs in zip(self._windows.columns(), windows.columns(), strict=True):
            mine[slots[chosen]] = theirs[rest[chosen]]
        self._seen += len(windows)

    def sample(self, count: int, rng: np.random.Generator) -> Windows:
        """`count` windows, or as many as there are when empty (none); drawn with replacement."""
        if not len(self._windows):
            return self._windows
        return self._windows.at(rng.integers(0, len(self._windows), count))

    def erase(self, owners: Collection[int]) -> int:
        """Forgets the windows of people; how many. What comes next fills their places."""
        kept = ~np.isin(self._windows.owners_B, list(owners))
        self._windows = self._windows.at(np.flatnonzero(kept))
        return int((~kept).sum())

    def arrays(self) -> Arrays:
        return dict(zip(_NAMES, self._windows.columns(), strict=True)) | {"seen": np.array([self._seen])}

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        self._windows = Windows(*(arrays[name].copy() for name in _NAMES))
        self._seen = int(arrays["seen"][0])
