"""The caller's own candidates in the person's order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from headrace.ranker.answer import Answer, RankedProduct
from headrace.ranker.answering import Answering, Asker
from headrace.ranker.ranking import Ranked, by_model
from headrace.ranker.sources import Candidates


@dataclass(frozen=True, slots=True)
class Ranking:
    """What is asked for; checked at the door."""

    asker: Asker
    product_ids: Sequence[str]
    explain: bool


class CandidateRanker:
    """Answers with every candidate once: known ones best first, then unknown ones in the order given."""

    def __init__(self, answering: Answering) -> None:
        self._answering = answering

    async def rank(self, wanted: Ranking, deadline_s: float) -> Answer:
        answering = self._answering
        draft = answering.draft("rank", wanted.asker, explain=wanted.explain, deadline_s=deadline_s)
        await answering.meet(draft)
        ordinals = {each: answering.catalogue.ordinal(each) for each in wanted.product_ids}
        known = [ordinal for ordinal in ordinals.values() if ordinal is not None]
        candidates = Candidates.of(np.array(known, np.uint32), 0)
        ranked = await answering.ranked(
            draft,
            partial(by_model, draft.served, draft.person, draft.items, candidates),
            lambda: Ranked.unscored(candidates),
        )
        answer = await answering.finished(draft, ranked, slice(0, len(known)))
        unknown = [RankedProduct(each, 0.0) for each, ordinal in ordinals.items() if ordinal is None]
        return replace(answer, products=[*answer.products, *unknown])
