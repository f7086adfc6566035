"""Several ranked lists as one, by the reciprocals of their ranks: no list's scores need to be comparable."""

# C candidates

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# Cormack, Clarke and Büttcher, "Reciprocal Rank Fusion", SIGIR 2009
RRF = 60.0


def reciprocal(
    ordinals: NDArray[np.uint32], ranks: NDArray[np.float32], wanted: NDArray[np.uint32]
) -> NDArray[np.float32]:
    """1 / (61 + rank) of each of `wanted` in a ranked list; 0 where it is not in it."""
    scores = np.zeros(len(wanted), np.float32)
    if not len(ordinals):
        return scores
    by_ordinal = np.argsort(ordinals)
    at = by_ordinal[np.minimum(np.searchsorted(ordinals[by_ordinal], wanted), len(ordinals) - 1)]
    found = ordinals[at] == wanted
    scores[found] = 1 / (RRF + 1 + ranks[at[found]])
    return scores


def reciprocal_of(ordinals: NDArray[np.uint32], wanted: NDArray[np.uint32]) -> NDArray[np.float32]:
    """The same for a list that stands in its order, best first."""
    return reciprocal(ordinals, np.arange(len(ordinals), dtype=np.float32), wanted)
