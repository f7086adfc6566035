"""An event on its way in, with what every rule asks of it read once.

Reading a field of a message takes as long as judging it: the rules together read the same few again and again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from headrace.ingest.identity import event_id, user_key
from headrace.ingest.validation import Line, Violation, lines_of, time_us
from headrace.v1.common_pb2 import UserEvent


@dataclass(slots=True)
class Arrival:
    """Whose event it is, which one, when it happened, what it is about; and what the rules said of it."""

    event: UserEvent
    event_type: str
    event_id: str
    user_key: str
    time_us: int
    lines: list[Line]
    is_derived: bool
    violations: Sequence[Violation] = ()
    mark: str = ""


def arrival(event: UserEvent) -> Arrival:
    """The event, read."""
    given = event.event_id
    return Arrival(
        event,
        event.event_type,
        given or event_id(event),
        user_key(event),
        time_us(event.event_time),
        lines_of(event),
        is_derived=not given,
    )
