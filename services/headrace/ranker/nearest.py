"""The nearest items of several queries, and how those of several shards become one answer."""

# Q queries, K wanted

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Nearest:
    """Items of each query, best first, equal scores by ordinal.

    Beyond a query's count, ordinals are 0xFFFFFFFF and scores -inf.
    """

    counts_Q: NDArray[np.uint32]
    ordinals_QK: NDArray[np.uint32]
    scores_QK: NDArray[np.float32]
    space: str
    applied_sequence: int

    def end_to_end(self) -> tuple[NDArray[np.uint32], NDArray[np.float32]]:
        """The found items of one query after the other, and their scores."""
        found_QK = np.arange(self.ordinals_QK.shape[1]) < self.counts_Q[:, None]
        return self.ordinals_QK[found_QK], self.scores_QK[found_QK]


def merged(parts: Sequence[Nearest]) -> Nearest:
    """The best of all parts, as if all their items had been in one index; it is as far as the part that is behind."""
    first = parts[0]
    if len(parts) == 1:
        return first
    wanted = first.ordinals_QK.shape[1]
    ordinals_QM = np.concatenate([part.ordinals_QK for part in parts], axis=1)
    scores_QM = np.concatenate([part.scores_QK for part in parts], axis=1)
    # what is beyond a part's count is last by its score
    order_QK = np.lexsort((ordinals_QM, -scores_QM), axis=-1)[:, :wanted]
    return Nearest(
        np.minimum(wanted, np.sum([part.counts_Q for part in parts], axis=0)).astype(np.uint32),
        np.take_along_axis(ordinals_QM, order_QK, axis=1),
        np.take_along_axis(scores_QM, order_QK, axis=1),
        first.space,
        min(part.applied_sequence for part in parts),
    )
