"""Products for a person, a page, or beside a product: one method for each serving config."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from headrace.model.candidates import REPURCHASE, VECTOR, Proposals, SourceLimits, propose
from headrace.model.events import EventCode
from headrace.ranker.answer import Answer
from headrace.ranker.answering import Answering, Asker, Draft
from headrace.ranker.catalogue import Listing
from headrace.ranker.choosing import NO_PART
from headrace.ranker.filters import Filter
from headrace.ranker.fusion import reciprocal_of
from headrace.ranker.peers import Neighbours
from headrace.ranker.ranking import Ranked, Selection, as_given, by_model, filled, selected
from headrace.ranker.sources import Candidates, bought_together, newest_first, popular_among

BESIDE_A_PRODUCT = ("similar-items", "frequently-bought-together")
SERVING_CONFIGS = ("home", *BESIDE_A_PRODUCT, "repurchase", "recently-viewed")

_LIMITS = SourceLimits()
# beside a product: how much likeness and company count, and the person's own order
_VOICES = (1.0, 0.7)
_PERSON_VOICE = 0.3


@dataclass(frozen=True, slots=True)
class Recommendation:
    """What is asked for; checked at the door."""

    serving_config: str
    asker: Asker
    product_ids: Sequence[str]
    filter: Filter
    page_size: int
    explain: bool


class Recommender:
    """Answers recommendations. An unknown person or product gets what is popular."""

    def __init__(self, answering: Answering) -> None:
        self._answering = answering
        self._makers = {
            "home": self._home,
            "similar-items": self._similar,
            "frequently-bought-together": self._bought_together,
            "repurchase": self._repurchase,
            "recently-viewed": self._recently_viewed,
        }

    async def recommend(self, wanted: Recommendation, deadline_s: float) -> Answer:
        answering = self._answering
        draft = answering.draft(wanted.serving_config, wanted.asker, explain=wanted.explain, deadline_s=deadline_s)
        selection = self._selection(wanted)
        ranked = await self._makers[wanted.serving_config](draft, selection)
        # what was viewed last stays in that order
        is_free = wanted.serving_config != "recently-viewed"
        # within the page: who is on it must not hang on what is drawn, or no place's chance could be told from the log
        most = min(answering.settings.explore_candidates, wanted.page_size)
        explored = slice(0, most) if is_free else NO_PART
        return await answering.finished(draft, ranked, slice(0, wanted.page_size), explored)

    def _selection(self, wanted: Recommendation) -> Selection:
        catalogue = self._answering.catalogue
        on_page = [ordinal for each in wanted.product_ids if (ordinal := catalogue.ordinal(each)) is not None]
        return Selection(
            allowed=self._answering.filters.allowed(wanted.filter),
            on_page=np.array(on_page, np.uint32),
            wanted=wanted.page_size,
            limit=self._answering.settings.max_candidates,
        )

    async def _home(self, draft: Draft, selection: Selection) -> Ranked:
        await self._answering.learn_history(draft)
        near, proposals = await asyncio.gather(self._near_person(draft, selection), self._proposals(draft))
        parts = [Candidates(proposals.ordinals, proposals.sources), Candidates.of(near.ordinals, VECTOR)]
        return await self._by_model(draft, parts, selection)

    async def _near_person(self, draft: Draft, selection: Selection) -> Neighbours:
        await self._answering.locate(draft)
        served, vector_D = draft.served, draft.person.vector
        if served is None or vector_D is None:
            return Neighbours.none()
        k = self._answering.settings.vector_candidates
        near = await self._answering.sources.near_vector(served, vector_D, selection.allowed, k, draft.stages)
        draft.delta_sequence = near.applied_sequence or draft.delta_sequence
        return near

    async def _proposals(self, draft: Draft) -> Proposals:
        # the question to the index goes out first
        await asyncio.sleep(0)
        person = draft.person
        found = await self._answering.worked(
            "candidates", draft, lambda: propose(person.history, draft.items, person.now_us, _LIMITS)
        )
        return found or Proposals(np.zeros(0, np.uint32), np.zeros(0, np.uint8))

    async def _by_model(self, draft: Draft, parts: Sequence[Candidates], selection: Selection) -> Ranked:
        def rank() -> Ranked:
            candidates = filled(selected(parts, selection), selection, draft.items, draft.person.now_us)
            return by_model(draft.served, draft.person, draft.items, candidates)

        return await self._answering.ranked(draft, rank, lambda: _unscored(parts, selection, draft))

    async def _similar(self, draft: Draft, selection: Selection) -> Ranked:
        if not len(selection.on_page):
            return await self._popular(draft, selection)
        _, near = await asyncio.gather(self._answering.meet(draft), self._near_items(draft, selection))
        together, _ = bought_together(selection.on_page, draft.items)
        parts = [Candidates.of(near.ordinals, VECTOR), together]
        candidates = selected(parts, selection)
        if not len(candidates):
            draft.stages.miss("neighbours", "none known")
            parts = [self._popular_beside(draft, selection)]
        rank = partial(self._rank_parts, draft, parts, selection)
        return await self._answering.ranked(draft, rank, lambda: _unscored(parts, selection, draft))

    @staticmethod
    def _rank_parts(draft: Draft, parts: Sequence[Candidates], selection: Selection) -> Ranked:
        """Likeness, company and the person's own order as three lists; likeness counts most."""
        candidates = selected(parts, selection)
        person = by_model(draft.served, draft.person, draft.items, candidates)
        voices = [part.ordinals for part in parts] + [person.candidates.ordinals]
        weights = [*_VOICES[: len(parts)], _PERSON_VOICE]
        scores_C = np.zeros(len(candidates), np.float32)
        for ordinals, weight in zip(voices, weights, strict=True):
            scores_C += weight * reciprocal_of(ordinals, person.candidates.ordinals)
        order = np.lexsort((person.candidates.ordinals, -scores_C))
        return Ranked(person.candidates, scores_C, person.features, person.clicks).ordered(order)

    async def _near_items(self, draft: Draft, selection: Selection) -> Neighbours:
        # the items on the page are nearest to themselves
        k = self._answering.settings.vector_candidates + len(selection.on_page)
        near = await self._answering.sources.near_items(
            draft.served, selection.on_page, selection.allowed, k, draft.stages
        )
        draft.delta_sequence = near.applied_sequence or draft.delta_sequence
        best_first = np.argsort(-near.scores, kind="stable")
        return Neighbours(near.ordinals[best_first], near.scores[best_first], near.space, near.applied_sequence)

    def _popular_beside(self, draft: Draft, selection: Selection) -> Candidates:
        """Popular items of the categories on the page; of the whole shop when there are none."""
        catalogue, mask_N = self._answering.catalogue, selection.mask()
        listings = [catalogue.listing(int(ordinal)) for ordinal in selection.on_page]
        paths = _categories([listing for listing in listings if listing is not None])
        beside_N = mask_N & catalogue.in_categories(paths)[: len(mask_N)]
        return popular_among(beside_N if beside_N.any() else mask_N, draft.items, selection.wanted)

    async def _popular(self, draft: Draft, selection: Selection) -> Ranked:
        """For a page whose product nobody knows: what is popular, in the person's order."""
        draft.stages.miss("product", "unknown")
        await self._answering.meet(draft)
        return await self._by_model(draft, [], selection)

    async def _bought_together(self, draft: Draft, selection: Selection) -> Ranked:
        if not len(selection.on_page):
            return await self._popular(draft, selection)
        await self._answering.meet(draft)
        together, weights = bought_together(selection.on_page, draft.items)
        candidates = selection.of(together)
        weights = weights[np.isin(together.ordinals, candidates.ordinals)]
        return await self._as_given(draft, candidates, weights)

    async def _repurchase(self, draft: Draft, selection: Selection) -> Ranked:
        await self._answering.meet(draft)
        history = draft.person.history
        own = newest_first(history, history.event_types == EventCode.PURCHASE)
        candidates = selection.of(Candidates.of(own, REPURCHASE))
        rank = partial(by_model, draft.served, draft.person, draft.items, candidates)
        return await self._answering.ranked(draft, rank, lambda: Ranked.unscored(candidates))

    async def _recently_viewed(self, draft: Draft, selection: Selection) -> Ranked:
        await self._answering.meet(draft)
        history = draft.person.history
        own = newest_first(history, history.event_types != EventCode.REMOVE)
        candidates = selection.of(Candidates.of(own, REPURCHASE))
        places = np.arange(len(candidates), dtype=np.float32)
        return await self._as_given(draft, candidates, (1 / (1 + places)).astype(np.float32))

    async def _as_given(self, draft: Draft, candidates: Candidates, weights: NDArray[np.float32]) -> Ranked:
        rank = partial(as_given, draft.served, draft.person, draft.items, candidates, weights)
        return await self._answering.ranked(draft, rank, lambda: Ranked.unscored(candidates))


def _unscored(parts: Sequence[Candidates], selection: Selection, draft: Draft) -> Ranked:
    return Ranked.unscored(filled(selected(parts, selection), selection, draft.items, draft.person.now_us))


def _categories(listings: Sequence[Listing]) -> list[str]:
    return sorted({category for listing in listings for category in listing.categories})
