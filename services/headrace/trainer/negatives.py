"""Shared negatives of a step: some drawn evenly, some by popularity, each with how often it was to be expected.

Only items that somebody once chose are drawn: an item that nobody could have met yet must not be pushed
away before its first visitor (a new product would otherwise lose what its content says of it).

S negatives, N items.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Negatives:
    """`log_q_N`: the log of each item's expected count among the S, for the logQ correction."""

    ordinals_S: NDArray[np.int64]
    log_q_N: NDArray[np.float32]


def drawn_negatives(
    candidates: NDArray[np.int64],
    popularity_N: NDArray[np.float64],
    evenly: int,
    by_popularity: int,
    rng: np.random.Generator,
) -> Negatives:
    """`evenly` negatives from the candidates alike, `by_popularity` from all items by their counts."""
    even = candidates[rng.integers(0, len(candidates), evenly)]
    counts_N = popularity_N + 1e-9
    expected_N = np.full(len(counts_N), 1e-9)
    expected_N[candidates] += evenly / len(candidates)
    popular = np.empty(0, np.int64)
    if by_popularity:
        sums_N = np.cumsum(counts_N)
        popular = np.searchsorted(sums_N, rng.random(by_popularity) * sums_N[-1])
        popular = np.minimum(popular, len(sums_N) - 1)
        expected_N += by_popularity * counts_N / sums_N[-1]
    return Negatives(np.concatenate([even, popular]), np.log(expected_N).astype(np.float32))
