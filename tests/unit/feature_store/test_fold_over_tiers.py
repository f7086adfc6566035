"""Where people rest, who is in memory and when a crash comes change nothing about the state."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from headrace.feature_store.facts import Fact, UserAct
from headrace.feature_store.fold import State
from headrace.feature_store.rules import Rules
from headrace.feature_store.snapshot import Snapshots
from headrace.feature_store.tier_opening import open_user_tier
from headrace.feature_store.user_tier import UserTier
from headrace.runtime.shards import Shard

Act = Callable[..., UserAct]
Shop = Callable[..., list[Fact]]

# times in the shop jump: a few of its people are away for more than a day
RULES = [
    Rules(history_events=20),
    Rules(history_events=20, user_ttl_days=1.0),
    Rules(history_events=5, shard=Shard(1, 2)),
]


@pytest.fixture(params=["in process", "redis"])
def tier_url(request: pytest.FixtureRequest) -> str:
    return "" if request.param == "in process" else request.getfixturevalue("shared_redis").url()


class Crashing:
    """A fold that takes snapshots, loses people from memory and crashes, at moments that `chance` draws."""

    def __init__(self, url: str, folder: Path, rules: Rules, chance: random.Random) -> None:
        self._url, self._folder, self._rules, self._chance = url, folder, rules, chance
        self._tiers: list[UserTier] = []
        self.groups: dict[int, list[object]] = {}
        self.done: set[str] = set()
        self.state = self._restored()

    def _restored(self) -> State:
        self._tiers.append(open_user_tier(self._url))
        self._snapshots = Snapshots(self._folder, self._tiers[-1])
        return self._snapshots.newest(self._rules)

    def fold(self, facts: list[Fact]) -> None:
        while self.state.offset < len(facts):
            start = self.state.offset
            part = facts[start : start + self._chance.randrange(1, 12)]
            self.state.hold_users(part)
            for fact in part:
                self.groups[fact.offset] = [_bytes(group) for group in self.state.apply(fact)]
            event = self._chance.choice(["snapshot", "snapshot", "crash", "no file", "no file, no crash", "nothing"])
            self.done.add(event)
            getattr(self, "_" + event.replace(", ", "_").replace(" ", "_"))()

    def _nothing(self) -> None: ...

    def _snapshot(self) -> None:
        copy = self.state.copy()
        self.state.histories.storing()
        self._snapshots.write(copy)
        self.state.histories.stored(self._chance.randrange(3))

    def _crash(self) -> None:
        self.state = self._restored()

    def _no_file(self) -> None:
        self.state.copy().histories.store(self.state.offset)
        self._crash()

    def _no_file_no_crash(self) -> None:
        copy = self.state.copy()
        self.state.histories.storing()
        copy.histories.store(self.state.offset)
        self.state.histories.not_stored()

    def close(self) -> None:
        for tier in self._tiers:
            tier.close()


def _bytes(group: object) -> tuple[object, ...]:
    return tuple(
        value.tobytes() if isinstance(value := getattr(group, name), np.ndarray) else value
        for name in ("user_key", "history", "ordinals", "features", "labels", "weights")
    )


@pytest.mark.parametrize("rules", RULES, ids=["for ever", "one day", "shard"])
@pytest.mark.parametrize("seed", range(2))
def test_crashes_and_people_who_left_memory_change_nothing(
    tier_url: str, rules: Rules, seed: int, shop_facts: Shop, tmp_path: Path
) -> None:
    facts = shop_facts(seed, 100)
    straight = State(rules)
    groups = {fact.offset: [_bytes(group) for group in straight.apply(fact)] for fact in facts}
    crashing = Crashing(tier_url, tmp_path, rules, random.Random(seed))
    crashing.fold(facts)
    assert crashing.done >= {"snapshot", "crash", "no file"}
    assert crashing.state.copy().digest() == straight.copy().digest()
    assert crashing.groups == groups
    crashing.close()


def test_nobody_stays_in_memory_beyond_the_limit(tier_url: str, act: Act, tmp_path: Path) -> None:
    tier = open_user_tier(tier_url)
    snapshots = Snapshots(tmp_path, tier)
    state = snapshots.newest(Rules())
    for offset in range(1, 101):
        state.apply(act(offset, offset, [1], user=f"u:{offset}"))
        if offset % 10 == 0:
            copy = state.copy()
            state.histories.storing()
            snapshots.write(copy)
            state.histories.stored(limit=5)
            assert state.histories.held_count == 5
    assert (len(tier), state.histories.count()) == (100, 100)
    assert state.histories.held_bytes("u:100")
    assert state.histories.held_bytes("u:1") is None
    tier.close()


def test_an_event_older_than_the_ttl_is_as_good_as_never_seen(act: Act) -> None:
    state = State(Rules(user_ttl_days=1.0))
    state.apply(act(1, 0, [1]))
    state.apply(act(2, 60 * 24 - 1, [1, 2]))
    assert state.histories.bytes_of("u:ann")
    state.apply(act(3, 60 * 24 + 1, [3], user="u:bob"))
    assert len(state.histories.bytes_of("u:ann")) == len(state.histories.bytes_of("u:bob")) * 2
    groups = state.apply(act(4, 60 * 48 + 1, [1]))
    groups += state.apply(act(5, 60 * 49, [1], user="u:bob"))
    assert [len(group.history) for group in groups if group.user_key == "u:ann"][-1] == 0


def test_people_away_longer_than_the_ttl_leave_memory_and_tier_at_a_snapshot(
    tier_url: str, act: Act, tmp_path: Path
) -> None:
    tier = open_user_tier(tier_url)
    snapshots = Snapshots(tmp_path, tier)
    state = snapshots.newest(Rules(user_ttl_days=1.0))
    for offset, (minutes, user) in enumerate([(0, "u:ann"), (1, "u:bob"), (60 * 24 + 1, "u:bob")], 1):
        state.apply(act(offset, minutes, [1], user=user))
        copy = state.copy()
        state.histories.storing()
        snapshots.write(copy)
        state.histories.stored(limit=0)
    assert [user_key for user_key, _ in tier.rows()] == ["u:bob"]
    assert (state.histories.held_count, state.histories.count()) == (0, 1)
    tier.close()


def test_an_erased_person_is_gone_from_the_state_and_after_two_snapshots_from_the_tier(
    tier_url: str, act: Act, shared_redis, tmp_path: Path
) -> None:
    tier = open_user_tier(tier_url)
    snapshots = Snapshots(tmp_path, tier)
    state = snapshots.newest(Rules())
    for offset in range(1, 6):
        state.apply(act(offset, offset, [1], user="u:ann-0815"))
        state.apply(act(offset + 5, offset, [2], user="u:bob"))
        if offset == 3:
            state.erase(["u:ann-0815", "u:nobody"])
            assert not state.user_counts("u:ann-0815").any()
            break
        snapshots.write(state.copy())
    assert all(group.user_key == "u:bob" for group in state.apply(act(20, 60, [3], user="u:cat")))
    for offset in (21, 22):
        state.apply(act(offset, 60, [3], user="u:cat"))
        snapshots.write(state.copy())
    assert {user_key for user_key, _ in tier.rows()} == {"u:bob", "u:cat"}
    assert not any(b"u:ann-0815" in path.read_bytes() for path in tmp_path.iterdir())
    if tier.is_remote:
        client = shared_redis.client()
        assert not any(b"u:ann-0815" in (client.dump(key) or b"") + key for key in client.keys("*"))
        client.close()
    tier.close()


def test_rows_of_counts_are_used_again_and_say_the_same_as_ever(act: Act) -> None:
    state, ever = State(), {}
    chance = random.Random(3)
    minutes = 0.0
    for offset in range(1, 1_500):
        minutes += chance.choice([1.0, 60.0, 600.0])
        user = f"u:{offset // 20 if chance.random() < 0.7 else chance.randrange(offset // 20 + 1)}"
        kind = chance.choice(["detail-page-view", "add-to-cart", "purchase-complete"])
        fact = act(offset, minutes - chance.choice([0.0, 30.0, 5_000.0]), [chance.randrange(9)], kind, user)
        state.apply(fact)
        ever.setdefault(user, []).append(fact)
        if offset % 150 == 0:
            _check_counts(state, ever)
            state = _again(state)
    assert state.entities.row_count < len(ever)


def _again(state: State) -> State:
    """The state by way of a copy."""
    copy, tier = state.copy(), open_user_tier("")
    again = State.restored(state.rules, copy.columns, copy.facts, tier)
    copy.histories.tier.store(copy.offset, copy.histories.held, 0)
    tier.restore(copy.offset, copy.histories.tier.columns())
    return again


def _check_counts(state: State, ever: dict[str, list[UserAct]]) -> None:
    bucket_us = 7 * 86_400_000_000 // 64
    oldest = state.now_us // bucket_us - 64
    for user, acts in ever.items():
        inside = sum(fact.time_us // bucket_us > oldest for fact in acts if fact.offset <= state.offset)
        # late ones that were outside when they came were never counted
        assert state.user_counts(user)[-3:].sum() <= inside
        if all(fact.time_us // bucket_us <= oldest for fact in acts):
            assert state.entities.user_row(user) is None
        elif state.user_counts(user).any():
            assert state.entities.user_row(user) is not None
