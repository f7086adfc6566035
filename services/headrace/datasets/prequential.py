"""The judge of a replay: predict each week's baskets from what was known at its start, then go on.

Protocol (see the data set's README): for every ISO week from 2011-03-07, every identified basket is predicted at the
state of the week's start. A basket is the products that a known customer bought, at a price above 0, on one
invoice at one moment; cancellations are none. Recall@20, NDCG@20 and Hit@20 are means over baskets.

Two floors that need no model are kept from the same purchases, updated by the week: decayed popularity, and the
customer's own most bought products, then popularity.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from headrace.datasets.source import Dataset
from headrace.datasets.times import us
from headrace.v1.common_pb2 import UserEvent

K = 20
FIRST_WEEK = datetime(2011, 3, 7, tzinfo=UTC)
HELD_OUT_FROM = datetime(2011, 7, 1, tzinfo=UTC)

# what is left of a popularity count after a week in the published floors
PUBLISHED_WEEKLY_DECAY = 0.7

_WEEK = timedelta(weeks=1)
_GAINS = [1 / math.log2(place + 2) for place in range(K)]
_IDEAL = [sum(_GAINS[: size + 1]) for size in range(K)]


@dataclass(frozen=True, slots=True)
class Basket:
    """What one customer bought at once. `is_cold`: had bought nothing before the week."""

    user_id: str
    products: frozenset[str]
    is_cold: bool


@dataclass(frozen=True, slots=True)
class Quality:
    """Means over `baskets`."""

    baskets: int
    recall: float
    ndcg: float
    hit: float


@dataclass(frozen=True, slots=True)
class Week:
    """One ISO week. `baskets` are to be predicted from the floors and states before `events` are sent.

    `is_judged` is False in the warm-up, which has no baskets to predict.
    """

    name: str
    start: datetime
    is_judged: bool
    baskets: tuple[Basket, ...]
    events: list[list[UserEvent]]
    floors: Floors

    def users(self) -> list[str]:
        """Whose lists are asked for, each once."""
        return list(dict.fromkeys(basket.user_id for basket in self.baskets))


class Floors:
    """What counting alone can predict. Time passes by `end_week`."""

    def __init__(self, weekly_decay: float = PUBLISHED_WEEKLY_DECAY) -> None:
        self._decay = weekly_decay
        self._weights: dict[str, float] = {}
        self._own: dict[str, Counter[str]] = defaultdict(Counter)
        self._order: dict[str, int] = {}

    def knows(self, user_id: str) -> bool:
        """Whether the customer bought anything before this week."""
        return user_id in self._own

    def popular(self) -> list[str]:
        """The K products with the greatest decayed counts, the same for all."""
        return list(self._order)[:K]

    def personal(self, user_id: str) -> list[str]:
        """The customer's own products by times bought, filled up with popular ones."""
        own = self._own.get(user_id, Counter())
        ranked = sorted(own, key=lambda product: (-own[product], self._order[product]))[:K]
        missing = (product for product in self._order if product not in own)
        return ranked + [product for product, _ in zip(missing, range(K - len(ranked)), strict=False)]

    def end_week(self, purchases: Iterable[Basket]) -> None:
        """Counts a week's baskets, after all before have faded by a week."""
        weights = {product: weight * self._decay for product, weight in self._weights.items()}
        for basket in purchases:
            for product in basket.products:
                weights[product] = weights.get(product, 0.0) + 1.0
            self._own[basket.user_id].update(basket.products)
        self._weights = weights
        # equal weights go by product id, so that every run ranks alike
        ranked = sorted(weights, key=lambda product: (-weights[product], product))
        self._order = {product: place for place, product in enumerate(ranked)}


def weeks(
    dataset: Dataset,
    *,
    weekly_decay: float = PUBLISHED_WEEKLY_DECAY,
    first_week: datetime = FIRST_WEEK,
    start: datetime | None = None,
    until: datetime | None = None,
) -> Iterator[Week]:
    """Every week of the data set in order, warm-up included, each with the floors as they stood at its start.

    Events before `start`, or from `until` on, are as if they had not been.
    The floors of a Week move on when the next one is asked for.
    """
    floors = Floors(weekly_decay)
    for monday, events in _by_week(dataset, start, until):
        bought = _baskets(events, floors)
        is_judged = monday >= first_week
        yield Week(_name(monday), monday, is_judged, bought if is_judged else (), events, floors)
        floors.end_week(bought)


def _by_week(
    dataset: Dataset, start: datetime | None, until: datetime | None
) -> Iterator[tuple[datetime, list[list[UserEvent]]]]:
    span = dataset.span
    first = max(span.start, start) if start else span.start
    monday = (first - timedelta(days=first.weekday())).replace(hour=0, minute=0, second=0, microsecond=0)
    pending: list[list[UserEvent]] = []
    for batch in dataset.events(start, until):
        rest = batch
        while (cut := _first_from(rest, us(monday + _WEEK), us(span.end))) is not None:
            yield monday, [*pending, rest[:cut]] if cut else pending
            pending, rest, monday = [], rest[cut:], monday + _WEEK
        pending.append(rest)
    yield monday, pending


def _first_from(events: Sequence[UserEvent], begin_us: int, end_us: int) -> int | None:
    # events at absurd times, which some data sets hold, stay in the week of those around them
    begin_s, end_s = begin_us // 1_000_000, end_us // 1_000_000
    return next((place for place, event in enumerate(events) if begin_s <= event.event_time.seconds < end_s), None)


def _baskets(events: Iterable[Sequence[UserEvent]], floors: Floors) -> tuple[Basket, ...]:
    found: dict[tuple[str, str, int], set[str]] = defaultdict(set)
    for batch in events:
        for event in batch:
            if event.event_type == "purchase-complete" and event.user_id:
                bought = [d.product_id for d in event.product_details if d.price > 0 and d.quantity >= 0]
                if bought:
                    found[event.user_id, event.transaction_id, event.event_time.seconds].update(bought)
    return tuple(
        Basket(user_id, frozenset(products), not floors.knows(user_id)) for (user_id, _, _), products in found.items()
    )


def _name(start: datetime) -> str:
    year, week, _ = start.isocalendar()
    return f"{year}-W{week:02d}"


@dataclass
class Scores:
    """Adds up how well ranked lists met their baskets, by slice: all, known and cold customers."""

    _sums: dict[str, list[float]] = field(default_factory=lambda: defaultdict(lambda: [0.0] * 4))

    def add(self, basket: Basket, ranked: Sequence[str]) -> None:
        """Counts one prediction: the first K of `ranked`, best first."""
        hits = [place for place, product in enumerate(ranked[:K]) if product in basket.products]
        size = len(basket.products)
        ndcg = sum(_GAINS[place] for place in hits) / _IDEAL[min(size, K) - 1]
        for name in ("all", "cold" if basket.is_cold else "known"):
            sums = self._sums[name]
            for place, value in enumerate((1.0, len(hits) / size, ndcg, float(bool(hits)))):
                sums[place] += value

    def add_week(self, week: Week, ranked: Mapping[str, Sequence[str]]) -> None:
        """Counts every basket of a week by the lists of its users; a user without a list gets nothing right."""
        for basket in week.baskets:
            self.add(basket, ranked.get(basket.user_id, ()))

    def quality(self, name: str = "all") -> Quality:
        """Of "all", "known" or "cold"; zeros when there was none."""
        baskets, *sums = self._sums.get(name, [0.0] * 4)
        recall, ndcg, hit = (value / max(baskets, 1.0) for value in sums)
        return Quality(int(baskets), recall, ndcg, hit)


def floor_lists(week: Week) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """The two floors' lists for the users of a week: by popularity, and personal."""
    users = week.users()
    popular = week.floors.popular()
    return dict.fromkeys(users, popular), {user: week.floors.personal(user) for user in users}


def tuned_weekly_decay(
    open_weeks: Callable[[float], Iterator[Week]],
    candidates: Sequence[float] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9),
) -> float:
    """The decay whose popular list recalls most before the held-out time.

    `open_weeks(decay)` gives the weeks: `lambda decay: weeks(dataset, weekly_decay=decay, until=HELD_OUT_FROM)`.
    """

    def recall(decay: float) -> float:
        scores = Scores()
        for week in open_weeks(decay):
            scores.add_week(week, floor_lists(week)[0])
        return scores.quality().recall

    return max(candidates, key=recall)
