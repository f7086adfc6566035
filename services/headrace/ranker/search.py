"""Products for words: words and vectors fused by reciprocal rank, with the person as a mild third voice."""

# C fused candidates

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from headrace.model.candidates import LEXICAL, POPULAR, VECTOR
from headrace.ranker.answer import Answer
from headrace.ranker.answering import Answering, Asker, Draft
from headrace.ranker.choosing import NO_PART
from headrace.ranker.filters import Allowed, Filter
from headrace.ranker.fusion import RRF, reciprocal, reciprocal_of
from headrace.ranker.lexical import Hits, LexicalIndex, shared_ranks
from headrace.ranker.paging import Page, page_token
from headrace.ranker.peers import Neighbours
from headrace.ranker.ranking import Ranked
from headrace.ranker.scoring import query_vector, scored
from headrace.ranker.sources import Candidates, merged, popular_among

ORDERS = ("relevance", "price", "price desc", "newest")

_VECTOR_WEIGHT = 0.7
_PERSON_WEIGHT = 0.2
_MOST_HITS = 10_000
_MOST_NEAR = 50


@dataclass(frozen=True, slots=True)
class ProductQuery:
    """What is asked for; checked at the door. `key` tells this search from others for page tokens."""

    query: str
    asker: Asker
    filter: Filter
    page_size: int
    page: Page
    order_by: str
    explain: bool
    key: str


@dataclass(frozen=True, slots=True)
class Fused:
    """All that was found, best first, by fused score."""

    candidates: Candidates
    scores: NDArray[np.float32]


class ProductSearch:
    """Answers searches. With no words, everything that the filter allows is found."""

    def __init__(self, answering: Answering, lexical: LexicalIndex) -> None:
        self._answering = answering
        self._lexical = lexical

    async def search(self, wanted: ProductQuery, deadline_s: float) -> Answer:
        answering = self._answering
        draft = answering.draft("search", wanted.asker, explain=wanted.explain, deadline_s=deadline_s)
        allowed = answering.filters.allowed(wanted.filter)
        _, (fused, total) = await asyncio.gather(answering.meet(draft), self._found(draft, wanted, allowed))
        ranked = await self._ordered(draft, fused, wanted)
        end = wanted.page.offset + wanted.page_size
        page = slice(wanted.page.offset, end)
        # within the page: what moved over its edge would be shown twice, or on none
        answer = await answering.finished(draft, ranked, page, page if wanted.order_by == "relevance" else NO_PART)
        more = end < len(ranked.candidates)
        token = page_token(end, wanted.key, wanted.asker.exposure.track) if more else ""
        return replace(answer, next_page_token=token, total_size=total)

    async def _found(self, draft: Draft, wanted: ProductQuery, allowed: Allowed) -> tuple[Fused, int]:
        if not wanted.query.strip():
            popular = popular_among(allowed.mask, draft.items, _MOST_HITS)
            return _browsed(popular), allowed.count
        hits, near = await asyncio.gather(
            self._by_words(draft, wanted.query, allowed), self._by_vector(draft, wanted.query, allowed)
        )
        if wanted.order_by != "relevance" and len(hits.ordinals):
            # sorted by price, distant neighbours would come before what was asked for
            near = Neighbours.none()
        fused = fuse(hits, near)
        return fused, max(hits.total, len(fused.candidates))

    async def _by_words(self, draft: Draft, query: str, allowed: Allowed) -> Hits:
        hits = await self._answering.in_pool(
            "lexical", draft, lambda: self._lexical.search(query, allowed.mask, _MOST_HITS)
        )
        return hits or Hits.none()

    async def _by_vector(self, draft: Draft, query: str, allowed: Allowed) -> Neighbours:
        served = draft.served
        if served is None:
            return Neighbours.none()
        vector_D = await self._answering.in_pool("query", draft, lambda: query_vector(served, query))
        if vector_D is None:
            return Neighbours.none()
        near = await self._answering.sources.near_vector(served, vector_D, allowed, _MOST_NEAR, draft.stages)
        draft.delta_sequence = near.applied_sequence or draft.delta_sequence
        known = allowed.of(near.ordinals) & (near.scores > 0)
        return Neighbours(near.ordinals[known], near.scores[known], near.space, near.applied_sequence)

    async def _ordered(self, draft: Draft, fused: Fused, wanted: ProductQuery) -> Ranked:
        if wanted.order_by != "relevance":
            return self._sorted(fused, wanted.order_by)
        limit = self._answering.settings.max_candidates
        return await self._answering.ranked(draft, lambda: _personal(draft, fused, limit), lambda: _unscored(fused))

    def _sorted(self, fused: Fused, order_by: str) -> Ranked:
        """By a fact of the product; equal ones go by relevance, those without it come last."""
        ordinals, catalogue = fused.candidates.ordinals, self._answering.catalogue
        if order_by == "newest":
            keys = -catalogue.publish_times_us()[ordinals].astype(np.float64)
        else:
            keys = catalogue.prices()[ordinals] * (-1.0 if order_by == "price desc" else 1.0)
        return _unscored(fused).ordered(np.argsort(keys, kind="stable"))


def fuse(hits: Hits, near: Neighbours) -> Fused:
    """Both lists as one: each rank counts 1 / (61 + rank); equal scores go by ordinal."""
    candidates = merged(
        [Candidates.of(hits.ordinals, LEXICAL), Candidates.of(near.ordinals, VECTOR)],
        len(hits.ordinals) + len(near.ordinals),
    )
    scores_C = reciprocal(hits.ordinals, hits.ranks, candidates.ordinals)
    scores_C += _VECTOR_WEIGHT * reciprocal_of(near.ordinals, candidates.ordinals)
    order = np.lexsort((candidates.ordinals, -scores_C))
    return Fused(Candidates(candidates.ordinals[order], candidates.sources[order]), scores_C[order])


def _browsed(popular: Candidates) -> Fused:
    return Fused(Candidates.of(popular.ordinals, POPULAR), (1 / (RRF + 1 + np.arange(len(popular)))).astype(np.float32))


def _personal(draft: Draft, fused: Fused, limit: int) -> Ranked:
    """The first `limit` with the person's own order as a third list; the rest stays as it is.

    `lexical_score` stays 0 in the features: nothing was learned with another value.
    """
    head = Candidates(fused.candidates.ordinals[:limit], fused.candidates.sources[:limit])
    result = scored(draft.served, draft.person, draft.items, head.ordinals)
    if not np.isfinite(result.scores).all():
        return Ranked(head, result.scores, result.features, result.clicks)
    by_person = np.lexsort((head.ordinals, -result.scores))
    ranks = shared_ranks(result.scores[by_person])
    scores_C = fused.scores.copy()
    scores_C[: len(head)] += _PERSON_WEIGHT * reciprocal(head.ordinals[by_person], ranks, head.ordinals)
    order = np.arange(len(fused.candidates))
    order[: len(head)] = np.lexsort((head.ordinals, -scores_C[: len(head)]))
    found = Candidates(fused.candidates.ordinals[order], fused.candidates.sources[order])
    kept = order[: len(head)]
    clicks = None if result.clicks is None else result.clicks[kept]
    return Ranked(found, scores_C[order], result.features[kept], clicks)


def _unscored(fused: Fused) -> Ranked:
    return Ranked(fused.candidates, fused.scores, np.zeros((0, 0), np.float32))
