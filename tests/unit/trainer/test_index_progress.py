"""What the acknowledgements of many replicas say together."""

from __future__ import annotations

import time

from headrace.trainer.index_progress import AWAY_S, IndexProgress, ReplicaProgress


def replica(acknowledged: int, *, away_s: float | None = None, active: bool = True) -> ReplicaProgress:
    made = ReplicaProgress("a:1")
    made.note_reached({"s": acknowledged})
    made.stands_at("s", acknowledged, is_fit=active)
    if away_s is not None:
        made.away_since = time.monotonic() - away_s
    return made


def lost() -> ReplicaProgress:
    made = replica(0)
    made.lost_in = "s"
    return made


def test_the_log_is_kept_for_the_replica_that_is_behind() -> None:
    assert IndexProgress([[replica(7), replica(5)], [replica(9)]]).acknowledged("s") == 5


def test_a_replica_that_was_away_shortly_is_waited_for() -> None:
    assert IndexProgress([[replica(7), replica(5, away_s=AWAY_S / 2)]]).acknowledged("s") == 5


def test_a_replica_that_is_long_away_is_not_waited_for() -> None:
    assert IndexProgress([[replica(7), replica(5, away_s=2 * AWAY_S)]]).acknowledged("s") == 7


def test_of_a_shard_that_is_wholly_away_the_furthest_replica_counts() -> None:
    away = [replica(3, away_s=2 * AWAY_S), replica(5, away_s=2 * AWAY_S)]
    assert IndexProgress([[replica(7)], away]).acknowledged("s") == 5


def test_a_shard_that_never_answered_holds_nothing() -> None:
    silent = ReplicaProgress("a:1", away_since=time.monotonic() - 2 * AWAY_S)
    assert IndexProgress([[replica(7)], [silent]]).acknowledged("s") == 0


def test_nothing_of_another_space_is_acknowledged() -> None:
    assert IndexProgress([[replica(7)]]).acknowledged("s-2") == 0


def test_rows_are_lost_only_where_all_replicas_of_a_shard_lack_them() -> None:
    assert not IndexProgress([[replica(7), lost()], [replica(7)]]).is_lost("s")
    assert IndexProgress([[replica(7)], [lost(), lost()]]).is_lost("s")
    # one that is away may still have them
    assert not IndexProgress([[lost(), replica(7, away_s=2 * AWAY_S)]]).is_lost("s")
    assert not IndexProgress([[lost()]]).is_lost("s-2")


def test_a_space_is_filled_when_every_shard_answers_by_it() -> None:
    assert IndexProgress([[replica(7)], [replica(7), replica(5, away_s=1, active=False)]]).has_filled("s")
    assert not IndexProgress([[replica(7)], [replica(7), replica(5, active=False)]]).has_filled("s")
    assert not IndexProgress([[replica(7)], [replica(7, away_s=1)]]).has_filled("s")
    assert not IndexProgress([[replica(7)]]).has_filled("s-2")
