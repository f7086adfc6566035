"""The best k with equal scores in ordinal order, from a search that breaks ties as it likes."""

# Q queries, K wanted, W fetched

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from headrace.index.rows import F32, U32, Found

NOBODY = np.uint32(0xFFFFFFFF)
# fetched beyond k, so that most boundaries are seen to be free of ties at once
_MARGIN = 8

Fetched = tuple[F32, NDArray[np.int64]]


def best(
    fetch: Callable[[int], Fetched], ordinals_N: U32, available: int, queries: int, k: int, sequence: int
) -> Found:
    """The `k` best of each query among `available` rows.

    `fetch(w)` gives the w best scores in descending order and their rows (-1: none); it is asked
    again for more where a row left out may equal the last one taken.
    """
    wanted = min(k, available)
    if wanted == 0:
        return nobody(queries, k, sequence)
    width = min(wanted + _MARGIN, available)
    scores_QW, rows_QW = fetch(width)
    while width < available and np.any(scores_QW[:, -1] == scores_QW[:, wanted - 1]):
        width = min(width * 4, available)
        scores_QW, rows_QW = fetch(width)
    return _ordered(scores_QW, ordinals_N[rows_QW], wanted, k, sequence)


def _ordered(scores_QW: F32, ordinals_QW: U32, wanted: int, k: int, sequence: int) -> Found:
    order_QK = np.lexsort((ordinals_QW, -scores_QW), axis=-1)[:, :wanted]
    found = nobody(len(scores_QW), k, sequence)
    found.ordinals_QK[:, :wanted] = np.take_along_axis(ordinals_QW, order_QK, axis=1)
    found.scores_QK[:, :wanted] = np.take_along_axis(scores_QW, order_QK, axis=1)
    found.counts_Q[:] = wanted
    return found


def nobody(queries: int, k: int, sequence: int) -> Found:
    """What is found where there is nothing."""
    return Found(
        np.zeros(queries, np.uint32),
        np.full((queries, k), NOBODY, np.uint32),
        np.full((queries, k), -np.inf, np.float32),
        sequence,
    )
