"""The loop of learning: follows the log in slices, and the feature store in rows; publishes releases.

All learning runs in one worker thread; the event loop only waits, so the gRPC face answers meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import grpc
import torch

from headrace.model.serving_model import ModelError
from headrace.runtime.clock import now_us
from headrace.runtime.confirmations import Confirmations
from headrace.runtime.erasures import TOMBSTONE
from headrace.runtime.errors import HeadraceError
from headrace.runtime.eventlog import EventLog, LoggedRecord
from headrace.runtime.eventlog.late_start import note_late_start
from headrace.runtime.outage import Outage
from headrace.runtime.privacy import UNKEYED, Privacy
from headrace.runtime.quantiles import RecentQuantiles
from headrace.runtime.telemetry import counter, histogram, span, traceparent
from headrace.trainer.comparability import Comparability
from headrace.trainer.delta_log import DeltaLog, Entry
from headrace.trainer.gauge import Reading
from headrace.trainer.lineage import Lineage, Standing
from headrace.trainer.log_slices import read_slice
from headrace.trainer.past_towers import TowerHistory
from headrace.trainer.records import Slice, slice_of
from headrace.trainer.registry import Release
from headrace.trainer.releases import Releases, Watermark, checked_parts
from headrace.trainer.rotation import ASKED, DRIFTED, INCOMPARABLE, OTHER_FORM, note_rotation
from headrace.trainer.row_scores import scored_groups
from headrace.trainer.rows import RowPart, RowsError, TrainingRows
from headrace.trainer.settings import TrainerSettings

log = logging.getLogger(__name__)
T = TypeVar("T")

_learn_lag = histogram("headrace.trainer.learn.lag", "ms", "from a record's append to its delta being durable")
_duration = histogram("headrace.trainer.slice.duration", "ms", "time to learn a slice")
_learned = counter("headrace.trainer.records", "{record}", "log records learned")
_recall = histogram("headrace.trainer.prequential.recall", "1", "recall@20 of the current week before learning from it")
_gauge = histogram("headrace.trainer.gauge.recall", "1", "recall@20 of the frozen sample at a publish, by period")
_rate = histogram("headrace.trainer.rate", "1", "what the learning rates are multiplied by, after each slice")
_drifts = counter("headrace.trainer.drifts", "{change}", "changes for the worse in how slices are foreseen")
_rotations = counter(
    "headrace.trainer.rotations.wanted", "{rotation}", "times that changes began to ask for a new space"
)
_skew = histogram(
    "headrace.trainer.skew", "1", "recall@20 of the last release on vectors as sent by now, relative to its own"
)
_comparability = histogram(
    "headrace.trainer.comparability", "1", "recall@20 of its queries on the next one's vectors, relative to its own"
)

_POLL_S = 0.03
_WAIT_S = 0.5
# while behind, a checkpoint may wait this many times longer
_BUSY_FACTOR = 3
# lags measured a slice, at most
_LAGS = 64
_RETRY_S = 1.0


class LearningLoop:
    """Drives a `Lineage` from the log. `on_deltas` is called after each commit."""

    def __init__(
        self,
        settings: TrainerSettings,
        event_log: EventLog,
        lineage: Lineage,
        delta_log: DeltaLog,
        releases: Releases,
        on_deltas: Callable[[], None],
        confirmations: Confirmations,
        privacy: Privacy = UNKEYED,
    ) -> None:
        self._settings = settings
        self._log = event_log
        self._patience = Outage("event log", "learn")
        self._registry = Outage("registry", "publish")
        self._lineage = lineage
        self._delta_log = delta_log
        self._releases = releases
        # of this lineage, whoever is served by it: stable may be another one's
        self.newest: Release | None = None
        self._on_deltas = on_deltas
        self._confirmations = confirmations
        self._privacy = privacy
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="learner", initializer=_one_thread)
        # the first slice is due at once; the monotonic clock may count from the machine's start, so 0 is no long ago
        self._slice_begun = -math.inf
        self._saved = self._published = time.monotonic()
        self._wants_release = asyncio.Event()
        self._is_behind = False
        self._recovered = asyncio.Event()
        self._towers = TowerHistory()
        self._compared = Comparability(
            lineage.learner, lambda: delta_log.space, settings.skew_every_s, settings.skew_states
        )
        lineage.learner.before_learning = self._compared.note
        self._wanted_rotation = ""
        # told that a release is registered
        self.on_release: Callable[[], None] = lambda: None
        # the lineage that serves; empty before any does
        self.serving: Callable[[], str] = lambda: ""
        # whether the index holds all of a space; a release that names a new one waits for that
        self.is_filled: Callable[[str], bool] = lambda _: True
        self.learn_lag_ms = RecentQuantiles()

    def want_release(self) -> None:
        """Asks for a release as soon as can be, whatever the time since the last one."""
        self._wants_release.set()

    def want_rotation(self, reason: str = ASKED) -> None:
        """Asks for a new space with everything in it, as soon as can be; a release for it follows.

        A space that no release names yet is new enough: nothing more is begun then.
        """
        self._wanted_rotation = reason

    async def run(self) -> None:
        """Learns for ever, after finding again what was learned before; a log that is away is asked again.

        TrimmedError: the log has forgotten what is to be learned next.
        """
        await self._recover()
        self._recovered.set()
        while True:
            if records := await self._patience.attempt(self._next_records):
                note_late_start(self._lineage.standing.offset, records)
                await self._learn(records)
            await self._work(self._lineage.beat)
            await self._rotate_when_asked()
            await self._publish_when_due()
            await self._save_when_due()

    async def close(self) -> None:
        """Keeps the state, once nothing is being learned any more."""
        if self._recovered.is_set():
            await self._work(self._lineage.checkpoint)
        self._worker.shutdown()

    async def _recover(self) -> None:
        begun = time.monotonic()
        self.newest = await self._newest()
        entries = await self._work(self._lineage.load)
        different = [entry.number for entry in entries if not await self._relearn(entry)]
        appended = await self._work(self._lineage.settle)
        standing = self._lineage.standing
        facts = {"offset": standing.offset, "relearned": len(entries), "different": len(different)}
        log.info("recovered", extra=facts | {"appended": appended, "seconds": round(time.monotonic() - begun, 2)})
        self._on_deltas()
        await self._confirm()
        if await asyncio.to_thread(lambda: self._delta_log.is_of_other_form):
            await self._rotate(OTHER_FORM)

    async def _newest(self) -> Release | None:
        async def found() -> tuple[Release | None]:
            return (await self._work(lambda: self._releases.newest_of(self._settings.lineage)),)

        return (await self._registry.insist(found))[0]

    async def _relearn(self, entry: Entry) -> bool:
        records = await self._patience.insist(lambda: read_slice(self._log, entry.after, entry.until))
        is_same = await self._work(lambda: self._lineage.relearn(entry, records))
        self._note_erased(records)
        return is_same

    def _note_erased(self, records: Slice) -> None:
        for erasure in records.erasures:
            if erasure.id in self._lineage.erased:
                self._confirmations.note(erasure.id, erasure.offset, self._lineage.erased.pop(erasure.id))

    async def _confirm(self) -> None:
        """Says that people are forgotten, after every older state that held them is gone."""
        while self._confirmations.are_due(self._lineage.standing.offset):
            await self._work(self._lineage.forget_older)
            self._saved = time.monotonic()
            try:
                await self._confirmations.send(self._log, self._lineage.standing.offset)
            except HeadraceError as error:
                log.warning("erasure_not_confirmed", extra={"reason": str(error)})
                await asyncio.sleep(_RETRY_S)

    async def _next_records(self) -> Sequence[LoggedRecord]:
        """The records of the next slice, as soon as it is due; none when nothing came for a while.

        Product changes are learned before that, at once.
        """
        offset = self._lineage.standing.offset
        if not await self._log.wait(offset, _WAIT_S):
            self._is_behind = False
            return []
        while True:
            found = await self._log.read(offset, limit=self._settings.catch_up_slice_events)
            self._is_behind = len(found) >= self._settings.catch_up_slice_events
            records = _up_to_tombstone(found)
            if records[0].kind == TOMBSTONE:
                return records
            left = self._slice_begun + self._settings.slice_every_s - time.monotonic()
            if left <= 0 or len(records) >= self._settings.slice_events:
                self._slice_begun = time.monotonic()
                return records
            await self._learn_products(records)
            await self._log.wait(records[-1].offset, min(left, _WAIT_S))
            await asyncio.sleep(min(_POLL_S, max(left, 0)))

    async def _learn_products(self, records: Sequence[LoggedRecord]) -> None:
        known = self._lineage.standing.products_offset
        new = [record for record in records if record.offset > known]
        if not any(record.kind == "product-change" for record in new):
            return
        until = records[-1].offset
        await self._work(lambda: self._traced(slice_of(new, known, until), self._lineage.learn_products))
        self._on_deltas()

    async def _learn(self, records: Sequence[LoggedRecord]) -> None:
        if records[0].kind == TOMBSTONE:
            await self._erase(records[0])
            return
        begun = time.perf_counter()
        before = self._lineage.standing
        after, until = before.offset, records[-1].offset
        await self._work(lambda: self._learn_slice(records, after, until))
        self._on_deltas()
        _duration.record((time.perf_counter() - begun) * 1e3)
        _learned.add(len(records))
        self._measure_lag(records)
        _measure_rate(before, self._lineage.standing)
        if self._lineage.standing.wants_rotation and not before.wants_rotation:
            self.want_rotation(DRIFTED)
        if self._compared.skew.is_below(self._settings.least_skew):
            self.want_release()

    async def _erase(self, record: LoggedRecord) -> None:
        records = slice_of([record], record.offset - 1, record.offset)
        await self._work(lambda: self._lineage.erase(records))
        self._note_erased(records)
        await self._confirm()

    def _learn_slice(self, records: Sequence[LoggedRecord], after: int, until: int) -> None:
        self._traced(slice_of(records, after, until), self._lineage.learn)
        # product changes carry the door's clock, not the shop's
        times_us = [record.time_us for record in records if record.kind == "user-event"]
        if times_us:
            self._towers.note(self._lineage.learner, max(times_us))

    @staticmethod
    def _traced(records: Slice, learn: Callable[[Slice, str], object]) -> None:
        if not records.traceparent:
            learn(records, "")
            return
        facts: dict[str, str | int | float | bool] = {"offset": records.until}
        with span("trainer.learn", parent=records.traceparent, links=records.linked, attributes=facts):
            learn(records, traceparent() or records.traceparent)

    def _measure_lag(self, records: Sequence[LoggedRecord]) -> None:
        now = now_us()
        step = max(1, len(records) // _LAGS)
        for record in records[::step]:
            lag_ms = (now - record.append_time_us) / 1e3
            self.learn_lag_ms.add(lag_ms)
            _learn_lag.record(lag_ms)

    async def _rotate_when_asked(self) -> None:
        reason, self._wanted_rotation = self._wanted_rotation, ""
        if reason and self.newest is not None and self.newest.space == self._delta_log.space:
            await self._rotate(reason)

    async def _rotate(self, reason: str) -> None:
        note_rotation(await self._work(lambda: self._lineage.rotate(reason)), reason)
        self._on_deltas()

    async def _publish_when_due(self) -> None:
        newest, space = self.newest, self._delta_log.space
        if not self._is_release_due(newest, space):
            return
        self._wants_release.clear()
        is_same = newest is not None and newest.space == space
        if is_same and self._compared.comparability.is_below(self._settings.rotate_below):
            # the vectors that moved go to the new space alone; its release is due once the index holds it
            await self._rotate(INCOMPARABLE)
            return
        self._published = time.monotonic()
        await self._publish()

    def _is_release_due(self, newest: Release | None, space: str) -> bool:
        standing = self._lineage.standing
        if not standing.slices:
            return False
        if newest is None:
            # the very first release serves at once; that of another lineage is compared, and needs its vectors for it
            serving = self.serving()
            if not serving:
                return not self._settings.beside
            return serving == self._settings.lineage or self.is_filled(space)
        if newest.space != space:
            # nobody can use its vectors before there is a release for it, and no release before they are there
            return self.is_filled(space)
        elapsed = time.monotonic() - self._published >= self._settings.publish_every_s
        return self._wants_release.is_set() or (newest.log_offset < standing.offset and elapsed)

    async def _publish(self) -> None:
        await self._work(self._lineage.send_drifted)
        self._on_deltas()
        try:
            written = await self._registry.attempt(lambda: self._work(self._write_release))
        except ModelError as error:
            log.error("release_refused", extra={"reason": str(error)})
            # so that it is not tried at every slice
            self._compared.begin_again()
            return
        if written is None:
            # learning goes on while the registry is away; a release follows when the next one is due
            return
        self.newest = written
        self.on_release()
        log.info("published", extra={"release": written.name, "offset": written.log_offset})
        self._record(written.metrics)

    def _record(self, metrics: Mapping[str, float]) -> None:
        if quality := self._lineage.standing.quality:
            _recall.record(quality[-1].recall)
        if reading := self._lineage.standing.gauge:
            _measure_gauge(reading)
        if "skew" in metrics:
            _skew.record(metrics["skew"])
            _comparability.record(metrics["comparability"])

    def _write_release(self) -> Release:
        standing = self._lineage.standing
        space, _, last_sequence = self._delta_log.bounds()
        parts = checked_parts(space, self._lineage.learner, self._lineage.ranker)
        watermark = Watermark(self._settings.lineage, space, last_sequence, standing.offset)
        release = self._releases.publish(parts, watermark, self._metrics() | self._compared.metrics())
        self._compared.follow(space)
        return release

    def _metrics(self) -> dict[str, float]:
        standing = self._lineage.standing
        quality = standing.overall
        shown = {"loss": standing.loss, "ranker_loss": standing.ranker_loss, "ranker_rows": float(standing.rows)}
        if quality is not None:
            shown |= {"recall_at_20": quality.recall, "mrr_at_20": quality.reciprocal_rank}
            shown |= {"popularity_recall_at_20": quality.popularity_recall}
            shown |= {"personal_recall_at_20": quality.personal_recall}
        return shown | (standing.gauge.metrics() if standing.gauge else {})

    async def _save_when_due(self) -> None:
        factor = _BUSY_FACTOR if self._is_behind else 1
        is_due = time.monotonic() - self._saved >= self._settings.checkpoint_every_s * factor
        if is_due and self._lineage.standing.entry > self._lineage.standing.checkpoint_entry:
            self._saved = time.monotonic()
            await self._work(self._lineage.checkpoint)

    async def follow_rows(self, source: TrainingRows) -> None:
        """Learns the ranker network's rows for ever, beside everything else; waits for a feature store that is away."""
        await self._recovered.wait()
        is_reached: bool | None = None
        while True:
            try:
                await self._learn_rows(source)
                reached, reason = True, ""
            except grpc.aio.AioRpcError as error:
                reached, reason = False, f"{error.code().name}: {error.details()}"
            except RowsError as error:
                reached, reason = False, str(error)
            if reached != is_reached:
                log.info("feature_store_reached" if reached else "feature_store_lost", extra={"reason": reason})
            is_reached = reached
            await asyncio.sleep(self._settings.rows_every_s if reached else _RETRY_S)

    async def _learn_rows(self, source: TrainingRows) -> None:
        standing = self._lineage.standing
        # nobody knows by whose lists a row came about, so they are learned where training is mirrored alone
        if standing.offset <= standing.rows_offset or not self._settings.mirrored:
            return
        async for part in source.parts(standing.rows_offset, standing.offset):
            await self._work(lambda part=part: self._learn_part(part))  # type: ignore[misc]

    def _learn_part(self, part: RowPart) -> None:
        groups = scored_groups(part, self._towers, self._settings.max_length, self._privacy)
        self._lineage.learn_rows(self._lineage.unforgotten(groups, part.times_us_G), part.complete_offset)

    async def _work(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._worker, work)


def _up_to_tombstone(records: Sequence[LoggedRecord]) -> Sequence[LoggedRecord]:
    """The records before the first tombstone, or it alone: forgetting is an act of its own."""
    places = (place for place, record in enumerate(records) if record.kind == TOMBSTONE)
    return records[: max(1, next(places, len(records)))]


def _measure_rate(before: Standing, now: Standing) -> None:
    _rate.record(now.rate)
    if now.drifts > before.drifts:
        _drifts.add(now.drifts - before.drifts)
        log.warning("drifted", extra={"offset": now.offset, "drifts": now.drifts, "rate": now.rate})
    if now.wants_rotation and not before.wants_rotation:
        _rotations.add(1)
        log.warning("rotation_wanted", extra={"offset": now.offset, "drifts": now.drifts})


def _measure_gauge(reading: Reading) -> None:
    metrics = reading.metrics()
    for period in ("new", "old", "old_fresh"):
        if (name := f"{period}_recall_at_20") in metrics:
            _gauge.record(metrics[name], {"period": period})


def _one_thread() -> None:
    torch.set_num_threads(1)
