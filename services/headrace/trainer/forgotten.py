"""Who was forgotten, and when: what was on its way then, such as training rows, is not learned any more."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace.runtime.erasures import Erasure
from headrace.trainer.arrays import Arrays


class Forgotten:
    """Moments of erasure by owner (keyed hash)."""

    def __init__(self) -> None:
        self._until_us: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._until_us)

    def add(self, erasure: Erasure) -> None:
        # in order, so that two processes hold the same bytes
        for owner in sorted(erasure.owners):
            self._until_us[owner] = max(erasure.time_us, self._until_us.get(owner, 0))

    def is_of_one(self, owner: int, time_us: int) -> bool:
        """Whether something of that time belongs to somebody who was forgotten after it."""
        return time_us <= self._until_us.get(owner, -1)

    def are_of_one(self, owners: NDArray[np.int64], times_us: NDArray[np.int64]) -> NDArray[np.bool_]:
        """The same for many."""
        pairs = zip(owners.tolist(), times_us.tolist(), strict=True)
        return np.array([self.is_of_one(owner, time_us) for owner, time_us in pairs], np.bool_)

    def arrays(self) -> Arrays:
        return {
            "owners": np.array(list(self._until_us), np.int64),
            "until_us": np.array(list(self._until_us.values()), np.int64),
        }

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        self._until_us = dict(zip(arrays["owners"].tolist(), arrays["until_us"].tolist(), strict=True))
