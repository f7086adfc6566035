"""Arrays of rows that get longer as ordinals appear."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T", bound=np.generic)

_LEAST = 64


def grown(array: NDArray[T], rows: int, fill: float = 0) -> NDArray[T]:
    """`array` itself when it has `rows` rows, else a copy of at least twice its size, new rows filled with `fill`."""
    if rows <= len(array):
        return array
    room = max(rows, 2 * len(array), _LEAST)
    larger = np.full((room, *array.shape[1:]), fill, dtype=array.dtype)
    larger[: len(array)] = array
    return larger
