"""A shop that does not exist: its people, tastes, seasons and faults are made up, so the right answers are known.

Use it to try Headrace without data, and to test what only known truth can test: cleaning, canaries, drift.
It says nothing about quality on real shoppers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property

import numpy as np

from headrace.datasets.batching import batches
from headrace.datasets.shop_catalogue import BRANDS, CATEGORIES, make_catalogue
from headrace.datasets.shop_days import (
    CANCEL,
    CART,
    CATEGORY,
    FAULTS,
    HOME,
    PURCHASE,
    REMOVE,
    SEARCH,
    VIEW,
    Day,
    Order,
    Promotion,
    ShopDays,
    make_people,
    make_promotions,
    utility,
)
from headrace.datasets.source import SIMULATED_SHOP, ProductUpdate, Span
from headrace.datasets.times import timestamp, us
from headrace.v1.common_pb2 import (
    AVAILABILITY_IN_STOCK,
    CHANNEL_APP,
    CHANNEL_MOBILE_WEB,
    CHANNEL_WEB,
    Channel,
    PriceInfo,
    Product,
    ProductDetail,
    UserEvent,
)

_START = datetime(2025, 3, 3, tzinfo=UTC)
_TYPES = {
    HOME: "home-page-view",
    CATEGORY: "category-page-view",
    SEARCH: "search",
    VIEW: "detail-page-view",
    CART: "add-to-cart",
    REMOVE: "remove-from-cart",
    PURCHASE: "purchase-complete",
    CANCEL: "purchase-cancel",
}
_WITH_PRODUCT = (VIEW, CART, REMOVE)
_QUERY_WORDS = [[noun.lower() for noun in entry.nouns] for entry in CATEGORIES]
_ABSURD_QUANTITY = 5_000_000
_ABSURD_YEAR_US = us(datetime(2090, 1, 1, tzinfo=UTC))


@dataclass(frozen=True, slots=True)
class ShopSettings:
    """How large the shop is. Events are about 6 a visit."""

    seed: int = 7
    products: int = 1_500
    users: int = 2_500
    days: int = 42
    visits_a_day: float = 0.25
    bots: int = 4


@dataclass(frozen=True)
class Truth:
    """What was planted, by event id: what the door has to find, and what must not fool the models."""

    faults: dict[str, list[str]]
    duplicates: list[str]
    bot_visitors: list[str]
    bot_events: int
    cancellations: dict[str, str]
    launches: dict[str, datetime]
    promotions: list[Promotion]
    events: int


class SimulatedShop:
    """The same settings give the same shop, event by event."""

    name = SIMULATED_SHOP
    is_simulated = True
    licence = "simulated by Headrace: nobody ever bought any of this"

    def __init__(self, settings: ShopSettings | None = None) -> None:
        self.settings = settings or ShopSettings()
        rng = np.random.default_rng(self.settings.seed)
        self._catalogue = make_catalogue(rng, self.settings.products, self.settings.days)
        self._people = make_people(rng, self.settings.users, self.settings.visits_a_day)
        self._promotions = make_promotions(rng, self._catalogue, self.settings.days)
        self.span = Span(_START, _START + timedelta(days=self.settings.days))

    def products(self) -> Iterator[list[Product]]:
        launch = self._catalogue.launch_day
        order = np.argsort(launch, kind="stable").tolist()
        return batches(self._product(number, float(self._catalogue.price[number])) for number in order)

    def product_updates(self, start: datetime | None = None, end: datetime | None = None) -> Iterator[ProductUpdate]:
        """Promotions: a lower price with the old one beside it, and back."""
        shop = self._shop()
        for day in range(1, self.settings.days):
            time = _START + timedelta(days=day)
            if (start is None or time >= start) and (end is None or time < end):
                before, now = shop.price_on(day - 1), shop.price_on(day)
                changed = np.flatnonzero((before != now) & (self._catalogue.launch_day < day))
                yield from (ProductUpdate(time, self._product(int(number), float(now[number]))) for number in changed)

    def events(self, start: datetime | None = None, end: datetime | None = None) -> Iterator[list[UserEvent]]:
        first = us(start) if start else 0
        last = us(end) if end else us(self.span.end)
        for day in self._shop().run(self.settings.days):
            begin = us(_START + timedelta(days=day.day))
            if begin >= last:
                return
            if begin + 2 * 86_400_000_000 > first:
                yield from batches(self._day_events(day, first, last))

    @cached_property
    def truth(self) -> Truth:
        """Everything that is planted in `events()`; lives through all days once."""
        faults: dict[str, list[str]] = {kind: [] for kind in FAULTS[1:]}
        duplicates: list[str] = []
        cancellations: dict[str, str] = {}
        bots: set[str] = set()
        bot_events = events = 0
        for day in self._shop().run(self.settings.days):
            rows = day.rows
            events += len(rows.kind)
            for number, fault in zip(rows.number[rows.fault > 0], rows.fault[rows.fault > 0], strict=True):
                faults[FAULTS[fault]].append(_event_id(day.day, number))
            duplicates += [_event_id(day.day, number) for number in rows.number[rows.is_repeat]]
            is_bot = (rows.visit < 0) & (rows.kind == VIEW)
            bots |= {_bot(visit) for visit in rows.visit[is_bot]}
            bot_events += int(is_bot.sum())
            is_cancel = rows.kind == CANCEL
            for number, order in zip(rows.number[is_cancel], rows.order[is_cancel], strict=True):
                bought = day.orders[order]
                cancellations[_event_id(day.day, number)] = _event_id(bought.day, bought.number)
        later = np.flatnonzero(self._catalogue.launch_day > 0)
        launches = {self._catalogue.ids[number]: self._launch(int(number)) for number in later}
        return Truth(faults, duplicates, sorted(bots), bot_events, cancellations, launches, self._promotions, events)

    @property
    def products_by_number(self) -> list[str]:
        """Product ids by the numbers that promotions name."""
        return self._catalogue.ids

    def favourites(self, user_id: str, count: int = 20) -> list[str]:
        """What suits a user best at the first day's prices: taste for the category × utility, best first."""
        user = int(user_id.removeprefix("user-"))
        products = np.arange(len(self._catalogue.ids))
        liking = utility(self._people, self._catalogue, self._catalogue.price, np.array([user]), products)
        value = np.log(self._people.tastes[user, self._catalogue.category] + 1e-9) + liking
        return [self._catalogue.ids[number] for number in np.argsort(-value, kind="stable")[:count]]

    def _shop(self) -> ShopDays:
        settings = self.settings
        return ShopDays(settings.seed, _START, self._catalogue, self._people, self._promotions, settings.bots)

    def _launch(self, number: int) -> datetime:
        return _START + timedelta(days=int(self._catalogue.launch_day[number]))

    def _product(self, number: int, price: float) -> Product:
        catalogue = self._catalogue
        entry, regular = CATEGORIES[catalogue.category[number]], float(catalogue.price[number])
        return Product(
            id=catalogue.ids[number],
            title=catalogue.titles[number],
            description=f"{catalogue.titles[number]}: {entry.path.split(' > ')[1].lower()} by "
            f"{BRANDS[catalogue.brand[number]]}. Simulated.",
            brands=[BRANDS[catalogue.brand[number]]],
            categories=[entry.path],
            price_info=PriceInfo(
                currency_code="EUR",
                price=price,
                original_price=regular if price < regular else 0.0,
                cost=float(catalogue.cost[number]),
            ),
            availability=AVAILABILITY_IN_STOCK,
            publish_time=timestamp(us(self._launch(number))),
        )

    def _day_events(self, day: Day, first_us: int, last_us: int) -> Iterator[UserEvent]:
        rows, ids, prices = day.rows, self._catalogue.ids, day.price.tolist()
        visits = _visitors(day)
        columns = (rows.time_us, rows.kind, rows.visit, rows.product, rows.order, rows.fault, rows.number)
        for time_us, kind, visit, product, order, fault, number in zip(*(c.tolist() for c in columns), strict=True):
            if not first_us <= time_us < last_us:
                continue
            event = UserEvent(
                event_id=_event_id(day.day, number), event_type=_TYPES[kind], event_time=timestamp(time_us)
            )
            if kind in _WITH_PRODUCT:
                event.product_details.append(ProductDetail(product_id=ids[product], quantity=1, price=prices[product]))
            if order >= 0:
                self._add_order(event, day.orders[order], prices)
            elif visit < 0:
                event.visitor_id = _bot(visit)
            else:
                _add_visitor(event, visits[visit], kind, number)
            if order >= 0 and visit >= 0:
                event.session_id = f"{day.day}-{visit}"
            if fault:
                _break(event, FAULTS[fault])
            yield event

    def _add_order(self, event: UserEvent, order: Order, prices: list[float]) -> None:
        event.user_id = f"user-{order.user}"
        event.visitor_id = _visitor(order.user, order.device)
        event.channel = _channel(order.user, order.device)
        event.transaction_id = f"order-{order.day}-{order.number}"
        for product in order.products:
            event.product_details.append(
                ProductDetail(product_id=self._catalogue.ids[product], quantity=1, price=prices[product])
            )


@dataclass(frozen=True, slots=True)
class _Visit:
    user_id: str
    visitor_id: str
    session_id: str
    channel: Channel.ValueType
    category: int


def _visitors(day: Day) -> list[_Visit]:
    visits = day.visits
    columns = (visits.user, visits.device, visits.category, visits.is_logged_in)
    return [
        _Visit(
            f"user-{user}" if logged_in else "",
            _visitor(user, device),
            f"{day.day}-{number}",
            _channel(user, device),
            category,
        )
        for number, (user, device, category, logged_in) in enumerate(zip(*(c.tolist() for c in columns), strict=True))
    ]


def _add_visitor(event: UserEvent, visit: _Visit, kind: int, number: int) -> None:
    event.visitor_id = visit.visitor_id
    event.user_id = visit.user_id
    event.session_id = visit.session_id
    event.channel = visit.channel
    if kind == CATEGORY:
        event.page_categories.append(CATEGORIES[visit.category].path)
    if kind == SEARCH:
        words = _QUERY_WORDS[visit.category]
        event.search_query = words[number % len(words)]


def _break(event: UserEvent, fault: str) -> None:
    if fault == "price":
        event.product_details[0].price = -1.0
    elif fault == "quantity":
        event.product_details[0].quantity = _ABSURD_QUANTITY
    elif fault == "time":
        event.event_time.FromMicroseconds(_ABSURD_YEAR_US)
    elif fault == "unknown-type":
        event.event_type = "teleport"
    elif fault == "missing":
        event.visitor_id = event.user_id = ""
    else:
        event.visitor_id = "x" * 300


def _event_id(day: int, number: int) -> str:
    return f"shop-{day}-{number}"


def _visitor(user: int, device: int) -> str:
    return f"device-{user}-{device}"


def _bot(visit: int) -> str:
    return f"bot-{-1 - visit}"


def _channel(user: int, device: int) -> Channel.ValueType:
    return CHANNEL_WEB if device == 0 else CHANNEL_APP if user % 2 else CHANNEL_MOBILE_WEB
