"""Which items go together, and how much."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.model.covisitation import SLOTS, Covisitation, moments_back
from headrace.model.items import LANDMARK_US, NO_NEIGHBOUR

DAY_US = 86_400_000_000


def _pairs(items: int = 100) -> Covisitation:
    pairs = Covisitation(half_life_days=30)
    pairs.grow(items)
    return pairs


def _shares(pairs: Covisitation, item: int) -> dict[int, float]:
    others, shares = pairs.neighbours(np.array([item]))
    return {int(o): float(s) for o, s in zip(others[0], shares[0], strict=True) if o != NO_NEIGHBOUR and s > 0}


def test_items_of_one_moment_count_whole() -> None:
    pairs = _pairs()
    pairs.add([], [], [1, 2, 3], LANDMARK_US)
    assert _shares(pairs, 1) == pytest.approx({2: 1.0, 3: 1.0})


def test_what_lies_moments_back_counts_less() -> None:
    pairs = _pairs()
    pairs.add([], [], [1], LANDMARK_US)
    pairs.add([1], [1], [2], LANDMARK_US + 1)
    pairs.add([1, 2], [2, 1], [3], LANDMARK_US + 2)
    assert _shares(pairs, 3) == pytest.approx({2: 1.0, 1: 0.8}, rel=1e-5)


def test_old_pairs_fade_by_half_in_a_half_life() -> None:
    pairs = _pairs()
    pairs.add([], [], [1, 2], LANDMARK_US)
    pairs.add([], [], [1, 3], LANDMARK_US + 30 * DAY_US)
    shares = _shares(pairs, 1)
    assert shares[2] / shares[3] == pytest.approx(0.5, rel=1e-5)


def test_many_visits_at_once_count_as_one_by_one() -> None:
    one, other = _pairs(), _pairs()
    visits = [[5, 6, 7], [6, 8], [9]]
    times = [[LANDMARK_US + place for place in range(len(items))] for items in visits]
    for items, times_us in zip(visits, times, strict=True):
        for place, item in enumerate(items):
            back = moments_back(times_us[:place], times_us[place])
            one.add(items[:place], back, [item], times_us[place])
    flat = np.concatenate(visits)
    numbers = np.repeat([0, 1, 2], [len(items) for items in visits])
    other.add_visits(flat, numbers, np.concatenate(times), np.ones(len(flat), np.bool_))
    for item in range(5, 10):
        assert _shares(one, item) == pytest.approx(_shares(other, item), rel=1e-5)


def test_followers_are_counted_in_one_direction_and_next_to_each_other() -> None:
    pairs = _pairs()
    items, visits = np.array([1, 2, 3, 1, 3]), np.array([0, 0, 0, 1, 1])
    pairs.add_followers(items, visits, LANDMARK_US + np.arange(5), np.ones(5, np.bool_))
    assert _shares(pairs, 1) == pytest.approx({2: 0.5, 3: 0.5}, rel=1e-5)
    assert _shares(pairs, 3) == {}


def test_what_was_counted_before_is_not_counted_again() -> None:
    pairs = _pairs()
    items, times, visit = np.array([1, 2, 3]), LANDMARK_US + np.arange(3), np.zeros(3, np.int64)
    pairs.add_visits(items[:2], visit[:2], times[:2], np.ones(2, np.bool_))
    pairs.add_visits(items, visit, times, np.array([False, False, True]))
    assert _shares(pairs, 2) == pytest.approx({1: 1.0, 3: 1.0}, rel=1e-5)


@given(st.integers(2, 400))
def test_of_many_others_the_heaviest_stay(others: int) -> None:
    pairs = _pairs(500)
    items = np.stack([np.zeros(others, np.int64), np.arange(1, others + 1)], axis=1).ravel()
    visits = np.repeat(np.arange(others), 2)
    times = LANDMARK_US + np.repeat(np.arange(others), 2) * DAY_US
    pairs.add_visits(items, visits, times, np.ones(len(items), np.bool_))
    newest = set(range(max(1, others - 31), others + 1))
    assert set(_shares(pairs, 0)) == newest


def test_more_than_there_is_room_for_is_cut() -> None:
    pairs = _pairs(500)
    pairs.add([], [], [0], LANDMARK_US)
    for start in range(1, 400, 20):
        pairs.add([0], [1], list(range(start, start + 20)), LANDMARK_US)
    assert len(_shares(pairs, 0)) <= SLOTS


def test_a_restored_count_goes_on() -> None:
    pairs = _pairs()
    pairs.add([], [], [1, 2], LANDMARK_US)
    copy = _pairs()
    copy.restore(pairs.columns(100))
    for each in (pairs, copy):
        each.add([1], [1], [4], LANDMARK_US + 5)
    assert _shares(pairs, 1) == _shares(copy, 1)
