from __future__ import annotations

from collections import Counter, defaultdict
from datetime import UTC, datetime, timedelta

import pytest

from headrace.datasets.shop_catalogue import CATEGORIES
from headrace.datasets.simulated_shop import ShopSettings, SimulatedShop
from headrace.v1.common_pb2 import Product, UserEvent

SETTINGS = ShopSettings(products=300, users=400, days=24, visits_a_day=0.6)


def all_events(shop: SimulatedShop) -> list[UserEvent]:
    return [event for batch in shop.events() for event in batch]


def all_products(shop: SimulatedShop) -> list[Product]:
    return [product for batch in shop.products() for product in batch]


@pytest.fixture(scope="module")
def shop() -> SimulatedShop:
    return SimulatedShop(SETTINGS)


@pytest.fixture(scope="module")
def events(shop: SimulatedShop) -> list[UserEvent]:
    return all_events(shop)


def test_a_seed_gives_the_same_shop_event_by_event(events: list[UserEvent]) -> None:
    again = SimulatedShop(SETTINGS)

    assert all_events(again) == events
    assert all_products(again) == all_products(SimulatedShop(SETTINGS))


def test_another_seed_gives_another_shop(events: list[UserEvent]) -> None:
    other = SimulatedShop(ShopSettings(seed=8, products=300, users=400, days=24, visits_a_day=0.6))

    assert all_events(other)[:50] != events[:50]


def test_it_says_that_it_is_simulated(shop: SimulatedShop) -> None:
    assert shop.is_simulated
    assert "simulated" in shop.licence
    assert all("Simulated" in product.description for product in all_products(shop))


def test_every_planted_fault_is_in_the_events(shop: SimulatedShop, events: list[UserEvent]) -> None:
    by_id = {event.event_id: event for event in events}
    truth = shop.truth

    assert all(truth.faults.values())
    assert all(by_id[name].product_details[0].price < 0 for name in truth.faults["price"])
    assert all(by_id[name].product_details[0].quantity > 1_000_000 for name in truth.faults["quantity"])
    assert all(by_id[name].event_time.ToDatetime().year == 2090 for name in truth.faults["time"])
    assert all(by_id[name].event_type == "teleport" for name in truth.faults["unknown-type"])
    assert all(not by_id[name].visitor_id + by_id[name].user_id for name in truth.faults["missing"])
    assert all(len(by_id[name].visitor_id) > 128 for name in truth.faults["too-long"])


def test_events_without_a_planted_fault_are_sound(shop: SimulatedShop, events: list[UserEvent]) -> None:
    planted = {name for names in shop.truth.faults.values() for name in names}

    for event in events:
        if event.event_id not in planted:
            assert event.user_id or event.visitor_id
            assert shop.span.start <= event.event_time.ToDatetime(UTC) < shop.span.end
            assert all(detail.price > 0 and detail.quantity == 1 for detail in event.product_details)


def test_repeats_are_word_for_word_and_known(shop: SimulatedShop, events: list[UserEvent]) -> None:
    copies: dict[str, list[UserEvent]] = defaultdict(list)
    for event in events:
        copies[event.event_id].append(event)
    repeated = [name for name, same in copies.items() for _ in same[1:]]

    assert sorted(repeated) == sorted(shop.truth.duplicates)
    assert all(event == same[0] for same in copies.values() for event in same)
    assert len(events) == shop.truth.events


def test_cancellations_take_back_a_known_purchase_later(shop: SimulatedShop, events: list[UserEvent]) -> None:
    by_id = {event.event_id: event for event in events}

    assert shop.truth.cancellations
    for cancel_name, purchase_name in shop.truth.cancellations.items():
        cancel, purchase = by_id[cancel_name], by_id[purchase_name]
        assert (cancel.event_type, purchase.event_type) == ("purchase-cancel", "purchase-complete")
        assert cancel.transaction_id == purchase.transaction_id
        assert cancel.event_time.ToMicroseconds() > purchase.event_time.ToMicroseconds()


def test_bots_look_at_more_pages_a_minute_than_people_can(shop: SimulatedShop, events: list[UserEvent]) -> None:
    views = Counter(
        (event.visitor_id, event.event_time.seconds // 60) for event in events if event.event_type == "detail-page-view"
    )
    fastest = {visitor for (visitor, _), count in views.items() if count > 600}

    assert fastest == set(shop.truth.bot_visitors)
    assert max(count for (visitor, _), count in views.items() if not visitor.startswith("bot")) < 30


def test_nobody_meets_a_product_before_its_launch(shop: SimulatedShop, events: list[UserEvent]) -> None:
    launches = shop.truth.launches

    assert launches
    for event in events:
        for detail in event.product_details:
            if detail.product_id in launches:
                assert event.event_time.ToDatetime(UTC) >= launches[detail.product_id]


def test_products_come_in_order_of_launch(shop: SimulatedShop) -> None:
    times = [product.publish_time.ToMicroseconds() for product in all_products(shop)]

    assert times == sorted(times)
    assert len({product.title for product in all_products(shop)}) == SETTINGS.products


def test_promotions_lower_prices_and_take_it_back(shop: SimulatedShop) -> None:
    state = {product.id: product for product in all_products(shop)}
    regular = {name: product.price_info.price for name, product in state.items()}
    cut = set()
    for update in shop.product_updates():
        price = update.product.price_info
        if price.original_price:
            assert price.price < price.original_price == regular[update.product.id]
            cut.add(update.product.id)
        else:
            assert price.price == regular[update.product.id]

    assert cut <= {shop.products_by_number[number] for p in shop.truth.promotions for number in p.products.tolist()}
    assert cut


def test_people_follow_their_tastes(shop: SimulatedShop, events: list[UserEvent]) -> None:
    categories = {product.id: product.categories[0] for product in all_products(shop)}
    views: dict[str, Counter[str]] = defaultdict(Counter)
    for event in events:
        if event.event_type == "detail-page-view" and event.user_id:
            views[event.user_id][categories[event.product_details[0].product_id]] += 1
    user, most = max(views.items(), key=lambda entry: entry[1].total())

    favourite_categories = {categories[name] for name in shop.favourites(user, 20)}
    assert most.most_common(1)[0][0] in favourite_categories


def test_consumables_are_bought_again_more_often(shop: SimulatedShop, events: list[UserEvent]) -> None:
    durable = {entry.path for entry in CATEGORIES if not entry.lasts_days}
    categories = {product.id: product.categories[0] for product in all_products(shop)}
    bought = Counter(
        (event.user_id, detail.product_id)
        for event in {event.event_id: event for event in events}.values()
        if event.event_type == "purchase-complete"
        for detail in event.product_details
    )
    first = Counter(categories[product] in durable for _, product in bought)
    again = Counter(categories[product] in durable for (_, product), count in bought.items() if count > 1)

    assert again[False] / first[False] > 2 * again[True] / first[True]


def test_events_come_in_the_order_of_their_times(shop: SimulatedShop, events: list[UserEvent]) -> None:
    odd = {*shop.truth.faults["time"], *shop.truth.duplicates}
    times = [event.event_time.ToMicroseconds() for event in events if event.event_id not in odd]

    assert times == sorted(times)


def test_a_window_is_a_part_of_the_whole(shop: SimulatedShop, events: list[UserEvent]) -> None:
    start, end = datetime(2025, 3, 5, 12, tzinfo=UTC), datetime(2025, 3, 7, tzinfo=UTC)
    inside = [
        event for batch in shop.events(start, end) for event in batch if event.event_time.ToDatetime().year < 2090
    ]

    assert inside == [event for event in events if start <= event.event_time.ToDatetime(UTC) < end]
    updates = list(shop.product_updates(start, end))
    assert all(start <= update.time < end for update in updates)
    assert shop.span.end - shop.span.start == timedelta(days=SETTINGS.days)
