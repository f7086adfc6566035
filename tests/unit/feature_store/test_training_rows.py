"""Rows are frozen in time: what happened later is never in them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.feature_store.facts import Fact, ProductFact, UserAct
from headrace.feature_store.fold import State, rows_of
from headrace.feature_store.row_columns import RowColumns
from headrace.feature_store.row_store import RowStore
from headrace.feature_store.rules import Rules
from headrace.feature_store.training_rows import ClosedGroup
from headrace.model.candidates import CANDIDATE_FEATURES
from headrace.model.events import EventCode

Act = Callable[..., UserAct]
Product = Callable[..., ProductFact]
START_US = 1_700_000_000_000_000
_AT = {name: place for place, name in enumerate(CANDIDATE_FEATURES)}


def _label(group: ClosedGroup, ordinal: int) -> int:
    return int(group.labels[group.ordinals.tolist().index(ordinal)])


def _feature(group: ClosedGroup, ordinal: int, name: str) -> float:
    return float(group.features[group.ordinals.tolist().index(ordinal), _AT[name]])


def test_a_moment_closes_with_the_record_that_shows_its_end(act: Act) -> None:
    state = State()
    assert state.apply(act(1, 0, [1])) == []
    assert state.apply(act(2, 30, [9], user="u:bob")) == []
    closed = state.apply(act(7, 30.1, [9], "detail-page-view", user="u:bob"))
    assert [(group.offset, group.user_key) for group in closed] == [(7, "u:ann")]


def test_the_strongest_thing_that_followed_is_the_label(act: Act) -> None:
    facts = [
        act(1, 0, [1, 2], "detail-page-view"),
        act(2, 1, [1]),
        act(3, 2, [1, 3], "add-to-cart"),
        act(4, 90, [9], user="u:bob"),
    ]
    (group,) = rows_of(facts)
    assert [_label(group, ordinal) for ordinal in (1, 2, 3)] == [EventCode.PURCHASE, EventCode.VIEW, EventCode.CART]


def test_the_history_and_the_features_are_those_before_the_moment(act: Act) -> None:
    facts = [act(1, 0, [1]), act(2, 60, [1]), act(3, 61, [1, 2]), act(4, 200, [9], user="u:bob")]
    second = rows_of(facts)[1]
    assert RowColumns.of([second]).history_lengths().tolist() == [1]
    assert np.isclose(_feature(second, 1, "own_purchases"), np.log1p(1))
    assert _feature(second, 2, "own_purchases") == 0
    assert _feature(second, 2, "purchases_7d") == 0


def test_an_item_outside_the_sample_gets_a_row_that_stands_for_itself(act: Act, product: Product) -> None:
    products = [product(number + 1, 0, number) for number in range(500)]
    facts = [*products, act(501, 1, [480, 481]), act(502, 60, [1], user="u:bob")]
    (group,) = rows_of(facts, Rules(row_candidates=8))
    assert set(np.flatnonzero(group.labels)) >= {group.ordinals.tolist().index(o) for o in (480, 481)}
    assert group.weights[group.labels > 0].tolist() == [1.0, 1.0]
    # all that could be shown is stood for, but for the two that stand for themselves
    assert abs(group.weights.sum() - 500) < 20


def test_a_share_of_the_moments_can_be_kept(shop_facts: Callable[..., list[Fact]]) -> None:
    facts = shop_facts(1, 400)
    every, some = rows_of(facts), rows_of(facts, Rules(row_sample_rate=0.5))
    times = {(group.user_key, group.time_us) for group in every}
    assert 0.3 < len(some) / len(every) < 0.7
    assert {(group.user_key, group.time_us) for group in some} < times


@given(seed=st.integers(0, 10_000), later=st.integers(0, 10_000))
@settings(max_examples=20, deadline=None)
def test_later_records_never_change_the_rows_of_closed_moments(
    seed: int, later: int, shop_facts: Callable[..., list[Fact]]
) -> None:
    past = shop_facts(seed, 50)
    future = shop_facts(later, 30, first_offset=51, start_minutes=6_000.0)
    alone = RowColumns.of(rows_of(past)).columns()
    followed = RowColumns.of(rows_of([*past, *future])).between(0, 50).columns()
    for name, values in alone.items():
        np.testing.assert_array_equal(values, followed[name], err_msg=name)


@given(seed=st.integers(0, 10_000), other=st.integers(0, 10_000))
@settings(max_examples=15, deadline=None)
def test_open_moments_have_the_same_features_whatever_follows(
    seed: int, other: int, shop_facts: Callable[..., list[Fact]]
) -> None:
    past = shop_facts(seed, 40)
    state = State()
    for fact in past:
        state.apply(fact)
    # the first later record is 30 minutes beyond all that is known, late ones included
    start = (state.now_us - START_US) / 60_000_000 + 150
    futures = [shop_facts(number, 20, first_offset=41, start_minutes=start) for number in (other, other + 1)]
    first, second = ({(g.user_key, g.time_us): g for g in rows_of([*past, *future])} for future in futures)
    opened = [key for key in first if key[1] <= state.now_us]
    assert opened
    for key in opened:
        np.testing.assert_array_equal(first[key].features, second[key].features)
        np.testing.assert_array_equal(first[key].labels, second[key].labels)


def test_rows_read_back_from_files_are_those_of_a_fold_from_scratch(
    shop_facts: Callable[..., list[Fact]], tmp_path: Path
) -> None:
    facts = shop_facts(5, 300)
    state, store = State(), RowStore(tmp_path, 1 << 30, 0)
    for fact in facts:
        store.add(state.apply(fact))
        if fact.offset % 70 == 0:
            cut = store.cut(fact.offset)
            assert cut is not None
            store.written(cut, store.write(cut))
    assert len(list(tmp_path.glob("rows-*"))) == 4
    read = list(store.between(33, 290).read())
    expected = RowColumns.of([group for group in rows_of(facts) if 33 < group.offset <= 290])
    assert np.concatenate([part.features for part in read]).tobytes() == expected.features.tobytes()
    assert np.concatenate([part.group_offsets for part in read]).tolist() == expected.group_offsets.tolist()
    assert [key for part in read for key in part.user_keys] == expected.user_keys


def test_files_beyond_the_snapshot_are_folded_again(shop_facts: Callable[..., list[Fact]], tmp_path: Path) -> None:
    state, store = State(), RowStore(tmp_path, 1 << 30, 0)
    for fact in shop_facts(5, 140):
        store.add(state.apply(fact))
        if fact.offset % 70 == 0 and (cut := store.cut(fact.offset)):
            store.written(cut, store.write(cut))
    RowStore(tmp_path, 1 << 30, 70)
    assert [path.name for path in tmp_path.glob("rows-*")] == [f"rows-{0:020d}-{70:020d}"]


def test_the_oldest_files_go_beyond_the_limit(shop_facts: Callable[..., list[Fact]], tmp_path: Path) -> None:
    state, store = State(), RowStore(tmp_path, 1, 0)
    for fact in shop_facts(5, 140):
        store.add(state.apply(fact))
        if fact.offset % 70 == 0 and (cut := store.cut(fact.offset)):
            store.written(cut, store.write(cut))
    assert [path.name for path in tmp_path.glob("rows-*")] == [f"rows-{70:020d}-{140:020d}"]


def test_a_corrupt_file_of_rows_is_left_out(shop_facts: Callable[..., list[Fact]], tmp_path: Path) -> None:
    state, store = State(), RowStore(tmp_path, 1 << 30, 0)
    for fact in shop_facts(5, 100):
        store.add(state.apply(fact))
    cut = store.cut(100)
    assert cut is not None
    store.written(cut, store.write(cut))
    (path,) = tmp_path.glob("rows-*")
    path.write_bytes(b"something else")
    assert list(store.between(0, 100).read()) == []


def test_parts_hold_every_group_once(shop_facts: Callable[..., list[Fact]]) -> None:
    whole = RowColumns.of(rows_of(shop_facts(2, 200)))
    parts = list(whole.parts(40_000))
    assert len(parts) > 1
    assert np.concatenate([part.group_offsets for part in parts]).tolist() == whole.group_offsets.tolist()
    assert np.concatenate([part.features for part in parts]).tobytes() == whole.features.tobytes()
    assert [history for part in parts for history in part.histories] == whole.histories
