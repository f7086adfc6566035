"""The feature store with its people in a Redis: the same answers, and what it does while the Redis is away."""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest

from benchmarks.redis_server import RedisServer
from headrace.feature_store.__main__ import compose
from headrace.feature_store.settings import FeatureStoreSettings
from headrace.runtime.clock import now_us
from headrace.runtime.errors import FailedPreconditionError
from headrace.runtime.eventlog import Record
from headrace.runtime.eventlog.sqlite import SqliteEventLog
from headrace.runtime.settings import CommonSettings
from headrace.v1 import feature_store_pb2 as pb

Make = Callable[..., Record]

PEOPLE = [f"u:{number}" for number in range(12)]
HOT = 4


async def _append(log: SqliteEventLog, event: Make, first: int) -> int:
    """One event of everybody; the last HOT of them are those who stay in memory."""
    events = [event(first + place, first + place, [place], user=user) for place, user in enumerate(PEOPLE)]
    return (await log.append(events))[-1].offset


async def _snapshot_at(stub, offset: int) -> pb.GetFeatureStoreStatusResponse:
    """The status once a snapshot is at `offset`, and those beyond the limit have left memory."""
    while True:
        status = await stub.GetFeatureStoreStatus(pb.GetFeatureStoreStatusRequest())
        if status.snapshot_offset >= offset and status.hot_users <= HOT:
            return await stub.GetFeatureStoreStatus(pb.GetFeatureStoreStatusRequest(with_digest=True))


async def _states(stub) -> list[pb.GetUserStateResponse]:
    return [await stub.GetUserState(pb.GetUserStateRequest(user_key=user), timeout=10) for user in PEOPLE]


async def test_people_in_redis_are_answered_for_as_those_in_the_process(
    serve, shared_redis: RedisServer, event_log: SqliteEventLog, event: Make, tmp_path: Path
) -> None:
    shared_redis.client().flushall()
    async with serve(redis_url=shared_redis.url(), hot_users=HOT, snapshot_every_s=0.02) as stub:
        await _snapshot_at(stub, await _append(event_log, event, 0))
        status = await _snapshot_at(stub, await _append(event_log, event, 100))
        states = await _states(stub)
        online = [
            await stub.GetOnlineFeatures(pb.GetOnlineFeaturesRequest(user_key=user, max_events=200), timeout=10)
            for user in PEOPLE
        ]
    assert [answer.history for answer in online] == [state.history for state in states]
    assert (status.users, status.hot_users) == (len(PEOPLE), HOT)
    async with serve() as stub:
        refolded = await stub.GetUserState(pb.GetUserStateRequest(user_key="u:0", min_offset=status.offset), timeout=10)
        in_process = await stub.GetFeatureStoreStatus(pb.GetFeatureStoreStatusRequest(with_digest=True))
        expected = await _states(stub)
    assert in_process.users == in_process.hot_users == len(PEOPLE)
    assert in_process.state_digest == status.state_digest
    assert states == expected
    assert refolded == expected[0]


async def test_while_redis_is_away_hot_people_are_answered_for_and_the_fold_waits(
    serve, own_redis: RedisServer, event_log: SqliteEventLog, event: Make, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with serve(redis_url=own_redis.url(), hot_users=HOT, snapshot_every_s=0.02) as stub:
        end = await _append(event_log, event, 0)
        await _snapshot_at(stub, end)
        own_redis.kill()
        hot = await stub.GetUserState(pb.GetUserStateRequest(user_key=PEOPLE[-1]), timeout=10)
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await stub.GetUserState(pb.GetUserStateRequest(user_key=PEOPLE[0]), timeout=10)
        after = await _append(event_log, event, 100)
        while "unavailable" not in caplog.messages:
            assert (await stub.GetFeatureStoreStatus(pb.GetFeatureStoreStatusRequest())).offset == end
        own_redis.start()
        again = await stub.GetUserState(pb.GetUserStateRequest(user_key=PEOPLE[0], min_offset=after), timeout=10)
        await _snapshot_at(stub, after)
    assert len(hot.history.event_types) == 1
    assert raised.value.code() == grpc.StatusCode.UNAVAILABLE
    assert len(again.history.event_types) == 2
    assert caplog.messages.count("unavailable") == caplog.messages.count("available_again") == 1


async def test_a_redis_that_is_emptied_ends_the_process_instead_of_counting_on(
    shared_redis: RedisServer, event_log: SqliteEventLog, event: Make, tmp_path: Path
) -> None:
    shared_redis.client().flushall()
    settings = FeatureStoreSettings(redis_url=shared_redis.url(), hot_users=0, snapshot_every_s=0.02)
    async with compose(settings, CommonSettings(data_dir=tmp_path)) as parts:
        await _append(event_log, event, 0)
        while not list((tmp_path / "feature-store" / "snapshots").glob("state-*12")):  # noqa: ASYNC110  # a file tells
            await asyncio.sleep(0)
        assert not parts.background.failed.is_set()
        shared_redis.client().flushall()
        await _append(event_log, event, 100)
        await asyncio.wait_for(parts.background.failed.wait(), 20)


async def test_an_emptied_redis_is_filled_from_the_log_again(
    serve, shared_redis: RedisServer, event_log: SqliteEventLog, event: Make, caplog: pytest.LogCaptureFixture
) -> None:
    shared_redis.client().flushall()
    async with serve(redis_url=shared_redis.url(), hot_users=HOT, snapshot_every_s=0.02) as stub:
        before = await _snapshot_at(stub, await _append(event_log, event, 0))
    shared_redis.client().flushall()
    async with serve(redis_url=shared_redis.url(), hot_users=HOT, snapshot_every_s=0.02) as stub:
        after = await _snapshot_at(stub, before.offset)
        states = await _states(stub)
    assert "snapshot_refused" in caplog.messages
    assert (after.state_digest, after.users) == (before.state_digest, before.users)
    assert [len(state.history.event_types) for state in states] == [1] * len(PEOPLE)


async def test_an_emptied_redis_is_not_filled_from_a_log_that_lost_its_beginning(
    serve, shared_redis: RedisServer, event_log: SqliteEventLog, event: Make
) -> None:
    shared_redis.client().flushall()
    async with serve(redis_url=shared_redis.url(), hot_users=HOT, snapshot_every_s=0.02) as stub:
        await _snapshot_at(stub, await _append(event_log, event, 0))
    trimmed = await event_log.trim(now_us() + 1)
    end = await _append(event_log, event, 100)
    async with serve(redis_url=shared_redis.url(), hot_users=HOT, snapshot_every_s=0.02) as stub:
        await _snapshot_at(stub, end)
        assert [len(state.history.event_types) for state in await _states(stub)] == [2] * len(PEOPLE)
    shared_redis.client().flushall()
    with pytest.raises(FailedPreconditionError, match=f"the log begins at offset {trimmed + 1}"):
        async with serve(redis_url=shared_redis.url()):
            pass


@pytest.mark.parametrize(("url", "said"), [("rediss//x", "must be empty or begin"), ("redis://h:x", "Port")])
def test_a_bad_url_ends_in_one_plain_line(url: str, said: str, tmp_path: Path) -> None:
    environment = {**os.environ, "HEADRACE_DATA_DIR": str(tmp_path), "HEADRACE_FEATURE_STORE_REDIS_URL": url}
    command = [sys.executable, "-m", "headrace.feature_store"]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 2
    [line] = ended.stderr.splitlines()
    assert line.startswith(f"feature-store: HEADRACE_FEATURE_STORE_REDIS_URL='{url}'")
    assert said in line
