"""An event on its way in, with what every rule asks of it read once.

Reading a field of a message takes as long as judging it: the rules together read the same few again and again.
"""

from __future__ import annotations

from dataclasses import dataclass

from headrace.ingest.identity import event_id, user_key
from headrace.ingest.validation import Line, lines_of, time_us
from headrace.v1.common_pb2 import UserEvent


@dataclass(slots=True)
class Arrival:
    """Whose event it is, which one, when it happened, what it is about."""

    event: UserEvent
    event_type: str
    event_id: str
    user_key: str
    time_us: int
    lines: list[Line]


def arrival(event: UserEvent) -> Arrival:
    """The event, read."""
    return Arrival(
        event, event.event_type, event_id(event), user_key(event), time_us(event.event_time), lines_of(event)
    )
