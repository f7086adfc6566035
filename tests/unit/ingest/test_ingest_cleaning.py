from __future__ import annotations

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from headrace.ingest.arrivals import arrival
from headrace.ingest.bots import VisitorRates
from headrace.ingest.cleaning import Limits, Rules
from headrace.v1.common_pb2 import ProductDetail, UserEvent

SECONDS = 1_500_000_000 // 60 * 60
NOW_US = SECONDS * 1_000_000


def event(number: int, event_type: str = "detail-page-view", *, visitor: str = "v", seconds: int = 0) -> UserEvent:
    return UserEvent(
        event_id=f"{visitor}-{number}",
        event_type=event_type,
        visitor_id=visitor,
        event_time=Timestamp(seconds=SECONDS + seconds),
        product_details=[ProductDetail(product_id="p")],
    )


def reasons(rules: Rules, *events: UserEvent, now_us: int = NOW_US) -> list[str]:
    bounds = rules.bounds(now_us)
    judged = [rules.violations(arrival(e), bounds) for e in events]
    return [found[0].reason if found else "" for found in judged]


def rules_of(limit: int = 600, **memory: int) -> Rules:
    return Rules(Limits(), rates=VisitorRates(limit, **memory))


def test_a_clock_may_run_ahead_by_the_skew_and_no_more() -> None:
    assert reasons(rules_of(), event(1, seconds=60), event(2, seconds=61)) == ["", "time"]


def test_more_events_in_a_minute_than_a_person_can_make_are_a_bots() -> None:
    assert reasons(rules_of(3), *(event(number) for number in range(5))) == ["", "", "", "bot", "bot"]


@pytest.mark.parametrize("limit", [1, 7, 8, 9, 10, 40])
def test_a_limit_of_any_size_is_kept_and_repeats_never_count(limit: int) -> None:
    rates = VisitorRates(limit)
    for _ in range(2):
        assert [rates.admits("v", str(number), NOW_US) for number in range(limit)] == [True] * limit
        assert not rates.admits("v", "one more", NOW_US)


def test_the_next_minute_and_another_visitor_begin_anew() -> None:
    rules = rules_of(1)
    given = (event(1), event(2, seconds=-1), event(3, visitor="w"), event(4, seconds=59))
    assert reasons(rules, *given) == ["", "", "", "bot"]


def test_a_bot_is_named_by_what_identifies_it() -> None:
    rules = rules_of(1)
    known, other = event(2), event(3)
    known.user_id = other.user_id = "u"
    bounds = rules.bounds(NOW_US)
    (found,) = [rules.violations(arrival(e), bounds) for e in (event(1), event(2))][1]
    assert (found.field, found.description) == ("visitor_id", "must send at most 1 product events a minute, sent more")
    assert [rules.violations(arrival(e), bounds) for e in (known, other)][1][0].field == "user_id"


def test_a_wholesale_basket_is_no_bot() -> None:
    bought = [event(number, "purchase-complete") for number in range(500)]
    assert set(reasons(rules_of(3), *bought)) == {""}


def test_cancellations_and_pages_without_products_do_not_count() -> None:
    rules = rules_of(1)
    given = [event(number, kind) for number, kind in enumerate(["purchase-cancel", "home-page-view"] * 3)]
    assert set(reasons(rules, *given, event(99))) == {""}


def test_an_event_that_is_sent_again_counts_once() -> None:
    rules = rules_of(2)
    assert reasons(rules, *[event(1)] * 10, event(2), event(1), event(3)) == [""] * 12 + ["bot"]


def test_a_faulty_event_does_not_count() -> None:
    faulty = event(1)
    faulty.product_details[0].price = -1
    assert reasons(rules_of(1), faulty, event(2)) == ["price", ""]


def test_the_oldest_minutes_are_forgotten_first() -> None:
    rules = rules_of(1, memory_events=2)
    seen = reasons(rules, event(1, visitor="a"), event(2, visitor="b"), event(3, visitor="c"))
    again = reasons(rules, event(4, visitor="c"), event(5, visitor="b"), event(6, visitor="a"))
    assert seen == ["", "", ""]
    assert again == ["bot", "bot", ""]
