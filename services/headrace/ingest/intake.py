"""The way of an event from the door into the log: judged, named, joined to its products, appended."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from headrace.ingest.arrivals import Arrival, arrival
from headrace.ingest.attributions import Attributions, Worth
from headrace.ingest.cancellations import Purchases
from headrace.ingest.catalogue import Catalogue
from headrace.ingest.cleaning import Rules
from headrace.ingest.forgotten import Forgotten
from headrace.ingest.identity import digest
from headrace.ingest.limits import Violation
from headrace.ingest.outcomes import Outcome, Result
from headrace.ingest.rules import EXCUSABLE, FORGOTTEN
from headrace.ingest.storage import IngestStore, Refusal
from headrace.ingest.validation import CANCEL, TimeBounds
from headrace.runtime.clock import now_us
from headrace.runtime.errors import OverloadedError
from headrace.runtime.eventlog import Appended, EventLog, Record
from headrace.runtime.telemetry import counter, histogram, traceparent
from headrace.v1.common_pb2 import Channel, UserEvent
from headrace.v1.log_pb2 import LoggedUserEvent

_events = counter("headrace.ingest.events", "{event}", "events brought to the door, by outcome, reason and channel")
_rules_met = counter(
    "headrace.ingest.rules", "{event}", "events that a cleaning rule refused or marked, by rule and channel"
)
_tokens = counter("headrace.ingest.tokens", "{event}", "attribution tokens of events that were taken, by worth")
_ack_time = histogram("headrace.ingest.acknowledge.duration", "ms", "from taking a batch to its being durable")


@dataclass
class Counts:
    """What happened since the process started."""

    accepted: int = 0
    duplicates: int = 0
    rejected_by_reason: Counter[str] = field(default_factory=Counter)
    # what every rule refused or marked; an event that broke two rules is counted by both
    by_rule: Counter[tuple[str, Channel.ValueType]] = field(default_factory=Counter)


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
        attributions: Attributions,
        max_inside: int = 50_000,
    ) -> None:
        """`max_inside` bounds the events that are in `write` at once: what it keeps in memory."""
        self._log = log
        self._catalogue = catalogue
        self._store = store
        self._purchases = purchases
        self._rules = rules
        self._forgotten = forgotten
        self._attributions = attributions
        self._max_inside = max_inside
        self.inside = 0
        self._order = asyncio.Lock()
        # each with the ids that are on their way into the log
        self._appending: dict[asyncio.Task[list[Appended]], frozenset[str]] = {}
        self.counts = Counts()

    async def write(self, events: Sequence[UserEvent], *, excused: Collection[str] = ()) -> list[Result]:
        """A result an event, in order, when every accepted one is durable, and every refusal too.

        Rules that are `excused` (of EXCUSABLE) refuse nothing: a person has looked. OverloadedError when the log
        is behind: then no event of the batch was taken.
        """
        if self.inside and self.inside + len(events) > self._max_inside:
            raise OverloadedError(f"{self.inside} events wait at the door, {len(events)} more refused")
        self.inside += len(events)
        try:
            return await self._write(events, excused)
        finally:
            self.inside -= len(events)

    async def _write(self, events: Sequence[UserEvent], excused: Collection[str]) -> list[Result]:
        begun = time.perf_counter()
        ingest_time_us = now_us()
        async with self._order:
            bounds = self._rules.bounds(ingest_time_us)
            brought = [self._judged(event, bounds, excused) for event in events]
            await self._pardon_known(brought)
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

    def _judged(self, event: UserEvent, bounds: TimeBounds, excused: Collection[str]) -> Arrival:
        one = arrival(event)
        found = self._against(one, bounds)
        one.violations = [violation for violation in found if violation.reason not in excused] if excused else found
        return one

    def _against(self, one: Arrival, bounds: TimeBounds) -> list[Violation]:
        if not self._forgotten.anybody:
            return self._rules.violations(one, bounds)
        found = self._forgotten.violations(one.event, one.user_key, one.time_us) or self._rules.violations(one, bounds)
        self._forgotten.blank(one.event, one.time_us)
        return found

    async def _pardon_known(self, brought: Sequence[Arrival]) -> None:
        """What is in the log, or on its way there, is a duplicate, whatever a rule's memory says by now."""
        suspects = [one for one in brought if one.violations and one.violations[0].reason in EXCUSABLE]
        if not suspects:
            return
        known = {one.event_id for one in brought if not one.violations}.union(*self._appending.values())
        asked = {one.event_id for one in suspects} - known
        if asked:
            known |= (await self._log.offsets_of(asked)).keys()
        for one in suspects:
            if one.event_id in known:
                one.violations = ()

    async def _records(self, taken: Sequence[Arrival], ingest_time_us: int) -> list[Record]:
        ordinals = await self._catalogue.ordinals([product_id for one in taken for product_id, _, _ in one.lines])
        cancelled = await self._cancelled(taken)
        trace = traceparent()
        records: list[Record] = []
        for one in taken:
            # readers of the payload alone need the id too
            if one.is_derived:
                one.event.event_id = one.event_id
            if (token := one.event.attribution_token) != "":
                self._judge_token(one, token)
            logged = LoggedUserEvent(
                user_key=one.user_key,
                item_ordinals=[ordinals[product_id] for product_id, _, _ in one.lines],
                event_time_us=one.time_us,
                ingest_time_us=ingest_time_us,
                cancelled_event_id=cancelled.get(one.event_id, ""),
                token_refused=one.token not in ("", Worth.GOOD),
            )
            # an event that the constructor is given is written and read once more
            logged.event.CopyFrom(one.event)
            payload = logged.SerializeToString()
            records.append(Record("user-event", one.user_key, one.event_id, one.time_us, payload, trace))
        return records

    def _judge_token(self, one: Arrival, token: str) -> None:
        one.token = worth = self._attributions.worth(one, token)
        if worth is not Worth.GOOD:
            # nobody who reads the log can take it for a good one
            one.event.ClearField("attribution_token")

    async def _cancelled(self, taken: Sequence[Arrival]) -> dict[str, str]:
        """The purchase that each cancellation takes back, by event id."""
        people = {one.user_key for one in taken if one.event_type == CANCEL}
        if not people:
            return {}
        # what is on its way into the log may be a purchase that is cancelled here
        if self._appending:
            await asyncio.wait(self._appending)
        await self._purchases.catch_up()
        draft = self._purchases.draft()
        theirs = [one for one in taken if one.user_key in people]
        cancelled = {one.event_id: draft.decide(one.user_key, one.event_id, one.event) for one in theirs}
        for one in theirs:
            one.mark = draft.marks.get(one.event_id, "")
        return cancelled

    def _start_append(self, records: Sequence[Record]) -> asyncio.Task[list[Appended]]:
        task = asyncio.create_task(self._log.append(records), name="ingest-append")
        self._appending[task] = frozenset(record.event_id for record in records)
        task.add_done_callback(self._appending.pop)
        return task

    def _count(self, brought: Sequence[Arrival], results: Sequence[Result]) -> None:
        kinds = Counter(
            [
                (result.outcome, result.reason if result.violations else "", one.channel)
                for one, result in zip(brought, results, strict=True)
            ]
        )
        for (outcome, reason, channel), number in kinds.items():
            name = Channel.Name(channel) if channel in Channel.values() else "unknown"
            _events.add(number, {"outcome": outcome.value, "reason": reason, "channel": name})
            self._add_count(outcome, reason, number)
        for worth, number in Counter(
            one.token for one, result in zip(brought, results, strict=True) if _counts(one, result)
        ).items():
            _tokens.add(number, {"worth": worth})
        met = [(one, result) for one, result in zip(brought, results, strict=True) if result.violations or result.mark]
        if met:
            self._count_rules(met)

    def _count_rules(self, met: Sequence[tuple[Arrival, Result]]) -> None:
        counts: Counter[tuple[str, Channel.ValueType]] = Counter()
        for one, result in met:
            given = one.channel
            channel = given if given in Channel.values() else Channel.CHANNEL_UNSPECIFIED
            counts.update((rule, channel) for rule in {violation.reason for violation in result.violations})
            if result.mark:
                counts[result.mark, channel] += 1
        for (rule, channel), number in counts.items():
            _rules_met.add(number, {"rule": rule, "channel": Channel.Name(channel)})
        self.counts.by_rule += counts

    def _add_count(self, outcome: Outcome, reason: str, number: int) -> None:
        if outcome is Outcome.ACCEPTED:
            self.counts.accepted += number
        elif outcome is Outcome.DUPLICATE:
            self.counts.duplicates += number
        else:
            self.counts.rejected_by_reason[reason] += number


def _counts(one: Arrival, result: Result) -> bool:
    return one.token != "" and result.outcome is Outcome.ACCEPTED


def _is_kept(one: Arrival) -> bool:
    """Whether it becomes a dead letter: of people who were forgotten nothing is."""
    return bool(one.violations) and one.violations[0].reason != FORGOTTEN


def _refusal(one: Arrival, refused_time_us: int) -> Refusal:
    sent = one.event.SerializeToString(deterministic=True)
    return Refusal(digest(sent), sent, one.violations[0].reason, one.violations, refused_time_us)


def _results(brought: Sequence[Arrival], appended: Sequence[Appended]) -> list[Result]:
    places = iter(appended)
    return [
        Result(one.event_id, Outcome.REJECTED, violations=one.violations)
        if one.violations
        else _placed(one, next(places))
        for one in brought
    ]


def _placed(one: Arrival, place: Appended) -> Result:
    # a cancellation that is sent again was marked the first time
    mark = "" if place.duplicate else one.mark
    outcome = Outcome.DUPLICATE if place.duplicate else Outcome.ACCEPTED
    fault = "" if one.token in ("", Worth.GOOD) else one.token
    return Result(one.event_id, outcome, place.offset, mark=mark, token_fault=fault)
