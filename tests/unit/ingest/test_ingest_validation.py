from __future__ import annotations

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from headrace.ingest.arrivals import arrival, violations
from headrace.ingest.limits import Violation
from headrace.ingest.product_validation import product_violations
from headrace.ingest.validation import (
    EVENT_TYPES,
    TimeBounds,
    stated_violations,
)
from headrace.v1.common_pb2 import PriceInfo, Product, ProductDetail, UserEvent

BOUNDS = TimeBounds(earliest_us=1_000_000_000_000_000, latest_us=2_000_000_000_000_000)


def event(event_type: str = "detail-page-view", *details: ProductDetail, **fields: object) -> UserEvent:
    given = {"visitor_id": "v", "event_time": Timestamp(seconds=1_500_000_000)} | fields
    return UserEvent(event_type=event_type, product_details=details or [ProductDetail(product_id="p")], **given)


def product(**fields: object) -> Product:
    return Product(**({"id": "p", "title": "Boots"} | fields))  # type: ignore[arg-type]


def event_violations(given: UserEvent, bounds: TimeBounds) -> list[Violation]:
    return violations(arrival(given), bounds)


def found(given: UserEvent) -> list[tuple[str, str]]:
    return [(one.reason, one.field) for one in event_violations(given, BOUNDS)]


def found_in(given: Product) -> list[tuple[str, str]]:
    return [(one.reason, one.field) for one in product_violations(given)]


def test_a_good_event_of_each_type_has_no_violation() -> None:
    for event_type in EVENT_TYPES:
        assert found(event(event_type, search_query="boots", page_categories=["Shoes"])) == []


_ids = st.one_of(st.text(max_size=3), st.sampled_from(["x" * 128, "x" * 129, "ü" * 64, "ü" * 65]))
_numbers = st.sampled_from([0, 1, -1, 1_000_000, 1_000_001])
_prices = st.sampled_from([0.0, 1e9, 1.1e9, -0.5, float("nan"), float("inf")])
_details = st.builds(ProductDetail, product_id=_ids, quantity=_numbers, price=_prices)
_seconds = st.sampled_from([-1, 0, 999_999_999, 1_000_000_000, 1_500_000_000, 2_000_000_000, 2_000_000_001])
_times = st.builds(Timestamp, seconds=_seconds, nanos=st.sampled_from([0, -1, 1_000, 999_999_999, 1_000_000_000]))


@given(
    st.builds(
        UserEvent,
        event_id=_ids,
        event_type=st.sampled_from([*sorted(EVENT_TYPES), "", "teleport"]),
        visitor_id=_ids,
        user_id=_ids,
        event_time=st.one_of(st.none(), _times),
        product_details=st.lists(_details, max_size=3),
        search_query=st.sampled_from(["", "boots", "q" * 1_001]),
        channel=st.sampled_from([0, 1, 99]),
        session_id=_ids,
        transaction_id=_ids,
        page_categories=st.lists(st.sampled_from(["Shoes", "c" * 501]), max_size=2),
        labels=st.dictionaries(st.sampled_from(["k", "l" * 257]), st.just("v"), max_size=2),
    )
)
def test_what_is_taken_at_a_look_is_what_every_rule_takes(given: UserEvent) -> None:
    assert event_violations(given, BOUNDS) == stated_violations(given, BOUNDS)


@pytest.mark.parametrize("field", ["visitor_id", "user_id", "event_id", "session_id", "transaction_id"])
@pytest.mark.parametrize("value", ["", "x" * 126, "x" * 127, "x" * 128, "x" * 129, "ü" * 64, "ü" * 65])
def test_ids_of_every_length_are_judged_alike_at_a_look_and_by_the_rules(field: str, value: str) -> None:
    given = event(**{field: value})
    assert event_violations(given, BOUNDS) == stated_violations(given, BOUNDS)


@pytest.mark.parametrize("count", [0, 1_000, 1_001])
def test_many_products_are_judged_alike_at_a_look_and_by_the_rules(count: int) -> None:
    given = event()
    del given.product_details[:]
    given.product_details.extend([ProductDetail(product_id="p")] * count)
    assert event_violations(given, BOUNDS) == stated_violations(given, BOUNDS)


def test_all_faults_of_an_event_are_reported_together() -> None:
    bad = UserEvent(
        event_type="purchase-complete",
        product_details=[
            ProductDetail(product_id="p"),
            ProductDetail(quantity=-1),
            ProductDetail(product_id="q" * 129, price=-3.0),
        ],
        event_time=Timestamp(seconds=1),
    )
    assert event_violations(bad, BOUNDS) == [
        Violation("missing", "visitor_id", "must be given unless user_id is"),
        Violation("missing", "product_details[1].product_id", "must be given"),
        Violation("time", "event_time", "must not be before 2001-09-09T01:46:40Z, got 1970-01-01T00:00:01Z"),
        Violation("price", "product_details[2].price", "must be 0 .. 1e9, got -3.0"),
        Violation("quantity", "product_details[1].quantity", "must be 0 .. 1000000, got -1"),
        Violation("too-long", "product_details[2].product_id", "must have at most 128 bytes, got 129"),
    ]


def test_an_empty_event_misses_its_type_its_visitor_and_its_time() -> None:
    assert found(UserEvent()) == [("missing", "event_type"), ("missing", "visitor_id"), ("missing", "event_time")]


@pytest.mark.parametrize(
    "event_type",
    [
        "detail-page-view",
        "add-to-cart",
        "remove-from-cart",
        "purchase-complete",
        "purchase-cancel",
        "product-impression",
    ],
)
def test_product_events_need_a_product(event_type: str) -> None:
    bare = UserEvent(event_type=event_type, user_id="u", event_time=Timestamp(seconds=1_500_000_000))
    assert found(bare) == [("missing", "product_details")]


def test_a_search_needs_a_query_and_a_category_page_its_category() -> None:
    assert found(event("search")) == [("missing", "search_query")]
    assert found(event("category-page-view")) == [("missing", "page_categories")]


def test_a_type_or_channel_that_nobody_declared_is_unknown() -> None:
    assert found(event("teleport", channel=99)) == [("unknown-type", "event_type"), ("unknown-type", "channel")]


@pytest.mark.parametrize(
    ("seconds", "nanos", "good"),
    [
        (1_000_000_000, 0, True),
        (999_999_999, 999_999_000, False),
        (2_000_000_000, 999, True),
        (2_000_000_000, 1_000, False),
        (2**62, 0, False),
        (-(2**62), 0, False),
        (1_500_000_000, -1, False),
        (1_500_000_000, 1_000_000_000, False),
    ],
)
def test_time_is_bounded_both_ways(seconds: int, nanos: int, good: bool) -> None:
    reasons = {reason for reason, _ in found(event(event_time=Timestamp(seconds=seconds, nanos=nanos)))}
    assert reasons == (set() if good else {"time"})


@pytest.mark.parametrize(
    ("price", "good"),
    [(0.0, True), (1e9, True), (-0.01, False), (1.1e9, False), (float("nan"), False), (float("inf"), False)],
)
def test_prices_are_bounded_and_finite(price: float, good: bool) -> None:
    assert (found(event("add-to-cart", ProductDetail(product_id="p", price=price))) == []) is good


@pytest.mark.parametrize(("quantity", "good"), [(0, True), (1_000_000, True), (1_000_001, False), (-1, False)])
def test_quantities_are_bounded(quantity: int, good: bool) -> None:
    assert (found(event("add-to-cart", ProductDetail(product_id="p", quantity=quantity))) == []) is good


@pytest.mark.parametrize("field", ["event_id", "visitor_id", "user_id", "session_id", "transaction_id"])
def test_ids_have_at_most_128_bytes_not_characters(field: str) -> None:
    assert found(event(**{field: "ü" * 64})) == []
    assert found(event(**{field: "ü" * 65})) == [("too-long", field)]


def test_what_has_too_many_parts_is_too_long() -> None:
    many = event("purchase-complete", *[ProductDetail(product_id="p")] * 1_001, page_categories=["c"] * 21)
    assert found(many) == [("too-long", "product_details"), ("too-long", "page_categories")]
    assert found(event(labels={str(number): "x" for number in range(51)})) == [("too-long", "labels")]


def test_long_texts_are_named_by_their_place() -> None:
    given = event(search_query="q" * 1_001, page_categories=["a", "b" * 501], labels={"k": "v" * 257})
    assert found(given) == [
        ("too-long", "search_query"),
        ("too-long", "page_categories[1]"),
        ("too-long", "labels['k']"),
    ]


@given(st.binary(max_size=200))
def test_any_event_that_parses_is_judged_without_an_error(data: bytes) -> None:
    try:
        parsed = UserEvent.FromString(data)
    except Exception:  # noqa: BLE001  # bytes that are no event are the server's concern
        return
    assert all(one.reason and one.field and one.description for one in event_violations(parsed, BOUNDS))


def test_a_good_product_has_no_violation() -> None:
    price = PriceInfo(currency_code="GBP", price=10, original_price=12, cost=0)
    assert found_in(product(price_info=price, available_quantity=0, categories=["Shoes > Boots"])) == []


def test_all_faults_of_a_product_are_reported_together() -> None:
    bad = Product(
        availability=9,  # type: ignore[arg-type]
        price_info=PriceInfo(currency_code="pounds", price=-1, cost=float("nan")),
        available_quantity=-2,
        description="d" * 5_001,
        brands=["b" * 129],
        categories=["c"] * 51,
        attributes={"size": "x" * 257},
        publish_time=Timestamp(seconds=2**62),
        expire_time=Timestamp(nanos=-1),
    )
    assert found_in(bad) == [
        ("missing", "id"),
        ("missing", "title"),
        ("unknown-type", "availability"),
        ("unknown-type", "price_info.currency_code"),
        ("time", "publish_time"),
        ("time", "expire_time"),
        ("price", "price_info.price"),
        ("price", "price_info.cost"),
        ("quantity", "available_quantity"),
        ("too-long", "description"),
        ("too-long", "brands[0]"),
        ("too-long", "categories"),
        ("too-long", "attributes['size']"),
    ]


def test_a_reduction_goes_down() -> None:
    up = product(price_info=PriceInfo(price=10, original_price=9))
    assert found_in(up) == [("price", "price_info.original_price")]
