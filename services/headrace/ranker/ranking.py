"""Puts candidates in order: filters them, fills up a short list, scores all in one batch."""

# C candidates, F features

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headrace.model.candidates import POPULAR, SourceLimits
from headrace.model.items import Items
from headrace.ranker.filters import Allowed
from headrace.ranker.scoring import Person, scored
from headrace.ranker.served import Served
from headrace.ranker.sources import Candidates, merged, popular_among


@dataclass(frozen=True, slots=True)
class Ranked:
    """Candidates in the order in which they are shown, with scores and the features behind them.

    There may be fewer rows of features than candidates: those after them were not scored by the model. `clicks`: how
    likely each scored one is clicked, as the release thinks; none where there was no release.
    """

    candidates: Candidates
    scores: NDArray[np.float32]
    features: NDArray[np.float32]
    clicks: NDArray[np.float32] | None = None

    @classmethod
    def unscored(cls, candidates: Candidates) -> Ranked:
        return cls(candidates, np.zeros(len(candidates), np.float32), np.zeros((0, 0), np.float32))

    @property
    def is_scored(self) -> bool:
        return len(self.features) == len(self.candidates)

    def part(self, start: int, stop: int) -> Ranked:
        candidates = Candidates(self.candidates.ordinals[start:stop], self.candidates.sources[start:stop])
        return Ranked(
            candidates, self.scores[start:stop], self.features[start:stop], _by(self.clicks, slice(start, stop))
        )

    def with_part_ordered(self, part: slice, order: NDArray[np.intp]) -> Ranked:
        """The same with the places of `part`, which are scored, in another order."""
        places = np.arange(len(self.candidates))
        places[part] = places[part][order]
        candidates = Candidates(self.candidates.ordinals[places], self.candidates.sources[places])
        scored = places[: len(self.features)]
        return Ranked(candidates, self.scores[places], self.features[scored], _by(self.clicks, scored))

    def ordered(self, order: NDArray[np.intp]) -> Ranked:
        candidates = Candidates(self.candidates.ordinals[order], self.candidates.sources[order])
        if not self.is_scored:
            return Ranked(candidates, self.scores[order], self.features, self.clicks)
        return Ranked(candidates, self.scores[order], self.features[order], _by(self.clicks, order))


def _by(clicks: NDArray[np.float32] | None, order: NDArray[np.intp] | slice) -> NDArray[np.float32] | None:
    return None if clicks is None else clicks[order]


@dataclass(frozen=True, slots=True)
class Selection:
    """What may be in a list: `allowed` less the items on the page, `wanted` at least where there are so many."""

    allowed: Allowed
    on_page: NDArray[np.uint32]
    wanted: int
    limit: int

    def mask(self) -> NDArray[np.bool_]:
        mask_N = self.allowed.mask.copy()
        mask_N[self.on_page[self.on_page < len(mask_N)]] = False
        return mask_N

    def of(self, candidates: Candidates) -> Candidates:
        """The candidates that may be in the list, at most `limit`."""
        keep = self.allowed.of(candidates.ordinals)
        if len(self.on_page):
            keep &= ~np.isin(candidates.ordinals, self.on_page)
        kept = candidates.kept(keep)
        limit = max(self.limit, self.wanted)
        return Candidates(kept.ordinals[:limit], kept.sources[:limit])


def selected(parts: Sequence[Candidates], selection: Selection) -> Candidates:
    """The merged parts that may be shown."""
    return selection.of(merged(parts, sum(len(part) for part in parts)))


def filled(candidates: Candidates, selection: Selection, items: Items, now_us: int) -> Candidates:
    """The candidates, with popular ones after them while there are fewer than wanted."""
    if len(candidates) >= selection.wanted:
        return candidates
    # these are at hand; all items are looked through only for a filter that leaves too few of them
    known = selection.of(Candidates.of(items.popular(now_us, SourceLimits().popular), POPULAR))
    most = merged([candidates, known], selection.wanted)
    if len(most) == selection.wanted:
        return most
    return merged([most, popular_among(selection.mask(), items, selection.wanted)], selection.wanted)


def by_model(served: Served | None, person: Person, items: Items, candidates: Candidates) -> Ranked:
    """Candidates by their scores for the person; equal scores go by ordinal."""
    result = scored(served, person, items, candidates.ordinals)
    order = np.lexsort((candidates.ordinals, -result.scores))
    return Ranked(candidates, result.scores, result.features, result.clicks).ordered(order)


def as_given(
    served: Served | None, person: Person, items: Items, candidates: Candidates, weights_C: NDArray[np.float32]
) -> Ranked:
    """Candidates in the order given, scored by `weights_C`; features are computed to be learned from."""
    result = scored(served, person, items, candidates.ordinals)
    return Ranked(candidates, weights_C, result.features, result.clicks)
