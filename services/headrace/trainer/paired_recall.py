"""Two releases' towers over the same states: who of them finds what people did next, or what they searched for.

A release's ranker network cannot tell a broken tower: the features that were logged hold the likeness that the
serving tower gave. So towers are asked anew, over the vectors of their own spaces.

N items, D width, P states.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headrace.model.history import History
from headrace.model.serving_model import ServingModel
from headrace.trainer.analysis.evidence import Kept
from headrace.trainer.queries import Lesson
from headrace.trainer.recent_states import State

TOP = 20


@dataclass(frozen=True, slots=True)
class ItemVectors:
    """Vectors of a space, by ascending ordinal."""

    ordinals_N: NDArray[np.uint32]
    vectors_ND: NDArray[np.float32]

    def rows(self, ordinals: NDArray[np.uint32]) -> NDArray[np.float32]:
        """A row an item; zeros for items that have no vector."""
        rows = np.zeros((len(ordinals), self.vectors_ND.shape[1]), np.float32)
        if len(self.ordinals_N):
            at = np.minimum(np.searchsorted(self.ordinals_N, ordinals), len(self.ordinals_N) - 1)
            known = self.ordinals_N[at] == ordinals
            rows[known] = self.vectors_ND[at[known]]
        return rows


@dataclass(frozen=True, slots=True)
class Placed:
    """A release's model over the vectors of its space."""

    model: ServingModel
    vectors: ItemVectors


_Ask = Callable[[Placed], NDArray[np.float32]]


def towers_kept(candidate: Placed, baseline: Placed, states: Sequence[State]) -> Kept:
    """Next items among the best 20 of the items that both spaces hold, by either user tower."""
    items = _in_both(candidate, baseline)
    states = [state for state in states if np.isin(state.target, items)]

    def wants(placed: Placed) -> NDArray[np.float32]:
        return np.stack([_want(placed, state.history, state.now_us) for state in states])

    return _kept(candidate, baseline, items, np.array([state.target for state in states], np.uint32), wants)


def queries_kept(candidate: Placed, baseline: Placed, searches: Lesson) -> Kept:
    """Found items among the best 20 of the items that both spaces hold, by either query tower."""
    items = _in_both(candidate, baseline)
    known = np.flatnonzero(np.isin(searches.ordinals, items))
    texts = [searches.texts[at] for at in known]
    targets = searches.ordinals[known].astype(np.uint32)
    return _kept(candidate, baseline, items, targets, lambda placed: placed.model.query_vectors(texts))


def _want(placed: Placed, history: History, now_us: int) -> NDArray[np.float32]:
    return placed.model.user_vector(history, placed.vectors.rows(history.ordinals), now_us)


def _in_both(candidate: Placed, baseline: Placed) -> NDArray[np.uint32]:
    return np.intersect1d(candidate.vectors.ordinals_N, baseline.vectors.ordinals_N)


def _kept(
    candidate: Placed, baseline: Placed, items: NDArray[np.uint32], targets_P: NDArray[np.uint32], wants: _Ask
) -> Kept:
    if not len(targets_P):
        return Kept(0, 0, 0, 0, 0)
    both = (candidate, baseline)
    now_P, then_P = (_are_found(wants(each), each.vectors.rows(items), items, targets_P) for each in both)
    lost, gained = int((then_P & ~now_P).sum()), int((now_P & ~then_P).sum())
    return Kept(len(targets_P), int(then_P.sum()), int(now_P.sum()), lost, gained)


def _are_found(
    wants_PD: NDArray[np.float32],
    items_ND: NDArray[np.float32],
    items: NDArray[np.uint32],
    targets_P: NDArray[np.uint32],
) -> NDArray[np.bool_]:
    scores_PN = wants_PD @ items_ND.T
    own_P1 = scores_PN[np.arange(len(targets_P)), np.searchsorted(items, targets_P)][:, None]
    # of few items the best twenty are no feat
    top = min(TOP, max(1, len(items) // 5))
    # an answer that is the same for all finds nothing; one that is no number neither
    are_found: NDArray[np.bool_] = ((scores_PN >= own_P1).sum(axis=1) <= top) & np.isfinite(own_P1[:, 0])
    return are_found
