"""Declared views: folded one by one, in batches and after a restart they are the same, and what a recount says."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.feature_store.facts import Fact, IdentityFact, ProductFact, UserAct
from headrace.feature_store.feature_names import FeatureNames, Keys
from headrace.feature_store.fold import State
from headrace.feature_store.in_process_tier import InProcessTier
from headrace.feature_store.online_features import user_values
from headrace.feature_store.view_counts import ViewCounts
from headrace.feature_store.windowed_view import WindowedView
from headrace.runtime.errors import Faults

VIEW, BUY = "detail-page-view", "purchase-complete"
DECLARED = (
    WindowedView("looks", "item", (VIEW,), ("5m", "1d")),
    WindowedView("shelf_acts", "category", (VIEW, BUY), ("1h", "7d")),
    WindowedView("brand_sales", "brand", (BUY,), ("30d",), channels=(1,)),
    WindowedView("searches", "user", ("search", "purchase-cancel"), ("1d",)),
    WindowedView("channels", "channel", (VIEW, "search"), ("1d", "30d")),
)
ITEMS, USERS = list(range(31)), [f"u:{number}" for number in range(5)]


def _values(counts: ViewCounts) -> np.ndarray:
    keys = {"user": USERS, "channel": list(range(8))}.get(counts.view.entity)
    return counts.of_items(ITEMS) if keys is None else counts.of(keys)


def _straight(view: WindowedView, facts: list[Fact]) -> ViewCounts:
    counts = ViewCounts(view)
    for fact in facts:
        counts.apply(fact)
    return counts


@pytest.mark.parametrize("view", DECLARED, ids=lambda view: view.name)
@given(seed=st.integers(0, 10_000), cuts=st.lists(st.integers(0, 150), max_size=6), kept=st.integers(0, 150))
@settings(max_examples=12, deadline=None)
def test_batches_and_restarts_change_nothing(
    view: WindowedView, seed: int, cuts: list[int], kept: int, shop_facts: Callable[..., list[Fact]]
) -> None:
    facts = shop_facts(seed, 150)
    straight, batched = _straight(view, facts), ViewCounts(view)
    for start, end in zip([0, *sorted(cuts)], [*sorted(cuts), len(facts)], strict=True):
        batched.apply_many(facts[start:end])
    half = _straight(view, facts[:kept])
    restored = ViewCounts.restored(view, half.columns(), half.offset, half.now_us)
    for fact in facts[kept:]:
        restored.apply(fact)
    for other in (batched, restored):
        np.testing.assert_array_equal(_values(other), _values(straight))
        ours, theirs = other.columns(), straight.columns()
        assert ours.keys() == theirs.keys()
        for name in ours:
            np.testing.assert_array_equal(ours[name], theirs[name])


@pytest.mark.parametrize("view", DECLARED, ids=lambda view: view.name)
def test_counts_are_bracketed_by_a_recount(view: WindowedView, shop_facts: Callable[..., list[Fact]]) -> None:
    facts = shop_facts(3, 600)
    counts = _straight(view, facts)
    values = _values(counts)
    for number, window_us in enumerate(view.windows_us):
        least, most = (_recount(view, facts, counts.now_us, length) for length in (window_us * 63 // 64, window_us))
        assert (least <= values[:, number]).all()
        assert (values[:, number] <= most).all()
    assert values.any()


def _recount(view: WindowedView, facts: list[Fact], now_us: int, length_us: int) -> np.ndarray:
    """What a pass over all facts says, with nothing of the implementation but its keys."""
    names: dict[int, str] = {}
    found: dict[object, int] = {}
    for fact in facts:
        if isinstance(fact, ProductFact) and not fact.deleted:
            names[fact.ordinal] = {"category": fact.category, "brand": fact.brand}.get(view.entity, "")
        if not isinstance(fact, UserAct) or fact.event_type not in view.event_types:
            continue
        if fact.time_us <= now_us - length_us or (view.channels and fact.channel not in view.channels):
            continue
        of: set[object] = set(fact.ordinals)
        if view.entity in ("category", "brand"):
            of = {names[item] for item in fact.ordinals if item in names}
        if view.entity in ("user", "channel"):
            of = {fact.user_key if view.entity == "user" else fact.channel}
        for key in of:
            found[key] = found.get(key, 0) + 1
    keys: list[object] = {"user": list(USERS), "channel": list(range(8)), "item": list(ITEMS)}.get(view.entity) or [
        names.get(item) for item in ITEMS
    ]
    return np.array([found.get(key, 0) for key in keys])


def test_a_view_joins_only_a_state_of_its_offset(shop_facts: Callable[..., list[Fact]]) -> None:
    facts = shop_facts(1, 60)
    state = State()
    for fact in facts:
        state.apply(fact)
    with pytest.raises(ValueError, match="looks@1 is folded up to 50, the state up to 60"):
        state.join(_straight(DECLARED[0], facts[:50]))
    state.join(_straight(DECLARED[0], facts))
    assert "looks" in state.views


def test_views_stay_over_a_restart_unless_they_are_taken_away_or_changed(
    shop_facts: Callable[..., list[Fact]],
) -> None:
    state = State(views=DECLARED)
    for fact in shop_facts(1, 200):
        state.apply(fact)
    changed = WindowedView("looks", "item", (VIEW,), ("1h",), version=2)
    copy = state.copy()
    again = State.restored(state.rules, copy.columns, copy.facts, InProcessTier(), (changed, *DECLARED[2:]))
    assert list(again.views) == [view.name for view in DECLARED[2:]]
    whole = State.restored(state.rules, copy.columns, copy.facts, InProcessTier(), DECLARED)
    for name, values in copy.columns.items():
        np.testing.assert_array_equal(whole.copy().columns[name], values)


def test_a_forgotten_person_is_one_never_seen(shop_facts: Callable[..., list[Fact]]) -> None:
    facts = shop_facts(2, 300)
    view = WindowedView("acts", "user", (VIEW, BUY), ("90d",))
    counts = _straight(view, facts[:200])
    assert counts.of(["u:1"]).any()
    others = counts.of(["u:0", "u:2", "u:3"])
    counts.forget("u:1")
    counts.forget("u:nobody")
    assert not counts.of(["u:1"]).any()
    np.testing.assert_array_equal(counts.of(["u:0", "u:2", "u:3"]), others)
    assert b"u:1" not in counts.columns()["keys.bytes"].tobytes()
    # it goes on, over a restart too, and the person may come back
    again = ViewCounts.restored(view, counts.columns(), counts.offset, counts.now_us)
    for fact in facts[200:]:
        again.apply(fact)
        counts.apply(fact)
    np.testing.assert_array_equal(again.of(USERS), counts.of(USERS))
    assert counts.of(["u:1"]).any()


def test_a_person_and_their_devices_are_read_together(act: Callable[..., UserAct]) -> None:
    """And apart again, exactly, once they are taken apart; erasing a key takes what was counted under it."""
    view = WindowedView("acts", "user", (VIEW, BUY), ("1d",))
    selection = FeatureNames((view,)).select(("acts", "user_views_1d"), Keys(True, False, False), Faults())
    assert selection is not None
    state = State(views=(view,))

    def read(user_key: str) -> list[float]:
        return user_values(state, selection, user_key).tolist()

    state.apply(act(1, 0, [1], VIEW, user="v:phone"))
    state.apply(act(2, 1, [2], VIEW, user="u:ann")._replace(device_key="v:phone"))
    assert read("u:ann") == read("v:phone") == [2, 2]
    state.apply(IdentityFact(3, "v:phone", "u:ann", is_joined=False))
    assert read("u:ann") == read("v:phone") == [1, 1]
    state.erase(["u:ann"])
    assert read("u:ann") == [0, 0]
    assert read("v:phone") == [1, 1]
