"""The simulated shop with more that a door has to find, and with good customers who look suspicious.

Beside what `SimulatedShop` plants: double clicks, prices and quantities that nobody meant, and visitors that are
programs (they walk through the catalogue in order, look at a product by a timer, or faster than anybody reads).
Some carts are wholesale ones, of up to 96 units: those are good.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from itertools import chain

import numpy as np

from headrace.datasets.batching import batches
from headrace.datasets.simulated_shop import SimulatedShop, Truth
from headrace.datasets.source import ProductUpdate, Span
from headrace.datasets.times import us
from headrace.v1.common_pb2 import CHANNEL_WEB, Product, ProductDetail, UserEvent

CRAWLERS = ("walk", "timer", "hasty")
CRAWLED = 400

_SHARE_REPEATED = 0.005
# carts are fewer, and have a quantity as well
_SHARE_ABSURD = {"detail-page-view": 0.003, "add-to-cart": 0.03}
_SHARE_WHOLESALE = 0.02
_VIEW, _CART = "detail-page-view", "add-to-cart"
_MILLISECOND_US = 1_000


@dataclass
class Planted:
    """What was planted, known when all events were given out: event ids by kind, and visitors by kind of crawler."""

    repeats: set[str] = field(default_factory=set)
    prices: set[str] = field(default_factory=set)
    quantities: set[str] = field(default_factory=set)
    crawlers: dict[str, str] = field(default_factory=dict)
    wholesale: set[str] = field(default_factory=set)


class PlantedShop:
    """`shop` with more planted by `seed`; one crawler of each kind comes each `crawler_days`."""

    name = "planted_shop"
    is_simulated = True

    def __init__(self, shop: SimulatedShop, seed: int, crawler_days: int = 3) -> None:
        self._shop = shop
        self._seed = seed
        self._crawler_days = crawler_days
        self.planted = Planted()
        self.licence = shop.licence

    @property
    def truth(self) -> Truth:
        """What the shop itself planted."""
        return self._shop.truth

    @property
    def span(self) -> Span:
        return self._shop.span

    def products(self) -> Iterator[list[Product]]:
        return self._shop.products()

    def product_updates(self, start: datetime | None = None, end: datetime | None = None) -> Iterator[ProductUpdate]:
        return self._shop.product_updates(start, end)

    def events(self, start: datetime | None = None, end: datetime | None = None) -> Iterator[list[UserEvent]]:
        """The shop's events with the planted ones among them, in the order of arrival."""
        self.planted = Planted()
        return batches(self._events(start, end))

    def _events(self, start: datetime | None, end: datetime | None) -> Iterator[UserEvent]:
        rng = np.random.default_rng([self._seed, 1])
        crawled = self._crawled(rng)
        pending = next(crawled, None)
        last_us = us(self.span.end)
        for number, event in enumerate(chain.from_iterable(self._shop.events(start, end))):
            time_us = event.event_time.ToMicroseconds()
            while pending is not None and pending.event_time.ToMicroseconds() <= time_us < last_us:
                yield pending
                pending = next(crawled, None)
            yield from self._with_planted(rng, number, event)

    def _with_planted(self, rng: np.random.Generator, number: int, event: UserEvent) -> Iterator[UserEvent]:
        is_plain = event.event_type in (_VIEW, _CART) and event.visitor_id.startswith("device-")
        draw = float(rng.random())
        if not is_plain or event.event_id in self._odd_ids:
            yield event
        elif draw < _SHARE_REPEATED:
            yield event
            again = _copy(event, f"again-{number}", int(rng.integers(20, 250)) * _MILLISECOND_US)
            self.planted.repeats.add(again.event_id)
            yield again
        elif draw < _SHARE_REPEATED + _SHARE_ABSURD[event.event_type]:
            yield event
            yield self._absurd(rng, _copy(event, f"absurd-{number}", 7_000 * _MILLISECOND_US))
        elif event.event_type == _CART and draw > 1 - _SHARE_WHOLESALE and event.event_id not in self._repeated_ids:
            event.product_details[0].quantity = int(rng.integers(6, 97))
            self.planted.wholesale.add(event.event_id)
            yield event
        else:
            yield event

    def _absurd(self, rng: np.random.Generator, event: UserEvent) -> UserEvent:
        detail = event.product_details[0]
        if event.event_type == _CART and rng.random() < 0.7:
            detail.quantity = int(10 ** rng.uniform(3.0, 5.9))
            self.planted.quantities.add(event.event_id)
        else:
            detail.price *= float(rng.choice([100.0, 1_000.0, 0.01]))
            self.planted.prices.add(event.event_id)
        return event

    @cached_property
    def _odd_ids(self) -> set[str]:
        return {name for names in self.truth.faults.values() for name in names}

    @cached_property
    def _repeated_ids(self) -> set[str]:
        return set(self.truth.duplicates)

    def _crawled(self, rng: np.random.Generator) -> Iterator[UserEvent]:
        days = (self.span.end - self.span.start).days
        ids = sorted(product.id for batch in self._shop.products() for product in batch)
        for day in range(1, days, self._crawler_days):
            visits = [
                _crawl(rng, kind, f"{kind}-{day}", us(self.span.start) + day * 86_400_000_000, ids) for kind in CRAWLERS
            ]
            self.planted.crawlers |= {f"{kind}-{day}": kind for kind in CRAWLERS}
            yield from sorted(chain.from_iterable(visits), key=lambda event: event.event_time.ToMicroseconds())


def _copy(event: UserEvent, event_id: str, later_us: int) -> UserEvent:
    copy = UserEvent()
    copy.CopyFrom(event)
    copy.event_id = event_id
    copy.event_time.FromMicroseconds(event.event_time.ToMicroseconds() + later_us)
    return copy


def _crawl(rng: np.random.Generator, kind: str, visitor: str, day_us: int, ids: list[str]) -> list[UserEvent]:
    if kind == "walk":
        # a reader's pauses, but product after product
        first = int(rng.integers(0, len(ids)))
        seen = [ids[(first + step) % len(ids)] for step in range(CRAWLED)]
        gaps_s = rng.exponential(5.0, CRAWLED) + 1.0
    else:
        seen = [ids[place] for place in rng.integers(0, len(ids), CRAWLED)]
        gaps_s = rng.normal(4.0, 0.1, CRAWLED) if kind == "timer" else rng.exponential(0.6, CRAWLED) + 0.1
    times_us = day_us + int(rng.integers(0, 20 * 3600)) * 1_000_000 + (np.cumsum(gaps_s) * 1e6).astype(np.int64)
    events = []
    for number, (product_id, time_us) in enumerate(zip(seen, times_us.tolist(), strict=True)):
        event = UserEvent(
            event_id=f"{visitor}-{number}",
            event_type=_VIEW,
            visitor_id=visitor,
            channel=CHANNEL_WEB,
            session_id=visitor,
        )
        event.event_time.FromMicroseconds(time_us)
        event.product_details.append(ProductDetail(product_id=product_id, quantity=1))
        events.append(event)
    return events
