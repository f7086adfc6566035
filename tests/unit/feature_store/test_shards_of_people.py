"""What is true of items is the same in every shard; what is told of people is in theirs alone."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from headrace.feature_store.facts import Fact, IdentityFact, UserAct
from headrace.feature_store.feature_names import FeatureNames, Keys
from headrace.feature_store.fold import State
from headrace.feature_store.histories import EVENT, history_of
from headrace.feature_store.online_features import user_values
from headrace.feature_store.rules import Rules
from headrace.feature_store.settings import FeatureStoreSettings
from headrace.feature_store.snapshot import Snapshots
from headrace.feature_store.training_rows import ClosedGroup
from headrace.feature_store.windowed_view import WindowedView
from headrace.model.events import EventCode
from headrace.model.items import WINDOW_COLUMNS
from headrace.runtime.errors import Faults
from headrace.runtime.people_shards import shard_of_person
from headrace.runtime.settings import SettingsError, load
from headrace.runtime.shards import Shard

Act = Callable[..., UserAct]
Shop = Callable[..., list[Fact]]

SHARDS = 3
VIEWS = (
    WindowedView("looks", "item", ("detail-page-view",), ("1h", "1d")),
    WindowedView("shelf", "category", ("detail-page-view", "purchase-complete"), ("1d",)),
    WindowedView("mine", "user", ("detail-page-view", "search"), ("7d",)),
)
RULES = [
    Rules(history_events=7, stitch=False),
    Rules(history_events=7, stitch=False, user_ttl_days=1.0),
    Rules(history_events=200, stitch=True, row_sample_rate=0.5),
]


def _with_log_ins(facts: Sequence[Fact], seed: int) -> Iterator[Fact]:
    """The same facts, partly done on devices; people log in there, and some devices are joined and split by hand."""
    chance = random.Random(seed)
    for fact in facts:
        device = f"v:{chance.randrange(6)}"
        if chance.random() < 0.02:
            yield IdentityFact(fact.offset, device, f"u:{chance.randrange(4)}", chance.random() < 0.7)
        elif isinstance(fact, UserAct) and chance.random() < 0.3:
            yield fact._replace(user_key=device)
        elif isinstance(fact, UserAct) and chance.random() < 0.3:
            yield fact._replace(device_key=device)
        else:
            yield fact


def _item_state(state: State) -> dict[str, bytes]:
    items = np.arange(state.items.count)
    state.of_items.freshen(items)
    rows = [state.entities.known_row("item", ordinal) for ordinal in items.tolist()]
    held = {
        "features": state.items.features_NF[items],
        "neighbours": state.items.neighbour_ordinals_NK[items],
        "weights": state.items.neighbour_weights_NK[items],
        "windows": np.array([np.zeros(12) if row is None else state.windows.of(row) for row in rows]),
        "categories": state.of_items.group_counts("category", items.tolist()),
        "brands": state.of_items.group_counts("brand", items.tolist()),
        "looks": state.views["looks"].of_items(items.tolist()),
        "shelf": state.views["shelf"].of_items(items.tolist()),
    }
    return {name: values.tobytes() for name, values in held.items()}


def _group(group: ClosedGroup) -> tuple[object, ...]:
    arrays = (group.ordinals, group.features, group.labels, group.weights)
    return (group.offset, group.user_key, group.time_us, group.history, *(array.tobytes() for array in arrays))


def _folded(facts: Sequence[Fact], rules: Rules) -> tuple[State, Counter[tuple[object, ...]]]:
    state = State(rules, views=VIEWS)
    groups = Counter(_group(group) for fact in facts for group in state.apply(fact))
    return state, groups


@pytest.mark.parametrize("rules", RULES, ids=["apart", "time to live", "stitched"])
@pytest.mark.parametrize("seed", range(2))
def test_items_are_the_same_in_every_shard_as_in_the_whole(shop_facts: Shop, rules: Rules, seed: int) -> None:
    facts = list(_with_log_ins(shop_facts(seed, 400), seed))
    whole, _ = _folded(facts, rules)
    expected = _item_state(whole)
    assert whole.identities.keys()
    for number in range(SHARDS):
        state, _ = _folded(facts, replace(rules, shard=Shard(number, SHARDS)))
        assert _item_state(state) == expected
        assert (state.offset, state.now_us, state.events_by_type) == (whole.offset, whole.now_us, whole.events_by_type)


def test_people_and_their_groups_are_in_one_shard_each_as_they_are_in_the_whole(shop_facts: Shop) -> None:
    rules, names = Rules(history_events=7, stitch=False), FeatureNames(VIEWS)
    # nobody is joined to a device
    facts = [fact for fact in _with_log_ins(shop_facts(1, 600), 1) if not isinstance(fact, IdentityFact)]
    people = sorted({fact.user_key for fact in facts if isinstance(fact, UserAct)})
    selection = names.select((), Keys(user=True, item=False, channel=False), Faults())
    assert selection is not None
    whole, expected = _folded(facts, rules)
    shards = [_folded(facts, replace(rules, shard=Shard(number, SHARDS))) for number in range(SHARDS)]
    assert sum((groups for _, groups in shards), Counter()) == expected
    assert sum(bool(groups) for _, groups in shards) > 1
    for user_key in people:
        owner = shards[shard_of_person(user_key, SHARDS)][0]
        assert [state.owns(user_key) for state, _ in shards].count(True) == 1
        assert owner.owns(user_key)
        assert _history(owner, user_key) == _history(whole, user_key) != b""
        assert user_values(owner, selection, user_key).tobytes() == user_values(whole, selection, user_key).tobytes()


def test_a_shard_keeps_nothing_but_purchases_of_others(shop_facts: Shop) -> None:
    facts = list(_with_log_ins(shop_facts(2, 400), 2))
    state, _ = _folded(facts, Rules(history_events=7, stitch=False, shard=Shard(0, SHARDS)))
    others = [key for key in state.histories.held_keys() if not state.owns(key)]
    kinds = {kind for key in others for kind in np.frombuffer(state.histories.bytes_of(key), EVENT)["event_type"]}
    # a removed one is a purchase that was cancelled
    assert kinds == {EventCode.PURCHASE, EventCode.REMOVE}
    assert not [key for key in state.entities.user_keys() if not state.owns(key)]


def test_a_purchase_outlasts_the_newest_events_for_repeats_and_cancellations(act: Act) -> None:
    state = State(Rules(history_events=3))
    state.apply(act(1, 0, [1]))
    for offset in range(2, 8):
        state.apply(act(offset, offset, [offset], "detail-page-view"))
    assert history_of(_history(state)).ordinals.tolist() == [5, 6, 7]
    assert state.histories.has_bought(["u:ann"], np.array([1, 5])).tolist() == [True, False]
    state.apply(act(8, 9, [1], "purchase-cancel"))
    assert not state.items.features_NF[1, WINDOW_COLUMNS].any()
    assert not state.histories.has_bought_any(["u:ann"])


def test_no_more_purchases_are_kept_than_a_history_has_events(act: Act) -> None:
    state = State(Rules(history_events=2))
    for offset in range(1, 6):
        state.apply(act(offset, offset, [offset]))
    state.apply(act(6, 6, [6, 7], "detail-page-view"))
    bought = state.histories.has_bought(["u:ann"], np.arange(1, 8)).tolist()
    assert bought == [False, False, False, True, True, False, False]


def test_a_shard_goes_on_from_its_snapshot(shop_facts: Shop, tmp_path: Path) -> None:
    facts = list(_with_log_ins(shop_facts(3, 400), 3))
    rules = Rules(history_events=7, shard=Shard(1, SHARDS))
    straight, _ = _folded(facts, rules)
    half = Snapshots(tmp_path).newest(rules, VIEWS)
    for fact in facts[:200]:
        half.apply(fact)
    Snapshots(tmp_path).write(half.copy())
    restored = Snapshots(tmp_path).newest(rules, VIEWS)
    assert restored.offset == 200
    for fact in facts[200:]:
        restored.apply(fact)
    assert restored.copy().digest() == straight.copy().digest()
    # another shard's is not taken for one's own
    assert Snapshots(tmp_path).newest(replace(rules, shard=Shard(2, SHARDS)), VIEWS).offset == 0


def test_shards_do_not_stitch_and_are_no_more_than_there_are_partitions() -> None:
    prefix = "HEADRACE_FEATURE_STORE_"
    with pytest.raises(SettingsError, match=r"HEADRACE_FEATURE_STORE_SHARD='1/4'.*HEADRACE_FEATURE_STORE_STITCH=false"):
        load(FeatureStoreSettings, {prefix + "SHARD": "1/4"})
    with pytest.raises(SettingsError, match="64 partitions"):
        load(FeatureStoreSettings, {prefix + "SHARD": "1/65", prefix + "STITCH": "false"})
    settings = load(FeatureStoreSettings, {prefix + "SHARD": "1/4", prefix + "STITCH": "false"})
    assert settings.rules().shard == Shard(1, 4)
    assert load(FeatureStoreSettings, {}).rules().stitch


def _history(state: State, user_key: str = "u:ann") -> bytes:
    return state.histories.joined_bytes_of([user_key])
