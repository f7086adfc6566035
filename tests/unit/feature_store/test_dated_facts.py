"""What held for whom at a moment, as known at an offset: right answers known, and nobody sees the future."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.feature_store.context_facts import CONTEXT_FEATURES, context_facts
from headrace.feature_store.dated_facts import ALWAYS, NEVER, ROW, DatedFacts, key_of
from headrace.feature_store.fact_questions import FactQuestion, answered
from headrace.feature_store.facts import (
    BRAND,
    CATEGORY,
    PRODUCT,
    USER,
    VISITOR,
    DatedFact,
    IdentityFact,
    ProductFact,
    UserAct,
)
from headrace.feature_store.fold import State
from headrace.feature_store.rules import Rules
from headrace.runtime.errors import FailedPreconditionError, InvalidRequestError

DAY_US = 86_400_000_000
START_US = 1_700_000_000_000_000
Act = Callable[..., UserAct]


def day(number: float) -> int:
    return START_US + int(number * DAY_US)


def fact(offset: int, name: str, about: int | str = 0, kind: int = PRODUCT, **more: object) -> DatedFact:
    """A fact with the id `name`, about product number `about` or the entity `about`."""
    ordinal = about if isinstance(about, int) else None
    entity = (kind, f"p{about}" if isinstance(about, int) else about)
    given_ = {"fact_id": name, "store_id": "", "campaign_id": "", "number": 0.0, "revision": 0, "deleted": False}
    times = {"from_us": ALWAYS, "until_us": NEVER}
    document = f"{name} {offset}".encode()
    return DatedFact(offset, entity, ordinal, name=name, document=document, **{**given_, **times, **more})  # type: ignore[arg-type]


def folded(*facts: DatedFact | UserAct | ProductFact, horizon_days: float = 90) -> State:
    state = State(Rules(fact_horizon_days=horizon_days))
    for one in facts:
        state.apply(one)
    return state


def features(state: State, time_us: int, user: str = "u:ann", items: tuple[int, ...] = (0,), **more: object) -> dict:
    found = context_facts(state, user, np.array(items, np.uint32), time_us, **more)  # type: ignore[arg-type]
    assert tuple(found) == CONTEXT_FEATURES
    assert all(column.dtype == np.float32 for column in found.values())
    return {name: column.tolist() for name, column in found.items()}


def test_a_promotion_holds_from_its_start_up_to_its_end() -> None:
    state = folded(fact(1, "promotion.display", from_us=day(1), until_us=day(8)))
    seen = [features(state, moment)["on_promotion"] for moment in (day(1) - 1, day(1), day(8) - 1, day(8))]
    assert seen == [[0], [1], [1], [0]]


def test_a_promotion_of_one_store_counts_there_and_where_no_store_is_named() -> None:
    state = folded(fact(1, "promotion.mailer", store_id="7"))
    seen = [features(state, day(0), store_id=store)["on_promotion"] for store in ("", "7", "8")]
    assert seen == [[1], [1], [0]]


def test_the_largest_discount_counts() -> None:
    state = folded(fact(1, "discount", number=0.1), fact(2, "discount", 1, number=0.3))
    state.apply(fact(3, "discount", number=0.25, fact_id="more"))
    assert features(state, day(0), items=(0, 1, 2))["discount_fact"] == pytest.approx([0.25, 0.3, 0])


def test_a_coupon_is_for_those_who_are_in_its_campaign_while_it_runs() -> None:
    state = folded(
        fact(1, "coupon", campaign_id="c1", from_us=day(0), until_us=day(9)),
        fact(2, "coupon", 1),
        fact(3, "campaign", "ann", USER, campaign_id="c1", from_us=day(1), until_us=day(5)),
        fact(4, "campaign", "bob", USER, campaign_id="c2"),
    )
    ann, early, late, bob = (
        features(state, moment, user, (0, 1))
        for user, moment in (("u:ann", day(2)), ("u:ann", day(0.5)), ("u:ann", day(6)), ("u:bob", day(2)))
    )
    assert (ann["has_coupon"], ann["in_campaign"]) == ([1, 1], [1, 1])
    assert (early["has_coupon"], early["in_campaign"]) == ([0, 1], [0, 0])
    assert late["has_coupon"] == [0, 1]
    assert (bob["has_coupon"], bob["in_campaign"]) == ([0, 1], [1, 1])


def test_a_person_and_their_devices_are_in_the_campaigns_of_all_of_them_until_they_part(act: Act) -> None:
    state = folded(
        fact(1, "coupon", campaign_id="c1"),
        fact(2, "campaign", "phone", VISITOR, campaign_id="c1"),
        fact(3, "campaign", "ann", USER, campaign_id="c2"),
    )

    def seen(user: str) -> tuple[float, float]:
        found = features(state, day(0), user)
        return found["has_coupon"][0], found["in_campaign"][0]

    apart = [(0, 1), (1, 1), (0, 0)]
    keys = ("u:ann", "v:phone", "v:laptop")
    assert [seen(key) for key in keys] == apart
    for offset, device in ((4, "v:phone"), (5, "v:laptop")):
        state.apply(act(offset, 0, [0], user="u:ann")._replace(device_key=device))
    assert [seen(key) for key in keys] == [(1, 1)] * 3
    for offset, device in ((6, "v:phone"), (7, "v:laptop")):
        state.apply(IdentityFact(offset, device, "u:ann", is_joined=False))
    assert [seen(key) for key in keys] == apart


def test_facts_of_a_category_or_brand_are_its_products(product: Callable[..., ProductFact]) -> None:
    state = folded(product(1, 0, 0), product(2, 0, 1), product(3, 0, 3))
    state.apply(fact(4, "promotion", "Shelf 0", CATEGORY))
    state.apply(fact(5, "discount", "Brand 1", BRAND, number=0.5))
    seen = features(state, day(0), items=(0, 1, 3, 99))
    assert (seen["on_promotion"], seen["discount_fact"]) == ([1, 0, 1, 0], [0, 0.5, 0.5, 0])


def test_a_later_record_corrects_and_the_past_is_answered_as_it_was_known() -> None:
    first = fact(1, "promotion", from_us=day(0), until_us=day(9))
    state = folded(first, first._replace(offset=2, until_us=day(3)), first._replace(offset=3, deleted=True))
    seen = [features(state, day(5), offset=known)["on_promotion"] for known in (0, 1, 2, 3)]
    assert seen == [[0], [1], [0], [0]]
    assert [features(state, day(1), offset=known)["on_promotion"] for known in (1, 2, 3)] == [[1], [1], [0]]


def test_a_record_of_a_lower_revision_changes_nothing() -> None:
    new = fact(1, "promotion", until_us=day(3), revision=2)
    state = folded(new, new._replace(offset=2, until_us=NEVER, revision=1))
    assert features(state, day(5))["on_promotion"] == [0]


def test_what_is_over_is_kept_for_the_horizon_and_then_forgotten(act: Act) -> None:
    promotion = fact(1, "promotion", from_us=day(0), until_us=day(10))
    state = folded(promotion, fact(2, "discount", number=0.5), horizon_days=30)
    state.apply(act(3, 39 * 24 * 60, [0]))
    assert features(state, day(9))["on_promotion"] == [1]
    state.apply(act(4, 41 * 24 * 60, [0]))
    assert len(state.dated_facts) == 1
    with pytest.raises(FailedPreconditionError, match="facts that ended by"):
        answered(state, FactQuestion((PRODUCT, "p0"), time_us=day(9)))
    assert features(state, day(41))["discount_fact"] == [0.5]


def test_what_was_corrected_long_ago_is_forgotten_and_the_question_is_refused(act: Act) -> None:
    state = folded(act(1, 0, [0]), fact(2, "promotion"), fact(3, "promotion", number=1.0), horizon_days=1)
    assert answered(state, FactQuestion((PRODUCT, "p0"), offset=2)).documents == [b"promotion 2"]
    state.apply(act(4, 2 * 24 * 60, [0]))
    assert answered(state, FactQuestion((PRODUCT, "p0"))).documents == [b"promotion 3"]
    with pytest.raises(FailedPreconditionError, match="as_of_offset"):
        answered(state, FactQuestion((PRODUCT, "p0"), offset=2))


def test_an_offset_that_is_not_folded_cannot_be_asked_about() -> None:
    with pytest.raises(InvalidRequestError, match="must be at most 1, which is folded, got 5"):
        answered(folded(fact(1, "promotion")), FactQuestion((PRODUCT, "p0"), offset=5))


@dataclass(frozen=True)
class Said:
    """One record of a made-up log: a fact is said, or time goes on."""

    fact_id: int
    item: int
    family: str
    start: int
    end: int
    revision: int
    deleted: bool
    later: int


SAID = st.builds(
    Said,
    fact_id=st.integers(0, 3),
    item=st.integers(0, 2),
    family=st.sampled_from(["promotion", "discount", "coupon"]),
    start=st.integers(-3, 20),
    end=st.integers(1, 12),
    revision=st.integers(0, 2),
    deleted=st.booleans() | st.just(False),
    later=st.sampled_from([0, 0, 0, 1, 4]),
)


def said_fact(place: int, said: Said) -> DatedFact:
    return fact(
        place + 1,
        said.family,
        said.item,
        fact_id=str(said.fact_id),
        number=0.5,
        from_us=day(said.start),
        until_us=day(said.start + said.end),
        revision=said.revision,
        deleted=said.deleted,
    )


def truth(log: list[Said], item: int, family: str, moment_us: int, offset: int) -> bool:
    """Whether a fact of the family held, from the records alone."""
    standing: dict[int, Said] = {}
    for said in log[:offset]:
        before = standing.get(said.fact_id)
        if said.item == item and (before is None or before.revision <= said.revision):
            standing[said.fact_id] = said
    return any(
        said.family == family and not said.deleted and day(said.start) <= moment_us < day(said.start + said.end)
        for said in standing.values()
    )


def is_late_and_unknown(facts: DatedFacts, before: list[Said], said: Said) -> bool:
    """Whether a lower revision comes after the higher one was forgotten with all that was said of the fact."""
    revisions = [one.revision for one in before if (one.fact_id, one.item) == (said.fact_id, said.item)]
    held = np.frombuffer(facts.rows((PRODUCT, f"p{said.item}")), ROW)
    standing = held["revision"][(held["fact"] == key_of(str(said.fact_id))).all(axis=1)]
    return max(revisions, default=0) > max([said.revision, *standing.tolist()])


COLUMN_OF = {"promotion": "on_promotion", "discount": "discount_fact", "coupon": "has_coupon"}


@settings(max_examples=150, deadline=None)
@given(st.lists(SAID, min_size=1, max_size=14), st.data())
def test_nobody_sees_a_fact_from_the_future(log: list[Said], data: st.DataObject) -> None:
    """Every answer within the horizon is that of the records up to the offset, whatever was said afterwards."""
    horizon = 6
    facts, now = DatedFacts(horizon * DAY_US), 0
    state = State()
    state.dated_facts = facts
    for place, said in enumerate(log):
        now += said.later
        facts.advance(day(now))
        if is_late_and_unknown(facts, log[:place], said):
            return
        facts.put(said_fact(place, said), day(now))
    state.offset = len(log)
    moment = day(data.draw(st.integers(-3, 30)) + 0.5)
    offset = data.draw(st.integers(0, len(log)))
    if moment < facts.complete_from_us or offset < facts.complete_from_offset:
        assert facts.complete_from_us <= day(now - horizon)
        return
    seen = features(state, moment, items=(0, 1, 2), offset=offset)
    for family, column in COLUMN_OF.items():
        expected = [truth(log, item, family, moment, offset) for item in range(3)]
        assert [value > 0 for value in seen[column]] == expected, (family, moment, offset)


@settings(max_examples=60, deadline=None)
@given(st.lists(SAID, min_size=1, max_size=12), st.data())
def test_a_restored_state_goes_on_as_if_it_had_never_stopped(log: list[Said], data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(log)))
    whole, stopped = DatedFacts(6 * DAY_US), DatedFacts(6 * DAY_US)
    now = 0
    for place, said in enumerate(log):
        now += said.later
        if place == cut:
            columns = stopped.columns()
            stopped = DatedFacts(6 * DAY_US)
            stopped.restore(columns)
        for facts in (whole, stopped):
            facts.advance(day(now))
            facts.put(said_fact(place, said), day(now))
    kept, restored = whole.columns(), stopped.columns()
    assert kept.keys() == restored.keys()
    assert all(np.array_equal(kept[name], restored[name]) for name in kept)


def test_memory_is_given_back_when_facts_are_over(act: Act) -> None:
    state = folded(horizon_days=1)
    for number in range(400):
        state.apply(fact(2 * number + 1, "promotion", number % 7, fact_id=str(number), until_us=day(number / 4 + 1)))
        state.apply(act(2 * number + 2, number * 6 * 60, [0]))
    assert len(state.dated_facts) <= 12


def test_ordinary_events_fold_the_same_beside_facts(shop_facts: Callable[..., list]) -> None:
    alone, beside = State(), State()
    for one in shop_facts(1, 200):
        alone.apply(one)
        beside.apply(one)
        beside.apply(fact(one.offset, "promotion", fact_id=str(one.offset)))
    ours = {name: values for name, values in beside.copy().columns.items() if not name.startswith("dated.")}
    plain = {name: values for name, values in alone.copy().columns.items() if not name.startswith("dated.")}
    assert replace(beside.copy(), columns=ours).digest() == replace(alone.copy(), columns=plain).digest()
