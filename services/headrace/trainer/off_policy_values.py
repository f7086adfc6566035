"""What would follow a shown place if a release chose each next item: valued from lists whose order was left to chance.

At each place the release picks the best of what the list shows from there on. A place counts by how likely its item
was there, given those above it, so all that is needed is in the log.

R rows (shown places) end to end, G lists.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from headrace.trainer.analysis.evidence import Value
from headrace.trainer.analysis.off_policy import Estimate, doubly_robust, snips
from headrace.trainer.paired_scores import Floats, Scored, list_numbers
from headrace.trainer.recent_lists import ShownLists

NO_SUPPORT = Value(0.0, 0.0, 0.0, 0.0)


def values(lists: ShownLists, scored: Scored, expected: Scored) -> tuple[Value, Value]:
    """SNIPS and doubly robust: looks, carts or purchases a place, by the orders of `scored`.

    `expected` foretells clicks for the second one. Lists of which nothing was left to chance tell nothing of another
    order than theirs and are left out; without others there is no support.
    """
    rows = np.flatnonzero(_is_explored(lists))
    if not len(rows):
        return NO_SUPPORT, NO_SUPPORT
    picks_R = _picks(lists, scored.scores_R)
    rewards = (lists.labels_R[rows] > 0).astype(np.float64)
    propensities = lists.propensities_R[rows].astype(np.float64)
    targets = (picks_R[rows] == rows).astype(np.float64)
    people = lists.owners_G[list_numbers(lists)[rows]]
    logged, wanted = expected.clicks_R[rows], expected.clicks_R[picks_R[rows]]
    return (
        _value(snips(rewards, propensities, targets, people)),
        _value(doubly_robust(rewards, propensities, targets, logged, wanted, people)),
    )


def _is_explored(lists: ShownLists) -> NDArray[np.bool_]:
    """R: rows of lists whose propensities are all there, and of which at least one place was left to chance."""
    list_R = list_numbers(lists)
    has_all_G = np.bincount(list_R, lists.propensities_R <= 0, minlength=len(lists)) == 0
    has_chance_G = np.bincount(list_R, lists.propensities_R < 1, minlength=len(lists)) > 0
    is_explored_R: NDArray[np.bool_] = (has_all_G & has_chance_G)[list_R]
    return is_explored_R


def _picks(lists: ShownLists, scores_R: Floats) -> NDArray[np.int64]:
    """R: the row that stands best from each place of its list on; of equal ones the first."""
    picks_R = np.arange(len(scores_R))
    ends_G = np.cumsum(lists.sizes_G)
    for start, end in zip(ends_G - lists.sizes_G, ends_G, strict=True):
        for row in range(end - 2, start - 1, -1):
            best = picks_R[row + 1]
            picks_R[row] = row if scores_R[row] >= scores_R[best] else best
    return picks_R


def _value(estimate: Estimate) -> Value:
    return Value(estimate.value, estimate.lower, estimate.upper, estimate.effective_sample_size)
