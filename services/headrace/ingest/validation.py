"""What an event must be to be taken: the limits that the contract states.

Each rule has a name, which is the `reason` of a refusal. Every rule looks at every event, so that
all faults of one are reported together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from google.protobuf.timestamp_pb2 import Timestamp

from headrace.ingest.limits import (
    ID_BYTES,
    MAX_PRICE,
    MAX_SECONDS,
    MIN_SECONDS,
    Found,
    Violation,
    all_over,
    labels_over,
    over,
    shown,
    time_us,
    too_many,
)
from headrace.runtime.clock import MICROSECONDS
from headrace.v1.common_pb2 import Channel, UserEvent

PURCHASE = "purchase-complete"
CANCEL = "purchase-cancel"
PRODUCT_EVENTS = frozenset(
    {"detail-page-view", "add-to-cart", "remove-from-cart", PURCHASE, CANCEL, "product-impression"}
)
EVENT_TYPES = PRODUCT_EVENTS | {"home-page-view", "category-page-view", "search"}

_MAX_QUANTITY = 1_000_000
_MAX_DETAILS = 1_000
CHANNELS = frozenset(Channel.values())


@dataclass(frozen=True, slots=True)
class TimeBounds:
    """Which event times are believed, Unix microseconds; both ends are."""

    earliest_us: int
    latest_us: int


# product, price and quantity of a product detail
Line = tuple[str, float, int]


def stated_violations(event: UserEvent, bounds: TimeBounds) -> list[Violation]:
    """What every rule says of an event, rule by rule; empty when it may be taken."""
    return [
        Violation(reason, field, description)
        for reason, rule in EVENT_RULES
        for field, description in rule(event, bounds)
    ]


def are_plainly_sound(lines: Sequence[Line]) -> bool:
    """Whether no rule can have been broken by what a product event is about, said at a look; False says nothing."""
    if not 1 <= len(lines) <= _MAX_DETAILS:
        return False
    for product_id, price, quantity in lines:
        if not product_id or len(product_id) > ID_BYTES or not product_id.isascii():
            return False
        if not (0 <= price <= MAX_PRICE and 0 <= quantity <= _MAX_QUANTITY):
            return False
    return True


def _event_missing(event: UserEvent, _: TimeBounds) -> Found:
    event_type = event.event_type
    if not event_type:
        yield "event_type", "must be given"
    if not (event.visitor_id or event.user_id):
        yield "visitor_id", "must be given unless user_id is"
    if not event.HasField("event_time"):
        yield "event_time", "must be given"
    if event_type in PRODUCT_EVENTS and not event.product_details:
        yield "product_details", f"must be given for {event_type}"
    for number, detail in enumerate(event.product_details):
        if not detail.product_id:
            yield f"product_details[{number}].product_id", "must be given"
    if event_type == "search" and not event.search_query:
        yield "search_query", "must be given for search"
    if event_type == "category-page-view" and not event.page_categories:
        yield "page_categories", "must be given for category-page-view"


def _event_unknown_type(event: UserEvent, _: TimeBounds) -> Found:
    event_type = event.event_type
    if event_type and event_type not in EVENT_TYPES:
        yield "event_type", f"must be one of {', '.join(sorted(EVENT_TYPES))}, got {shown(event_type)}"
    if event.channel not in CHANNELS:
        yield "channel", f"must be one of {', '.join(Channel.keys())}, got {event.channel}"


def _event_time(event: UserEvent, bounds: TimeBounds) -> Found:
    if not event.HasField("event_time"):
        return
    timestamp = event.event_time
    if not 0 <= timestamp.nanos < 1_000_000_000:
        yield "event_time.nanos", f"must be 0 .. 999999999, got {timestamp.nanos}"
        return
    given = time_us(timestamp)
    if given < bounds.earliest_us:
        yield "event_time", f"must not be before {_iso(bounds.earliest_us)}, got {_iso(given)}"
    elif given > bounds.latest_us:
        yield "event_time", f"must not be after {_iso(bounds.latest_us)}, got {_iso(given)}"


def _event_price(event: UserEvent, _: TimeBounds) -> Found:
    for number, detail in enumerate(event.product_details):
        # a comparison with NaN is false, so this refuses it too
        if not 0 <= detail.price <= MAX_PRICE:
            yield f"product_details[{number}].price", f"must be 0 .. 1e9, got {detail.price}"


def _event_quantity(event: UserEvent, _: TimeBounds) -> Found:
    for number, detail in enumerate(event.product_details):
        if not 0 <= detail.quantity <= _MAX_QUANTITY:
            yield f"product_details[{number}].quantity", f"must be 0 .. {_MAX_QUANTITY}, got {detail.quantity}"


def _event_too_long(event: UserEvent, _: TimeBounds) -> Found:
    yield from over(ID_BYTES, "event_id", event.event_id)
    yield from over(ID_BYTES, "visitor_id", event.visitor_id)
    yield from over(ID_BYTES, "user_id", event.user_id)
    yield from over(ID_BYTES, "session_id", event.session_id)
    yield from over(ID_BYTES, "transaction_id", event.transaction_id)
    yield from over(1_000, "search_query", event.search_query)
    yield from too_many(_MAX_DETAILS, "product_details", len(event.product_details))
    for number, detail in enumerate(event.product_details):
        if len(detail.product_id) > ID_BYTES // 4:
            yield from over(ID_BYTES, f"product_details[{number}].product_id", detail.product_id)
    yield from all_over(20, 500, "page_categories", event.page_categories)
    if event.labels:
        yield from labels_over(50, "labels", event.labels.items())


EventRule = Callable[[UserEvent, TimeBounds], Found]
# in this order; the first broken one is the reason that is counted
EVENT_RULES: tuple[tuple[str, EventRule], ...] = (
    ("missing", _event_missing),
    ("unknown-type", _event_unknown_type),
    ("time", _event_time),
    ("price", _event_price),
    ("quantity", _event_quantity),
    ("too-long", _event_too_long),
)


def _iso(value_us: int) -> str:
    timestamp = Timestamp(seconds=value_us // MICROSECONDS)
    inside = MIN_SECONDS <= timestamp.seconds <= MAX_SECONDS
    return timestamp.ToJsonString() if inside else f"{timestamp.seconds} s"
