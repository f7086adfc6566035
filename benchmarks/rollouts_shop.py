"""People of the simulated shop in front of lists that releases order: who opens what, when, and what the truth is.

A visit wants a category and has candidates of it, drawn as the shop draws what is looked at. A release scores them:
how well each suits the person, with an error of its own. The best are shown; the person opens what suits them, less
the further down it is, puts some of it into the cart and buys. A better release is one with less error.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headrace.datasets.shop_catalogue import CATEGORIES, Catalogue, make_catalogue
from headrace.datasets.shop_days import People, make_people, utility

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]
Ints = NDArray[np.int64]

POPULATION, PRODUCTS = 20_000, 600
CANDIDATES, SHOWN = 16, 8
# the error of the release that serves, beside tastes that differ by about 1.3
STABLE_ERROR = 1.0
# some people open much and some little; and of one person's visits some are to buy and some to pass the time
_EAGERNESS, _INTENT = 0.7, 0.7
_AFTER_LUNCH = 0.35
_SIGHT = (1.0 / (1.0 + 0.25 * np.arange(SHOWN))).astype(np.float32)


@dataclass(frozen=True)
class Visits:
    """In order of time. `hour`: since the first day's beginning, a fraction."""

    person: Ints
    hour: Floats
    liking: Singles
    intent: Singles

    def __len__(self) -> int:
        return len(self.person)

    def take(self, rows: NDArray[np.int64] | NDArray[np.bool_]) -> Visits:
        return Visits(self.person[rows], self.hour[rows], self.liking[rows], self.intent[rows])


@dataclass(frozen=True)
class Outcomes:
    """What came of visits, a row each."""

    clicks: Ints
    carts: Ints
    purchases: Ints


class Shop:
    """One world: its people, products, and how often they come, such that `active` people come on a day."""

    def __init__(self, rng: np.random.Generator, active: int, population: int = POPULATION) -> None:
        self.people: People = make_people(rng, population, 1.0)
        self._catalogue: Catalogue = make_catalogue(rng, PRODUCTS, 1)
        self._eagerness = rng.normal(0.0, _EAGERNESS, population)
        self.visits_a_day = _rates(self.people.visits_a_day, active)
        appeal = np.sqrt(self._catalogue.appeal)
        self._cumulative = np.concatenate([[0.0], np.cumsum(appeal)])

    def visits(self, rng: np.random.Generator, first_day: int, days: int) -> Visits:
        """The visits of some days."""
        counts = rng.poisson(np.broadcast_to(self.visits_a_day, (days, len(self.visits_a_day))))
        day, person = (np.repeat(where, counts.ravel()) for where in np.indices(counts.shape).reshape(2, -1))
        size = len(person)
        clock = np.where(rng.random(size) < _AFTER_LUNCH, rng.normal(12.8, 1.5, size), rng.normal(19.5, 2.0, size))
        hour = 24.0 * (first_day + day) + clock.clip(0.5, 22.5)
        order = np.argsort(hour, kind="stable")
        person, hour = person[order], hour[order]
        intent = (self._eagerness[person] + rng.normal(0.0, _INTENT, size)).astype(np.float32)
        return Visits(person, hour, self._liking(rng, person), intent)

    def _liking(self, rng: np.random.Generator, person: Ints) -> Singles:
        # how well the candidates of each visit suit the person
        tastes = self.people.tastes[person]
        below = np.cumsum(tastes, axis=1)
        wanted = (rng.random((len(person), 1)) * below[:, -1:] > below).sum(axis=1).clip(max=len(CATEGORIES) - 1)
        first = self._catalogue.first
        low, high = (self._cumulative[first[wanted + side]][:, None] for side in (0, 1))
        draws = low + rng.random((len(person), CANDIDATES)) * (high - low)
        seen = (np.searchsorted(self._cumulative, draws, side="right") - 1).clip(0, PRODUCTS - 1)
        return utility(self.people, self._catalogue, self._catalogue.price, person[:, None], seen).astype(np.float32)


def scores(rng: np.random.Generator, liking: Singles, error: float) -> Singles:
    """What a release thinks of candidates."""
    return liking + np.float32(error) * rng.standard_normal(liking.shape, dtype=np.float32)


def respond(rng: np.random.Generator, visits: Visits, error: float) -> Outcomes:
    """What people do with the lists that a release of this error shows them."""
    best = np.argpartition(-scores(rng, visits.liking, error), SHOWN - 1, axis=1)[:, :SHOWN]
    # the best few are not sorted again: which of them is first is then as good as drawn by lot
    liking = np.take_along_axis(visits.liking, best, axis=1)
    clicked = rng.random(liking.shape, dtype=np.float32) < click_chance(liking, visits.intent)
    carted = clicked & (rng.random(liking.shape, dtype=np.float32) < 1.0 / (1.0 + np.exp(2.0 - 1.1 * liking)))
    carts = carted.sum(axis=1)
    bought = (carts > 0) & (rng.random(len(carts)) < 0.6)
    return Outcomes(clicked.sum(axis=1), carts, bought.astype(np.int64))


def click_chance(liking: Singles, intent: Singles) -> Singles:
    """Of products in shown order, given what their persons think of them."""
    return np.asarray(_SIGHT / (1.0 + np.exp(2.2 - 1.1 * liking - intent[:, None])))


def errors_for(changes: tuple[float, ...], seed: int, visits: int = 400_000) -> dict[float, float]:
    """By relative change of true clicks, the error of the release that has it: found by halving, on fixed draws."""
    shop = Shop(np.random.default_rng(seed), POPULATION // 5)
    drawn = shop.visits(np.random.default_rng(seed + 1), 0, max(1, visits // int(shop.visits_a_day.sum())))
    stable = _mean_clicks(drawn, STABLE_ERROR, seed)
    found = {0.0: STABLE_ERROR}
    for change in changes:
        low, high = (0.0, STABLE_ERROR) if change > 0 else (STABLE_ERROR, 20.0)
        for _ in range(14):
            middle = (low + high) / 2.0
            is_worse = _mean_clicks(drawn, middle, seed) < stable * (1.0 + change)
            low, high = (low, middle) if is_worse else (middle, high)
        found[change] = (low + high) / 2.0
    return found


def _mean_clicks(visits: Visits, error: float, seed: int) -> float:
    # expected rather than drawn: the halving then sees the error alone
    rng = np.random.default_rng(seed + 2)
    best = np.argpartition(-scores(rng, visits.liking, error), SHOWN - 1, axis=1)[:, :SHOWN]
    return float(click_chance(np.take_along_axis(visits.liking, best, axis=1), visits.intent).sum(axis=1).mean())


def _rates(activity: Floats, active: int) -> Floats:
    # visits a day, in proportion to activity, such that so many come at least once
    low, high = 0.0, 100.0
    for _ in range(60):
        scale = (low + high) / 2.0
        low, high = (low, scale) if (1.0 - np.exp(-activity * scale)).sum() > active else (scale, high)
    return activity * high
