"""What every tier of users promises, in the process and in a Redis, alone and in a cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest

from benchmarks.redis_server import RedisServer
from headrace.feature_store.columns import Columns
from headrace.feature_store.histories import EVENT
from headrace.feature_store.tier_opening import open_user_tier
from headrace.feature_store.user_tier import UserTier
from headrace.runtime.errors import CorruptDataError

Open = Callable[[], UserTier]

PEOPLE = [f"u:{number}" for number in range(200)] + ["v:}:u:{x", "u:é ü\n", "u:"]


def row(*times_us: int) -> bytes:
    """A history with an event at each of these times."""
    events = np.zeros(len(times_us), EVENT)
    events["time_us"] = times_us
    return events.tobytes()


@pytest.fixture(params=["in process", "redis", "redis cluster"])
def open_tier(request: pytest.FixtureRequest) -> Iterator[Open]:
    """Opens the tier again, as a process that starts again would."""
    url = ""
    if request.param != "in process":
        name = "shared_redis" if request.param == "redis" else "shared_cluster"
        server: RedisServer = request.getfixturevalue(name)
        url = server.url()
    opened: list[UserTier] = []

    def opening() -> UserTier:
        opened.append(open_user_tier(url))
        return opened[-1]

    yield opening
    for tier in opened:
        tier.close()


@pytest.fixture
def tier(open_tier: Open) -> UserTier:
    tier = open_tier()
    tier.restore(0, {})
    return tier


def snapshot(tier: UserTier) -> Columns:
    """What a snapshot's file would hold."""
    return {name: values.copy() for name, values in tier.columns().items()}


def test_rows_are_found_by_key_and_missing_ones_are_left_out(tier: UserTier) -> None:
    rows = {key: row(number, number + 1) for number, key in enumerate(PEOPLE)}
    tier.store(5, rows, 0)
    assert tier.fetch([*PEOPLE, "u:nobody"]) == rows
    assert dict(tier.rows()) == rows
    assert len(tier) == len(rows)


def test_nobody_is_asked_for(tier: UserTier) -> None:
    assert tier.fetch([]) == {}


def test_a_row_is_replaced_and_an_empty_one_removes_the_person(tier: UserTier) -> None:
    tier.store(5, {"u:ann": row(1), "u:bob": row(1)}, 0)
    tier.store(9, {"u:ann": row(2), "u:bob": b"", "u:nobody": b""}, 0)
    assert dict(tier.rows()) == {"u:ann": row(2)}
    assert len(tier) == 1


@pytest.mark.parametrize("back_to", [5, 9])
def test_either_of_two_snapshots_can_be_restored_after_more_was_stored(open_tier: Open, back_to: int) -> None:
    first = open_tier()
    first.restore(0, {})
    files, people = {}, {}
    for offset, rows in (
        (5, {"u:ann": row(1), "u:bob": row(1), "u:cat": row(1)}),
        (9, {"u:ann": row(1, 2), "u:bob": b"", "u:dan": row(2)}),
    ):
        first.store(offset, rows, 0)
        files[offset], people[offset] = snapshot(first), dict(first.rows())
    first.keep_from(5)
    # no file follows: the process was killed between the tier and the snapshot, twice
    first.store(12, {"u:ann": row(3), "u:dan": b"", "u:eve": row(3)}, 0)
    first.store(15, {"u:ann": row(4), "u:eve": b"", "u:fay": row(4)}, 0)

    again = open_tier()
    again.restore(back_to, files[back_to])
    assert dict(again.rows()) == people[back_to]
    assert len(again) == len(people[back_to])
    again.store(20, {"u:ann": row(7)}, 0)
    assert again.fetch(["u:ann", "u:eve"]) == {"u:ann": row(7)}


def test_a_store_whose_answer_was_lost_can_be_repeated(open_tier: Open) -> None:
    tier = open_tier()
    tier.restore(0, {})
    tier.store(5, {"u:ann": row(1)}, 0)
    file = snapshot(tier)
    tier.store(9, {"u:ann": row(2)}, 0)
    tier.store(9, {"u:ann": row(2)}, 0)
    again = open_tier()
    again.restore(5, file)
    assert dict(again.rows()) == {"u:ann": row(1)}


def test_restoring_the_beginning_leaves_nobody(open_tier: Open) -> None:
    tier = open_tier()
    tier.restore(0, {})
    tier.store(5, {"u:ann": row(1)}, 0)
    again = open_tier()
    again.restore(0, {})
    assert (dict(again.rows()), len(again), again.fetch(["u:ann"])) == ({}, 0, {})


def test_people_who_were_away_too_long_are_removed_and_come_back_with_an_older_snapshot(open_tier: Open) -> None:
    tier = open_tier()
    tier.restore(0, {})
    tier.store(5, {"u:ann": row(10, 90), "u:bob": row(30, 20), "u:cat": row(40)}, 5)
    file = snapshot(tier)
    tier.store(9, {"u:cat": row(40, 95)}, 30)
    assert dict(tier.rows()) == {"u:ann": row(10, 90), "u:cat": row(40, 95)}
    again = open_tier()
    again.restore(5, file)
    assert set(dict(again.rows())) == {"u:ann", "u:bob", "u:cat"}
    again.store(9, {"u:cat": row(40, 95)}, 30)
    assert set(dict(again.rows())) == {"u:ann", "u:cat"}


def test_a_snapshot_of_the_other_kind_is_refused(tier: UserTier) -> None:
    with pytest.raises(CorruptDataError, match="the snapshot at 7"):
        tier.restore(7, {})
