"""Where the item that really came next stood among all items: by the towers, by counting, by both together.

P states, N items, D width, K sources.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from headrace.model.blend import Blend
from headrace.trainer.arrays import Arrays, Kept, gathered, scatter
from headrace.trainer.counted import Counted, Shares
from headrace.trainer.likeness import KINDS, ItemFacts, likeness
from headrace.trainer.rescorer import Rescorer, Shortlist
from headrace.trainer.sequences import Pairs, Windows

SOURCES = ("vector", *Counted.names, "popularity")
# one, two, three or four, more events seen
_CONTEXT_STARTS = np.array([2, 3, 5])
# states ranked at once times items: what fits a processor's cache
_CELLS = 1 << 21
# places from the top within which an outcome teaches the blend
_NEAR = 200


@dataclass(frozen=True, slots=True)
class Outcomes:
    """What came next, its ranks from 1, and what each source had said of it."""

    targets_P: NDArray[np.int64]
    ranks_P: NDArray[np.int64]
    vector_ranks_P: NDArray[np.int64]
    counted_ranks_P: NDArray[np.int64]
    chances_PK: NDArray[np.float32]
    contexts_P: NDArray[np.int64]
    # by which what was learned from them can be corrected; large, so only where that is wanted
    lists: Shortlist | None = None

    @classmethod
    def joined(cls, parts: Sequence[Outcomes]) -> Outcomes:
        names = ("targets_P", "ranks_P", "vector_ranks_P", "counted_ranks_P", "chances_PK", "contexts_P")
        lists = [part.lists for part in parts if part.lists is not None]
        columns = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
        return cls(**columns, lists=Shortlist.joined(lists) if lists else None)


class Forecaster:
    """Blends the towers' forecast with the counts' and puts the best places in order; learns both from outcomes.

    `places`: how many of the blend's best are put in order again.
    """

    def __init__(self, places: int = 100) -> None:
        self._places = places
        self.blend = Blend(len(_CONTEXT_STARTS) + 1, len(SOURCES))
        self._rescorer = Rescorer(len(_CONTEXT_STARTS) + 1, len(SOURCES), KINDS)
        self._parts: dict[str, Kept] = {"blend": self.blend, "rescorer": self._rescorer}

    def outcomes(
        self,
        windows: Windows,
        pairs: Pairs,
        wants_PD: NDArray[np.float32],
        facts: ItemFacts,
        counted: Counted,
        *,
        is_new_only: bool = False,
        is_lesson: bool = False,
    ) -> Outcomes:
        """How each pair's target was foreseen. Items of which `facts` say nothing can not be foreseen.

        `is_new_only`: nothing that a state had seen is ranked. `is_lesson`: what `learn` needs is kept.
        """
        popular_N = (facts.popularity_N / max(float(facts.popularity_N.sum()), 1e-9)).astype(np.float32)
        items = torch.from_numpy(facts.vectors_ND)
        parts = []
        at_once = max(1, _CELLS // max(len(facts), 1))
        for start in range(0, len(pairs), at_once):
            asked = pairs.at(np.arange(start, min(start + at_once, len(pairs))))
            chances_PN = torch.softmax(torch.from_numpy(wants_PD[start : start + at_once]) @ items.T, dim=1).numpy()
            said = _Said(chances_PN, counted.forecasts(windows, asked.rows_P, asked.states_P), popular_N)
            found = self._part(windows, asked, facts, said, is_new_only=is_new_only)
            parts.append(found if is_lesson else replace(found, lists=None))
        return Outcomes.joined(parts)

    def _part(self, windows: Windows, asked: Pairs, facts: ItemFacts, said: _Said, *, is_new_only: bool) -> Outcomes:
        targets_P = asked.targets_P
        chances_PK = said.of(targets_P[:, None])[:, 0]
        weights_PK = self.blend.weights_CK[_contexts(asked)]
        counted_PN, mixed_PN = said.counted(weights_PK), said.mixed(weights_PK)
        vector_PN = said.chances_PN.copy() if is_new_only else said.chances_PN
        if is_new_only:
            seen = _seen_by(windows, asked)
            for scores_PN in (mixed_PN, vector_PN, counted_PN):
                scores_PN[seen] = -1.0
        mixed_P, vector_P, counted_P = (
            target_ranks(scores_PN, targets_P) for scores_PN in (mixed_PN, vector_PN, counted_PN)
        )
        lists = self._shortlist(windows, asked, facts, said, mixed_PN)
        again_P, listed = self._rescorer.ranks(lists), lists.mixed_PM.shape[1]
        ranks_P = np.where(again_P > 0, again_P, np.maximum(mixed_P, listed + 1))
        return Outcomes(targets_P, ranks_P, vector_P, counted_P, chances_PK, lists.contexts_P, lists)

    def _shortlist(
        self, windows: Windows, asked: Pairs, facts: ItemFacts, said: _Said, mixed_PN: NDArray[np.float32]
    ) -> Shortlist:
        best = torch.topk(torch.from_numpy(mixed_PN), min(self._places, mixed_PN.shape[1]), dim=1)
        best_PM = best.indices.numpy()
        return Shortlist(
            best.values.numpy(),
            said.of(best_PM),
            likeness(facts, windows, asked, best_PM),
            _contexts(asked),
            Shortlist.places_of(best_PM, asked.targets_P),
        )

    def learn(self, outcomes: Outcomes) -> None:
        """Learns from outcomes, which must hold their lists.

        The blend learns from those that a list might have held: how the far tail is ordered helps nobody. (With
        all outcomes the towers and popularity, which alone say something of every item, are believed too much; with
        those of a list's 20 places too little: recall@20 53.22, 53.22, 52.89 and MRR@20 19.40, 19.50, 19.79 for all,
        200 and 20 places on a week of click sessions.)
        """
        if outcomes.lists is None:
            raise ValueError("outcomes teach only with their lists: ask for them with is_lesson=True")
        best_P = np.minimum(np.minimum(outcomes.ranks_P, outcomes.vector_ranks_P), outcomes.counted_ranks_P)
        near_P = best_P <= _NEAR
        self.blend.learn(outcomes.chances_PK[near_P], outcomes.contexts_P[near_P])
        self._rescorer.learn(outcomes.lists)

    def arrays(self) -> Arrays:
        return gathered(self._parts)

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        scatter(self._parts, arrays)


@dataclass(frozen=True, slots=True)
class _Said:
    """What every source says of N items for P states."""

    chances_PN: NDArray[np.float32]  # of the towers
    forecasts: Sequence[Shares]
    popular_N: NDArray[np.float32]

    def of(self, ordinals_PM: NDArray[np.int64]) -> NDArray[np.float32]:
        """P × M × K, of some items for each state."""
        near_PM = np.take_along_axis(self.chances_PN, ordinals_PM, axis=1)
        counted_PM = [shares.of(ordinals_PM) for shares in self.forecasts]
        return np.stack([near_PM, *counted_PM, self.popular_N[ordinals_PM]], axis=-1).astype(np.float32)

    def counted(self, weights_PK: NDArray[np.float64]) -> NDArray[np.float32]:
        """P × N: the mixture without the towers."""
        return self._added(np.zeros_like(self.chances_PN), weights_PK.astype(np.float32))

    def mixed(self, weights_PK: NDArray[np.float64]) -> NDArray[np.float32]:
        """P × N."""
        vector_P1 = weights_PK[:, :1].astype(np.float32)
        return self._added(self.chances_PN * vector_P1, weights_PK.astype(np.float32))

    def _added(self, scores_PN: NDArray[np.float32], weights_PK: NDArray[np.float32]) -> NDArray[np.float32]:
        scores_PN += np.outer(weights_PK[:, -1], self.popular_N)
        for source, shares in enumerate(self.forecasts, start=1):
            known = shares.ordinals_E < scores_PN.shape[1]
            states_E, ordinals_E = shares.states_E[known], shares.ordinals_E[known]
            # an entry a state and item, so nothing is added twice
            scores_PN[states_E, ordinals_E] += weights_PK[states_E, source] * shares.shares_E[known]
        return scores_PN


def _contexts(asked: Pairs) -> NDArray[np.int64]:
    return np.searchsorted(_CONTEXT_STARTS, asked.states_P, side="right")


def _seen_by(windows: Windows, pairs: Pairs) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Entries (state, ordinal) of everything that each state had seen."""
    width = windows.ordinals_BW.shape[1]
    states, places = np.nonzero(np.arange(width) < pairs.states_P[:, None])
    return states, windows.ordinals_BW[pairs.rows_P[states], places].astype(np.int64)


def target_ranks(scores_PN: NDArray[np.float32], targets_P: NDArray[np.int64]) -> NDArray[np.int64]:
    """P: where each row's own target stands, from 1; equal scores go by ordinal."""
    own_P1 = scores_PN[np.arange(len(targets_P)), targets_P][:, None]
    ahead_P = (scores_PN > own_P1).sum(axis=1)
    # equal scores go by ordinal
    ties = np.flatnonzero((scores_PN == own_P1).sum(axis=1) > 1)
    for state in ties:
        ahead_P[state] += int((scores_PN[state, : targets_P[state]] == own_P1[state]).sum())
    return np.asarray(ahead_P + 1, dtype=np.int64)
