"""Answers what features are and were: of people, items and channels, each answer as of one offset.

Reads of features take place between two records; people who rest in their tier are fetched without holding the fold up.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from headrace.feature_store.fact_questions import FactQuestion, HeldFacts, answered
from headrace.feature_store.feature_names import Selection
from headrace.feature_store.fold import State
from headrace.feature_store.histories import history_of
from headrace.feature_store.history_reader import HistoryReader, MissingRows
from headrace.feature_store.online_features import OnlineFeatures, Wanted, read_online
from headrace.feature_store.point_in_time import Labels, PastFeatures, PointInTime
from headrace.feature_store.progress import Progress
from headrace.feature_store.state_owner import StateOwner
from headrace.feature_store.user_tier import UserTier
from headrace.feature_store.views import user_features
from headrace.model.history import History
from headrace.runtime.errors import FailedPreconditionError
from headrace.runtime.people_shards import shard_of_person
from headrace.runtime.shards import Shard

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class UserState:
    """One person's state; it holds every record up to `offset` and none after it."""

    history: History
    features: NDArray[np.float32]
    offset: int
    now_us: int
    # the person's own key, then the devices'
    members: tuple[str, ...]


class FeatureReader:
    """Reads of one state, and of its past."""

    def __init__(self, state: State, owner: StateOwner, tier: UserTier, past: PointInTime, progress: Progress) -> None:
        self._state = state
        self._owner = owner
        self._people = HistoryReader(state.histories, tier)
        self._past = past
        self._reached = progress.reached

    async def user_state(self, user_key: str, max_events: int, min_offset: int, timeout_s: float | None) -> UserState:
        """One person's newest events, at `min_offset` or later.

        DeadlineError when that takes too long, UnavailableError when they rest in a tier that can't be reached,
        FailedPreconditionError when they are another shard's.
        """
        self._check_own(user_key)
        await self._reached(min_offset, timeout_s)

        def state_of(members: tuple[str, ...], events: bytes) -> UserState:
            history, features = history_of(events), user_features(self._state, user_key)
            shown = history.last(max_events) if max_events else history
            return UserState(shown, features, self._state.offset, self._state.now_us, members)

        return await self._read_person(user_key, state_of)

    async def online_features(
        self, selection: Selection, wanted: Wanted, min_offset: int, timeout_s: float | None
    ) -> OnlineFeatures:
        """Features of one person, many items and a channel at one offset, `min_offset` or later."""
        self._check_own(wanted.user_key)
        await self._reached(min_offset, timeout_s)
        if not (wanted.user_key and wanted.max_events):
            return await self._owner.read(lambda: read_online(self._state, selection, wanted))
        return await self._read_person(
            wanted.user_key, lambda members, events: read_online(self._state, selection, wanted, events)
        )

    async def _read_person(self, user_key: str, work: Callable[[tuple[str, ...], bytes], T]) -> T:
        """What `work` says between two records of the person's keys and events; those may have to be fetched first."""
        rows: dict[str, bytes] = {}

        def attempt() -> T | MissingRows:
            members = self._state.read_together(user_key)
            missing = self._people.missing(members, rows)
            return missing or work(members, self._people.joined(members, rows))

        while isinstance(found := await self._owner.read(attempt), MissingRows):
            rows |= await self._people.fetched(found)
        return found

    async def historical_features(self, selection: Selection, labels: Labels) -> AsyncIterator[PastFeatures]:
        """Features as they were at the labels' moments; a row for every label, in parts, by moment."""
        self._check_own(*labels.user_keys)
        offset, clock_us = await self._owner.read(lambda: (self._state.offset, self._state.now_us))
        async with aclosing(self._past.features(selection, labels, offset, clock_us)) as parts:
            async for part in parts:
                yield part

    async def facts(self, question: FactQuestion, timeout_s: float | None) -> HeldFacts:
        """The dated facts that held then, as known then. DeadlineError when `min_offset` takes too long."""
        await self._reached(question.min_offset, timeout_s)
        return await self._owner.run(lambda: answered(self._state, question))

    def _check_own(self, *user_keys: str) -> None:
        """An empty key is nobody's."""
        shard = self._state.rules.shard
        for user_key in user_keys:
            if user_key and not self._state.owns(user_key):
                right = Shard(shard_of_person(user_key, shard.count), shard.count)
                raise FailedPreconditionError(f"user_key: that person is in shard {right}, and this is shard {shard}")

    def close(self) -> None:
        self._past.close()
        self._people.close()
