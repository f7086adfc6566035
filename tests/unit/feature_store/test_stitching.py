"""Devices and persons as one profile: what is served, what is trained on, and what is left when they part."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.feature_store.facts import Fact, IdentityFact, UserAct
from headrace.feature_store.fold import State
from headrace.feature_store.histories import history_of
from headrace.feature_store.rules import Rules
from headrace.feature_store.training_rows import ClosedGroup
from headrace.model.events import EventCode

MINUTE_US = 60_000_000
BEGUN_US = 1_300_000_000 * 1_000_000
KEYS = ("v:phone", "v:laptop", "u:ann", "u:bob")


def act(offset: int, user_key: str, ordinal: int, minute: float, code: int = 1, device_key: str = "") -> UserAct:
    time_us = BEGUN_US + int(minute * MINUTE_US)
    kind = {1: "detail-page-view", 2: "add-to-cart", 4: "purchase-complete"}[code]
    return UserAct(offset, kind, EventCode(code), user_key, time_us, 1, [ordinal], False, device_key)


def folded(facts: Iterable[Fact], rules: Rules | None = None) -> State:
    state = State(rules)
    for fact in facts:
        state.apply(fact)
    return state


def history(state: State, user_key: str) -> list[tuple[int, int]]:
    """Items with their minutes, as they are served."""
    members = state.identities.members_of(user_key)
    state.histories.hold(members)
    events = history_of(state.histories.joined_bytes_of(members))
    return [
        (int(item), int((time - BEGUN_US) // MINUTE_US))
        for item, time in zip(events.ordinals, events.times_us, strict=True)
    ]


def test_a_log_in_brings_what_was_done_before_it_on_the_device() -> None:
    state = folded([act(1, "v:phone", 1, 0), act(2, "u:ann", 2, 1, device_key="v:phone"), act(3, "v:phone", 3, 2)])
    assert history(state, "u:ann") == history(state, "v:phone") == [(1, 0), (2, 1), (3, 2)]


def test_channels_meet_in_the_order_of_time() -> None:
    facts = [
        act(1, "v:phone", 1, 0),
        act(2, "v:laptop", 2, 1),
        act(3, "u:ann", 3, 2, device_key="v:phone"),
        act(4, "v:phone", 4, 3),
        act(5, "u:ann", 5, 4, device_key="v:laptop"),
    ]
    assert history(folded(facts), "u:ann") == [(1, 0), (2, 1), (3, 2), (4, 3), (5, 4)]


def test_a_profile_holds_no_more_than_one_person_may() -> None:
    facts = [act(number + 1, f"v:{number % 2}", number, number) for number in range(20)]
    facts += [act(21, "u:ann", 90, 30, device_key="v:0"), act(22, "u:ann", 91, 31, device_key="v:1")]
    assert len(history(folded(facts, Rules(history_events=10)), "u:ann")) == 10


def test_counts_of_a_person_are_those_of_all_devices() -> None:
    state = folded([act(1, "v:phone", 1, 0), act(2, "u:ann", 2, 1, device_key="v:phone"), act(3, "v:phone", 3, 2)])
    views = state.user_counts("u:ann")
    assert views.reshape(-1, 3)[:, 0].tolist() == [3, 3, 3, 3]
    assert state.user_counts("v:phone").tolist() == views.tolist()


def test_a_visit_goes_on_when_its_person_logs_in() -> None:
    facts: list[Fact] = [act(1, "v:phone", 1, 0), act(2, "u:ann", 2, 1, device_key="v:phone"), act(3, "u:bob", 9, 90)]
    groups = _groups(facts)
    assert [(group.user_key, sorted(_touched(group))) for group in groups] == [("u:ann", [1, 2])]


def test_a_group_is_trained_on_the_history_that_was_served() -> None:
    before: list[Fact] = [act(1, "v:phone", 1, 0), act(2, "u:ann", 2, 1, device_key="v:phone"), act(3, "v:phone", 3, 2)]
    served = history(folded(before), "v:phone")
    group = _groups([*before, act(4, "v:phone", 4, 60), act(5, "u:bob", 9, 190)])[1]
    events = history_of(group.history)
    assert [
        (int(item), int((time - BEGUN_US) // MINUTE_US))
        for item, time in zip(events.ordinals, events.times_us, strict=True)
    ] == served
    assert group.user_key == "u:ann"


def test_nothing_is_joined_where_the_rules_say_so() -> None:
    facts = [act(1, "v:phone", 1, 0), act(2, "u:ann", 2, 1, device_key="v:phone")]
    assert history(folded(facts, Rules(stitch=False)), "u:ann") == [(2, 1)]


ACTS = st.lists(
    st.tuples(
        st.sampled_from(KEYS),
        st.integers(0, 8),
        st.floats(0, 3_000),
        st.sampled_from([1, 2, 4]),
        st.sampled_from(["", "v:phone", "v:laptop"]),
    ),
    min_size=1,
    max_size=30,
)


@settings(max_examples=60, deadline=None)
@given(ACTS)
def test_profiles_that_part_are_what_they_would_be_had_they_never_met(
    drawn: Sequence[tuple[str, int, float, int, str]],
) -> None:
    acts = [
        act(offset, key, item, minute, code, device if key.startswith("u:") else "")
        for offset, (key, item, minute, code, device) in enumerate(drawn, 1)
    ]
    parted = folded([*acts, *_splits(len(acts))])
    never = folded(acts, Rules(stitch=False))
    for key in KEYS:
        assert history(parted, key) == history(never, key)
        assert parted.user_counts(key).tolist() == never.user_counts(key).tolist()


@settings(max_examples=40, deadline=None)
@given(ACTS)
def test_a_joined_profile_holds_every_event_of_its_devices_once(
    drawn: Sequence[tuple[str, int, float, int, str]],
) -> None:
    acts = [act(offset, key, item, minute, code) for offset, (key, item, minute, code, _) in enumerate(drawn, 1)]
    end = len(acts)
    joins: list[Fact] = [
        IdentityFact(end + 1, "v:phone", "u:ann", True),
        IdentityFact(end + 2, "v:laptop", "u:ann", True),
    ]
    apart, together = folded(acts), folded([*acts, *joins])
    theirs = [event for key in ("u:ann", "v:phone", "v:laptop") for event in history(apart, key)]
    assert sorted(history(together, "v:phone")) == sorted(theirs)
    counts = sum(apart.user_counts(key) for key in ("u:ann", "v:phone", "v:laptop"))
    assert np.array_equal(together.user_counts("u:ann"), counts)


def test_identities_are_part_of_the_digest_and_of_a_snapshot() -> None:
    facts = [act(1, "v:phone", 1, 0), act(2, "u:ann", 2, 1, device_key="v:phone")]
    joined, split = folded(facts), folded([*facts, IdentityFact(3, "v:phone", "u:ann", False)])
    assert joined.copy().digest() != split.copy().digest()


def _splits(offset: int) -> list[Fact]:
    pairs = [(device, user) for device in KEYS[:2] for user in KEYS[2:]]
    return [IdentityFact(offset + place, device, user, False) for place, (device, user) in enumerate(pairs, 1)]


def _groups(facts: Iterable[Fact]) -> list[ClosedGroup]:
    state = State()
    return [group for fact in facts for group in state.apply(fact)]


def _touched(group: ClosedGroup) -> list[int]:
    return group.ordinals[group.labels > 0].tolist()
