"""What only a Redis can do to a tier: go away, forget, run full, be somebody else's."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from benchmarks.redis_server import RedisServer
from headrace.feature_store.histories import EVENT
from headrace.feature_store.redis_tier import RedisTier
from headrace.feature_store.tier_opening import open_user_tier
from headrace.feature_store.user_tier import UserTier
from headrace.runtime.errors import CorruptDataError, UnavailableError
from headrace.runtime.eventlog import partition_of
from headrace.runtime.settings import SettingsError

ROW = np.zeros(3, EVENT).tobytes()
OTHER = np.ones(3, EVENT).tobytes()
PEOPLE = [f"u:{number}" for number in range(300)]


@pytest.fixture
def server(shared_redis: RedisServer) -> RedisServer:
    return shared_redis


@pytest.fixture
def tier(server: RedisServer) -> Iterator[RedisTier]:
    tier = open_user_tier(server.url())
    assert isinstance(tier, RedisTier)
    tier.restore(0, {})
    tier.store(5, dict.fromkeys(PEOPLE, ROW), 0)
    yield tier
    tier.close()


def test_a_redis_that_was_emptied_is_refused_at_the_start(tier: UserTier, server: RedisServer) -> None:
    server.client().flushall()
    with pytest.raises(CorruptDataError, match="emptied"):
        open_user_tier(server.url()).restore(5, tier.columns())


def test_a_redis_that_is_emptied_is_not_believed(tier: UserTier, server: RedisServer) -> None:
    server.client().flushall()
    with pytest.raises(CorruptDataError, match="emptied"):
        tier.fetch(["u:1"])
    with pytest.raises(CorruptDataError, match="standing"):
        tier.store(9, {"u:1": OTHER}, 0)


def test_a_redis_that_lost_its_newest_writes_is_found_out(own_redis: RedisServer, tmp_path: Path) -> None:
    tier = open_user_tier(own_redis.url())
    tier.restore(0, {})
    tier.store(5, dict.fromkeys(PEOPLE, ROW), 0)
    own_redis.kill()
    shutil.copytree(own_redis.folder, tmp_path / "earlier")
    own_redis.start()
    tier.store(9, {"u:1": OTHER}, 0)
    file = dict(tier.columns())
    own_redis.kill()
    shutil.copytree(tmp_path / "earlier", own_redis.folder, dirs_exist_ok=True)
    own_redis.start()
    with pytest.raises(CorruptDataError, match="back at 5, 9 was stored"):
        tier.fetch(["u:1"])
    with pytest.raises(CorruptDataError, match="is at 5, no way leads to 9"):
        open_user_tier(own_redis.url()).restore(9, file)
    tier.close()


def test_a_snapshot_older_than_the_kept_ones_is_refused(tier: UserTier, server: RedisServer) -> None:
    file = dict(tier.columns())
    for offset in (9, 12, 15):
        tier.store(offset, {"u:1": OTHER}, 0)
    tier.keep_from(12)
    with pytest.raises(CorruptDataError, match="no way leads to 5"):
        open_user_tier(server.url()).restore(5, file)


def test_rows_of_another_fold_are_refused(tier: UserTier, server: RedisServer) -> None:
    file = dict(tier.columns())
    another = open_user_tier(server.url())
    another.restore(0, {})
    another.store(5, {"u:1": OTHER}, 0)
    with pytest.raises(CorruptDataError, match="another fold"):
        open_user_tier(server.url()).restore(5, file)


def test_of_two_processes_the_older_can_neither_read_nor_write(tier: UserTier, server: RedisServer) -> None:
    newer = open_user_tier(server.url())
    newer.restore(5, tier.columns())
    with pytest.raises(CorruptDataError, match="another feature store"):
        tier.fetch(["u:1"])
    with pytest.raises(CorruptDataError, match="any more"):
        tier.store(9, {"u:1": OTHER}, 0)
    assert newer.fetch(["u:1"]) == {"u:1": ROW}


def test_a_store_that_was_broken_off_midway_is_gone_back_from_and_can_be_done_again(
    tier: RedisTier, server: RedisServer
) -> None:
    file, changed = dict(tier.columns()), {**dict.fromkeys(PEOPLE, OTHER), "u:new": OTHER}
    by_partition = {number: {key: OTHER for key in changed if partition_of(key) == number} for number in range(64)}
    # the first partitions have moved on when the process ends
    moved = next(tier._moved(9, by_partition))
    assert moved > 0
    assert {row == OTHER for _, row in tier.rows()} == {True, False}
    again = open_user_tier(server.url())
    again.restore(5, file)
    assert dict(again.rows()) == dict.fromkeys(PEOPLE, ROW)
    next(again._moved(9, by_partition))
    again.store(12, changed, 0)
    again.store(15, {}, 0)
    assert dict(again.rows()) == changed
    last = open_user_tier(server.url())
    last.restore(5, file)
    assert dict(last.rows()) == dict.fromkeys(PEOPLE, ROW)


def test_rows_that_the_redis_evicted_are_missed(tier: UserTier, server: RedisServer) -> None:
    key = next(iter(server.client().scan_iter(match="hr:*:u:u:7")))
    server.client().delete(key)
    with pytest.raises(CorruptDataError, match="holds 299 users, 300 were stored"):
        list(tier.rows())


def test_a_redis_that_is_away_is_told_from_one_that_lost_something(own_redis: RedisServer) -> None:
    tier = open_user_tier(own_redis.url())
    tier.restore(0, {})
    tier.store(5, dict.fromkeys(PEOPLE, ROW), 0)
    own_redis.kill()
    for act in (lambda: tier.fetch(["u:1"]), lambda: tier.store(9, {"u:1": OTHER}, 0), lambda: list(tier.rows())):
        with pytest.raises(UnavailableError, match="redis://"):
            act()
    own_redis.start()
    assert tier.fetch(["u:1"]) == {"u:1": ROW}
    tier.store(9, {"u:1": OTHER}, 0)
    assert tier.fetch(["u:1"]) == {"u:1": OTHER}
    tier.close()


def test_a_redis_that_is_full_is_unavailable_and_loses_nothing(tier: UserTier, server: RedisServer) -> None:
    admin = server.client()
    admin.config_set("maxmemory", "1")
    try:
        with pytest.raises(UnavailableError, match="OOM"):
            tier.store(9, {"u:1": OTHER}, 0)
        assert tier.fetch(["u:1", "u:2"]) == dict.fromkeys(["u:1", "u:2"], ROW)
    finally:
        admin.config_set("maxmemory", "0")
    tier.store(9, {"u:1": OTHER}, 0)
    assert tier.fetch(["u:1", "u:2"]) == {"u:1": OTHER, "u:2": ROW}


@pytest.mark.parametrize(
    ("setting", "unsafe", "safe"), [("appendonly", "no", "yes"), ("maxmemory-policy", "allkeys-lru", "noeviction")]
)
def test_a_redis_that_may_lose_rows_is_warned_of(
    server: RedisServer, caplog: pytest.LogCaptureFixture, setting: str, unsafe: str, safe: str
) -> None:
    tier, admin = open_user_tier(server.url()), server.client()
    tier.restore(0, {})
    assert not caplog.records
    admin.config_set(setting, unsafe)
    try:
        tier.restore(0, {})
    finally:
        admin.config_set(setting, safe)
    [record] = caplog.records
    assert (record.message, record.settings) == ("redis_not_durable", {setting: unsafe})


def test_a_redis_that_hides_its_settings_is_used_and_said_so(
    server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    server.client().execute_command("ACL SETUSER guest on >secret ~hr:* +@all -config")
    tier = open_user_tier(server.url().replace("redis://", "redis://guest:secret@"))
    tier.restore(0, {})
    [record] = caplog.records
    assert record.message == "redis_settings_unknown"
    assert "secret" not in str(record.__dict__)


@pytest.mark.parametrize("url", ["redis://localhost:port", "redis+cluster://localhost:port"])
def test_a_url_that_cannot_be_read_is_named(url: str) -> None:
    with pytest.raises(SettingsError, match="HEADRACE_FEATURE_STORE_REDIS_URL='redis"):
        open_user_tier(url)


def test_a_cluster_that_is_away_is_unavailable() -> None:
    with pytest.raises(UnavailableError, match=r"redis\+cluster://127.0.0.1:1"):
        open_user_tier("redis+cluster://127.0.0.1:1")
