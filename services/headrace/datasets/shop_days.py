"""What happens in the simulated shop, a day at a time, in columns.

A visit: a person with latent tastes comes for a category (their taste × the season), sees what draws looks there and
opens what suits them: utility = brand affinity + quality + discount − price sensitivity × relative price + noise.
Utility also decides carts and purchases. Consumables run out and are bought again.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from datetime import datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from headrace.datasets.shop_catalogue import BRANDS, CATEGORIES, Catalogue, Floats, Ints
from headrace.datasets.times import us

HOME, CATEGORY, SEARCH, VIEW, CART, REMOVE, PURCHASE, CANCEL = range(8)

# planted faults, by the rule of the door that finds them
FAULTS = ("", "price", "quantity", "time", "unknown-type", "missing", "too-long")

_CANDIDATES = 24
_MOST_VIEWS = 12
_SECOND_US = 1_000_000
_SHARE_SEARCHING = 0.35
_SHARE_REMOVED = 0.06
_SHARE_CHECKED_OUT = 0.6
_SHARE_CANCELLED = 0.04
_SHARE_REPEATED = 0.008
_SHARE_FAULTY = 0.002
_SHARE_BOUGHT_AGAIN = 0.8
# what liking loses when a person has the product
_SATED = 4.0
_BOT_VIEWS = 900


@dataclass(frozen=True)
class People:
    """Users in columns: their tastes and habits. `tastes`: users × categories, sums to 1 by user;
    `brand_affinity`: users × brands, about −2 .. 2.
    """

    tastes: Floats
    brand_affinity: Floats
    price_sensitivity: Floats
    visits_a_day: Floats
    share_logged_in: Floats
    devices: Ints


@dataclass(frozen=True)
class Promotion:
    """A price cut on some products for some days; `depth` 0.2 takes a fifth off."""

    products: Ints
    first_day: int
    end_day: int
    depth: float


@dataclass(frozen=True)
class Rows:
    """Events of a day in the order of arrival. `visit`: which visit of the day (a bot: −1 − bot).

    `order`: the day-wide number of the purchase that a PURCHASE or CANCEL is about, else −1. `product`: −1 when the
    event has none or several. `number`: names the event; a repeat has the number of what it repeats.
    """

    time_us: Ints
    kind: Ints
    visit: Ints
    product: Ints
    order: Ints
    fault: Ints
    number: Ints
    is_repeat: NDArray[np.bool_]

    def take(self, places: NDArray[np.int64] | NDArray[np.bool_]) -> Rows:
        return Rows(*(getattr(self, column.name)[places] for column in fields(Rows)))

    @staticmethod
    def join(parts: list[Rows]) -> Rows:
        return Rows(*(np.concatenate([getattr(part, column.name) for part in parts]) for column in fields(Rows)))


@dataclass(frozen=True)
class Visits:
    """The visits of a day in columns."""

    user: Ints
    device: Ints
    category: Ints
    start_us: Ints
    is_logged_in: NDArray[np.bool_]
    is_searching: NDArray[np.bool_]


@dataclass(frozen=True)
class Order:
    """A purchase: who, from which device, what. `day` and `number` name its event."""

    day: int
    number: int
    user: int
    device: int
    products: tuple[int, ...]


@dataclass(frozen=True)
class Day:
    """One day of the shop: rows, their visits, the orders that rows are about, and the prices."""

    day: int
    rows: Rows
    visits: Visits
    orders: list[Order]
    price: Floats


def make_people(rng: np.random.Generator, users: int, visits_a_day: float) -> People:
    """Uneven people: few tastes each, some come daily and most seldom."""
    activity = rng.lognormal(0.0, 1.0, users)
    return People(
        tastes=rng.dirichlet(np.full(len(CATEGORIES), 0.25), users),
        brand_affinity=rng.normal(0.0, 1.0, (users, len(BRANDS))),
        price_sensitivity=rng.lognormal(-0.2, 0.5, users),
        visits_a_day=activity / activity.mean() * visits_a_day,
        share_logged_in=rng.beta(2.0, 2.0, users),
        devices=rng.integers(1, 3, users),
    )


def make_promotions(rng: np.random.Generator, catalogue: Catalogue, days: int) -> list[Promotion]:
    """About one a week and a half, each on a third of a category."""
    promotions = []
    for first_day in range(2, days, 5):
        kind = int(rng.integers(0, len(CATEGORIES)))
        of_kind = np.arange(catalogue.first[kind], catalogue.first[kind + 1])
        on_sale = of_kind[(rng.random(len(of_kind)) < 0.35) & (catalogue.launch_day[of_kind] <= first_day)]
        # the cuts of one product do not overlap: each lasts until the next begins
        promotions.append(Promotion(on_sale, first_day, min(first_day + 5, days), float(rng.uniform(0.15, 0.4))))
    return promotions


def utility(people: People, catalogue: Catalogue, price: Floats, users: Ints, products: Ints) -> Floats:
    """How well products suit users; the arrays are broadcast against each other."""
    typical = np.array([entry.price for entry in CATEGORIES])[catalogue.category[products]]
    cut = 1.0 - price[products] / catalogue.price[products]
    dearness = np.log(price[products] / typical)
    liking = people.brand_affinity[users, catalogue.brand[products]] + catalogue.quality[products] + 3.0 * cut
    return np.asarray(liking - people.price_sensitivity[users] * dearness)


class ShopDays:
    """Days one after the other; each depends on the seed and the days before."""

    def __init__(
        self, seed: int, start: datetime, catalogue: Catalogue, people: People, promotions: list[Promotion], bots: int
    ) -> None:
        self._seed, self._start = seed, start
        self._catalogue, self._people, self._promotions = catalogue, people, promotions
        self._bots = bots
        # nobody needs the same lamp twice
        self._has = np.zeros((len(people.devices), len(catalogue.ids)), dtype=np.bool_)
        self._due: dict[int, list[tuple[int, int]]] = defaultdict(list)
        self._returns: dict[int, list[Order]] = defaultdict(list)

    def run(self, days: int) -> Iterator[Day]:
        """Yields `days` days."""
        for day in range(days):
            yield self._day(day, np.random.default_rng([self._seed, day]))

    def price_on(self, day: int) -> Floats:
        """Every product's price on a day."""
        price = self._catalogue.price.copy()
        for promotion in self._promotions:
            if promotion.first_day <= day < promotion.end_day:
                price[promotion.products] = np.round(price[promotion.products] * (1.0 - promotion.depth), 2)
        return price

    def _day(self, day: int, rng: np.random.Generator) -> Day:
        price = self.price_on(day)
        again = self._due.pop(day, [])
        visits = self._visits(day, rng, np.array(again, dtype=np.int64).reshape(-1, 2))
        shown, liking = self._shown(day, rng, visits, price)
        for place, (_, product) in enumerate(again):
            shown[place, 0], liking[place, 0] = product, 9.0
        rows, bought = _behaviour(rng, visits, shown, liking, len(again))
        orders = _orders(day, visits, bought)
        returned = self._returns.pop(day, [])
        parts = [rows, *self._bot_rows(day, rng), _return_rows(self._at(day), rng, len(orders), len(returned))]
        joined = Rows.join(parts)
        joined = joined.take(np.argsort(joined.time_us, kind="stable"))
        joined = replace(joined, number=np.arange(len(joined.kind)))
        orders = _numbered(orders, joined)
        self._plan(day, rng, orders)
        return Day(day, _repeated(rng, _faulty(rng, joined)), visits, [*orders, *returned], price)

    def _at(self, day: int) -> int:
        return us(self._start + timedelta(days=day))

    def _visits(self, day: int, rng: np.random.Generator, again: Ints) -> Visits:
        people = self._people
        count = rng.poisson(people.visits_a_day)
        user = np.concatenate([again[:, 0], rng.permutation(np.repeat(np.arange(len(count)), count))])
        size = len(user)
        wanted = people.tastes[user] * _season(self._start + timedelta(days=day))
        cumulative = np.cumsum(wanted, axis=1)
        draws = rng.random((size, 1)) * cumulative[:, -1:]
        category = (draws > cumulative).sum(axis=1).clip(max=len(CATEGORIES) - 1)
        category[: len(again)] = self._catalogue.category[again[:, 1]]
        # most come after lunch or in the evening
        hour = np.where(rng.random(size) < 0.35, rng.normal(12.8, 1.5, size), rng.normal(19.5, 2.0, size))
        return Visits(
            user=user,
            device=(rng.random(size) * people.devices[user]).astype(np.int64),
            category=category,
            start_us=self._at(day) + (hour.clip(0.5, 22.5) * 3600 * _SECOND_US).astype(np.int64),
            is_logged_in=rng.random(size) < people.share_logged_in[user],
            is_searching=rng.random(size) < _SHARE_SEARCHING,
        )

    def _shown(self, day: int, rng: np.random.Generator, visits: Visits, price: Floats) -> tuple[Ints, Floats]:
        # what each visit opens, best first, and how well it is liked
        catalogue = self._catalogue
        appeal = np.where(catalogue.launch_day <= day, catalogue.appeal, 0.0)
        # a new product is advertised in its first days
        appeal *= np.where(day - catalogue.launch_day < 4, 3.0, 1.0)
        cumulative = np.concatenate([[0.0], np.cumsum(appeal)])
        low, high = (cumulative[catalogue.first[visits.category + side]][:, None] for side in (0, 1))
        draws = low + rng.random((len(visits.user), _CANDIDATES)) * (high - low)
        seen = np.searchsorted(cumulative, draws, side="right").clip(1, len(appeal)) - 1
        users = visits.user[:, None]
        liking = utility(self._people, catalogue, price, users, seen) - _SATED * self._has[users, seen]
        order = np.argsort(-(liking + rng.gumbel(0.0, 0.7, liking.shape)), axis=1, kind="stable")[:, :_MOST_VIEWS]
        return np.take_along_axis(seen, order, axis=1), np.take_along_axis(liking, order, axis=1)

    def _bot_rows(self, day: int, rng: np.random.Generator) -> list[Rows]:
        parts = []
        for bot in range(self._bots):
            if rng.random() < 0.1:
                # more pages in a minute than anybody reads, nothing bought
                begin_us = self._at(day) + int(rng.integers(0, 24 * 60)) * 60 * _SECOND_US
                times = np.sort(begin_us + rng.integers(0, 60 * _SECOND_US, _BOT_VIEWS))
                on_sale = np.flatnonzero(self._catalogue.launch_day <= day)
                parts.append(_rows(times, VIEW, np.full(_BOT_VIEWS, -1 - bot), rng.choice(on_sale, _BOT_VIEWS)))
        return parts

    def _plan(self, day: int, rng: np.random.Generator, orders: list[Order]) -> None:
        for order in orders:
            if rng.random() < _SHARE_CANCELLED:
                self._returns[day + 1 + int(rng.integers(0, 3))].append(order)
                continue
            for product in order.products:
                lasts = CATEGORIES[self._catalogue.category[product]].lasts_days
                self._has[order.user, product] = not lasts
                if lasts and rng.random() < _SHARE_BOUGHT_AGAIN:
                    self._due[day + max(2, round(rng.normal(lasts, 0.15 * lasts)))].append((order.user, product))


def _season(date: datetime) -> Floats:
    # a category sells up to three times as much in its month as half a year from it
    peaks = np.array([entry.peak_month for entry in CATEGORIES])
    month = date.month + date.day / 31.0
    swing = np.cos((month - peaks) / 12.0 * 2.0 * np.pi)
    return np.where(peaks == 0, 1.0, np.exp(0.55 * swing))


def _behaviour(
    rng: np.random.Generator, visits: Visits, shown: Ints, liking: Floats, again: int
) -> tuple[Rows, dict[int, tuple[int, ...]]]:
    size = len(visits.user)
    views = (1 + rng.poisson(3.0, size)).clip(max=_MOST_VIEWS)
    views[:again] = 1
    is_viewed = np.arange(_MOST_VIEWS) < views[:, None]
    pauses = (rng.exponential(35.0, (size, _MOST_VIEWS)) + 3.0) * _SECOND_US
    view_us = visits.start_us[:, None] + np.cumsum(pauses, axis=1).astype(np.int64)
    chance = 1.0 / (1.0 + np.exp(3.6 - 1.1 * liking))
    is_carted = is_viewed & (rng.random(shown.shape) < chance)
    is_removed = is_carted & (rng.random(shown.shape) < _SHARE_REMOVED)
    is_kept = is_carted & ~is_removed
    buys = is_kept.any(axis=1) & (rng.random(size) < _SHARE_CHECKED_OUT)
    buys[:again] |= is_kept[:again].any(axis=1)
    visit, place = np.nonzero(is_viewed)
    first = np.where(visits.is_searching, SEARCH, np.where(rng.random(size) < 0.5, HOME, CATEGORY))
    parts = [
        _rows(visits.start_us, first, np.arange(size), np.full(size, -1)),
        _rows(view_us[visit, place], VIEW, visit, shown[visit, place]),
    ]
    for chosen, kind, delay_s in ((is_carted, CART, 2), (is_removed, REMOVE, 3)):
        visit, place = np.nonzero(chosen)
        parts.append(_rows(view_us[visit, place] + delay_s * _SECOND_US, kind, visit, shown[visit, place]))
    buyer = np.flatnonzero(buys)
    last_us = view_us[buyer, views[buyer] - 1] + 45 * _SECOND_US
    parts.append(_rows(last_us, PURCHASE, buyer, np.full(len(buyer), -1), np.arange(len(buyer))))
    bought = {int(v): tuple(dict.fromkeys(shown[v][is_kept[v]].tolist())) for v in buyer}
    return Rows.join(parts), bought


def _rows(times: Ints, kind: Ints | int, visit: Ints, product: Ints, order: Ints | None = None) -> Rows:
    size = len(times)
    return Rows(
        time_us=times,
        kind=np.broadcast_to(np.asarray(kind), (size,)),
        visit=visit,
        product=product,
        order=np.full(size, -1) if order is None else order,
        fault=np.zeros(size, dtype=np.int64),
        number=np.zeros(size, dtype=np.int64),
        is_repeat=np.zeros(size, dtype=np.bool_),
    )


def _orders(day: int, visits: Visits, bought: dict[int, tuple[int, ...]]) -> list[Order]:
    return [
        Order(day, -1, int(visits.user[visit]), int(visits.device[visit]), products)
        for visit, products in bought.items()
    ]


def _return_rows(begin_us: int, rng: np.random.Generator, first_order: int, count: int) -> Rows:
    times = begin_us + rng.integers(9 * 3600, 18 * 3600, count) * _SECOND_US
    return _rows(times, CANCEL, np.full(count, -1), np.full(count, -1), first_order + np.arange(count))


def _numbered(orders: list[Order], rows: Rows) -> list[Order]:
    is_purchase = rows.kind == PURCHASE
    number = dict(zip(rows.order[is_purchase].tolist(), rows.number[is_purchase].tolist(), strict=True))
    return [replace(order, number=number[place]) for place, order in enumerate(orders)]


def _faulty(rng: np.random.Generator, rows: Rows) -> Rows:
    # a broken copy of a view goes out beside the good one, under a number of its own
    views = np.flatnonzero((rows.kind == VIEW) & (rows.visit >= 0))
    picked = views[rng.random(len(views)) < _SHARE_FAULTY * 2]
    copies = rows.take(picked)
    fault = 1 + np.arange(len(picked)) % (len(FAULTS) - 1)
    number = len(rows.kind) + np.arange(len(picked))
    broken = replace(copies, fault=fault, number=number)
    return _inserted(rows, broken, picked + 1)


def _repeated(rng: np.random.Generator, rows: Rows) -> Rows:
    # sent again, word for word, a few events later
    picked = np.flatnonzero((rng.random(len(rows.kind)) < _SHARE_REPEATED) & (rows.fault == 0) & (rows.visit >= 0))
    again = replace(rows.take(picked), is_repeat=np.ones(len(picked), dtype=np.bool_))
    return _inserted(rows, again, np.minimum(picked + 1 + rng.integers(0, 20, len(picked)), len(rows.kind)))


def _inserted(rows: Rows, others: Rows, before: Ints) -> Rows:
    places = np.concatenate([np.arange(len(rows.kind), dtype=np.float64), before - 0.5])
    return Rows.join([rows, others]).take(np.argsort(places, kind="stable"))
