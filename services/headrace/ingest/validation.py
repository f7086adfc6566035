"""What an event or a product must be to be taken: the limits that the contract states.

Each rule has a name, which is the `reason` of a refusal. Every rule looks at every event, so that
all faults of one are reported together.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from google.protobuf.timestamp_pb2 import Timestamp

from headrace.runtime.clock import MICROSECONDS
from headrace.v1.common_pb2 import Availability, Channel, PriceInfo, Product, UserEvent

PURCHASE = "purchase-complete"
CANCEL = "purchase-cancel"
PRODUCT_EVENTS = frozenset(
    {"detail-page-view", "add-to-cart", "remove-from-cart", PURCHASE, CANCEL, "product-impression"}
)
EVENT_TYPES = PRODUCT_EVENTS | {"home-page-view", "category-page-view", "search"}

ID_BYTES = 128
_MAX_PRICE = 1e9
_MAX_QUANTITY = 1_000_000
_MAX_DETAILS = 1_000
CHANNELS = frozenset(Channel.values())
_AVAILABILITIES = frozenset(Availability.values())
# year 9999: beyond it google.protobuf.Timestamp is not valid
_MAX_SECONDS = 253_402_300_799
_MIN_SECONDS = -62_135_596_800


@dataclass(frozen=True, slots=True)
class Violation:
    """One broken rule: its name, the path of the field, what was wrong with what was given."""

    reason: str
    field: str
    description: str


@dataclass(frozen=True, slots=True)
class TimeBounds:
    """Which event times are believed, Unix microseconds; both ends are."""

    earliest_us: int
    latest_us: int


# product, price and quantity of a product detail
Line = tuple[str, float, int]

# field path and description
_Found = Iterator[tuple[str, str]]


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
        if not (0 <= price <= _MAX_PRICE and 0 <= quantity <= _MAX_QUANTITY):
            return False
    return True


def product_violations(product: Product) -> list[Violation]:
    """Everything that is wrong with a product; empty when it may be taken."""
    return [
        Violation(reason, field, description) for reason, rule in PRODUCT_RULES for field, description in rule(product)
    ]


def time_us(timestamp: Timestamp) -> int:
    """Unix microseconds; floors what is finer."""
    return timestamp.seconds * MICROSECONDS + timestamp.nanos // 1_000


def _event_missing(event: UserEvent, _: TimeBounds) -> _Found:
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


def _event_unknown_type(event: UserEvent, _: TimeBounds) -> _Found:
    event_type = event.event_type
    if event_type and event_type not in EVENT_TYPES:
        yield "event_type", f"must be one of {', '.join(sorted(EVENT_TYPES))}, got {_shown(event_type)}"
    if event.channel not in CHANNELS:
        yield "channel", f"must be one of {', '.join(Channel.keys())}, got {event.channel}"


def _event_time(event: UserEvent, bounds: TimeBounds) -> _Found:
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


def _event_price(event: UserEvent, _: TimeBounds) -> _Found:
    for number, detail in enumerate(event.product_details):
        # a comparison with NaN is false, so this refuses it too
        if not 0 <= detail.price <= _MAX_PRICE:
            yield f"product_details[{number}].price", f"must be 0 .. 1e9, got {detail.price}"


def _event_quantity(event: UserEvent, _: TimeBounds) -> _Found:
    for number, detail in enumerate(event.product_details):
        if not 0 <= detail.quantity <= _MAX_QUANTITY:
            yield f"product_details[{number}].quantity", f"must be 0 .. {_MAX_QUANTITY}, got {detail.quantity}"


def _event_too_long(event: UserEvent, _: TimeBounds) -> _Found:
    yield from _over(ID_BYTES, "event_id", event.event_id)
    yield from _over(ID_BYTES, "visitor_id", event.visitor_id)
    yield from _over(ID_BYTES, "user_id", event.user_id)
    yield from _over(ID_BYTES, "session_id", event.session_id)
    yield from _over(ID_BYTES, "transaction_id", event.transaction_id)
    yield from _over(1_000, "search_query", event.search_query)
    yield from _too_many(_MAX_DETAILS, "product_details", len(event.product_details))
    for number, detail in enumerate(event.product_details):
        if len(detail.product_id) > ID_BYTES // 4:
            yield from _over(ID_BYTES, f"product_details[{number}].product_id", detail.product_id)
    yield from _all_over(20, 500, "page_categories", event.page_categories)
    if event.labels:
        yield from _labels_over(50, "labels", event.labels.items())


EventRule = Callable[[UserEvent, TimeBounds], _Found]
# in this order; the first broken one is the reason that is counted
EVENT_RULES: tuple[tuple[str, EventRule], ...] = (
    ("missing", _event_missing),
    ("unknown-type", _event_unknown_type),
    ("time", _event_time),
    ("price", _event_price),
    ("quantity", _event_quantity),
    ("too-long", _event_too_long),
)


def _product_missing(product: Product) -> _Found:
    if not product.id:
        yield "id", "must be given"
    if not product.title:
        yield "title", "must be given"


def _product_unknown_type(product: Product) -> _Found:
    if product.availability not in _AVAILABILITIES:
        yield "availability", f"must be one of {', '.join(Availability.keys())}, got {product.availability}"
    currency = product.price_info.currency_code
    if currency and not (len(currency) == 3 and currency.isascii() and currency.isalpha()):
        yield "price_info.currency_code", f"must be three letters, got {_shown(currency)}"


def _product_time(product: Product) -> _Found:
    for field in ("publish_time", "expire_time"):
        if product.HasField(field):
            given: Timestamp = getattr(product, field)
            if not (_MIN_SECONDS <= given.seconds <= _MAX_SECONDS and 0 <= given.nanos < 1_000_000_000):
                yield field, f"must be within the years 1 .. 9999, got {given.seconds} s and {given.nanos} ns"


def _product_price(product: Product) -> _Found:
    if not product.HasField("price_info"):
        return
    info = product.price_info
    for field in ("price", "original_price", "cost"):
        amount: float = getattr(info, field)
        if not 0 <= amount <= _MAX_PRICE:
            yield f"price_info.{field}", f"must be 0 .. 1e9, got {amount}"
    yield from _reduction(info)


def _reduction(info: PriceInfo) -> _Found:
    if info.original_price and info.original_price < info.price and math.isfinite(info.price):
        yield "price_info.original_price", f"must be 0 or at least the price {info.price}, got {info.original_price}"


def _product_quantity(product: Product) -> _Found:
    if product.available_quantity < 0:
        yield "available_quantity", f"must be at least 0, got {product.available_quantity}"


def _product_too_long(product: Product) -> _Found:
    yield from _over(ID_BYTES, "id", product.id)
    yield from _over(1_000, "title", product.title)
    yield from _over(5_000, "description", product.description)
    yield from _all_over(30, 128, "brands", product.brands)
    yield from _all_over(50, 500, "categories", product.categories)
    if product.attributes:
        yield from _labels_over(100, "attributes", product.attributes.items())


ProductRule = Callable[[Product], _Found]
PRODUCT_RULES: tuple[tuple[str, ProductRule], ...] = (
    ("missing", _product_missing),
    ("unknown-type", _product_unknown_type),
    ("time", _product_time),
    ("price", _product_price),
    ("quantity", _product_quantity),
    ("too-long", _product_too_long),
)


def _over(limit_bytes: int, field: str, value: str) -> _Found:
    # a character has at most four bytes
    if len(value) * 4 > limit_bytes and (size := len(value.encode())) > limit_bytes:
        yield field, f"must have at most {limit_bytes} bytes, got {size}"


def _too_many(limit: int, field: str, count: int) -> _Found:
    if count > limit:
        yield field, f"must be at most {limit}, got {count}"


def _all_over(limit: int, limit_bytes: int, field: str, values: Iterable[str]) -> _Found:
    number = -1
    for number, value in enumerate(values):
        yield from _over(limit_bytes, f"{field}[{number}]", value)
    yield from _too_many(limit, field, number + 1)


def _labels_over(limit: int, field: str, labels: Iterable[tuple[str, str]]) -> _Found:
    pairs = list(labels)
    yield from _too_many(limit, field, len(pairs))
    for name, value in pairs:
        yield from _over(256, f"{field}[{_shown(name)}]", name)
        yield from _over(256, f"{field}[{_shown(name)}]", value)


def _shown(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:40] + "…")


def _iso(value_us: int) -> str:
    timestamp = Timestamp(seconds=value_us // MICROSECONDS)
    inside = _MIN_SECONDS <= timestamp.seconds <= _MAX_SECONDS
    return timestamp.ToJsonString() if inside else f"{timestamp.seconds} s"
