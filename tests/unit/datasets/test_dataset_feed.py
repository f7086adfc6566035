from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from headrace.datasets.feed import DueProducts, feed
from headrace.datasets.source import ProductUpdate, Span
from headrace.datasets.times import timestamp, us
from headrace.v1.common_pb2 import PriceInfo, Product, UserEvent

START = datetime(2025, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)


@dataclass
class SmallShop:
    """A data set written by hand: events at given hours, products on sale from given hours."""

    hours: list[float]
    on_sale: dict[str, float] = field(default_factory=dict)
    updates: list[ProductUpdate] = field(default_factory=list)
    name: str = "small"
    is_simulated: bool = True
    licence: str = "none"
    span: Span = field(default_factory=lambda: Span(START, START + timedelta(days=1)))

    def products(self) -> Iterator[list[Product]]:
        yield [Product(id=name, publish_time=timestamp(us(START + h * HOUR))) for name, h in self.on_sale.items()]

    def product_updates(self, start: datetime | None = None, end: datetime | None = None) -> Iterator[ProductUpdate]:
        return iter(self.updates)

    def events(self, start: datetime | None = None, end: datetime | None = None) -> Iterator[list[UserEvent]]:
        times = [START + hour * HOUR for hour in self.hours]
        kept = [t for t in times if (start is None or t >= start) and (end is None or t < end)]
        if kept:
            yield [UserEvent(event_id=str(us(t)), event_time=timestamp(us(t))) for t in kept]


def ids(products: list[Product]) -> list[str]:
    return [product.id for product in products]


def test_products_come_just_before_the_events_of_their_time() -> None:
    shop = SmallShop([1, 2, 3, 4], {"a": 0, "b": 1.5, "c": 3.5, "later": 9})

    chunks = list(feed(shop, size=2))

    assert [(ids(chunk.products), len(chunk.events)) for chunk in chunks] == [(["a", "b"], 2), (["c"], 2)]
    assert [chunk.time for chunk in chunks] == [START + 2 * HOUR, START + 4 * HOUR]


def test_a_later_start_brings_the_newest_version_of_what_is_on_sale() -> None:
    cheap = Product(id="a", price_info=PriceInfo(price=1))
    shop = SmallShop([1, 5], {"a": 0, "b": 0}, [ProductUpdate(START + 2 * HOUR, cheap)])

    (chunk,) = feed(shop, START + 4 * HOUR)

    assert ids(chunk.products) == ["b", "a"]
    assert chunk.products[1].price_info.price == 1


def test_an_absurd_time_does_not_move_the_clock() -> None:
    shop = SmallShop([1, 2, 24 * 365 * 40], {"a": 0, "later": 9})

    (chunk,) = feed(shop)

    assert (ids(chunk.products), len(chunk.events), chunk.time) == (["a"], 3, START + 2 * HOUR)


def test_a_catalogue_without_events_comes_whole() -> None:
    (chunk,) = feed(SmallShop([], {"a": 0, "b": 20}))

    assert (ids(chunk.products), chunk.events) == (["a", "b"], [])


def test_due_products_are_given_once() -> None:
    due = DueProducts(SmallShop([], {"a": 0, "b": 2}))

    assert ids(due.until(START + HOUR)) == ["a"]
    assert ids(due.until(START + HOUR)) == []
    assert ids(due.until(None)) == ["b"]
