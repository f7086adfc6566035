from __future__ import annotations

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from headrace.ingest.arrivals import Arrival, arrival
from headrace.ingest.attributions import Attributions, Worth
from headrace.model.attribution import Tokens
from headrace.v1.common_pb2 import ProductDetail, UserEvent

TOKENS = Tokens(b"k" * 32)
SHOWN_US = 1_500_000_000_000_000
DAY_US = 86_400_000_000


def given(user_key: str = "v:abc", tokens: Tokens = TOKENS) -> str:
    return tokens.new(release="r-000042", user_key=user_key, time_us=SHOWN_US)


def event(event_id: str = "e1", *products: str, event_type: str = "detail-page-view", **fields: object) -> Arrival:
    told = {"visitor_id": "abc", "event_time": Timestamp(seconds=SHOWN_US // 1_000_000 + 60)} | fields
    details = [ProductDetail(product_id=product) for product in products or ("p",)]
    return arrival(UserEvent(event_id=event_id, event_type=event_type, product_details=details, **told))  # type: ignore[arg-type]


@pytest.fixture
def attributions() -> Attributions:
    return Attributions(TOKENS, max_age_us=7 * DAY_US, skew_us=60_000_000)


def test_a_token_of_the_person_that_it_was_given_to_is_good(attributions: Attributions) -> None:
    assert attributions.worth(event(), given()) is Worth.GOOD


def test_who_logs_in_after_the_answer_may_still_use_it(attributions: Attributions) -> None:
    assert attributions.worth(event(user_id="eve"), given("v:abc")) is Worth.GOOD
    assert attributions.worth(event("e2", user_id="eve", visitor_id=""), given("u:eve")) is Worth.GOOD


@pytest.mark.parametrize(
    ("user_id", "visitor_id", "owner"),
    [
        ("eve", "abc", "u:bob"),
        ("eve", "abc", "v:other"),
        ("eve", "", "v:abc"),
        ("", "abc", "u:abc"),
        ("abc", "x", "v:abc"),
    ],
)
def test_anybody_elses_token_is_foreign(attributions: Attributions, user_id: str, visitor_id: str, owner: str) -> None:
    assert attributions.worth(event(user_id=user_id, visitor_id=visitor_id), given(owner)) is Worth.FOREIGN


@pytest.mark.parametrize("place", range(0, 74, 7))
def test_a_token_with_one_changed_character_is_forged(attributions: Attributions, place: int) -> None:
    good = given()
    changed = good[:place] + ("A" if good[place] != "A" else "B") + good[place + 1 :]
    assert attributions.worth(event(), changed) is Worth.FORGED


@pytest.mark.parametrize(
    "token",
    ["t", "", "ü", "====", "A" * 10_000, given(tokens=Tokens(b"other" * 7))],
    ids=["short", "empty", "no ASCII", "padding", "long", "of another suite"],
)
def test_what_this_suite_did_not_sign_is_forged(attributions: Attributions, token: str) -> None:
    assert attributions.worth(event(), token) is Worth.FORGED


def test_an_event_of_before_its_answer_or_long_after_earns_nothing(attributions: Attributions) -> None:
    def at(seconds: int) -> Worth:
        when = Timestamp(seconds=SHOWN_US // 1_000_000 + seconds)
        return attributions.worth(event(f"e{seconds}", f"p{seconds}", event_time=when), given())

    assert [at(-61), at(-60), at(7 * 86_400), at(7 * 86_400 + 1)] == [Worth.EARLY, Worth.GOOD, Worth.GOOD, Worth.LATE]


def test_the_same_act_under_a_new_event_id_earns_no_second_credit(attributions: Attributions) -> None:
    token = given()
    assert attributions.worth(event("e1"), token) is Worth.GOOD
    assert attributions.worth(event("e2"), token) is Worth.REPEATED
    # sent again it is the same event
    assert attributions.worth(event("e1"), token) is Worth.GOOD
    # another item of the list, another act, another answer
    assert attributions.worth(event("e3", "q"), token) is Worth.GOOD
    assert attributions.worth(event("e4", event_type="add-to-cart"), token) is Worth.GOOD
    assert attributions.worth(event("e5"), given()) is Worth.GOOD


def test_an_item_is_not_credited_again_beside_a_new_one(attributions: Attributions) -> None:
    token = given()
    assert attributions.worth(event("e1", "p", "q"), token) is Worth.GOOD
    assert attributions.worth(event("e2", "q", "r"), token) is Worth.REPEATED
    # which did not use up what was new in it
    assert attributions.worth(event("e3", "r"), token) is Worth.GOOD


def test_credits_of_the_log_are_known_after_a_restart(attributions: Attributions) -> None:
    token = given()
    attributions.remember(event("e1", attribution_token=token))
    attributions.remember(event("e0", attribution_token="of before tokens were signed"))
    assert attributions.worth(event("e2"), token) is Worth.REPEATED


def test_memory_does_not_grow() -> None:
    small = Attributions(TOKENS, max_age_us=DAY_US, skew_us=0, memory_credits=16)
    token = given()
    for number in range(1_000):
        assert small.worth(event(f"e{number}", f"p{number}"), token) is Worth.GOOD
    assert small.worth(event("again", "p999"), token) is Worth.REPEATED
