from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest

from headrace.datasets.prequential import (
    FIRST_WEEK,
    HELD_OUT_FROM,
    Basket,
    Floors,
    Quality,
    Scores,
    Week,
    floor_lists,
    tuned_weekly_decay,
    weeks,
)
from headrace.datasets.source import Dataset, ProductUpdate, Span, data_folder, find
from headrace.datasets.times import timestamp, us
from headrace.v1.common_pb2 import Product, ProductDetail, UserEvent

MONDAY = datetime(2025, 1, 6, tzinfo=UTC)
DAY = timedelta(days=1)


@dataclass
class Purchases:
    """Purchases by hand: (day, user, order, products)."""

    rows: list[tuple[float, str, str, str]]
    name: str = "purchases"
    is_simulated: bool = True
    licence: str = "none"

    @property
    def span(self) -> Span:
        return Span(MONDAY + self.rows[0][0] * DAY, MONDAY + 100 * DAY)

    def products(self) -> Iterator[list[Product]]:
        return iter(())

    def product_updates(self, start: datetime | None = None, end: datetime | None = None) -> Iterator[ProductUpdate]:
        return iter(())

    def events(self, start: datetime | None = None, end: datetime | None = None) -> Iterator[list[UserEvent]]:
        kept = [
            row
            for row in self.rows
            if (start is None or MONDAY + row[0] * DAY >= start) and (end is None or MONDAY + row[0] * DAY < end)
        ]
        yield [bought(*row) for row in kept]


def bought(day: float, user: str, order: str, products: str, price: float = 1.0) -> UserEvent:
    return UserEvent(
        event_type="purchase-complete",
        user_id=user,
        transaction_id=order,
        event_time=timestamp(us(MONDAY + day * DAY)),
        product_details=[ProductDetail(product_id=name, quantity=1, price=price) for name in products.split()],
    )


def judged(dataset: Dataset, first_week: datetime = MONDAY) -> list[tuple[str, tuple[Basket, ...]]]:
    return [(week.name, week.baskets) for week in weeks(dataset, first_week=first_week)]


def test_baskets_are_grouped_by_week_order_and_moment() -> None:
    rows = [(0.0, "u", "o1", "a"), (0.0, "u", "o1", "b"), (1.0, "v", "o2", "a"), (7.0, "u", "o3", "c")]

    (first, second) = judged(Purchases(rows))

    assert first == ("2025-W02", (Basket("u", frozenset("ab"), True), Basket("v", frozenset("a"), True)))
    assert second == ("2025-W03", (Basket("u", frozenset("c"), False),))


def test_a_customer_stays_cold_until_the_week_of_the_first_purchase_ends() -> None:
    rows = [(0.0, "u", "o1", "a"), (6.0, "u", "o2", "a"), (7.0, "u", "o3", "a")]

    colds = [basket.is_cold for _, baskets in judged(Purchases(rows)) for basket in baskets]

    assert colds == [True, True, False]


def test_weeks_without_events_are_there_and_the_warm_up_is_not_judged() -> None:
    rows = [(0.0, "u", "o1", "a"), (15.0, "u", "o2", "a")]

    found = list(weeks(Purchases(rows), first_week=MONDAY + 14 * DAY))

    assert [(week.name, week.is_judged, len(week.baskets)) for week in found] == [
        ("2025-W02", False, 0),
        ("2025-W03", False, 0),
        ("2025-W04", True, 1),
    ]
    assert [sum(map(len, week.events)) for week in found] == [1, 0, 1]


def test_anonymous_free_and_cancelled_purchases_are_no_baskets() -> None:
    anonymous = bought(0, "", "o1", "a")
    anonymous.visitor_id = "v"
    free = bought(0, "u", "o2", "a", price=0.0)
    cancelled = bought(0, "u", "o3", "a")
    cancelled.event_type = "purchase-cancel"

    class Odd(Purchases):
        def events(self, start: datetime | None = None, end: datetime | None = None) -> Iterator[list[UserEvent]]:
            yield [anonymous, free, cancelled]

    assert judged(Odd([(0.0, "u", "", "")])) == [("2025-W02", ())]


def test_an_event_at_an_absurd_time_stays_in_its_week() -> None:
    rows = [(0.0, "u", "o1", "a"), (20_000.0, "u", "o2", "a"), (1.0, "v", "o3", "a")]

    ((_, baskets),) = judged(Purchases(rows))

    assert len(baskets) == 3


def test_events_before_the_start_never_were() -> None:
    rows = [(0.0, "u", "o1", "a"), (8.0, "u", "o2", "a")]

    (week,) = weeks(Purchases(rows), start=MONDAY + 7 * DAY, first_week=MONDAY)

    assert (week.name, week.baskets) == ("2025-W03", (Basket("u", frozenset("a"), True),))


def test_popularity_fades_by_the_week() -> None:
    floors = Floors(weekly_decay=0.5)
    floors.end_week([Basket("u", frozenset("a"), True), Basket("v", frozenset("a"), True)])
    floors.end_week([Basket("w", frozenset("b"), True), Basket("x", frozenset("b"), True)])

    assert floors.popular() == ["b", "a"]


def test_own_purchases_come_before_popular_ones() -> None:
    floors = Floors()
    floors.end_week([Basket("u", frozenset("z"), True), *[Basket("v", frozenset("ab"), True)] * 3])

    assert floors.personal("u") == ["z", "a", "b"]
    assert floors.personal("nobody") == ["a", "b", "z"]
    assert not floors.knows("nobody")


def test_recall_ndcg_and_hit_of_a_known_list() -> None:
    scores = Scores()
    scores.add(Basket("u", frozenset("ab"), False), ["x", "a", *"cdefg"])

    ideal = 1 + 1 / math.log2(3)
    found = scores.quality()
    assert (found.baskets, found.recall, found.hit) == (1, 0.5, 1.0)
    assert found.ndcg == pytest.approx((1 / math.log2(3)) / ideal)
    assert scores.quality("known").baskets == 1
    assert scores.quality("cold") == Quality(0, 0.0, 0.0, 0.0)


def test_only_the_first_twenty_places_count() -> None:
    scores = Scores()
    scores.add(Basket("u", frozenset(["hit"]), True), [str(place) for place in range(20)] + ["hit"])

    assert scores.quality().recall == 0.0


def test_a_user_without_a_list_gets_nothing_right() -> None:
    (week,) = weeks(Purchases([(0.0, "u", "o1", "a"), (0.5, "v", "o2", "a")]), first_week=MONDAY)
    scores = Scores()
    scores.add_week(week, {"u": ["a"]})

    assert scores.quality() == Quality(2, 0.5, 0.5, 0.5)
    assert week.users() == ["u", "v"]


def test_the_decay_is_tuned_by_what_the_popular_list_recalls() -> None:
    # 21 products share week 1; from then on only the last one sells: the faster the old ones fade, the better
    names = [f"p{number:02d}" for number in range(21)]
    rows = [(0.0, f"u{copy}", f"o{copy}", " ".join(names[:20])) for copy in range(4)]
    rows += [(7.0 * week, "w", f"w{week}", names[20]) for week in range(1, 6)]
    dataset = Purchases(rows)

    def opened(decay: float) -> Iterator[Week]:
        return weeks(dataset, weekly_decay=decay, first_week=MONDAY)

    assert tuned_weekly_decay(opened, (0.2, 0.99)) == 0.2


@pytest.mark.timeout(120)
def test_the_published_floors_are_reproduced() -> None:
    folder = data_folder()
    if folder is None or not (folder / "online_retail").is_dir():
        pytest.skip("needs the online_retail data set: HEADRACE_DATA")
    popularity, personal, products = Scores(), Scores(), 0
    for week in weeks(find("online_retail")):
        popular_lists, personal_lists = floor_lists(week)
        popularity.add_week(week, popular_lists)
        personal.add_week(week, personal_lists)
        products += sum(len(basket.products) for basket in week.baskets)

    assert (popularity.quality().baskets, popularity.quality("cold").baskets, products) == (14_949, 2_741, 317_736)
    assert popularity.quality().recall == pytest.approx(0.0907, abs=2e-4)
    assert popularity.quality().ndcg == pytest.approx(0.1051, abs=2e-4)
    assert personal.quality().recall == pytest.approx(0.2336, abs=2e-4)
    assert personal.quality().ndcg == pytest.approx(0.2549, abs=2e-4)
    assert personal.quality("known").recall == pytest.approx(0.2685, abs=2e-4)
    assert personal.quality("cold").recall == pytest.approx(0.0777, abs=2e-4)
    assert FIRST_WEEK < HELD_OUT_FROM
