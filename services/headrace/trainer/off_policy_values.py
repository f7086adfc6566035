"""What lists would earn if a release put them in order: valued from lists whose order was left to chance.

The items of a list are a given: a release puts those of its slate in its own order. Scores, share and temperature are
in the log, so the chance of an item at a place is known whatever stands above it (log.proto, `place_chances`).

R rows (shown places) end to end, B lists of which chance had a part, K places.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headrace.trainer.analysis.evidence import Value
from headrace.trainer.analysis.off_policy import (
    Estimate,
    place_chances,
    slate_doubly_robust,
    slate_value,
    slate_weights,
)
from headrace.trainer.paired_scores import Floats, Scored
from headrace.trainer.recent_lists import ShownLists

NO_SUPPORT = Value(0.0, 0.0, 0.0, 0.0)


@dataclass(frozen=True, slots=True)
class _Grid:
    """The rows of B lists as a table; `rows_BK` is 0 beyond a list's end."""

    rows_BK: NDArray[np.int64]
    has_BK: NDArray[np.bool_]
    is_drawn_BK: NDArray[np.bool_]
    chances_BK: Floats
    rewards_BK: Floats
    sizes_B: NDArray[np.int64]
    people_B: NDArray[np.int64]

    def of(self, values_R: Floats) -> Floats:
        return np.where(self.has_BK, values_R[self.rows_BK], 0.0)


class LoggedValues:
    """The values of releases on the same lists; lists of which nothing was left to chance tell nothing of others."""

    def __init__(self, lists: ShownLists) -> None:
        self._grid = _grid(lists)

    def of(self, scored: Scored, expected: Scored) -> tuple[Value, Value]:
        """SNIPS and doubly robust: looks, carts or purchases a list, in the order of `scored`.

        `expected` foretells clicks for the second one. No list: no support.
        """
        grid = self._grid
        if not len(grid.sizes_B):
            return NO_SUPPORT, NO_SUPPORT
        keys_BK = np.where(grid.is_drawn_BK, -grid.of(scored.scores_R), np.inf)
        order_BK = np.argsort(keys_BK, axis=1, kind="stable")
        stays_BK = np.argsort(order_BK, axis=1) == np.arange(order_BK.shape[1])
        weights_BK = slate_weights(grid.chances_BK, stays_BK.astype(np.float64))
        clicks_BK = grid.of(expected.clicks_R)
        wanted_BK = np.take_along_axis(clicks_BK, order_BK, axis=1)
        people_B, sizes_B = grid.people_B, grid.sizes_B
        return (
            _value(slate_value(grid.rewards_BK, weights_BK, people_B, sizes_B=sizes_B)),
            _value(slate_doubly_robust(grid.rewards_BK, weights_BK, clicks_BK, wanted_BK, people_B, sizes_B=sizes_B)),
        )


def _grid(lists: ShownLists) -> _Grid:
    known_B = np.flatnonzero((lists.shares_G > 0) & (lists.slates_G > 1) & (lists.slates_G <= lists.sizes_G))
    sizes_B, slates_B = lists.sizes_G[known_B], lists.slates_G[known_B]
    starts_B = (np.cumsum(lists.sizes_G) - lists.sizes_G)[known_B]
    places_K = np.arange(sizes_B.max(initial=0))
    has_BK, is_drawn_BK = (places_K < counts_B[:, None] for counts_B in (sizes_B, slates_B))
    rows_BK = np.where(has_BK, starts_B[:, None] + places_K, 0)
    chances_BK = np.ones(has_BK.shape)
    if len(known_B):
        width = int(slates_B.max())
        drawn_BS, rows_BS = is_drawn_BK[:, :width], rows_BK[:, :width]
        scores_BS = lists.scores_R[rows_BS].astype(np.float64)
        logits_BS = np.where(drawn_BS, scores_BS / _scales(scores_BS, drawn_BS, lists.temperatures_G[known_B]), -np.inf)
        # as the ranker sorts: equal scores by ordinal
        best_BS = np.lexsort((lists.ordinals_R[rows_BS], -logits_BS), axis=1)
        found_BS = place_chances(logits_BS, lists.shares_G[known_B], best_BS)
        chances_BK[:, :width] = np.where(drawn_BS, found_BS, 1.0)
    rewards_BK = (has_BK & (lists.labels_R[rows_BK] > 0)).astype(np.float64)
    return _Grid(rows_BK, has_BK, is_drawn_BK, chances_BK, rewards_BK, sizes_B, lists.owners_G[known_B])


def _scales(scores_BS: Floats, drawn_BS: NDArray[np.bool_], temperatures_B: Floats) -> Floats:
    """[B, 1] What scores are divided by: the temperature times their standard deviation within the slate."""
    counts_B1 = drawn_BS.sum(axis=1, keepdims=True)
    means_B1 = np.where(drawn_BS, scores_BS, 0.0).sum(axis=1, keepdims=True) / counts_B1
    off_BS = np.where(drawn_BS, scores_BS - means_B1, 0.0)
    scales_B1 = temperatures_B[:, None] * np.sqrt((off_BS**2).sum(axis=1, keepdims=True) / counts_B1)
    return np.where(scales_B1 > 0, scales_B1, 1.0)


def _value(estimate: Estimate) -> Value:
    # several places of one person are one draw: what few people saw is little, however long their lists
    effective = min(estimate.effective_sample_size, float(estimate.people))
    return Value(estimate.value, estimate.lower, estimate.upper, effective)
