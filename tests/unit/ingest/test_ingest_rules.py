"""Each rule that needs a memory, by itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from headrace.ingest.arrivals import arrival
from headrace.ingest.cleaning import Limits, Rules
from headrace.ingest.limits import Violation
from headrace.ingest.rules import EXCUSABLE, REASONS, RULES
from headrace.ingest.settings import IngestSettings
from headrace.ingest.validation import EVENT_RULES
from headrace.v1.common_pb2 import Product, ProductDetail, UserEvent

MILLISECOND_US, SECOND_US, MINUTE_US = 1_000, 1_000_000, 60_000_000
BEGIN_US = 1_500_000_000 * SECOND_US + 1


class Shop:
    """Judges events one after another, each with an id of its own unless one is given."""

    def __init__(self, **limits: object) -> None:
        self.rules = Rules(Limits(**limits))  # type: ignore[arg-type]
        self.sent = 0

    def violations(
        self,
        event_type: str = "detail-page-view",
        product: str = "p",
        *,
        at_us: int = 0,
        visitor: str = "v",
        session: str = "s",
        event_id: str = "",
        price: float | None = None,
        quantity: int = 0,
        query: str = "",
    ) -> list[Violation]:
        self.sent += 1
        event = UserEvent(
            event_id=event_id or f"e{self.sent}",
            event_type=event_type,
            visitor_id=visitor,
            session_id=session,
            search_query=query,
        )
        if product:
            event.product_details.append(ProductDetail(product_id=product, quantity=quantity, price=price))
        event.event_time.FromMicroseconds(BEGIN_US + at_us)
        return self.rules.violations(arrival(event), self.rules.bounds(BEGIN_US + 10**15))

    def reasons(self, *args: object, **given: object) -> list[str]:
        return [violation.reason for violation in self.violations(*args, **given)]  # type: ignore[arg-type]

    def sells(self, product: str, price: float, times: int, quantity: int = 1) -> None:
        """People buy the product, none of them soon after another."""
        for _ in range(times):
            at_us, visitor = self.sent * MINUTE_US, f"buyer-{self.sent}"
            given = {"at_us": at_us, "visitor": visitor, "price": price, "quantity": quantity}
            assert self.reasons("purchase-complete", product, **given) == []


def test_every_rule_is_declared_once_with_settings_that_exist() -> None:
    names = [rule.name for rule in RULES]
    assert names == [
        "forgotten",
        *(name for name, _ in EVENT_RULES),
        *("bot", "bot-pattern", "repeat", "outlier", "cancel-unmatched", "cancel-exceeds"),
    ]
    assert set(REASONS) == set(names) - {"cancel-unmatched", "cancel-exceeds"}
    assert {"bot", "bot-pattern", "repeat", "outlier"} == EXCUSABLE
    assert {name for rule in RULES for name in rule.settings} <= IngestSettings.model_fields.keys()
    assert all(f"`{name}`" in Path("docs/design.md").read_text() for name in names)


def test_an_event_without_an_id_is_refused_where_ids_are_required() -> None:
    event = UserEvent(event_type="teleport", visitor_id="v")
    rules = Rules(Limits(require_event_ids=True))
    found = rules.violations(arrival(event), rules.bounds(BEGIN_US))
    assert [(one.reason, one.field) for one in found] == [
        ("missing", "event_id"),
        ("missing", "event_time"),
        ("unknown-type", "event_type"),
    ]


@pytest.mark.parametrize("price", [950.0, 95_000.0, 0.095, 0.001])
def test_a_price_far_from_the_usual_one_is_refused_with_both_and_the_score(price: float) -> None:
    shop = Shop()
    shop.sells("boots", 9.5, 10)
    (found,) = shop.violations(product="boots", price=price, at_us=10**9)
    assert (found.reason, found.field) == ("outlier", "product_details[0].price")
    assert found.description.startswith(f"must be like the usual 9.5, got {price:g}, a robust z-score of ")


def test_discounts_free_gifts_and_untold_prices_are_no_outliers() -> None:
    shop = Shop()
    shop.sells("boots", 9.5, 10)
    for price in (4.75, 1.0, 0.0, None, 40.0):
        assert shop.reasons(product="boots", price=price, at_us=shop.sent * MINUTE_US) == []


@pytest.mark.parametrize(("quantity", "reason"), [(96, []), (400, []), (1_000, ["outlier"]), (80_995, ["outlier"])])
def test_wholesale_is_taken_and_an_absurd_quantity_is_not(quantity: int, reason: list[str]) -> None:
    shop = Shop()
    shop.sells("boots", 9.5, 20)
    assert shop.reasons("add-to-cart", "boots", quantity=quantity, at_us=10**10) == reason
    assert shop.reasons("purchase-complete", "boots", quantity=quantity, at_us=10**10) == reason


def test_a_shop_that_sells_by_the_thousand_may() -> None:
    shop = Shop()
    shop.sells("nails", 0.01, 20, quantity=5_000)
    assert shop.reasons("purchase-complete", "nails", quantity=100_000, at_us=10**10) == []


def test_a_cancellation_takes_back_whatever_it_says() -> None:
    shop = Shop()
    shop.sells("boots", 9.5, 20)
    assert shop.reasons("purchase-cancel", "boots", quantity=80_995, price=9_500.0, at_us=10**10) == []


def test_a_product_that_nobody_met_is_judged_by_what_it_is_listed_at() -> None:
    shop = Shop()
    product = Product(id="new", title="New")
    product.price_info.price = 20.0
    shop.rules.list_product(product)
    assert shop.reasons(product="new", price=2_000.0) == ["outlier"]
    assert shop.reasons(product="new", price=15.0, at_us=MINUTE_US) == []


def test_a_product_that_is_not_listed_either_is_judged_by_the_whole_shop() -> None:
    shop = Shop()
    for number in range(40):
        shop.sells(f"p{number}", 5.0 + number % 7, 1)
    assert shop.reasons(product="new", price=500.0, at_us=10**10) == ["outlier"]
    assert shop.reasons(product="new", price=50.0, at_us=10**10 + MINUTE_US) == []


def test_the_first_values_of_an_empty_shop_are_taken() -> None:
    shop = Shop()
    assert [shop.reasons(product="p", price=price, at_us=shop.sent * MINUTE_US) for price in (1.0, 9e8, 1e-6)] == [
        []
    ] * 3


def test_a_new_level_becomes_the_usual_one_and_a_single_slip_does_not() -> None:
    shop = Shop()
    shop.sells("boots", 9.5, 40)
    found = [shop.reasons(product="boots", price=950.0, at_us=10**10 + n * MINUTE_US) for n in range(20)]
    assert found == [["outlier"]] * 16 + [[]] * 4
    assert shop.reasons(product="boots", price=9.5, at_us=10**11) == ["outlier"]


def test_an_odd_event_that_is_sent_again_and_again_stays_odd() -> None:
    shop = Shop()
    shop.sells("boots", 9.5, 40)
    assert {tuple(shop.reasons(product="boots", price=950.0, event_id="slip")) for _ in range(100)} == {("outlier",)}


def test_the_same_events_in_the_same_order_are_judged_alike() -> None:
    prices = [9.5 * (1 + number % 13) ** (number % 4) for number in range(300)]
    once, again = (
        [[v.description for v in shop.violations(price=p, at_us=n * MINUTE_US)] for n, p in enumerate(prices)]
        for shop in (Shop(), Shop())
    )
    assert once == again
    assert any(once)


@pytest.mark.parametrize("off", [{"outlier_score": 0}, {"repeat_window_us": 0}, {"bot_views": 0}])
def test_a_rule_with_0_is_off(off: dict[str, float]) -> None:
    shop = Shop(**off)
    shop.sells("boots", 9.5, 10)
    rule = {"outlier_score": "outlier", "repeat_window_us": "repeat", "bot_views": "bot-pattern"}[next(iter(off))]
    seen = [
        shop.reasons(product=f"p{number:04}", price=1e9, at_us=number * 200 * MILLISECOND_US) for number in range(300)
    ]
    seen += [shop.reasons(product="boots", price=950.0, at_us=10**10)] * 2
    assert rule not in {reason for found in seen for reason in found}


@pytest.mark.parametrize("later_ms", [0, 5, 299, -120])
def test_the_same_act_again_within_a_fraction_of_a_second_is_a_repeat(later_ms: int) -> None:
    shop = Shop()
    assert shop.reasons("add-to-cart") == []
    assert shop.reasons("add-to-cart", at_us=later_ms * MILLISECOND_US) == ["repeat"]


def test_other_acts_are_no_repeats() -> None:
    shop = Shop()
    assert shop.reasons() == []
    others = [{"product": "q"}, {"visitor": "w"}, {"session": "t"}, {"event_type": "add-to-cart"}]
    assert [shop.reasons(at_us=5_000, **other) for other in others] == [[]] * 4
    assert shop.reasons(at_us=400 * MILLISECOND_US) == []
    searches = [shop.reasons("search", "", query=query, at_us=SECOND_US) for query in ("a", "b", "a")]
    assert searches == [[], [], ["repeat"]]


def test_a_repeat_under_its_own_id_is_a_matter_for_the_log() -> None:
    shop = Shop()
    assert [shop.reasons(event_id="one") for _ in range(3)] == [[]] * 3


def test_purchases_are_never_repeats() -> None:
    shop = Shop()
    assert [shop.reasons("purchase-complete") for _ in range(3)] == [[]] * 3


def test_times_of_whole_seconds_say_too_little_to_call_a_repeat() -> None:
    shop = Shop()
    assert [shop.reasons(at_us=-1) for _ in range(3)] == [[]] * 3


def views(shop: Shop, count: int, gap_us: int, **given: object) -> list[list[str]]:
    return [
        shop.reasons(product=f"p{number * 7919 % 1009:04}", at_us=number * gap_us, **given) for number in range(count)
    ]


def test_views_faster_than_anybody_reads_are_a_bots_from_the_hundredth_on() -> None:
    found = views(Shop(), 130, SECOND_US)
    assert found[:99] == [[]] * 99
    assert found[101:] == [["bot-pattern"]] * 29


def test_a_timer_gives_itself_away_and_a_person_of_the_same_pace_does_not() -> None:
    assert ["bot-pattern"] in views(Shop(), 130, 20 * SECOND_US)
    shop = Shop()
    pauses = [(5 + 37 * number % 50) * SECOND_US for number in range(300)]
    found = [shop.reasons(product=f"p{n * 7919 % 1009:04}", at_us=sum(pauses[:n])) for n in range(len(pauses))]
    assert found == [[]] * 300


def test_a_walk_through_the_catalogue_in_order_is_a_bots() -> None:
    shop = Shop()
    pauses = [(5 + 37 * number % 50) * SECOND_US for number in range(60)]
    found = [shop.reasons(product=f"p{n:04}", at_us=sum(pauses[:n])) for n in range(60)]
    assert found[:38] == [[]] * 38
    assert found[40:] == [["bot-pattern"]] * 20


def test_who_puts_something_into_a_cart_now_and_then_is_no_bot() -> None:
    shop = Shop()
    found = []
    for number in range(300):
        found.append(shop.reasons(product=f"p{number:04}", at_us=2 * number * SECOND_US))
        if number % 25 == 0:
            found.append(shop.reasons("add-to-cart", f"p{number:04}", at_us=(2 * number + 1) * SECOND_US))
    assert found == [[]] * len(found)


def test_a_judged_visitor_is_refused_for_an_hour_and_its_purchases_never() -> None:
    shop = Shop()
    views(shop, 130, SECOND_US)
    assert shop.reasons("home-page-view", "", at_us=5 * MINUTE_US) == ["bot-pattern"]
    assert shop.reasons("purchase-complete", at_us=5 * MINUTE_US) == []
    assert shop.reasons(visitor="w", at_us=5 * MINUTE_US) == []
    assert shop.reasons(at_us=70 * MINUTE_US) == []
