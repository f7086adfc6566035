"""The feature store as it runs: its parts around one state, each in a file of its own.

One thread owns the state (`state_owner`). The fold, item chunks, copies and row ranges are jobs on it, one after the
other, in slices of about 15 ms; so nothing is locked and nothing is torn.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from headrace.feature_store.back_fill import BackFill
from headrace.feature_store.drift_gauge import DriftGauge
from headrace.feature_store.erasing import Erasing
from headrace.feature_store.feature_names import FeatureNames
from headrace.feature_store.feature_reader import FeatureReader
from headrace.feature_store.fold import State
from headrace.feature_store.item_stream import ItemStream
from headrace.feature_store.log_follower import LogFollower
from headrace.feature_store.point_in_time import PointInTime
from headrace.feature_store.progress import Progress
from headrace.feature_store.row_reader import RowReader
from headrace.feature_store.row_store import RowStore
from headrace.feature_store.settings import FeatureStoreSettings
from headrace.feature_store.snapshot import Snapshots
from headrace.feature_store.state_keeper import StateKeeper
from headrace.feature_store.state_owner import StateOwner
from headrace.feature_store.user_tier import UserTier
from headrace.runtime.eventlog import EventLog


@dataclass(frozen=True, slots=True)
class Status:
    """How far the fold is."""

    offset: int
    now_us: int
    users: int
    hot_users: int
    items: int
    lag_p50_ms: float
    lag_p99_ms: float
    events_folded: int
    snapshot_offset: int
    events_by_type: dict[str, int]
    state_digest: str
    shard: str
    dated_facts: int
    devices_joined: int


class FeatureStore:
    """A state that follows a log: what moves it (`follower`), keeps it (`keeper`), and answers from it."""

    def __init__(
        self,
        log: EventLog,
        state: State,
        tier: UserTier,
        snapshots: Snapshots,
        rows: RowStore,
        settings: FeatureStoreSettings,
        names: FeatureNames,
        past: PointInTime,
        erasing: Erasing,
    ) -> None:
        self.names = names
        self._state = state
        self._tier = tier
        self._owner = owner = StateOwner()
        self._progress = progress = Progress(state.offset)
        missing = [view for view in names.declared if view.name not in state.views]
        self._back_fill = BackFill(log, missing, settings.read_limit, state.rules.shard)
        self.drift = DriftGauge(owner, state, rows)
        self.keeper = StateKeeper(state, owner, tier, snapshots, rows, erasing, settings, progress, self.drift)
        self.follower = LogFollower(log, state, owner, rows, self.keeper, settings, progress, self._back_fill)
        self.features = FeatureReader(state, owner, tier, past, progress)
        self.items = ItemStream(state, owner, settings.publish_every_s)
        self.training = RowReader(rows, owner, progress)

    @property
    def offset(self) -> int:
        """The last record that is folded."""
        return self._progress.offset

    def view_progress(self, name: str) -> tuple[int, int] | None:
        """How far a view's back-fill is, and of where; None when the view is live."""
        is_missing = any(counts.view.name == name for counts in self._back_fill.counts)
        return (self._back_fill.offset, self._progress.offset) if is_missing and name not in self._state.views else None

    async def status(self, with_digest: bool = False) -> Status:
        """How far the fold is; `with_digest`, with a digest of all that it holds, which takes a copy."""
        users, facts = await self._owner.run(lambda: (self._state.histories.count(), len(self._state.dated_facts)))
        if with_digest:
            # the tier stands still meanwhile
            async with self.keeper.still:
                copy, counts = await self._owner.run(lambda: (self._state.copy(), dict(self._state.events_by_type)))
                offset, digest = copy.offset, await asyncio.to_thread(copy.digest)
        else:
            offset, digest, counts = self._progress.offset, "", dict(self._state.events_by_type)
        return Status(
            offset=offset,
            now_us=self._state.now_us,
            users=users,
            hot_users=self._state.histories.held_count if self._tier.is_remote else users,
            items=self._state.items.count,
            lag_p50_ms=self._progress.lag_ms(0.5),
            lag_p99_ms=self._progress.lag_ms(0.99),
            events_folded=sum(counts.values()),
            snapshot_offset=self.keeper.snapshot_offset,
            events_by_type=counts,
            state_digest=digest,
            shard=str(self._state.rules.shard),
            dated_facts=facts,
            devices_joined=len(self._state.identities),
        )

    async def close(self) -> None:
        """Writes a last snapshot, if the tier can take it. What follows the log must have ended."""
        await self.keeper.write_last()
        self._back_fill.close()
        self._owner.close()
        self.features.close()
