"""Features as of a moment: what came later is never in them, and no label is lost."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.feature_store.dated_facts import ALWAYS, NEVER
from headrace.feature_store.facts import USER, DatedFact, Fact, UserAct
from headrace.feature_store.feature_names import FeatureNames, Keys
from headrace.feature_store.fold import State
from headrace.feature_store.histories import history_of
from headrace.feature_store.online_features import channel_values, item_values, user_values
from headrace.feature_store.point_in_time import Labels, PastFold
from headrace.feature_store.rules import Rules
from headrace.feature_store.windowed_view import WindowedView
from headrace.model.candidates import Person, features_for
from headrace.model.events import COUNTED_CODES, EventCode
from headrace.model.items import Items
from headrace.runtime.errors import Faults

VIEWS = (
    WindowedView("looks", "item", ("detail-page-view",), ("1h", "30d")),
    WindowedView("shelf", "category", ("detail-page-view", "purchase-complete"), ("1d",)),
    WindowedView("searches", "user", ("search",), ("1d",)),
    WindowedView("acts", "channel", ("search", "purchase-complete"), ("7d",)),
)
SELECTION = FeatureNames(VIEWS).select((), Keys(user=True, item=True, channel=True), Faults())
assert SELECTION is not None
NO_ROWS = Rules(row_sample_rate=0)


def _labels(seed: int, moments: Sequence[int], by_time: bool) -> Labels:
    chance = np.random.default_rng(seed)
    # items and persons that nobody ever met are among them
    users = [f"u:{number}" for number in chance.integers(0, 6, len(moments))]
    ordinals = chance.integers(0, 40, len(moments)).astype(np.uint32)
    return Labels(users, ordinals, np.array(moments, np.int64), by_time, channel=1)


def _past(facts: Sequence[Fact], labels: Labels) -> dict[int, tuple[bytes, ...]]:
    """The bytes of every label's row."""
    fold = PastFold(State(NO_ROWS, views=VIEWS), SELECTION, labels)
    pieces = (facts[start : start + 50] for start in range(0, len(facts) + 50, 50))
    parts = [part for piece in pieces if fold.is_unfinished and (part := fold.fold(piece)) is not None]
    rows = {}
    for part in parts:
        for place, label in enumerate(part.labels.tolist()):
            columns = (part.user, part.items, part.channel, part.now_us)
            rows[label] = tuple(column[place].tobytes() for column in columns)
    return rows


def _told(state: State, user_key: str, ordinals: np.ndarray) -> tuple[bytes, ...]:
    """What a state says of a person, of items and of the channel."""
    items = item_values(state, SELECTION, [user_key], ordinals)
    return (
        user_values(state, SELECTION, user_key).tobytes(),
        items.tobytes(),
        channel_values(state, SELECTION, 1).tobytes(),
    )


def _clock_us(facts: Sequence[Fact]) -> int:
    return max((fact.time_us for fact in facts if isinstance(fact, UserAct)), default=0)


@given(seed=st.integers(0, 10_000), cut=st.integers(20, 150), future=st.integers(0, 10_000))
@settings(max_examples=6, deadline=None)
def test_no_row_sees_its_future(seed: int, cut: int, future: int, shop_facts: Callable[..., list[Fact]]) -> None:
    """Whatever follows, late events too, the rows of moments that were over are the same to the bit."""
    past = shop_facts(seed, cut)
    clock_us, chance = _clock_us(past), np.random.default_rng(seed)
    minutes = (clock_us - 1_700_000_000_000_000) / 60e6
    others = [*past, *shop_facts(future, 60, cut + 1, minutes)]
    for labels in (
        _labels(seed, chance.integers(0, cut + 1, 30).tolist(), by_time=False),
        _labels(seed, chance.integers(clock_us - 3 * 86_400_000_000, clock_us, 30).tolist(), by_time=True),
    ):
        assert _past(past, labels) == _past(others, labels)
        assert len(_past(past, labels)) == 30


def test_a_row_is_what_a_fold_up_to_the_moment_says(shop_facts: Callable[..., list[Fact]]) -> None:
    facts = shop_facts(5, 200)
    offsets = [0, 1, 57, 57, 120, 199, 200]
    labels = _labels(5, offsets, by_time=False)
    rows = _past(facts, labels)
    for place, offset in enumerate(offsets):
        state = State(views=VIEWS)
        for fact in facts[:offset]:
            state.apply(fact)
        assert rows[place][:3] == _told(state, labels.user_keys[place], labels.ordinals[place : place + 1])


def test_each_label_of_one_moment_sees_the_dated_facts_of_its_own_person(shop_facts: Callable[..., list[Fact]]) -> None:
    said = DatedFact(101, (USER, "1"), None, "c", "campaign", "", "c1", 0.0, ALWAYS, NEVER, 0, False, b"")
    facts = [*shop_facts(5, 100), said]
    labels = replace(_labels(5, [101] * 6, by_time=False), user_keys=[f"u:{number}" for number in (0, 1, 2, 1, 3, 0)])
    state = State(views=VIEWS)
    for fact in facts:
        state.apply(fact)
    rows = _past(facts, labels)
    in_campaign = SELECTION.item.names.index("dated_facts:in_campaign")
    seen = [np.frombuffer(rows[place][1], np.float32)[in_campaign] for place in range(6)]
    assert seen == [0, 1, 0, 1, 0, 0]
    for place in range(6):
        ordinals = labels.ordinals[place : place + 1]
        assert rows[place][:3] == _told(state, labels.user_keys[place], ordinals)


def test_as_of_a_time_is_before_the_first_record_that_moves_the_clock_beyond_it(
    shop_facts: Callable[..., list[Fact]],
) -> None:
    facts = shop_facts(9, 200)
    chance = np.random.default_rng(9)
    first_us = next(fact.time_us for fact in facts if isinstance(fact, UserAct))
    times_us = chance.integers(first_us, _clock_us(facts), 40).tolist()
    offsets = []
    for time_us in times_us:
        mover = next(fact for fact in facts if isinstance(fact, UserAct) and fact.time_us > time_us)
        offsets.append(mover.offset - 1)
    by_time = _past(facts, _labels(9, times_us, by_time=True))
    assert by_time == _past(facts, _labels(9, offsets, by_time=False))


@pytest.mark.parametrize("by_time", [False, True])
def test_a_label_before_everything_has_the_values_of_nothing_known(
    by_time: bool, shop_facts: Callable[..., list[Fact]]
) -> None:
    rows = _past(shop_facts(1, 60), _labels(1, [0], by_time))
    assert rows[0][:3] == _told(State(views=VIEWS), "u:0", np.array([3], np.uint32))


def test_training_rows_are_what_was_served_just_before_their_moment(shop_facts: Callable[..., list[Fact]]) -> None:
    """A ranker that answers at every record, from the columns and histories as they then are, computes the rows."""
    state, served, compared = State(), {}, 0
    for fact in _with_a_clock(shop_facts(7, 500)):
        # a visit begins with the first of these
        if isinstance(fact, UserAct) and fact.code in COUNTED_CODES:
            served.setdefault((fact.user_key, state.now_us), _served(state, fact.user_key))
        for group in state.apply(fact):
            # an item that was touched outside the sample joined later, with its columns of then
            sampled = group.labels == 0
            features = served[group.user_key, group.time_us](group.ordinals[sampled])
            assert features.tobytes() == group.features[sampled].tobytes()
            compared += int(sampled.sum())
    assert compared > 1_000


def _with_a_clock(facts: Sequence[Fact]) -> Iterator[Fact]:
    """Before each act a search of the same time by somebody else: nothing is known by it but the time."""
    offset = 0
    for fact in facts:
        if isinstance(fact, UserAct):
            offset += 1
            yield UserAct(offset, "search", EventCode.NONE, "u:clock", fact.time_us, 1, [], False)
        offset += 1
        yield fact._replace(offset=offset)


def _served(state: State, user_key: str) -> Callable[[np.ndarray], np.ndarray]:
    """A ranker's features at this moment, for ordinals that are told later."""
    state.of_items.freshen(np.arange(state.items.count))
    items = Items()
    count = state.items.count
    items.update(
        np.arange(count, dtype=np.uint32),
        state.items.features_NF[:count].copy(),
        state.items.neighbour_ordinals_NK[:count].copy(),
        state.items.neighbour_weights_NK[:count].copy(),
    )
    state.histories.hold((user_key,))
    person = Person.of(history_of(state.histories.joined_bytes_of([user_key]), user_key), items)
    now_us = state.now_us
    return lambda ordinals: features_for(person, ordinals, items.features_NF[ordinals], now_us)
