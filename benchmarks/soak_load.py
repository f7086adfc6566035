"""A shop's days for a soak: the same people all the time, products that go and come back, prices that change."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import chain

from google.protobuf.timestamp_pb2 import Timestamp

from headrace.datasets.simulated_shop import ShopSettings, SimulatedShop
from headrace.v1.common_pb2 import Product, ProductDetail, UserEvent


@dataclass(frozen=True, slots=True)
class Step:
    """What happens until the shop's hour `end_hour`: events, products that are new or changed, one that goes."""

    end_hour: int
    events: Sequence[UserEvent]
    products: Sequence[Product]
    deleted: str


class Days:
    """The simulated shop in steps of some hours, its clock moved so that it ends now: no event is from the future."""

    def __init__(self, settings: ShopSettings, step_hours: int) -> None:
        self._shop = SimulatedShop(settings)
        self._step_hours = step_hours
        self._shift_s = int((datetime.now(UTC) - self._shop.span.end).total_seconds())

    @property
    def first_products(self) -> list[Product]:
        return [product for batch in self._shop.products() for product in batch]

    def steps(self) -> Iterator[Step]:
        """All of them, in order. Each takes a product out of the shop and brings back the one before."""
        by_id = {product.id: product for product in self.first_products}
        ids, away = sorted(by_id), ""
        events = (event for batch in self._shop.events() for event in batch)
        waiting: list[UserEvent] = []
        for number in range(self._shop.settings.days * 24 // self._step_hours):
            start = self._shop.span.start + timedelta(hours=number * self._step_hours)
            end = start + timedelta(hours=self._step_hours)
            changed = [update.product for update in self._shop.product_updates(start, end)]
            by_id |= {product.id: product for product in changed}
            back = [by_id[away]] if away else []
            away = ids[number % len(ids)]
            now, waiting = self._until(end, waiting, events)
            yield Step((number + 1) * self._step_hours, now, [*changed, *back], away)

    def _until(
        self, end: datetime, waiting: list[UserEvent], events: Iterator[UserEvent]
    ) -> tuple[list[UserEvent], list[UserEvent]]:
        """The events before a time, in the order in which they come, and the first one beyond it."""
        now: list[UserEvent] = []
        for event in chain(waiting, events):
            # an event of a planted absurd time comes with its neighbours
            if end.timestamp() <= event.event_time.seconds < self._shop.span.end.timestamp():
                return now, [event]
            now.append(self._moved(event))
        return now, []

    def _moved(self, event: UserEvent) -> UserEvent:
        event.event_time.seconds += self._shift_s
        return event


def strangers(count: int, products: Sequence[str], views: int) -> Iterator[UserEvent]:
    """So many visitors whom nobody has seen, each with some views, now."""
    now = datetime.now(UTC)
    for visitor in range(count):
        for view in range(views):
            product = products[(visitor * views + view) % len(products)]
            time = Timestamp()
            time.FromDatetime(now)
            yield UserEvent(
                event_type="detail-page-view",
                event_id=f"stranger-{visitor}-{view}",
                visitor_id=f"stranger-{visitor}",
                event_time=time,
                product_details=[ProductDetail(product_id=product)],
            )
