from __future__ import annotations

from headrace.feature_store.fold_traces import FoldTraces


def test_of_somebody_with_several_keys_the_newest_is_named() -> None:
    traces = FoldTraces()
    traces.note("u:1", 5, "old")
    traces.note("v:1", 7, "new")
    assert traces.newest(["u:1", "v:1", "v:2"]) == "new"
    assert traces.newest(["v:2"]) == traces.newest([]) == ""


def test_nothing_stays_when_somebody_is_forgotten() -> None:
    traces = FoldTraces()
    traces.note("u:1", 5, "old")
    traces.clear()
    assert traces.newest(["u:1"]) == ""


def test_those_of_long_ago_are_left_out() -> None:
    traces = FoldTraces()
    for number in range(10_001):
        traces.note(f"u:{number}", number, "t")
    assert [traces.newest([key]) for key in ("u:0", "u:1")] == ["", "t"]
