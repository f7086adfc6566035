"""Several sources' forecasts of the next item as one: a mixture whose weights are learned as events come.

Each source says how likely each item is next. The mixture's weights follow the likelihood of what really came
next (expectation-maximisation, Dempster et al. 1977, on counts that fade), so a source that grows stale loses
its say by itself and what the counts know is never lost: no fixed blend has either. Weights are kept for each
context apart, since a long visit says other things than a first click.
"""

# P states, K sources, C contexts

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

# about how many past outcomes the weights of a context remember
_MEMORY = 20_000.0
# what a context begins with, in outcomes
_PRIOR = 20.0
_ITERATIONS = 5


class Blend:
    """Weights of K sources in C contexts; all alike before anything came."""

    def __init__(self, contexts: int, sources: int) -> None:
        self._counts_CK = np.full((contexts, sources), _PRIOR / sources)

    @property
    def weights_CK(self) -> NDArray[np.float64]:
        """Rows add up to 1."""
        return np.asarray(self._counts_CK / self._counts_CK.sum(axis=1, keepdims=True))

    def learn(self, chances_PK: NDArray[np.floating[Any]], contexts_P: NDArray[np.int64]) -> None:
        """Takes in what each source had said of the item that then came; outcomes nobody foresaw teach nothing."""
        foreseen = chances_PK.sum(axis=1) > 0
        for context in np.unique(contexts_P[foreseen]):
            self._learn_context(int(context), chances_PK[foreseen & (contexts_P == context)])

    def _learn_context(self, context: int, chances_PK: NDArray[np.floating[Any]]) -> None:
        old_K = self._counts_CK[context]
        old_K = old_K * min(1.0, max(_MEMORY - len(chances_PK), 0.0) / old_K.sum()) + _PRIOR / len(old_K) * 1e-3
        counts_K = old_K
        for _ in range(_ITERATIONS):
            shares_PK = chances_PK * counts_K
            counts_K = old_K + (shares_PK / shares_PK.sum(axis=1, keepdims=True)).sum(axis=0)
        self._counts_CK[context] = counts_K

    def arrays(self) -> dict[str, NDArray[Any]]:
        return {"counts_CK": self._counts_CK}

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        self._counts_CK = arrays["counts_CK"].copy()
