"""The state is a pure fold: known right answers, and the same one however it is cut."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.feature_store.facts import ProductFact, Tick, UserAct
from headrace.feature_store.fold import State
from headrace.feature_store.histories import history_of
from headrace.feature_store.rules import Rules
from headrace.feature_store.snapshot import Snapshots
from headrace.model.candidates import CANDIDATE_FEATURES
from headrace.model.events import EventCode
from headrace.model.history import History
from headrace.model.items import COLUMN, DAY_US, MARKED_FEATURES, NEVER, NO_NEIGHBOUR

Act = Callable[..., UserAct]


def _column(state: State, ordinal: int, name: str) -> float:
    return float(state.items.features_NF[ordinal, COLUMN[name]])


def _history(state: State, user_key: str = "u:ann") -> History:
    return history_of(state.histories.joined_bytes_of([user_key]))


def test_a_purchase_is_in_the_history_and_in_every_window(act: Act) -> None:
    state = State()
    state.apply(act(1, 0, [3, 5]))
    history = _history(state)
    assert history.ordinals.tolist() == [3, 5]
    assert history.event_types.tolist() == [EventCode.PURCHASE] * 2
    assert [_column(state, 5, f"purchases_{window}") for window in ("5m", "1h", "1d", "7d")] == [1, 1, 1, 1]
    assert _column(state, 4, "purchases_7d") == 0
    assert state.user_counts("u:ann").tolist() == [0, 0, 1] * 4


def test_counts_leave_windows_as_the_clock_moves(act: Act) -> None:
    state = State()
    state.apply(act(1, 0, [3], "detail-page-view"))
    state.apply(act(2, 10, [4], "detail-page-view"))
    assert (_column(state, 3, "views_5m"), _column(state, 3, "views_1h")) == (0, 1)
    assert 3 in np.concatenate(state.of_items.changed_items).tolist()


def test_a_late_event_counts_only_in_windows_that_still_hold_its_time(act: Act) -> None:
    state = State()
    state.apply(act(1, 120, [1]))
    state.apply(act(2, 30, [2]))
    assert [_column(state, 2, f"purchases_{window}") for window in ("5m", "1h", "1d", "7d")] == [0, 0, 1, 1]


def test_a_decayed_count_halves_in_its_half_life(act: Act) -> None:
    state = State()
    state.apply(act(1, 0, [1]))
    state.apply(act(2, DAY_US / 60e6, [2]))
    assert _column(state, 2, "log_purchases_1d") - _column(state, 1, "log_purchases_1d") == pytest.approx(
        np.log(2), abs=1e-3
    )


def test_a_cancellation_takes_counts_back_and_marks_the_history(act: Act) -> None:
    state = State()
    state.apply(act(1, 0, [1, 2]))
    state.apply(act(2, 5, [1], "purchase-cancel"))
    assert _history(state).event_types.tolist() == [EventCode.REMOVE, EventCode.PURCHASE]
    assert _column(state, 1, "purchases_7d") == 0
    assert _column(state, 2, "purchases_7d") == 1
    assert _column(state, 1, "log_purchases_7d") == np.float32(NEVER)
    assert state.events_by_type == {"purchase-complete": 1, "purchase-cancel": 1}


def test_a_cancelled_count_leaves_its_window_once(act: Act) -> None:
    state = State()
    state.apply(act(1, 0, [1]))
    state.apply(act(2, 1, [1]))
    state.apply(act(3, 2, [1], "purchase-cancel"))
    state.apply(act(4, 20_000, [2]))
    assert _column(state, 1, "purchases_7d") == 0


def test_cancelling_the_older_of_two_purchases_leaves_the_newer_count(act: Act) -> None:
    state = State()
    state.apply(act(1, 0, [1]))
    before = _column(state, 1, "log_purchases_7d")
    state.apply(act(2, 60, [1]))
    state.apply(act(3, 61, [1], "purchase-cancel"))
    assert _column(state, 1, "log_purchases_7d") == pytest.approx(before, abs=1e-3)


def test_items_of_one_basket_become_neighbours(act: Act) -> None:
    state = State()
    state.apply(act(1, 0, [1, 2]))
    state.of_items.freshen(np.array([1, 2]))
    assert state.items.neighbour_ordinals_NK[1, 0] == 2
    assert state.items.neighbour_weights_NK[1, 0] == pytest.approx(1.0)
    assert state.items.neighbour_ordinals_NK[1, 1] == NO_NEIGHBOUR


def test_items_of_different_visits_do_not_become_neighbours(act: Act) -> None:
    state = State()
    state.apply(act(1, 0, [1]))
    state.apply(act(2, 31, [2]))
    state.of_items.freshen(np.array([1]))
    assert state.items.neighbour_ordinals_NK[1, 0] == NO_NEIGHBOUR


def test_a_large_basket_pairs_each_item_with_twenty_before_it(act: Act) -> None:
    state = State()
    state.apply(act(1, 0, list(range(500))))
    state.of_items.freshen(np.array([100]))
    neighbours = state.items.neighbour_ordinals_NK[100]
    assert set(neighbours.tolist()) <= set(range(80, 121)) - {100}
    assert (neighbours != NO_NEIGHBOUR).all()


def test_neighbours_are_the_same_as_those_counted_by_hand(act: Act) -> None:
    state, chance = State(), np.random.default_rng(3)
    together = np.zeros((40, 40))
    for number in range(300):
        basket = chance.choice(40, 4, replace=False).tolist()
        state.apply(act(number + 1, number * 60 / 1e3, basket, user=f"u:{number}"))
        together[np.ix_(basket, basket)] += 1
    np.fill_diagonal(together, 0)
    items = np.arange(40)
    state.of_items.freshen(items)
    heaviest = state.items.neighbour_weights_NK[:40, :5].sum(axis=1)
    counts = -np.sort(-together, axis=1)[:, :5].sum(axis=1) / (together.sum(axis=1) / 3)
    np.testing.assert_allclose(heaviest, counts, rtol=1e-3)


def test_the_heaviest_neighbours_survive_when_there_is_no_room(act: Act) -> None:
    state = State()
    for number in range(300):
        partner = number % 5 + 1 if number % 2 else 10 + number
        state.apply(act(number + 1, number / 1e3, [0, partner], user=f"u:{number}"))
    state.of_items.freshen(np.array([0]))
    assert set(state.items.neighbour_ordinals_NK[0, :5].tolist()) == {1, 2, 3, 4, 5}
    np.testing.assert_allclose(state.items.neighbour_weights_NK[0, :5], 30 / 300, rtol=1e-3)


def test_a_second_purchase_by_the_same_person_is_a_repeat(act: Act) -> None:
    state = State()
    state.apply(act(1, 0, [1, 2]))
    assert _column(state, 1, "log_repeats_30d") == np.float32(NEVER)
    state.apply(act(2, 60, [1]))
    state.apply(act(3, 60, [2], user="u:bob"))
    ratio = _column(state, 1, "log_repeats_30d") - _column(state, 1, "log_purchases_30d")
    assert ratio == pytest.approx(np.log(1 / 2), abs=1e-2)
    assert _column(state, 2, "log_repeats_30d") == np.float32(NEVER)


def test_purchases_are_counted_by_who_made_them(act: Act) -> None:
    state = State()
    state.apply(act(1, 0, [1], user="u:ann"))
    state.apply(act(2, 0, [2], user="v:guest"))
    state.apply(act(3, 60, [3], user="u:ann"))
    marked = {name: [_column(state, item, name) > NEVER for item in (1, 2, 3)] for name in MARKED_FEATURES}
    assert marked["log_customer_purchases_7d"] == [True, False, True]
    assert marked["log_first_purchases_30d"] == [True, False, False]
    assert marked["log_repeats_30d"] == [False, False, False]


def test_rows_say_whether_the_person_is_a_customer(act: Act) -> None:
    state = State()
    for offset, user in enumerate(("u:ann", "v:guest"), 1):
        state.apply(act(offset, 0, [1], user=user))
    groups = state.apply(act(3, 60, [1]))
    place = CANDIDATE_FEATURES.index("is_customer")
    assert {group.user_key: set(group.features[:, place]) for group in groups} == {"u:ann": {1.0}, "v:guest": {0.0}}


def test_a_history_keeps_its_newest_events(act: Act) -> None:
    state = State(Rules(history_events=3))
    state.apply(act(1, 0, [1, 2]))
    state.apply(act(2, 1, [3, 4]))
    assert _history(state).ordinals.tolist() == [2, 3, 4]


def test_impressions_and_searches_touch_no_history(act: Act) -> None:
    state = State()
    state.apply(act(1, 0, [], "search"))
    state.apply(Tick(2))
    assert (state.histories.count(), state.offset, state.events_by_type) == (0, 2, {"search": 1})


def test_a_document_fills_columns_and_a_deletion_marks_them(product: Callable[..., ProductFact]) -> None:
    state = State()
    state.apply(product(1, 0, 4, price=10.0))
    state.apply(product(2, 1, 4, price=20.0))
    assert _column(state, 4, "price_change") == pytest.approx(np.log(2))
    assert state.items.is_servable(state.now_us).tolist() == [False] * 4 + [True]
    state.apply(product(3, 2, 4, deleted=True))
    assert (_column(state, 4, "price"), _column(state, 4, "deleted")) == (20, 1)
    assert not state.items.is_servable(state.now_us).any()


def test_a_product_change_does_not_move_the_shops_clock(act: Act, product: Callable[..., ProductFact]) -> None:
    # in a replay the door writes products years after the events beside them
    state = State()
    state.apply(act(1, 0, [3]))
    state.apply(product(2, 1_000_000, 3))
    assert state.now_us == act(1, 0, [3]).time_us
    assert _column(state, 3, "purchases_5m") == 1
    [group] = state.apply(act(3, 31, [4]))
    assert group.ordinals[group.labels > 0].tolist() == [3]


def test_category_windows_count_an_event_once(act: Act, product: Callable[..., ProductFact]) -> None:
    state = State()
    state.apply(product(1, 0, 0))
    state.apply(product(2, 0, 3))
    state.apply(act(3, 1, [0, 3]))
    row = state.entities.known_row("category", state.entities.category_of[0])
    assert row is not None
    assert state.windows.of(row)[-1] == 1


@given(seed=st.integers(0, 10_000), cut=st.integers(0, 60))
@settings(max_examples=20, deadline=None)
def test_any_restart_point_gives_the_state_of_a_straight_fold(
    seed: int, cut: int, shop_facts: Callable[..., list], tmp_path_factory: pytest.TempPathFactory
) -> None:
    facts = shop_facts(seed, 60)
    straight, first = State(), State()
    expected = [group for fact in facts for group in straight.apply(fact)]
    groups = [group for fact in facts[:cut] for group in first.apply(fact)]
    snapshots = Snapshots(Path(tmp_path_factory.mktemp("snapshots")))
    snapshots.write(first.copy())
    second = snapshots.newest(Rules())
    groups += [group for fact in facts[cut:] for group in second.apply(fact)]
    assert second.copy().digest() == straight.copy().digest()
    assert [_bytes(group) for group in groups] == [_bytes(group) for group in expected]


def _bytes(group: object) -> tuple[object, ...]:
    return tuple(
        value.tobytes() if isinstance(value := getattr(group, name), np.ndarray) else value
        for name in ("offset", "user_key", "time_us", "history", "ordinals", "features", "labels", "weights")
    )


def test_a_different_state_has_a_different_digest(act: Act) -> None:
    one, other = State(), State()
    one.apply(act(1, 0, [1]))
    other.apply(act(1, 0, [2]))
    assert one.copy().digest() != other.copy().digest()


def test_a_corrupt_snapshot_falls_back_to_the_older(act: Act, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    snapshots, state = Snapshots(tmp_path), State()
    for offset in (1, 2, 3):
        state.apply(act(offset, offset, [offset]))
        snapshots.write(state.copy())
    newest = max(tmp_path.glob("state-*"))
    data = bytearray(newest.read_bytes())
    data[len(data) // 2] ^= 1
    newest.write_bytes(data)
    assert len(list(tmp_path.glob("state-*"))) == 2
    assert snapshots.newest(Rules()).offset == 2
    assert "snapshot_refused" in caplog.text


def test_a_snapshot_of_other_rules_is_not_used(act: Act, tmp_path: Path) -> None:
    state = State()
    state.apply(act(1, 0, [1]))
    Snapshots(tmp_path).write(state.copy())
    assert Snapshots(tmp_path).newest(Rules(history_events=7)).offset == 0
