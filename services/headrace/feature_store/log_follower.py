"""Folds the log into the state, record by record and for ever, in slices that leave room for reads.

The people whom some records need are brought into memory before them, by one question to their tier.
"""

from __future__ import annotations

import asyncio
import time

from headrace.feature_store.back_fill import BackFill
from headrace.feature_store.facts import Fact, UserAct
from headrace.feature_store.fold import State
from headrace.feature_store.fold_traces import FoldTraces
from headrace.feature_store.progress import Progress
from headrace.feature_store.records import fact_of
from headrace.feature_store.row_store import RowStore
from headrace.feature_store.settings import FeatureStoreSettings
from headrace.feature_store.state_keeper import StateKeeper
from headrace.feature_store.state_owner import StateOwner
from headrace.runtime.erasures import TOMBSTONE
from headrace.runtime.errors import UnavailableError
from headrace.runtime.eventlog import EventLog, LoggedRecord
from headrace.runtime.eventlog.late_start import note_late_start
from headrace.runtime.outage import Outage
from headrace.runtime.telemetry import counter, span, traceparent

_fetched = counter("headrace.feature_store.users.fetched", "{user}", "people brought into memory for the fold")

_WAIT_S = 0.5
_RETRY_AFTER_S = 0.2
# records whose people are asked for at once
_AT_ONCE = 64


class LogFollower:
    """Moves one state along a log. `follow` and `back_fill` run for as long as it lives."""

    def __init__(
        self,
        log: EventLog,
        state: State,
        owner: StateOwner,
        rows: RowStore,
        keeper: StateKeeper,
        settings: FeatureStoreSettings,
        progress: Progress,
        back_fill: BackFill,
    ) -> None:
        self._log = log
        self._state = state
        self._owner = owner
        self._run = owner.run
        self._rows = rows
        self._keeper = keeper
        self._settings = settings
        self._progress = progress
        self._back_fill = back_fill
        self.traces = FoldTraces()

    async def follow(self) -> None:
        """Folds the log, for ever; a log or a tier that is away is asked again.

        TrimmedError: the log has forgotten what comes next.
        """
        patience, outage = Outage("event log", "fold"), Outage("user tier", "fold")
        while True:
            if self._back_fill.is_near:
                await patience.attempt(self._join_views)
            if not (records := await patience.attempt(self._next_records)):
                continue
            note_late_start(self._progress.offset, records)
            try:
                await self._fold(records)
            except UnavailableError as error:
                outage.begin(error)
                await asyncio.sleep(_RETRY_AFTER_S)
            else:
                outage.end()

    async def back_fill(self) -> None:
        """Folds views that the state lacks up to where it is; `follow` then takes them in."""
        await self._back_fill.run(lambda: self._progress.offset)

    async def _join_views(self) -> None:
        # nothing is folded meanwhile: what the views lack is read here, and what follows is folded with the state
        for counts in await self._back_fill.finish(self._progress.offset):
            await self._run(lambda: self._state.join(counts))  # noqa: B023  # awaited at once
            self._keeper.note_new_views()

    async def _next_records(self) -> list[LoggedRecord]:
        """What follows in the log; empty when nothing does for a while."""
        records = await self._log.read(self._progress.offset, limit=self._settings.read_limit)
        if not records:
            await self._log.wait(self._progress.offset, _WAIT_S)
        return records

    async def _fold(self, records: list[LoggedRecord]) -> None:
        """Folds records; forgetting is an act of its own between them."""
        start = 0
        for place, record in enumerate(records):
            if record.kind == TOMBSTONE:
                await self._fold_acts(records[start:place])
                self.traces.clear()
                # one that was begun is finished, even when this task is stopped: the last snapshot waits for it
                await asyncio.shield(self._keeper.erase(record, self._back_fill.forget))
                start = place + 1
        await self._fold_acts(records[start:])

    async def _fold_acts(self, records: list[LoggedRecord]) -> None:
        start = 0
        while start < len(records):
            end = await self._run(lambda: self._fold_slice(records, start))  # noqa: B023  # awaited at once
            self._progress.advance(records[start:end])
            start = end
        if self._rows.pending_bytes > self._settings.row_chunk_bytes:
            await asyncio.shield(self._keeper.flush_rows())

    def _fold_slice(self, records: list[LoggedRecord], start: int) -> int:
        """Folds records from `start` on until the time of a slice is over; where it ended.

        UnavailableError: the first one needs a person whose tier can't be reached; nothing has changed then.
        """
        end_s, place = time.perf_counter() + self._settings.fold_slice_s, start
        try:
            while place < len(records):
                facts = [fact_of(record) for record in records[place : place + _AT_ONCE]]
                _fetched.add(self._state.hold_users(facts))
                for fact in facts:
                    self._fold_fact(fact, records[place].traceparent)
                    place += 1
                    if time.perf_counter() > end_s or self._owner.is_wanted:
                        return place
        except UnavailableError:
            # those before it are folded, and must be told so: else they would be folded again
            if place == start:
                raise
        return place

    def _fold_fact(self, fact: Fact, parent: str) -> None:
        if not parent:
            self._rows.add(self._state.apply(fact))
            return
        with span("feature-store.fold", parent=parent, attributes={"offset": fact.offset}):
            self._rows.add(self._state.apply(fact))
            if isinstance(fact, UserAct):
                self.traces.note(fact.user_key, fact.offset, traceparent())
