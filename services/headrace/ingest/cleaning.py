"""Which events are taken: the declared rules, and the one that needs a memory (bot-like rates).

What is refused, by reason:

============  =======================================================================
missing       a required field is not there
unknown-type  an event type or channel that nobody declared
time          before `min_event_time`, or after now + `max_future_skew_s`
price         negative, above 1e9, or no number
quantity      negative, or above 1,000,000
too-long      more bytes or more parts than the contract allows
bot           more than `bot_events_per_minute` product events of one visitor in a minute
forgotten     of a person who was forgotten after it (see `forgotten`); the only one kept nowhere
============  =======================================================================

An event repeated word for word is no fault: it has the same derived id and is answered as a
duplicate. A cancellation without a purchase is kept (see `cancellations`).
"""

from __future__ import annotations

from collections.abc import Callable

from headrace.ingest.validation import CANCEL, EVENT_RULES, PRODUCT_EVENTS, PURCHASE, TimeBounds, Violation
from headrace.ingest.validation import event_violations as stated_violations
from headrace.runtime.clock import MICROSECONDS
from headrace.v1.common_pb2 import UserEvent

REASONS = (*(name for name, _ in EVENT_RULES), "bot")

# a wholesale basket of 500 lines in one minute is a good customer, not a bot
_COUNTED = PRODUCT_EVENTS - {PURCHASE, CANCEL}
_FEW = 8
_MINUTE_US = 60 * MICROSECONDS


class Rules:
    """Judges events one by one, in the order in which they come in."""

    def __init__(self, *, earliest_us: int, max_future_skew_us: int, rates: VisitorRates) -> None:
        self._earliest_us = earliest_us
        self._skew_us = max_future_skew_us
        self._rates = rates

    def bounds(self, now_us: int) -> TimeBounds:
        """The event times that are believed at a moment."""
        return TimeBounds(self._earliest_us, now_us + self._skew_us)

    def violations(
        self, event: UserEvent, event_id: str, user_key: str, time_us: int, bounds: TimeBounds
    ) -> list[Violation]:
        """Everything against taking an event; empty when it is taken."""
        found = stated_violations(event, bounds)
        if not found and event.event_type in _COUNTED and not self._rates.admits(user_key, event_id, time_us):
            found.append(_bot(event, self._rates.limit))
        return found


class VisitorRates:
    """Counts events by visitor and minute of event time; forgets the oldest minutes first.

    It counts in this process: with several replicas a visitor may reach the limit in each.
    """

    def __init__(self, limit: int, *, memory_events: int = 500_000) -> None:
        self.limit = limit
        self._memory_events = memory_events
        # few are kept as tuples: the garbage collector forgets tuples of numbers, while it looks through
        # all sets again and again, and the door stands still meanwhile
        self._seen: dict[tuple[str, int], tuple[int, ...] | set[int]] = {}
        self._events = 0

    def admits(self, user_key: str, event_id: str, time_us: int) -> bool:
        """Whether the event is within the limit. The same event counts once, however often it is sent."""
        slot = (user_key, time_us // _MINUTE_US)
        seen = self._seen.get(slot, ())
        # hashes instead of ids: a third of the memory, and a collision admits one event more
        number = hash(event_id)
        if number in seen:
            return True
        if len(seen) >= self.limit:
            return False
        if isinstance(seen, set):
            seen.add(number)
        else:
            self._seen[slot] = (*seen, number) if len(seen) < _FEW else {*seen, number}
        self._events += 1
        self._forget_oldest()
        return True

    def drop(self, is_gone: Callable[[str], bool]) -> None:
        """Forgets people."""
        gone = {person for person in {person for person, _ in self._seen} if is_gone(person)}
        for slot in [slot for slot in self._seen if slot[0] in gone]:
            self._events -= len(self._seen.pop(slot))

    def _forget_oldest(self) -> None:
        while self._events > self._memory_events:
            oldest = next(iter(self._seen))
            self._events -= len(self._seen.pop(oldest))


def _bot(event: UserEvent, limit: int) -> Violation:
    field = "user_id" if event.user_id else "visitor_id"
    return Violation("bot", field, f"must send at most {limit} product events a minute, sent more")
