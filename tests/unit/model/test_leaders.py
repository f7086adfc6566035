"""The first items of a column, as they change."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.model.leaders import Leaders

COLUMN = 3
LOWEST = -1.0

# few values, so that many are equal
_values = st.integers(-1, 3).map(float)
_changes = st.lists(st.tuples(st.integers(0, 59), _values, st.booleans(), st.booleans()), max_size=60)


def _expected(values: np.ndarray, allowed: np.ndarray, limit: int) -> list[int]:
    order = sorted(np.flatnonzero(allowed & (values > LOWEST)).tolist(), key=lambda each: (-values[each], each))
    return order[:limit]


@given(_changes, st.integers(1, 12))
@settings(max_examples=300, deadline=None)
def test_the_first_are_those_of_all_items_after_every_change(
    changes: list[tuple[int, float, bool, bool]], limit: int
) -> None:
    values, allowed, leaders = np.full(60, LOWEST, np.float32), np.ones(60, np.bool_), Leaders(LOWEST)
    for ordinal, value, may_be_shown, is_asked in changes:
        values[ordinal], allowed[ordinal] = value, may_be_shown
        leaders.note((COLUMN,), np.array([ordinal]), values[[ordinal], None])
        if is_asked:
            assert leaders.first(COLUMN, values, allowed, limit).tolist() == _expected(values, allowed, limit)
    assert leaders.first(COLUMN, values, allowed, limit).tolist() == _expected(values, allowed, limit)


@given(_changes)
@settings(max_examples=100, deadline=None)
def test_an_answer_changes_only_when_the_leaders_say_so(changes: list[tuple[int, float, bool, bool]]) -> None:
    values, allowed, leaders = np.full(60, LOWEST, np.float32), np.ones(60, np.bool_), Leaders(LOWEST)
    known, answer = leaders.changes, leaders.first(COLUMN, values, allowed, 5).tolist()
    for ordinal, value, _, _ in changes:
        values[ordinal] = value
        leaders.note((COLUMN,), np.array([ordinal]), values[[ordinal], None])
        now = leaders.first(COLUMN, values, allowed, 5).tolist()
        assert now == answer or leaders.changes > known
        known, answer = leaders.changes, now


def test_items_that_came_after_the_pool_was_made_are_among_the_first() -> None:
    leaders, values = Leaders(LOWEST), np.arange(100, dtype=np.float32)
    assert leaders.first(COLUMN, values, np.ones(100, np.bool_), 2).tolist() == [99, 98]
    more = np.append(values, np.float32(1_000))

    leaders.note((COLUMN,), np.array([100]), more[[100], None])

    assert leaders.first(COLUMN, more, np.ones(101, np.bool_), 2).tolist() == [100, 99]
