"""The feature store as it runs: follows the log, answers from the state, keeps it durable.

One thread owns the state. The fold, item chunks, copies and row ranges are jobs on it, one after the other, in
slices of about 15 ms; so nothing is locked and nothing is torn. Reads of features take place between two records.
The people whom some records need are brought into memory before them, by one question to their tier.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from headrace.feature_store.back_fill import BackFill
from headrace.feature_store.drift_gauge import DriftGauge
from headrace.feature_store.erasing import Erasing
from headrace.feature_store.fact_questions import FactQuestion, HeldFacts, answered
from headrace.feature_store.facts import Fact, Tick
from headrace.feature_store.feature_names import FeatureNames, Selection
from headrace.feature_store.fold import State, StateCopy
from headrace.feature_store.histories import history_of
from headrace.feature_store.history_reader import HistoryReader, MissingRows
from headrace.feature_store.online_features import OnlineFeatures, Wanted, read_online
from headrace.feature_store.point_in_time import Labels, PastFeatures, PointInTime
from headrace.feature_store.records import fact_of
from headrace.feature_store.row_columns import RowColumns
from headrace.feature_store.row_store import Cut, Reading, RowStore
from headrace.feature_store.settings import FeatureStoreSettings
from headrace.feature_store.snapshot import Snapshots
from headrace.feature_store.state_owner import StateOwner
from headrace.feature_store.user_tier import UserTier
from headrace.feature_store.views import user_features
from headrace.feature_store.watchers import ItemChunk, Watchers, batches, chunks, taken_changes
from headrace.model.history import History
from headrace.runtime.clock import now_us
from headrace.runtime.erasures import TOMBSTONE, Erasure, erasure_of
from headrace.runtime.errors import (
    CorruptDataError,
    DeadlineError,
    FailedPreconditionError,
    InvalidRequestError,
    UnavailableError,
)
from headrace.runtime.eventlog import EventLog, LoggedRecord
from headrace.runtime.eventlog.late_start import note_late_start
from headrace.runtime.outage import Outage
from headrace.runtime.quantiles import RecentQuantiles
from headrace.runtime.telemetry import counter, gauge, histogram, span

log = logging.getLogger(__name__)

T = TypeVar("T")

_lag = histogram("headrace.feature_store.lag", "ms", "from a record's append to its being in the state")
_folded = counter("headrace.feature_store.records", "{record}", "log records folded")
_snapshot_time = histogram("headrace.feature_store.snapshot.duration", "ms", "time to copy and write a snapshot")
_fetched = counter("headrace.feature_store.users.fetched", "{user}", "people brought into memory for the fold")
_held = gauge("headrace.feature_store.users.held", "{user}", "people whose history is in memory")

_WAIT_S = 0.5
_RETRY_AFTER_S = 0.2
_PART_BYTES = 2 << 20
# records whose people are asked for at once
_AT_ONCE = 64
# lags noted a slice: enough for quantiles, little enough for a replay
_LAGS = 64


@dataclass(frozen=True, slots=True)
class UserState:
    """One person's state; it holds every record up to `offset` and none after it."""

    history: History
    features: NDArray[np.float32]
    offset: int
    now_us: int
    # the person's own key, then the devices'
    members: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class WatchedChunk:
    """A part of the snapshot, or a delta."""

    chunk: ItemChunk
    snapshot: bool
    snapshot_end: bool


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
    dated_facts: int
    devices_joined: int


class FeatureStore:
    """A state that follows a log. `follow`, `publish` and `keep_snapshots` run for as long as it lives."""

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
        self.names = names or FeatureNames()
        self._log = log
        self._state = state
        self._tier = tier
        self._reader = HistoryReader(state.histories, tier)
        self._snapshots = snapshots
        self._rows = rows
        self._settings = settings
        self._erasing = erasing
        # erased in memory, with what was erased; not yet in files
        self._to_rewrite: list[tuple[Erasure, dict[str, int]]] = []
        self._erased = asyncio.Event()
        self._erased_offset = 0
        self._owner = StateOwner()
        self._run = self._owner.run
        self.drift = DriftGauge(self._owner, state, rows)
        self._watchers = Watchers()
        self._lags = RecentQuantiles()
        self._offset = self._snapshot_offset = state.offset
        self._moved = asyncio.Event()
        self._keeping = asyncio.Lock()
        self._past = past
        self._has_new_views = False
        missing = [view for view in names.declared if view.name not in state.views]
        self._back_fill = BackFill(log, missing, settings.read_limit)
        # what is in memory anyway needs no second place there
        self._hot_users = settings.hot_users if tier.is_remote else 0

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
            note_late_start(self._offset, records)
            try:
                await self._fold(records)
            except UnavailableError as error:
                outage.begin(error)
                await asyncio.sleep(_RETRY_AFTER_S)
            else:
                outage.end()

    async def back_fill(self) -> None:
        """Folds views that the state lacks up to where it is; `follow` then takes them in."""
        await self._back_fill.run(lambda: self._offset)

    async def _join_views(self) -> None:
        # nothing is folded meanwhile: what the views lack is read here, and what follows is folded with the state
        for counts in await self._back_fill.finish(self._offset):
            await self._run(lambda: self._state.join(counts))  # noqa: B023  # awaited at once
            self._has_new_views = True

    async def _next_records(self) -> list[LoggedRecord]:
        """What follows in the log; empty when nothing does for a while."""
        records = await self._log.read(self._offset, limit=self._settings.read_limit)
        if not records:
            await self._log.wait(self._offset, _WAIT_S)
        return records

    async def _fold(self, records: list[LoggedRecord]) -> None:
        """Folds records; forgetting is an act of its own between them."""
        start = 0
        for place, record in enumerate(records):
            if record.kind == TOMBSTONE:
                await self._fold_acts(records[start:place])
                # one that was begun is finished, even when this task is stopped: `close` waits for it
                await asyncio.shield(self._erase(record))
                start = place + 1
        await self._fold_acts(records[start:])

    async def _erase(self, record: LoggedRecord) -> None:
        erasure = erasure_of(record)
        # nothing is on its way to a file or to the tier meanwhile
        async with self._keeping:
            resting = await asyncio.to_thread(lambda: list(self._tier.names(erasure.partitions)))
            erased = await self._run(lambda: self._erase_named(erasure, resting))
            self._to_rewrite.append((erasure, erased))
        self._advanced([record])
        self._erased_offset = record.offset
        self._erased.set()

    def _erase_named(self, erasure: Erasure, resting: list[str]) -> dict[str, int]:
        people = self._erasing.among(erasure, [*resting, *self._state.user_keys()])
        self._state.erase(people)
        self._back_fill.forget(sorted(people))
        self._state.apply(Tick(erasure.offset))
        return {"people": len(people), "training_groups": self._rows.erase(self._erasing.is_gone(erasure))}

    async def keep_erasures(self) -> None:
        """Makes durable that people are forgotten, and says so, for ever."""
        outage = Outage("user tier", "erase")
        while True:
            async with self._keeping:
                # at first what was durable before a crash, and not said yet
                await self._erasing.confirm(self._snapshot_offset)
            await self._erased.wait()
            self._erased.clear()
            while self._snapshot_offset < self._erased_offset:
                try:
                    await asyncio.shield(self.write_snapshot())
                except UnavailableError as error:
                    outage.begin(error)
                    await asyncio.sleep(_RETRY_AFTER_S)
            outage.end()

    async def _rewrite(self) -> None:
        """Takes those who were erased out of the row files: before a snapshot says that they never were."""
        while self._to_rewrite:
            erasure, erased = self._to_rewrite[0]
            await self._erasing.rewrite(erasure, await self._run(self._rows.paths), erased)
            self._to_rewrite.pop(0)

    async def _fold_acts(self, records: list[LoggedRecord]) -> None:
        start = 0
        while start < len(records):
            end = await self._run(lambda: self._fold_slice(records, start))  # noqa: B023  # awaited at once
            self._advanced(records[start:end])
            start = end
        if self._rows.pending_bytes > self._settings.row_chunk_bytes:
            await asyncio.shield(self._flush_rows())

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

    def _fold_fact(self, fact: Fact, traceparent: str) -> None:
        if not traceparent:
            self._rows.add(self._state.apply(fact))
            return
        with span("feature-store.fold", parent=traceparent, attributes={"offset": fact.offset}):
            self._rows.add(self._state.apply(fact))

    def _advanced(self, records: list[LoggedRecord]) -> None:
        self._offset = records[-1].offset
        self._moved.set()
        self._moved = asyncio.Event()
        now = now_us()
        lags = [(now - record.append_time_us) / 1e3 for record in records[:: max(1, len(records) // _LAGS)]]
        self._lags.extend(lags)
        for lag in lags:
            _lag.record(lag)
        _folded.add(len(records))

    async def publish(self) -> None:
        """Tells the watchers what changed, for ever."""
        while True:
            await asyncio.sleep(self._settings.publish_every_s)
            await self._tell_changes()

    async def _tell_changes(self) -> None:
        if self._state.changed_items:
            self._watchers.note(*await self._run(lambda: taken_changes(self._state)))

    async def keep_snapshots(self) -> None:
        """Writes a snapshot now and then, for ever; one that the tier can't take now is left to the next time."""
        outage = Outage("user tier", "snapshot")
        while True:
            await asyncio.sleep(self._settings.snapshot_every_s)
            try:
                # a snapshot that was begun is finished, even when this task is stopped: `close` waits for it
                await asyncio.shield(self.write_snapshot())
            except UnavailableError as error:
                outage.begin(error)
            else:
                outage.end()

    async def write_snapshot(self) -> None:
        """Makes the state durable as it is now; nothing happens when it is already. UnavailableError: it can't."""
        async with self._keeping:
            if self._offset == self._snapshot_offset and not self._has_new_views:
                return
            self._has_new_views = False
            begun = time.perf_counter()
            await self._rewrite()
            copy, cut = await self._run(lambda: (self._copy_to_store(), self._rows.cut(self._state.offset)))
            await self._write_rows(cut)
            await self._store(copy)
            self._snapshot_offset = copy.offset
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

    async def _flush_rows(self) -> None:
        async with self._keeping:
            await self._write_rows(await self._run(lambda: self._rows.cut(self._state.offset)))

    async def _write_rows(self, cut: Cut | None) -> None:
        if cut is not None:
            self.drift.note_written(cut)
            size_bytes = await asyncio.to_thread(self._rows.write, cut)
            await self._run(lambda: self._rows.written(cut, size_bytes))

    async def close(self) -> None:
        """Writes a last snapshot, if the tier can take it. `follow` must have ended."""
        try:
            await self.write_snapshot()
        except (UnavailableError, CorruptDataError) as error:
            log.warning("no_last_snapshot", extra={"snapshot_offset": self._snapshot_offset, "reason": str(error)})
        self._back_fill.close()
        self._past.close()
        self._owner.close()
        self._reader.close()

    async def user_state(self, user_key: str, max_events: int, min_offset: int, timeout_s: float | None) -> UserState:
        """One person's newest events, at `min_offset` or later.

        DeadlineError when that takes too long, UnavailableError when they rest in a tier that can't be reached.
        """
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
            members = self._state.identities.members_of(user_key)
            missing = self._reader.missing(members, rows)
            return missing or work(members, self._reader.joined(members, rows))

        while isinstance(found := await self._owner.read(attempt), MissingRows):
            rows |= await self._reader.fetched(found)
        return found

    async def historical_features(self, selection: Selection, labels: Labels) -> AsyncIterator[PastFeatures]:
        """Features as they were at the labels' moments; a row for every label, in parts, by moment."""
        offset, clock_us = await self._owner.read(lambda: (self._state.offset, self._state.now_us))
        async with aclosing(self._past.features(selection, labels, offset, clock_us)) as parts:
            async for part in parts:
                yield part

    def view_progress(self, name: str) -> tuple[int, int] | None:
        """How far a view's back-fill is, and of where; None when the view is live."""
        is_missing = any(counts.view.name == name for counts in self._back_fill.counts)
        return (self._back_fill.offset, self._offset) if is_missing and name not in self._state.views else None

    async def facts(self, question: FactQuestion, timeout_s: float | None) -> HeldFacts:
        """The dated facts that held then, as known then. DeadlineError when `min_offset` takes too long."""
        await self._reached(question.min_offset, timeout_s)
        return await self._run(lambda: answered(self._state, question))

    async def _reached(self, offset: int, timeout_s: float | None) -> None:
        end = None if timeout_s is None else time.monotonic() + timeout_s
        while self._offset < offset:
            left = None if end is None else end - time.monotonic()
            try:
                async with asyncio.timeout(left):
                    await self._moved.wait()
            except TimeoutError as error:
                raise DeadlineError(f"folded up to {self._offset}, {offset} was asked for") from error

    async def watch(self) -> AsyncIterator[WatchedChunk]:
        """All items, then what changes; a slow reader gets fewer and newer deltas, never a growing queue."""
        # a new watcher need not be told again what its snapshot holds
        await self._tell_changes()
        watcher = self._watchers.join()
        try:
            async for snapshot in self._snapshot_chunks():
                yield snapshot
            while True:
                for items, documents in batches(*await watcher.take()):
                    for chunk in await self._chunks(items, documents):
                        yield WatchedChunk(chunk, snapshot=False, snapshot_end=False)
        finally:
            self._watchers.leave(watcher)

    async def _snapshot_chunks(self) -> AsyncIterator[WatchedChunk]:
        count, documents = await self._run(lambda: (self._state.items.count, self._state.catalogue.described()))
        last: WatchedChunk | None = None
        for items, described in batches(list(range(count)), documents):
            for chunk in await self._chunks(items, described):
                if last is not None:
                    yield last
                last = WatchedChunk(chunk, snapshot=True, snapshot_end=False)
        if last is None:
            last = WatchedChunk((await self._chunks([], []))[0], snapshot=True, snapshot_end=False)
        yield replace(last, snapshot_end=True)

    async def _chunks(self, items: list[int], documents: list[int]) -> list[ItemChunk]:
        return await self._run(lambda: chunks(self._state, items, documents))

    async def training_rows(self, after: int, until: int, up_to_folded: bool) -> AsyncIterator[tuple[RowColumns, int]]:
        """Groups closed at after < offset ≤ until, in parts; the last part says up to where they are complete.

        FailedPreconditionError when the fold is not there yet, unless `up_to_folded`.
        """
        _check_range(after, until)
        if until > self._offset and not up_to_folded:
            raise FailedPreconditionError(f"folded up to {self._offset}, {until} was asked for", _RETRY_AFTER_S)
        complete = min(until, self._offset)
        reading = await self._run(lambda: self._rows.between(after, complete))
        async with aclosing(_parts(reading)) as parts:
            async for part in parts:
                yield part, after
        yield RowColumns.of([]), max(complete, after)

    async def status(self, with_digest: bool = False) -> Status:
        """How far the fold is; `with_digest`, with a digest of all that it holds, which takes a copy."""
        users, facts = await self._run(lambda: (self._state.histories.count(), len(self._state.dated_facts)))
        if with_digest:
            # the tier stands still meanwhile
            async with self._keeping:
                copy, counts = await self._run(lambda: (self._state.copy(), dict(self._state.events_by_type)))
                offset, digest = copy.offset, await asyncio.to_thread(copy.digest)
        else:
            offset, digest, counts = self._offset, "", dict(self._state.events_by_type)
        return Status(
            offset=offset,
            now_us=self._state.now_us,
            users=users,
            hot_users=self._state.histories.held_count if self._tier.is_remote else users,
            items=self._state.items.count,
            lag_p50_ms=self._lags.at(0.5),
            lag_p99_ms=self._lags.at(0.99),
            events_folded=sum(counts.values()),
            snapshot_offset=self._snapshot_offset,
            events_by_type=counts,
            state_digest=digest,
            dated_facts=facts,
            devices_joined=len(self._state.identities),
        )


def _check_range(after: int, until: int) -> None:
    if after < 0:
        raise InvalidRequestError.of("after_offset", f"must be at least 0, got {after}")
    if until <= after:
        raise InvalidRequestError.of("until_offset", f"must be above after_offset {after}, got {until}")


async def _parts(reading: Reading) -> AsyncGenerator[RowColumns, None]:
    columns = reading.read()
    while (whole := await asyncio.to_thread(next, columns, None)) is not None:
        for part in whole.parts(_PART_BYTES):
            yield part
