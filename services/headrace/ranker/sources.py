"""Where candidates come from: the person's state, the index, and what is in memory.

Each asks its peer within a budget; what cannot be had is noted on the answer and made up from memory.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from headrace.model.candidates import COVISITATION, POPULAR
from headrace.model.history import History
from headrace.model.items import NO_NEIGHBOUR, Items
from headrace.ranker.breaker import Breaker
from headrace.ranker.feature_store import FeatureStore
from headrace.ranker.filters import Allowed
from headrace.ranker.peers import Neighbours, UserState, why_missing
from headrace.ranker.scoring import popularity
from headrace.ranker.served import Served
from headrace.ranker.settings import RankerSettings
from headrace.ranker.stages import Stages
from headrace.ranker.vector_index import VectorIndex
from headrace.runtime.errors import DeadlineError, HeadraceError, NotFoundError
from headrace.runtime.people_shards import shard_of_person

T = TypeVar("T")

# of what is left of the deadline, for a caller that waits to read its own writes
_WAIT_SHARE = 0.6
# beyond this many vectors a search in memory would take longer than the index's budget
_MOST_IN_MEMORY = 200_000
# what is to be left of the deadline before that
_MEMORY_S = 0.02


@dataclass(frozen=True, slots=True)
class Candidates:
    """Distinct items with the sources that proposed each, as a bit mask."""

    ordinals: NDArray[np.uint32]
    sources: NDArray[np.uint8]

    @classmethod
    def of(cls, ordinals: NDArray[np.uint32], source: int) -> Candidates:
        return cls(ordinals, np.full(len(ordinals), source, np.uint8))

    @classmethod
    def none(cls) -> Candidates:
        return cls.of(np.zeros(0, np.uint32), 0)

    def __len__(self) -> int:
        return len(self.ordinals)

    def kept(self, keep: NDArray[np.bool_]) -> Candidates:
        return Candidates(self.ordinals[keep], self.sources[keep])


def merged(parts: Sequence[Candidates], limit: int) -> Candidates:
    """All parts without repeats, in the order of first sight; every source of an item is remembered."""
    if not parts:
        return Candidates.none()
    ordinals = np.concatenate([part.ordinals for part in parts])
    bits = np.concatenate([part.sources for part in parts])
    distinct, first, inverse = np.unique(ordinals, return_index=True, return_inverse=True)
    sources = np.zeros(len(distinct), np.uint8)
    np.bitwise_or.at(sources, inverse, bits)
    order = np.argsort(first)[:limit]
    return Candidates(distinct[order], sources[order])


class Sources:
    """Asks the peers on behalf of one answer at a time."""

    def __init__(self, feature_store: FeatureStore, index: VectorIndex, settings: RankerSettings) -> None:
        self._feature_store = feature_store
        self._index = index
        self._settings = settings
        # one a shard: the others' people are asked for as before when one is away
        self._state_breakers = [
            Breaker(settings.breaker_failures, settings.breaker_open_s) for _ in range(feature_store.shards)
        ]
        self._index_breaker = Breaker(settings.breaker_failures, settings.breaker_open_s)

    async def state(self, user_key: str, min_offset: int, stages: Stages) -> UserState | None:
        """The person's state; None, noted, when it cannot be had in time."""
        with stages.timed("state"):
            if min_offset > 0:
                return await self._state_at(user_key, min_offset, stages)
            return await self._newest_state(user_key, stages)

    async def _newest_state(self, user_key: str, stages: Stages) -> UserState | None:
        breaker = self._state_breakers[shard_of_person(user_key, self._feature_store.shards)]
        return await self._asked(
            "state",
            lambda budget_s: self._feature_store.state(user_key, 0, budget_s),
            breaker,
            stages,
            self._shard_of(user_key),
        )

    def _shard_of(self, user_key: str) -> str:
        """As reasons say it; empty where there is but one."""
        shards = self._feature_store.shards
        return f"shard {shard_of_person(user_key, shards)} " if shards > 1 else ""

    async def _state_at(self, user_key: str, min_offset: int, stages: Stages) -> UserState | None:
        try:
            return await self._feature_store.state(user_key, min_offset, _WAIT_SHARE * stages.left_s())
        except HeadraceError as error:
            # an older state is better than none
            why = "behind min_offset" if isinstance(error, DeadlineError) else why_missing(error)
            stages.miss("state", self._shard_of(user_key) + why)
        return await self._newest_state(user_key, stages)

    async def near_vector(
        self, served: Served, query_D: NDArray[np.float32], allowed: Allowed, k: int, stages: Stages
    ) -> Neighbours:
        """The allowed items nearest to a vector: from the index, else from memory."""
        with stages.timed("index"):
            found = await self._asked_index(
                lambda budget_s: self._index.near_vector(served.vectors.space, query_D, k, allowed.bitmap, budget_s),
                stages,
            )
            return found or _near_in_memory(served, query_D, allowed, k, stages)

    async def near_items(
        self, served: Served | None, ordinals: NDArray[np.uint32], allowed: Allowed, k: int, stages: Stages
    ) -> Neighbours:
        """The allowed items most alike to each of `ordinals`, from the index, else from memory.

        Item vectors are all of one length, so the greatest inner products are those of the most alike. Before the
        first release the index is asked in its active space.
        """
        if served is not None and not served.vectors.rows(ordinals).any():
            return Neighbours.none()
        space = served.vectors.space if served else ""
        with stages.timed("index"):
            found = await self._asked_index(
                lambda budget_s: self._index.near_items(space, ordinals, k, allowed.bitmap, budget_s), stages
            )
            return found or _alike_in_memory(served, ordinals, allowed, k, stages)

    async def _asked_index(self, ask: Callable[[float], Awaitable[Neighbours]], stages: Stages) -> Neighbours | None:
        found = await self._asked("index", ask, self._index_breaker, stages)
        for shard in found.missing if found else ():
            stages.miss("index", shard)
        # what only the missing shards could have told is rather made up from memory
        return found if found and (len(found.ordinals) or not found.missing) else None

    async def _asked(
        self, stage: str, ask: Callable[[float], Awaitable[T]], breaker: Breaker, stages: Stages, where: str = ""
    ) -> T | None:
        """What `ask` gives within the stage's budget; None, noted with `where` it was asked, when it gives nothing."""
        most_s = self._settings.state_budget_s if stage == "state" else self._settings.search_budget_s
        budget_s = stages.peer_budget_s(most_s)
        if budget_s <= 0:
            stages.miss(stage, "deadline")
            return None
        if not breaker.allows():
            stages.miss(stage, f"{where}unavailable")
            return None
        try:
            answer = await ask(budget_s)
        except HeadraceError as error:
            # a peer that answers "not found" is there
            if not isinstance(error, NotFoundError):
                breaker.fail()
            stages.miss(stage, where + why_missing(error))
            return None
        breaker.succeed()
        return answer


def _can_look_through(served: Served, stages: Stages) -> bool:
    """Whether to score all vectors in memory: an answer that is late already must not make others late."""
    return served.vectors.count <= _MOST_IN_MEMORY and stages.left_s() > _MEMORY_S


def _near_in_memory(
    served: Served, query_D: NDArray[np.float32], allowed: Allowed, k: int, stages: Stages
) -> Neighbours:
    vectors = served.vectors
    if len(query_D) != vectors.dimension or not _can_look_through(served, stages):
        return Neighbours.none()
    return Neighbours(*vectors.nearest(query_D, k, allowed.mask), vectors.space, vectors.applied_sequence)


def _alike_in_memory(
    served: Served | None, ordinals: NDArray[np.uint32], allowed: Allowed, k: int, stages: Stages
) -> Neighbours:
    if served is None or not _can_look_through(served, stages):
        return Neighbours.none()
    vectors = served.vectors
    return Neighbours(*vectors.most_alike(ordinals, k, allowed.mask), vectors.space, vectors.applied_sequence)


def bought_together(ordinals: NDArray[np.uint32], items: Items) -> tuple[Candidates, NDArray[np.float32]]:
    """Co-visited items of all `ordinals` together, heaviest first, with their weights."""
    known = ordinals[ordinals < items.count]
    neighbours = items.neighbour_ordinals_NK[known].ravel()
    kept = neighbours != NO_NEIGHBOUR
    distinct, inverse = np.unique(neighbours[kept], return_inverse=True)
    weights = np.bincount(inverse, items.neighbour_weights_NK[known].ravel()[kept], len(distinct))
    order = np.argsort(-weights, kind="stable")
    return Candidates.of(distinct[order], COVISITATION), weights[order].astype(np.float32)


def popular_among(allowed_N: NDArray[np.bool_], items: Items, limit: int) -> Candidates:
    """The most popular of the allowed items: what is left when nothing is known of the person."""
    count = min(len(allowed_N), items.count)
    ordinals = np.flatnonzero(allowed_N[:count])
    popularity_N = popularity(items)[ordinals]
    if len(ordinals) > limit:
        # all that tie with the last one stay in, so that equal ones go by ordinal
        threshold = np.partition(popularity_N, len(ordinals) - limit)[len(ordinals) - limit]
        inside = popularity_N >= threshold
        ordinals, popularity_N = ordinals[inside], popularity_N[inside]
    order = np.argsort(-popularity_N, kind="stable")[:limit]
    return Candidates.of(ordinals[order].astype(np.uint32), POPULAR)


def newest_first(history: History, keep: NDArray[np.bool_]) -> NDArray[np.uint32]:
    """Distinct items of the history's kept events, the last one first."""
    ordinals = history.ordinals[keep][::-1]
    _, first = np.unique(ordinals, return_index=True)
    newest: NDArray[np.uint32] = ordinals[np.sort(first)]
    return newest
