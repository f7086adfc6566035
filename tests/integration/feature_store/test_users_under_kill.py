"""Feature store and Redis are killed at random moments while events flow; afterwards all is as a fold in one go says.

More kills than the few of the ordinary suite: TEST_REDIS_KILLS=200.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import numpy as np
import pytest

from benchmarks.redis_server import RedisServer
from headrace.feature_store.fold import State
from headrace.feature_store.histories import EVENT
from headrace.feature_store.records import fact_of
from headrace.feature_store.rules import Rules
from headrace.feature_store.settings import FeatureStoreSettings
from headrace.runtime.channels import open_channel
from headrace.runtime.eventlog import Record
from headrace.runtime.eventlog.sqlite import SqliteEventLog
from headrace.v1 import feature_store_pb2 as pb
from headrace.v1 import feature_store_pb2_grpc

Make = Callable[..., Record]

KILLS = int(os.environ.get("TEST_REDIS_KILLS", "10"))
PEOPLE, ITEMS = 60, 40
# so few in memory, and snapshots so often, that most events need the Redis
ENVIRONMENT = {"HOT_USERS": "5", "SNAPSHOT_EVERY_S": "0.03", "USER_TTL_DAYS": "2", "ROW_SAMPLE_RATE": "0.1"}


class KilledStore:
    """The feature store's process, killed and started as often as needed."""

    def __init__(self, folder: Path, port: int, redis_url: str) -> None:
        own = {**ENVIRONMENT, "PORT": str(port), "REDIS_URL": redis_url}
        self._environment = {f"HEADRACE_FEATURE_STORE_{name}": value for name, value in own.items()}
        self._environment["HEADRACE_DATA_DIR"] = str(folder)
        self._log = folder / "feature-store.log"
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "headrace.feature_store",
                env={**os.environ, **self._environment},
                stdout=log,
                stderr=log,
            )

    async def kill(self) -> None:
        assert self._process is not None
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()

    @property
    def is_alive(self) -> bool:
        return self._process is not None and self._process.returncode is None

    def said(self) -> str:
        return self._log.read_text()


def _shop(event: Make, chance: random.Random, first: int, count: int) -> list[Record]:
    """Events of a few hours a hundred: people come back, are away for days, take purchases back."""
    records = []
    for number in range(first, first + count):
        kind = chance.choice(["detail-page-view", "add-to-cart", "purchase-complete", "purchase-cancel"])
        cancelled = "x" if kind == "purchase-cancel" else ""
        basket = chance.sample(range(ITEMS), 2)
        user = f"u:{int(chance.paretovariate(0.7)) % PEOPLE}"
        records.append(event(number, number * 4.0, basket, kind, user=user, cancelled=cancelled))
    return records


@asynccontextmanager
async def _flowing(log: SqliteEventLog, event: Make, chance: random.Random) -> AsyncIterator[None]:
    """Events are appended for as long as it is open."""
    stop = asyncio.Event()

    async def flow() -> None:
        number = 0
        while not stop.is_set():
            await log.append(_shop(event, chance, number, 20))
            number += 20
            await asyncio.sleep(0.06)

    flowing = asyncio.create_task(flow())
    try:
        yield
    finally:
        stop.set()
        await flowing


async def _settled(stub: feature_store_pb2_grpc.FeatureStoreServiceAsyncStub, end: int) -> None:
    """Returns when everything is folded and in a snapshot."""
    while True:
        try:
            status = await stub.GetFeatureStoreStatus(pb.GetFeatureStoreStatusRequest(), timeout=5)
        except grpc.aio.AioRpcError:
            await asyncio.sleep(0.05)
            continue
        if status.offset == status.snapshot_offset == end:
            return
        await asyncio.sleep(0.02)


async def _in_one_go(log: SqliteEventLog, rules: Rules) -> State:
    state, after = State(rules), 0
    while records := await log.read(after, limit=5_000):
        for record in records:
            state.apply(fact_of(record))
        after = records[-1].offset
    return state


@pytest.mark.timeout(60 + 10 * KILLS)
async def test_kills_of_store_and_redis_lose_nothing_and_double_nothing(
    event: Make, event_log: SqliteEventLog, own_redis: RedisServer, tmp_path: Path, unused_tcp_port: int
) -> None:
    chance = random.Random(11)
    store = KilledStore(tmp_path, unused_tcp_port, own_redis.url())
    await store.start()
    channel = open_channel(f"127.0.0.1:{unused_tcp_port}")
    stub = feature_store_pb2_grpc.FeatureStoreServiceStub(channel)
    async with _flowing(event_log, event, chance):
        for kill in range(KILLS):
            # by turns in the midst of work, and while it starts
            if kill % 3:
                await stub.GetFeatureStoreStatus(pb.GetFeatureStoreStatusRequest(), wait_for_ready=True, timeout=60)
            await asyncio.sleep(chance.uniform(0.0, 0.4))
            assert store.is_alive, store.said()
            if kill % 2:
                await store.kill()
                await store.start()
            else:
                own_redis.kill()
                await asyncio.sleep(chance.uniform(0.0, 0.1))
                await asyncio.to_thread(own_redis.start)
    end = (await event_log.end())[0]
    await _settled(stub, end)
    status = await stub.GetFeatureStoreStatus(pb.GetFeatureStoreStatusRequest(with_digest=True), timeout=20)
    rules = FeatureStoreSettings(**{name.lower(): value for name, value in ENVIRONMENT.items()}).rules()
    expected = await _in_one_go(event_log, rules)
    for number in range(PEOPLE):
        user_key = f"u:{number}"
        state = await stub.GetUserState(pb.GetUserStateRequest(user_key=user_key), timeout=10)
        expected.histories.hold([user_key])
        events = np.frombuffer(expected.histories.joined_bytes_of([user_key]), EVENT)
        assert state.history.item_ordinals == events["ordinal"].tobytes(), user_key
        assert state.history.times_us == events["time_us"].tobytes(), user_key
    assert status.state_digest == expected.copy().digest()
    assert status.hot_users <= 5 < status.users
    # what was stored beyond a snapshot was taken back, never given up
    assert "snapshot_refused" not in store.said()
    await channel.close()
    await store.kill()
