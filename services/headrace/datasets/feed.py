"""A data set as a storefront would send it: products as they come on sale, events as they happen."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import chain

from headrace.datasets.source import Dataset
from headrace.datasets.times import at, us
from headrace.v1.common_pb2 import Product, UserEvent

CHUNK = 2_000


@dataclass(frozen=True, slots=True)
class Chunk:
    """`products` are to be written before `events` are; `time` is how far the shop's clock has come."""

    products: list[Product]
    events: list[UserEvent]
    time: datetime


def feed(
    dataset: Dataset, start: datetime | None = None, end: datetime | None = None, size: int = CHUNK
) -> Iterator[Chunk]:
    """Chunks of up to `size` events, with the products that are new or changed by then.

    Products that were on sale before `start` come first, as they then stood; those that come on sale
    after the last event do not come. A data set without events gives all of its products.
    """
    due, span = DueProducts(dataset), dataset.span
    clock = max(span.start, start) if start else span.start
    chunk = None
    for events in _sized(dataset.events(start, end), size):
        clock = max(clock, _time_of(events, span.end))
        chunk = Chunk(due.until(clock), events, clock)
        yield chunk
    if chunk is None:
        yield Chunk(due.until(None), [], clock)


class DueProducts:
    """A data set's product versions in time order, taken as the shop's clock goes on."""

    def __init__(self, dataset: Dataset) -> None:
        first = ((_publish_us(product), product) for product in chain.from_iterable(dataset.products()))
        later = ((us(update.time), update.product) for update in dataset.product_updates())
        self._versions = heapq.merge(first, later, key=lambda version: version[0])
        self._next = next(self._versions, None)

    def until(self, time: datetime | None) -> list[Product]:
        """The newest version of every product that is new or changed up to `time` (None: ever), each given once."""
        newest: dict[str, Product] = {}
        while self._next is not None and (time is None or self._next[0] <= us(time)):
            product = self._next[1]
            newest.pop(product.id, None)
            newest[product.id] = product
            self._next = next(self._versions, None)
        return list(newest.values())


def _publish_us(product: Product) -> int:
    return product.publish_time.ToMicroseconds() if product.HasField("publish_time") else 0


def _time_of(events: list[UserEvent], end: datetime) -> datetime:
    # absurd times are part of some data sets; they do not move the clock
    end_us = us(end)
    times = (event.event_time.ToMicroseconds() for event in reversed(events))
    return at(next((time for time in times if 0 < time <= end_us), 0))


def _sized(batches: Iterator[list[UserEvent]], size: int) -> Iterator[list[UserEvent]]:
    pending: list[UserEvent] = []
    for batch in batches:
        pending += batch
        while len(pending) >= size:
            yield pending[:size]
            pending = pending[size:]
    if pending:
        yield pending
