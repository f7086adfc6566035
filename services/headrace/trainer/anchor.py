"""Pulls items towards where the last release has them, so that the vectors of one space stay comparable.

N items, D width, R distinct items of a step.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from headrace.trainer.arrays import Arrays


class Anchor:
    """The vectors of the last release, of length 1 each, and how strongly a step is held to them.

    A part of the state: what is learned depends on it. Nothing is kept when `weight` is 0.
    """

    def __init__(self, width: int, weight: float) -> None:
        self._weight = weight
        self._vectors_ND = np.zeros((0, width), np.float32)

    @property
    def is_held(self) -> bool:
        return len(self._vectors_ND) > 0

    def hold(self, vectors_ND: NDArray[np.float32]) -> None:
        """From now on these vectors are held to; zeros stand for items that are not there."""
        if self._weight:
            self._vectors_ND = vectors_ND

    def free(self) -> None:
        """Nothing is held to any more."""
        self._vectors_ND = self._vectors_ND[:0]

    def pull(self, ordinals: NDArray[np.int64], vectors_RD: Tensor) -> Tensor:
        """The weight times the mean of 1 - cosine over the items of a step that are held; 0 when none is."""
        held_RD = torch.from_numpy(self._rows(ordinals))
        is_held_R = held_RD.any(dim=1)
        apart_R = (1 - (vectors_RD * held_RD).sum(dim=1)) * is_held_R
        return self._weight * apart_R.sum() / is_held_R.sum().clamp(min=1)

    def _rows(self, ordinals: NDArray[np.int64]) -> NDArray[np.float32]:
        rows_RD = np.zeros((len(ordinals), self._vectors_ND.shape[1]), np.float32)
        known_R = ordinals < len(self._vectors_ND)
        rows_RD[known_R] = self._vectors_ND[ordinals[known_R]]
        return rows_RD

    def arrays(self) -> Arrays:
        return {"vectors_ND": self._vectors_ND}

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        # checkpoints of before there was an anchor hold to nothing
        if self._weight and "vectors_ND" in arrays:
            self._vectors_ND = arrays["vectors_ND"].copy()
