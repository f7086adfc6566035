"""What every kind of answer needs: the person, time for the arithmetic, and the last page's form."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from headrace.model.attribution import Tokens
from headrace.model.candidates import FEATURE_SCHEMA
from headrace.model.history import History, is_customer
from headrace.model.items import Items
from headrace.ranker.answer import Answer, RankedProduct, reasons
from headrace.ranker.catalogue import Catalogue
from headrace.ranker.choosing import NO_PART, Chosen, chosen
from headrace.ranker.exploration import Exploration
from headrace.ranker.exposure import OUTSIDE, Exposure
from headrace.ranker.filters import Filters
from headrace.ranker.impressions import ImpressionLog, Shown
from headrace.ranker.paired import Slate
from headrace.ranker.ranking import Ranked
from headrace.ranker.releases import Releases
from headrace.ranker.scoring import Person, strongest_features, user_vector
from headrace.ranker.served import Served
from headrace.ranker.settings import RankerSettings
from headrace.ranker.shadow import Shadow
from headrace.ranker.sources import Sources
from headrace.ranker.stages import Stages, UsualTimes
from headrace.ranker.turns import Turns

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Asker:
    """Who asks: "u:" + user_id, "v:" + visitor_id, or nobody (empty)."""

    user_key: str
    min_offset: int = 0
    exposure: Exposure = OUTSIDE


@dataclass
class Draft:
    """An answer in the making. One release and one shape of the items hold for all of it."""

    stages: Stages
    served: Served | None
    items: Items
    serving_config: str
    asker: Asker
    explain: bool
    person: Person
    state_offset: int = 0
    state_traceparent: str = ""
    delta_sequence: int = 0


class Answering:
    """The parts behind every method, and what the methods share."""

    def __init__(
        self,
        catalogue: Catalogue,
        filters: Filters,
        releases: Releases,
        sources: Sources,
        pool: Executor,
        tokens: Tokens,
        impressions: ImpressionLog | None,
        settings: RankerSettings,
        turns: Turns,
        shadow: Shadow,
    ) -> None:
        self.catalogue = catalogue
        self.filters = filters
        self.releases = releases
        self.sources = sources
        self.settings = settings
        self._pool = pool
        self._tokens = tokens
        self._impressions = impressions
        self._usual_times = UsualTimes()
        self._turns = turns
        self._exploration = Exploration(settings.explore_share, settings.explore_temperature)
        self._shadow = shadow

    def draft(self, serving_config: str, asker: Asker, *, explain: bool, deadline_s: float) -> Draft:
        """Begins an answer."""
        stages, served = Stages(deadline_s), self.releases.current
        if served is None:
            stages.miss("release", "none loaded")
        if not self.catalogue.is_loaded:
            stages.miss("items", "none loaded")
        nobody = Person(History.empty(is_customer(asker.user_key)), self.catalogue.shop_time_us())
        draft = Draft(stages, served, self.catalogue.items.view(), serving_config, asker, explain, nobody)
        draft.delta_sequence = served.vectors.applied_sequence if served else 0
        return draft

    async def meet(self, draft: Draft) -> None:
        """Finds out what is known of the person, and where the served towers put them."""
        await self.learn_history(draft)
        await self.locate(draft)

    async def learn_history(self, draft: Draft) -> None:
        """Asks for the person's history; an unknown person's is empty."""
        if not draft.asker.user_key:
            return
        state = await self.sources.state(draft.asker.user_key, draft.asker.min_offset, draft.stages)
        if state is not None:
            draft.person = Person(state.history, state.now_us or draft.person.now_us)
            draft.state_offset, draft.state_traceparent = state.offset, state.traceparent

    async def locate(self, draft: Draft) -> None:
        """Encodes the person's history into the space of the release."""
        served, person = draft.served, draft.person
        if served is None:
            return
        vector_D = await self.worked("encode", draft, lambda: user_vector(served, person.history, person.now_us))
        draft.person = Person(person.history, person.now_us, vector_D)

    async def worked(self, stage: str, draft: Draft, work: Callable[[], T]) -> T | None:
        """What `work` gives, made at once; None, noted, when less time is left than it usually takes.

        On the event loop: arithmetic of half a millisecond costs less than handing it to a thread, which then
        fights with the loop for the interpreter (2.5 against 3.5 ms of CPU an answer).
        """
        await self._turns.next()
        if draft.stages.cpu_budget_s(self.settings.score_budget_s) < self._usual_times.of(stage):
            self._usual_times.forget_some(stage)
            draft.stages.miss(stage, "deadline")
            return None
        with draft.stages.timed(stage):
            begun = time.perf_counter()
            made = work()
            self._usual_times.note(stage, time.perf_counter() - begun)
            return made

    async def in_pool(self, stage: str, draft: Draft, work: Callable[[], T]) -> T | None:
        """What `work` gives, made off the event loop, since it may take long; None, noted, when the deadline comes."""
        budget_s = draft.stages.cpu_budget_s(self.settings.score_budget_s)
        with draft.stages.timed(stage):
            try:
                async with asyncio.timeout(max(0.0, budget_s)):
                    return await asyncio.get_running_loop().run_in_executor(self._pool, work)
            except TimeoutError:
                draft.stages.miss(stage, "deadline")
                return None

    async def ranked(self, draft: Draft, rank: Callable[[], Ranked], fallback: Callable[[], Ranked]) -> Ranked:
        """What `rank` makes; `fallback` when there is no time, or no sane score."""
        ranked = await self.worked("score", draft, rank)
        if ranked is None:
            return fallback()
        if not np.isfinite(ranked.scores).all():
            draft.stages.miss("score", "not finite")
            return fallback()
        return ranked

    async def finished(self, draft: Draft, ranked: Ranked, page: slice, explored: slice = NO_PART) -> Answer:
        """The answer with one page of the ranked list, of which chance may order `explored`; notes the impression."""
        token = self._token(draft)
        choice = chosen(ranked, explored if draft.served else NO_PART, self._exploration, token)
        shown = choice.ranked.part(page.start, page.stop)
        why: list[Sequence[str]] = [()] * len(shown.candidates)
        if draft.explain:
            why = await self._reasons(draft, choice.ranked, page)
        note = self._note(draft, token, choice, page)
        listings = [self.catalogue.listing(ordinal) for ordinal in shown.candidates.ordinals.tolist()]
        products = [
            RankedProduct(listing.id, score, because, listing)
            for listing, score, because in zip(listings, shown.scores.tolist(), why, strict=True)
            if listing is not None
        ]
        self._offer(draft, ranked)
        _tell(draft, shown)
        return self.answer(draft, products, token, note)

    def _offer(self, draft: Draft, ranked: Ranked) -> None:
        """Lets the shadow release have a look at what the served one has scored."""
        if ranked.is_scored:
            person = draft.person
            self._shadow.offer(
                draft.served, Slate(person.history, person.now_us, draft.items, ranked.candidates.ordinals)
            )

    async def _reasons(self, draft: Draft, ranked: Ranked, page: slice) -> list[Sequence[str]]:
        shown = ranked.candidates.sources[page]
        places = np.arange(len(ranked.features))[page]
        features = await self.in_pool(
            "explain", draft, lambda: strongest_features(draft.served, ranked.features, places)
        )
        names = [tuple(each) for each in features or ()]
        return reasons(shown, names + [()] * (len(shown) - len(names)))

    def _token(self, draft: Draft) -> str:
        exposure = draft.asker.exposure
        return self._tokens.new(
            release=draft.served.release if draft.served else "",
            user_key=draft.asker.user_key,
            time_us=draft.person.now_us,
            rollout=exposure.rollout,
            arm=exposure.arm,
            track=exposure.track,
        )

    def _note(self, draft: Draft, token: str, choice: Chosen, page: slice) -> Shown | None:
        """Logs the page that is shown; or gives it back for the ranker that shows it to log."""
        exposure, ranked = draft.asker.exposure, choice.ranked.part(page.start, page.stop)
        is_wanted = exposure.is_forwarded or self._impressions is not None
        if not (is_wanted and ranked.is_scored and len(ranked.candidates)):
            return None
        shown = Shown(
            attribution_token=token,
            user_key=draft.asker.user_key,
            release=draft.served.release if draft.served else "",
            serving_config=draft.serving_config,
            ordinals=ranked.candidates.ordinals,
            scores=ranked.scores,
            features=ranked.features,
            feature_schema=FEATURE_SCHEMA,
            time_us=draft.person.now_us,
            propensities=choice.propensities[page],
            policy=choice.policy,
            exposure=exposure,
            clicks=ranked.clicks,
        )
        if exposure.is_forwarded:
            return shown
        if self._impressions is not None:
            self._impressions.note(shown)
        return None

    def answer(self, draft: Draft, products: list[RankedProduct], token: str, shown: Shown | None = None) -> Answer:
        served = draft.served
        return Answer(
            products=products,
            attribution_token=token,
            release=served.release if served else "",
            space=served.vectors.space if served else "",
            degraded_reasons=tuple(draft.stages.missing),
            stage_ms=draft.stages.ms if draft.explain else {},
            state_offset=draft.state_offset,
            delta_sequence=draft.delta_sequence,
            track=draft.asker.exposure.track,
            shown=shown,
        )


def _tell(draft: Draft, shown: Ranked) -> None:
    served = draft.served
    facts: dict[str, str | int] = {
        "headrace.release": served.release if served else "",
        "headrace.space": served.vectors.space if served else "",
        "headrace.delta_sequence": draft.delta_sequence,
        "headrace.state_offset": draft.state_offset,
    }
    draft.stages.tell(
        facts,
        draft.state_traceparent,
        lambda: served.vectors.changes.of(shown.candidates.ordinals.tolist()) if served else (),
    )
