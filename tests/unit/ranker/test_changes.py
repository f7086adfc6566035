from __future__ import annotations

from headrace.ranker.changes import Changes


def test_each_trace_is_named_once_in_the_order_of_the_items() -> None:
    changes = Changes()
    changes.note("a", [1, 2])
    changes.note("b", [2, 3])
    assert changes.of([3, 1, 2, 4]) == ["b", "a"]


def test_changes_of_long_ago_are_left_out() -> None:
    changes = Changes()
    changes.note("a", range(10_001))
    assert changes.of([0]) == []
    assert changes.of([1]) == ["a"]
