"""Which items may be shown, kept until an item changes or time passes a moment at which one appears or goes."""

# N items

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Mask:
    """Which items may be shown at any time from `begin_us` up to `end_us`."""

    begin_us: float
    end_us: float
    servable_N: NDArray[np.bool_]


class Servable:
    """The newest mask. Any thread may ask; whoever changes an item calls `forget` afterwards."""

    def __init__(self) -> None:
        self._changes = 0
        self._kept: tuple[int, Mask] | None = None

    def at(self, now_us: int, count: int, make: Callable[[], Mask]) -> NDArray[np.bool_]:
        """The mask of `count` items; `make` looks through all of them."""
        changes, kept = self._changes, self._kept
        if kept is not None and kept[0] == changes and len(kept[1].servable_N) == count:
            mask = kept[1]
            if mask.begin_us <= now_us < mask.end_us:
                return mask.servable_N
        mask = make()
        # a change since then makes it worthless
        self._kept = (changes, mask)
        return mask.servable_N

    def forget(self) -> None:
        """Says that an item's document changed."""
        self._changes += 1
