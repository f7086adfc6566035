"""The way of an event from the door into the log: judged, named, joined to its products, appended."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from headrace.ingest.cancellations import Purchases
from headrace.ingest.catalogue import Catalogue
from headrace.ingest.cleaning import Rules
from headrace.ingest.forgotten import FORGOTTEN, Forgotten
from headrace.ingest.identity import digest, event_id, user_key
from headrace.ingest.outcomes import Outcome, Result
from headrace.ingest.storage import IngestStore, Refusal
from headrace.ingest.validation import CANCEL, TimeBounds, Violation, time_us
from headrace.runtime.clock import now_us
from headrace.runtime.eventlog import Appended, EventLog, Record
from headrace.runtime.telemetry import counter, histogram, traceparent
from headrace.v1.common_pb2 import Channel, UserEvent
from headrace.v1.log_pb2 import LoggedUserEvent

_events = counter("headrace.ingest.events", "{event}", "events brought to the door, by outcome, reason and channel")
_ack_time = histogram("headrace.ingest.acknowledge.duration", "ms", "from taking a batch to its being durable")


@dataclass(slots=True)
class _Brought:
    """An event on its way in."""

    event: UserEvent
    event_id: str
    user_key: str
    time_us: int
    violations: list[Violation]


@dataclass
class Counts:
    """What happened since the process started."""

    accepted: int = 0
    duplicates: int = 0
    rejected_by_reason: Counter[str] = field(default_factory=Counter)


class EventIntake:
    """Takes batches of events. Batches enter the log in the order in which `write` is called."""

    def __init__(
        self,
        *,
        log: EventLog,
        catalogue: Catalogue,
        store: IngestStore,
        purchases: Purchases,
        rules: Rules,
        forgotten: Forgotten,
    ) -> None:
        self._log = log
        self._catalogue = catalogue
        self._store = store
        self._purchases = purchases
        self._rules = rules
        self._forgotten = forgotten
        self._order = asyncio.Lock()
        self._appending: set[asyncio.Task[list[Appended]]] = set()
        self.counts = Counts()

    async def write(self, events: Sequence[UserEvent]) -> list[Result]:
        """A result an event, in order, when every accepted one is durable, and every refusal too.

        OverloadedError when the log is behind: then no event of the batch was taken.
        """
        begun = time.perf_counter()
        ingest_time_us = now_us()
        async with self._order:
            bounds = self._rules.bounds(ingest_time_us)
            brought = [self._judged(event, bounds) for event in events]
            taken = [one for one in brought if not one.violations]
            appending = self._start_append(await self._records(taken, ingest_time_us))
        refusals = [_refusal(one, ingest_time_us) for one in brought if _is_kept(one)]
        # the append goes on when the caller gives up: others may share its commit
        if refusals:
            appended, _ = await asyncio.gather(asyncio.shield(appending), self._store.refuse(refusals))
        else:
            appended = await asyncio.shield(appending)
        results = _results(brought, appended)
        self._count(brought, results)
        _ack_time.record((time.perf_counter() - begun) * 1e3)
        return results

    async def settle(self) -> None:
        """Returns when everything that was judged before is in the log, or was refused by it."""
        async with self._order:
            appending = set(self._appending)
        if appending:
            await asyncio.wait(appending)

    def _judged(self, event: UserEvent, bounds: TimeBounds) -> _Brought:
        one = _Brought(event, event_id(event), user_key(event), time_us(event.event_time), [])
        one.violations = self._forgotten.violations(event, one.user_key, one.time_us) or self._rules.violations(
            event, one.event_id, one.user_key, one.time_us, bounds
        )
        self._forgotten.blank(event, one.time_us)
        return one

    async def _records(self, taken: Sequence[_Brought], ingest_time_us: int) -> list[Record]:
        ordinals = await self._catalogue.ordinals(
            [detail.product_id for one in taken for detail in one.event.product_details]
        )
        cancelled = await self._cancelled(taken)
        trace = traceparent()
        records: list[Record] = []
        for one in taken:
            event = one.event
            # readers of the payload alone need the id too
            event.event_id = one.event_id
            logged = LoggedUserEvent(
                event=event,
                user_key=one.user_key,
                item_ordinals=[ordinals[detail.product_id] for detail in event.product_details],
                event_time_us=one.time_us,
                ingest_time_us=ingest_time_us,
                cancelled_event_id=cancelled.get(one.event_id, ""),
            )
            payload = logged.SerializeToString()
            records.append(Record("user-event", one.user_key, one.event_id, one.time_us, payload, trace))
        return records

    async def _cancelled(self, taken: Sequence[_Brought]) -> dict[str, str]:
        """The purchase that each cancellation takes back, by event id."""
        people = {one.user_key for one in taken if one.event.event_type == CANCEL}
        if not people:
            return {}
        # what is on its way into the log may be a purchase that is cancelled here
        if self._appending:
            await asyncio.wait(self._appending)
        await self._purchases.catch_up()
        draft = self._purchases.draft()
        theirs = [one for one in taken if one.user_key in people]
        return {one.event_id: draft.decide(one.user_key, one.event_id, one.event) for one in theirs}

    def _start_append(self, records: Sequence[Record]) -> asyncio.Task[list[Appended]]:
        task = asyncio.create_task(self._log.append(records), name="ingest-append")
        self._appending.add(task)
        task.add_done_callback(self._appending.discard)
        return task

    def _count(self, brought: Sequence[_Brought], results: Sequence[Result]) -> None:
        kinds = Counter(
            (result.outcome, result.reason, one.event.channel) for one, result in zip(brought, results, strict=True)
        )
        for (outcome, reason, channel), number in kinds.items():
            name = Channel.Name(channel) if channel in Channel.values() else "unknown"
            _events.add(number, {"outcome": outcome.value, "reason": reason, "channel": name})
            self._add_count(outcome, reason, number)

    def _add_count(self, outcome: Outcome, reason: str, number: int) -> None:
        if outcome is Outcome.ACCEPTED:
            self.counts.accepted += number
        elif outcome is Outcome.DUPLICATE:
            self.counts.duplicates += number
        else:
            self.counts.rejected_by_reason[reason] += number


def _is_kept(one: _Brought) -> bool:
    """Whether it becomes a dead letter: of people who were forgotten nothing is."""
    return bool(one.violations) and one.violations[0].reason != FORGOTTEN


def _refusal(one: _Brought, refused_time_us: int) -> Refusal:
    sent = one.event.SerializeToString(deterministic=True)
    return Refusal(digest(sent), sent, one.violations[0].reason, one.violations, refused_time_us)


def _results(brought: Sequence[_Brought], appended: Sequence[Appended]) -> list[Result]:
    places = iter(appended)
    return [
        Result(one.event_id, Outcome.REJECTED, violations=one.violations)
        if one.violations
        else _placed(one.event_id, next(places))
        for one in brought
    ]


def _placed(event_id: str, place: Appended) -> Result:
    return Result(event_id, Outcome.DUPLICATE if place.duplicate else Outcome.ACCEPTED, place.offset)
