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


class NegativeSampler:
    """Draws for every step of a slice; what does not change between them is worked out once.

    Each draw has `evenly` negatives from the candidates alike and `by_popularity` from all items by their counts.
    """

    def __init__(
        self, candidates: NDArray[np.int64], popularity_N: NDArray[np.float64], evenly: int, by_popularity: int
    ) -> None:
        self._candidates = candidates
        self._evenly = evenly
        self._by_popularity = by_popularity
        counts_N = popularity_N + 1e-9
        self._sums_N = np.cumsum(counts_N) if by_popularity else counts_N[:0]
        expected_N = np.full(len(counts_N), 1e-9)
        expected_N[candidates] += evenly / max(len(candidates), 1)
        if by_popularity and len(counts_N):
            expected_N += by_popularity * counts_N / self._sums_N[-1]
        self._log_q_N = np.log(expected_N).astype(np.float32)

    def draw(self, rng: np.random.Generator) -> Negatives:
        even = self._candidates[rng.integers(0, len(self._candidates), self._evenly)]
        popular = np.empty(0, np.int64)
        if self._by_popularity:
            popular = np.searchsorted(self._sums_N, rng.random(self._by_popularity) * self._sums_N[-1])
            popular = np.minimum(popular, len(self._sums_N) - 1)
        return Negatives(np.concatenate([even, popular]), self._log_q_N)
