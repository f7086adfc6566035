"""Candidates and their features: known right answers, finite everywhere, the same for serving and training."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.model.candidates import (
    CANDIDATE_FEATURES,
    COVISITATION,
    FEATURE_SCHEMA,
    FRESH,
    POPULAR,
    REPURCHASE,
    RETRIEVAL_FEATURES,
    SourceLimits,
    candidate_features,
    fill_vector_features,
    propose,
)
from headrace.model.events import EventCode
from headrace.model.history import History, recent_distinct, visit_numbers
from headrace.model.items import COLUMN, DAY_US, HOUR_US, ITEM_FEATURES, LANDMARK_US, NEIGHBOURS, NO_NEIGHBOUR, Items
from headrace.model.words import WORDS

NOW = LANDMARK_US + 1000 * DAY_US


def _history(*events: tuple[int, int, float]) -> History:
    """Events of (ordinal, code, hours ago)."""
    ordinals, codes, ages = zip(*events, strict=True)
    return History(
        np.array(ordinals, np.uint32),
        np.array(codes, np.uint8),
        np.array([NOW - int(age * HOUR_US) for age in ages], np.int64),
        np.zeros(len(events), np.uint8),
    )


def _items(count: int, **columns: list[float]) -> Items:
    items = Items()
    items.grow(count)
    rows = items.features_NF[:count].copy()
    rows[:, COLUMN["described"]] = 1
    for name, values in columns.items():
        rows[:, COLUMN[name]] = values
    neighbours = np.full((count, NEIGHBOURS), NO_NEIGHBOUR, np.uint32)
    weights = np.zeros((count, NEIGHBOURS), np.float32)
    items.update(np.arange(count, dtype=np.uint32), rows, neighbours, weights)
    return items


def _neighbours(items: Items, ordinal: int, *others: tuple[int, float]) -> None:
    row, weights = np.full((1, NEIGHBOURS), NO_NEIGHBOUR, np.uint32), np.zeros((1, NEIGHBOURS), np.float32)
    for place, (other, weight) in enumerate(others):
        row[0, place], weights[0, place] = other, weight
    items.set_neighbours(np.array([ordinal], np.uint32), row, weights)


def _feature(features: np.ndarray, place: int, name: str) -> float:
    return float(features[place, CANDIDATE_FEATURES.index(name)])


def _all(count: int) -> np.ndarray:
    return np.arange(count, dtype=np.uint32)


def test_the_last_three_features_are_left_to_the_caller() -> None:
    assert CANDIDATE_FEATURES[-3:] == RETRIEVAL_FEATURES
    assert len(set(CANDIDATE_FEATURES)) == len(CANDIDATE_FEATURES)
    assert len(FEATURE_SCHEMA) == 64


def test_own_counts_are_logs_of_how_often() -> None:
    history = _history((1, EventCode.VIEW, 30), (1, EventCode.VIEW, 20), (1, EventCode.PURCHASE, 10))
    features = candidate_features(history, _items(3), _all(3), NOW)
    assert _feature(features, 1, "own_views") == pytest.approx(np.log(3))
    assert _feature(features, 1, "own_purchases") == pytest.approx(np.log(2))
    assert _feature(features, 0, "own_views") == 0


def test_personal_frequency_is_the_share_of_baskets() -> None:
    bought = EventCode.PURCHASE
    history = _history((0, bought, 300), (1, bought, 300), (0, bought, 299.9), (0, bought, 200), (2, bought, 100))
    features = candidate_features(history, _items(4), _all(4), NOW)
    shares = features[:, CANDIDATE_FEATURES.index("own_basket_share")]
    np.testing.assert_allclose(shares, [2 / 3, 1 / 3, 1 / 3, 0], rtol=1e-6)
    assert [_feature(features, place, "own_in_last_basket") for place in range(4)] == [0, 0, 1, 0]


def test_an_item_is_due_when_its_age_equals_the_gap_between_its_purchases() -> None:
    bought = EventCode.PURCHASE
    history = _history((0, bought, 300), (0, bought, 200), (0, bought, 100))
    features = candidate_features(history, _items(1), _all(1), NOW)
    assert _feature(features, 0, "own_age_in_item_gaps") == pytest.approx(0, abs=1e-6)
    assert _feature(features, 0, "own_age_in_basket_gaps") == pytest.approx(0, abs=1e-6)


def test_popularity_is_relative_to_the_most_popular() -> None:
    items = _items(3, log_purchases_7d=[5.0, 3.0, -1e30])
    features = candidate_features(History.empty(), items, _all(3), NOW)
    values = features[:, CANDIDATE_FEATURES.index("relative_log_purchases_7d")]
    np.testing.assert_allclose(values, [0, -0.5, -3])


def test_a_fallen_maximum_is_noticed() -> None:
    items = _items(2, log_purchases_7d=[5.0, 3.0])
    row = items.features_NF[:1].copy()
    row[0, COLUMN["log_purchases_7d"]] = 1.0
    items.set_features(np.array([0], np.uint32), row)
    features = candidate_features(History.empty(), items, _all(2), NOW)
    assert _feature(features, 1, "relative_log_purchases_7d") == 0


def test_covisitation_decays_with_the_position_of_the_item_that_brings_it() -> None:
    items = _items(6)
    _neighbours(items, 0, (4, 0.5))
    _neighbours(items, 1, (5, 0.5))
    history = _history((0, EventCode.VIEW, 100), (1, EventCode.VIEW, 1))
    features = candidate_features(history, items, _all(6), NOW)
    assert _feature(features, 5, "covisitation") > _feature(features, 4, "covisitation") > 0
    assert _feature(features, 5, "covisitation_last_visit") > 0
    assert _feature(features, 4, "covisitation_last_visit") == 0


def test_prices_are_measured_against_the_persons_own() -> None:
    items = _items(3, price=[10.0, 20.0, 0.0])
    features = candidate_features(_history((0, EventCode.VIEW, 1)), items, _all(3), NOW)
    prices = features[:, CANDIDATE_FEATURES.index("price_to_own")]
    np.testing.assert_allclose(prices, [0, np.log(2), 0], atol=1e-6)


def test_affinity_is_the_share_of_the_history_with_the_code() -> None:
    items = _items(4, category=[1, 1, 2, 0], brand=[0, 0, 0, 0])
    history = _history((0, EventCode.VIEW, 3), (1, EventCode.VIEW, 2), (2, EventCode.VIEW, 1))
    features = candidate_features(history, items, _all(4), NOW)
    np.testing.assert_allclose(features[:, CANDIDATE_FEATURES.index("category_share")], [2 / 3, 2 / 3, 1 / 3, 0])
    assert not features[:, CANDIDATE_FEATURES.index("brand_share")].any()


def test_an_unknown_item_has_zeros_and_known_ones_keep_theirs() -> None:
    items = _items(2, price=[10.0, 20.0])
    history = _history((1, EventCode.VIEW, 1), (9, EventCode.VIEW, 1))
    features = candidate_features(history, items, np.array([7, 1], np.uint32), NOW)
    assert not features[0].any()
    np.testing.assert_array_equal(features[1:], candidate_features(history, items, np.array([1], np.uint32), NOW))


def test_no_candidates_and_no_items_are_no_trouble() -> None:
    history = _history((3, EventCode.PURCHASE, 1))
    assert candidate_features(history, Items(), np.empty(0, np.uint32), NOW).shape == (0, len(CANDIDATE_FEATURES))
    assert not candidate_features(history, Items(), _all(2), NOW).any()
    assert len(propose(history, Items(), NOW, SourceLimits()).ordinals) == 0


def test_an_unknown_person_has_no_features_of_their_own() -> None:
    features = candidate_features(History.empty(), _items(2, price=[1.0, 2.0]), _all(2), NOW)
    own = [place for place, name in enumerate(CANDIDATE_FEATURES) if name.startswith(("own_", "covis", "hours_since"))]
    assert not features[:, own].any()


@given(seed=st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_every_feature_is_finite_and_about_unit_scale(seed: int) -> None:
    chance = np.random.default_rng(seed)
    count, length = int(chance.integers(1, 60)), int(chance.integers(0, 80))
    items = _items(count)
    rows = items.features_NF[:count].copy()
    rows[:, COLUMN["price"]] = chance.choice([0, 0.01, 5, 1e9], count)
    rows[:, COLUMN["first_seen_h"]] = chance.choice([0, -1e5, 1e6], count)
    for name in ITEM_FEATURES:
        if name.startswith("log_"):
            rows[:, COLUMN[name]] = chance.choice([-1e30, -500, 0, 700], count)
        elif "_" in name and name[-1] in "mhd" and name != "first_seen_h" and not name.endswith("sh_h"):
            rows[:, COLUMN[name]] = chance.choice([0, 3, 1e7], count)
    rows[:, COLUMN["publish_h"]], rows[:, COLUMN["expire_h"]] = -1e9, 1e9
    neighbours = chance.integers(0, count, (count, NEIGHBOURS)).astype(np.uint32)
    items.update(_all(count), rows, neighbours, chance.random((count, NEIGHBOURS)).astype(np.float32))
    history = History(
        chance.integers(0, count + 5, length).astype(np.uint32),
        chance.integers(1, 5, length).astype(np.uint8),
        (NOW - chance.integers(-DAY_US, 400 * DAY_US, length)).astype(np.int64),
        np.zeros(length, np.uint8),
    )
    features = candidate_features(history, items, _all(count), NOW)
    assert np.isfinite(features).all()
    assert np.abs(features).max() < 25
    # one candidate at a time gives the same: no candidate's features depend on the others
    one = np.concatenate([candidate_features(history, items, np.array([o], np.uint32), NOW) for o in range(count)])
    np.testing.assert_allclose(features, one, rtol=1e-5, atol=1e-6)


def test_sources_are_named_and_candidates_are_distinct() -> None:
    items = _items(50, log_purchases_7d=[float(o) for o in range(50)], first_seen_h=[float(-o) for o in range(50)])
    _neighbours(items, 7, (8, 0.5), (7, 0.1))
    proposals = propose(_history((7, EventCode.PURCHASE, 1)), items, NOW, SourceLimits(popular=3, fresh=2))
    by_ordinal = dict(zip(proposals.ordinals.tolist(), proposals.sources.tolist(), strict=True))
    assert by_ordinal == {7: REPURCHASE | COVISITATION, 8: COVISITATION, 49: POPULAR, 48: POPULAR, 47: POPULAR} | {
        0: FRESH,
        1: FRESH,
    }


def test_what_cannot_be_shown_is_not_proposed() -> None:
    shown = {"log_purchases_7d": [5.0] * 6, "deleted": [0, 1, 0, 0, 0, 0], "described": [1, 1, 0, 1, 1, 1]}
    now_h = (NOW - LANDMARK_US) / HOUR_US
    items = _items(
        6,
        **shown,
        publish_h=[-1e9, -1e9, -1e9, now_h + 1, -1e9, -1e9],
        expire_h=[1e9, 1e9, 1e9, 1e9, now_h - 1, 1e9],
    )
    history = _history(*((ordinal, EventCode.PURCHASE, 1) for ordinal in range(6)))
    assert sorted(propose(history, items, NOW, SourceLimits()).ordinals.tolist()) == [0, 5]
    assert sorted(propose(history, items, NOW + 2 * HOUR_US, SourceLimits()).ordinals.tolist()) == [0, 3, 5]


def test_popular_takes_turns_and_equal_items_go_by_ordinal() -> None:
    items = _items(6, log_purchases_7d=[1, 9, 9, 0, 0, 0], log_views_7d=[0, 0, 0, 0, 8, 7])
    assert items.popular(NOW, 4).tolist() == [1, 4, 2, 5]


def test_the_first_purchase_of_a_shop_is_popular_at_once() -> None:
    items = _items(6)
    assert items.popular(NOW, 2).tolist() == []
    features = items.features_NF[[3]].copy()
    features[0, COLUMN["log_purchases_7d"]] = 1.0
    items.set_features(np.array([3], np.uint32), features)
    assert items.popular(NOW, 2).tolist() == [3]


def test_limits_bound_each_source() -> None:
    items = _items(300, log_purchases_7d=[1.0] * 300)
    history = _history(*((ordinal, EventCode.VIEW, 1) for ordinal in range(100, 200)))
    limits = SourceLimits(repurchase=5, covisitation=0, popular=7, fresh=0)
    assert len(propose(history, items, NOW, limits).ordinals) == 12


def test_vector_features_hold_the_score_and_the_rank() -> None:
    features = np.zeros((3, len(CANDIDATE_FEATURES)), np.float32)
    fill_vector_features(features, np.array([0.1, 0.9, 0.5], np.float32))
    np.testing.assert_allclose(features[:, -3], [0.1, 0.9, 0.5])
    np.testing.assert_allclose(features[:, -2], [1 / 1.2, 1, 1 / 1.1], rtol=1e-6)


def test_recent_distinct_is_newest_first() -> None:
    assert recent_distinct(np.array([1, 2, 3, 2, 1], np.uint32), 2).tolist() == [1, 2]


def test_visits_are_cut_at_thirty_minutes() -> None:
    minutes = np.array([0, 30, 61, 62]) * 60_000_000
    assert visit_numbers(minutes).tolist() == [0, 0, 1, 1]


def test_growing_keeps_what_is_known() -> None:
    items = _items(2, price=[3.0, 4.0])
    items.grow(5_000)
    assert items.count == 5_000
    assert items.column("price")[:3].tolist() == [3, 4, 0]
    assert not items.is_servable(NOW)[2:].any()


def test_five_hundred_candidates_take_about_half_a_millisecond() -> None:
    chance = np.random.default_rng(0)
    items = _items(5_000, price=chance.random(5_000).tolist())
    history = _history(*((int(o), EventCode.PURCHASE, 200 - n) for n, o in enumerate(chance.integers(0, 5_000, 200))))
    candidates = chance.choice(5_000, 500, replace=False).astype(np.uint32)
    times = []
    for _ in range(50):
        begun = time.perf_counter()
        candidate_features(history, items, candidates, NOW)
        times.append(time.perf_counter() - begun)
    # five times the aim: a busy machine must not fail the build
    assert min(times) < 0.0025


def test_titles_like_those_of_the_last_visit_and_of_lately_stand_out() -> None:
    words = {f"word_{number}": [0.0] * 4 for number in range(1, WORDS + 1)}
    items = _items(4, **words | {"word_1": [7, 7, 9, 0], "word_weight_1": [1, 1, 1, 0]})
    # item 2 long ago, item 0 in the last visit
    history = _history((2, EventCode.VIEW, 500), (0, EventCode.VIEW, 1))
    features = candidate_features(history, items, np.arange(4, dtype=np.uint32), NOW)
    last, recent = (features[:, CANDIDATE_FEATURES.index(name)] for name in ("words_last_visit", "words_recent"))
    np.testing.assert_allclose(last, [3, 3, 0, 0])
    np.testing.assert_allclose(recent, [3 / 1.95, 3 / 1.95, 3 * 0.95 / 1.95, 0], rtol=1e-6)
