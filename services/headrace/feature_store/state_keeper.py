"""Makes the state durable: snapshots now and then, and at once where somebody is to be forgotten.

Rows are written before the snapshot that they belong to, and those of people who were erased are taken out of the
files before a snapshot says that they never were.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence

from headrace.feature_store.drift_gauge import DriftGauge
from headrace.feature_store.erasing import Erasing
from headrace.feature_store.facts import Tick
from headrace.feature_store.fold import State
from headrace.feature_store.progress import Progress
from headrace.feature_store.row_store import Cut, RowStore
from headrace.feature_store.settings import FeatureStoreSettings
from headrace.feature_store.snapshot import Snapshots
from headrace.feature_store.state_copy import StateCopy
from headrace.feature_store.state_owner import StateOwner
from headrace.feature_store.user_tier import UserTier
from headrace.runtime.erasures import Erasure, erasure_of
from headrace.runtime.errors import CorruptDataError, UnavailableError
from headrace.runtime.eventlog import LoggedRecord
from headrace.runtime.outage import Outage
from headrace.runtime.telemetry import gauge, histogram

log = logging.getLogger(__name__)

_snapshot_time = histogram("headrace.feature_store.snapshot.duration", "ms", "time to copy and write a snapshot")
_held = gauge("headrace.feature_store.users.held", "{user}", "people whose history is in memory")

_RETRY_AFTER_S = 0.2


class StateKeeper:
    """Snapshots and erasures of one state. `keep_snapshots` and `keep_erasures` run for as long as it lives."""

    def __init__(
        self,
        state: State,
        owner: StateOwner,
        tier: UserTier,
        snapshots: Snapshots,
        rows: RowStore,
        erasing: Erasing,
        settings: FeatureStoreSettings,
        progress: Progress,
        drift: DriftGauge,
    ) -> None:
        self._state = state
        self._run = owner.run
        self._tier = tier
        self._snapshots = snapshots
        self._rows = rows
        self._erasing = erasing
        self._settings = settings
        self._progress = progress
        self._drift = drift
        self.snapshot_offset = state.offset
        # the tier and the files stand still for who holds it
        self.still = asyncio.Lock()
        self._has_new_views = False
        # erased in memory, with what was erased; not yet in files
        self._to_rewrite: list[tuple[Erasure, dict[str, int]]] = []
        self._erased = asyncio.Event()
        self._erased_offset = 0
        # what is in memory anyway needs no second place there
        self._hot_users = settings.hot_users if tier.is_remote else 0

    def note_new_views(self) -> None:
        """The state holds more than the snapshot of its offset does."""
        self._has_new_views = True

    async def keep_snapshots(self) -> None:
        """Writes a snapshot now and then, for ever; one that the tier can't take now is left to the next time."""
        outage = Outage("user tier", "snapshot")
        while True:
            await asyncio.sleep(self._settings.snapshot_every_s)
            try:
                # a snapshot that was begun is finished, even when this task is stopped: `write_last` waits for it
                await asyncio.shield(self._write_snapshot())
            except UnavailableError as error:
                outage.begin(error)
            else:
                outage.end()

    async def write_last(self) -> None:
        """Writes a last snapshot, if the tier can take it. Nothing must be folded any more."""
        try:
            await self._write_snapshot()
        except (UnavailableError, CorruptDataError) as error:
            log.warning("no_last_snapshot", extra={"snapshot_offset": self.snapshot_offset, "reason": str(error)})

    async def _write_snapshot(self) -> None:
        """Makes the state durable as it is now; nothing happens when it is already. UnavailableError: it can't."""
        async with self.still:
            if self._progress.offset == self.snapshot_offset and not self._has_new_views:
                return
            self._has_new_views = False
            begun = time.perf_counter()
            await self._rewrite()
            copy, cut = await self._run(lambda: (self._copy_to_store(), self._rows.cut(self._state.offset)))
            await self._write_rows(cut)
            await self._store(copy)
            self.snapshot_offset = copy.offset
            _snapshot_time.record((time.perf_counter() - begun) * 1e3)

    def _copy_to_store(self) -> StateCopy:
        copy = self._state.copy()
        self._state.histories.storing()
        return copy

    async def _store(self, copy: StateCopy) -> None:
        histories = self._state.histories
        try:
            await asyncio.to_thread(self._snapshots.write, copy)
        except UnavailableError:
            await self._run(histories.not_stored)
            raise
        await self._run(lambda: histories.stored(self._hot_users))
        _held.set(histories.held_count)

    async def flush_rows(self) -> None:
        """Writes the training rows that are in memory."""
        async with self.still:
            await self._write_rows(await self._run(lambda: self._rows.cut(self._state.offset)))

    async def _write_rows(self, cut: Cut | None) -> None:
        if cut is not None:
            self._drift.note_written(cut)
            size_bytes = await asyncio.to_thread(self._rows.write, cut)
            await self._run(lambda: self._rows.written(cut, size_bytes))

    async def erase(self, record: LoggedRecord, forget: Callable[[Sequence[str]], None]) -> None:
        """Takes the people of a tombstone out of the state; `forget` is told who they are. Durable with a snapshot."""
        erasure = erasure_of(record)
        # nothing is on its way to a file or to the tier meanwhile
        async with self.still:
            resting = await asyncio.to_thread(lambda: list(self._tier.names(erasure.partitions)))
            erased = await self._run(lambda: self._erase_named(erasure, resting, forget))
            self._to_rewrite.append((erasure, erased))
        self._progress.advance([record])
        self._erased_offset = record.offset
        self._erased.set()

    def _erase_named(
        self, erasure: Erasure, resting: list[str], forget: Callable[[Sequence[str]], None]
    ) -> dict[str, int]:
        people = self._erasing.among(erasure, [*resting, *self._state.user_keys()])
        self._state.erase(people)
        forget(sorted(people))
        self._state.apply(Tick(erasure.offset))
        return {"people": len(people), "training_groups": self._rows.erase(self._erasing.is_gone(erasure))}

    async def keep_erasures(self) -> None:
        """Makes durable that people are forgotten, and says so, for ever."""
        outage = Outage("user tier", "erase")
        while True:
            async with self.still:
                # at first what was durable before a crash, and not said yet
                await self._erasing.confirm(self.snapshot_offset)
            await self._erased.wait()
            self._erased.clear()
            while self.snapshot_offset < self._erased_offset:
                try:
                    await asyncio.shield(self._write_snapshot())
                except UnavailableError as error:
                    outage.begin(error)
                    await asyncio.sleep(_RETRY_AFTER_S)
            outage.end()

    async def _rewrite(self) -> None:
        while self._to_rewrite:
            erasure, erased = self._to_rewrite[0]
            await self._erasing.rewrite(erasure, await self._run(self._rows.paths), erased)
            self._to_rewrite.pop(0)
