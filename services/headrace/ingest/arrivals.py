"""An event on its way in, with what every rule asks of it read once.

Reading a field of a message takes as long as judging it: the rules together read the same few again and again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from headrace.ingest.identity import event_id, key_of
from headrace.ingest.limits import ID_BYTES, Violation, time_us
from headrace.ingest.validation import (
    CHANNELS,
    PRODUCT_EVENTS,
    Line,
    TimeBounds,
    are_plainly_sound,
    stated_violations,
)
from headrace.v1.common_pb2 import Channel, UserEvent


@dataclass(slots=True)
class Arrival:
    """Whose event it is, which one, when it happened, what it is about; and what the rules said of it.

    `is_plain`: no stated rule can have been broken, but for that of its time; False says nothing.
    """

    event: UserEvent
    event_type: str
    channel: Channel.ValueType
    event_id: str
    user_key: str
    session_id: str
    time_us: int
    lines: list[Line]
    is_derived: bool
    is_plain: bool
    violations: Sequence[Violation] = ()
    mark: str = ""
    # what its attribution token is worth; empty: it has none
    token: str = ""


def arrival(event: UserEvent) -> Arrival:
    """The event, read."""
    given_id, user_id, visitor_id, session_id = event.event_id, event.user_id, event.visitor_id, event.session_id
    event_type, channel, timestamp = event.event_type, event.channel, event.event_time
    lines = [(detail.product_id, detail.price, detail.quantity) for detail in event.product_details]
    # nearly all events are of this kind, and the rules one by one took a third of the door's time for each
    ids = user_id + visitor_id + given_id + session_id + event.transaction_id
    is_plain = (
        event_type in PRODUCT_EVENTS
        and channel in CHANNELS
        and (user_id or visitor_id) != ""
        # all together as short as each may be; a character of these is one byte
        and len(ids) <= ID_BYTES
        and ids.isascii()
        and 0 <= timestamp.nanos < 1_000_000_000
        and are_plainly_sound(lines)
        and event.HasField("event_time")
        and not (event.page_categories or event.labels or event.search_query)
    )
    return Arrival(
        event,
        event_type,
        channel,
        given_id or event_id(event),
        key_of(user_id, visitor_id),
        session_id,
        time_us(timestamp),
        lines,
        not given_id,
        is_plain,
    )


def violations(one: Arrival, bounds: TimeBounds) -> list[Violation]:
    """Everything that is wrong with an event in itself; empty when it may be taken."""
    if one.is_plain and bounds.earliest_us <= one.time_us <= bounds.latest_us:
        return []
    return stated_violations(one.event, bounds)
