"""A feature store of two shards, as real processes on the simulated shop's log, beside one that is whole."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import grpc
import numpy as np
import pytest

from headrace.cli.suite import free_ports
from headrace.datasets.simulated_shop import ShopSettings
from headrace.feature_store.erasing import consumer_name
from headrace.ranker.__main__ import compose as compose_ranker
from headrace.ranker.feature_store import open_feature_store
from headrace.ranker.settings import RankerSettings
from headrace.runtime.channels import open_channel
from headrace.runtime.erasures import DONE, done_of, tombstone
from headrace.runtime.errors import FailedPreconditionError, UnavailableError
from headrace.runtime.eventlog.sqlite import SqliteEventLog
from headrace.runtime.people_shards import shard_of_person
from headrace.runtime.privacy import open_privacy
from headrace.runtime.serving import running
from headrace.runtime.settings import CommonSettings
from headrace.runtime.shard_addresses import addresses_of
from headrace.runtime.shards import Shard
from headrace.trainer.row_shards import training_rows
from headrace.trainer.rows import RowPart, TrainingRows
from headrace.v1 import feature_store_pb2 as pb
from headrace.v1 import feature_store_pb2_grpc, ranker_pb2, ranker_pb2_grpc

SHARDS, NOBODY = 2, "127.0.0.1:1"
SHOP = ShopSettings(seed=4, products=80, users=40, days=2, visits_a_day=1.0)
END_US = 1_767_225_600_000_000
PATIENT = {"state_budget_s": 5.0, "score_budget_s": 5.0, "default_deadline_s": 20.0, "retry_s": 0.05}

Stub = "feature_store_pb2_grpc.FeatureStoreServiceAsyncStub"


class Fleet:
    """The processes of the shards; they read one log, and keep their files beside one another."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ports = free_ports(SHARDS)
        self._processes: dict[int, asyncio.subprocess.Process] = {}

    def address(self, shard: int) -> str:
        return f"127.0.0.1:{self._ports[shard]}"

    async def start(self, shard: int) -> None:
        own = {"PORT": str(self._ports[shard]), "SHARD": f"{shard}/{SHARDS}", "STITCH": "false"}
        own |= {"PUBLISH_EVERY_S": "0.02", "SNAPSHOT_EVERY_S": "0.2"}
        environment = {name: value for name, value in os.environ.items() if not name.startswith("HEADRACE_")}
        environment |= {f"HEADRACE_FEATURE_STORE_{name}": value for name, value in own.items()}
        environment["HEADRACE_DATA_DIR"] = str(self._folder)
        with (self._folder / f"shard-{shard}.log").open("ab") as log:
            self._processes[shard] = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "headrace.feature_store", env=environment, stdout=log, stderr=log
            )

    async def kill(self, shard: int) -> None:
        process = self._processes.pop(shard)
        process.kill()
        await process.wait()

    async def kill_all(self) -> None:
        for shard in list(self._processes):
            await self.kill(shard)


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[Fleet]:
    started = Fleet(tmp_path)
    try:
        yield started
    finally:
        await started.kill_all()


@asynccontextmanager
async def ranking(folder: Path, feature_store: str) -> AsyncIterator[ranker_pb2_grpc.RankerServiceAsyncStub]:
    """A ranker that has nothing but a feature store."""
    peers = {"feature_store_address": feature_store, "index_address": NOBODY, "trainer_address": NOBODY}
    settings = RankerSettings(port=0, drain_s=0, log_impressions=False, **PATIENT, **peers)
    async with (
        compose_ranker(settings, CommonSettings(data_dir=folder)) as parts,
        running(parts, settings) as server,
        open_channel(server.address) as channel,
    ):
        yield ranker_pb2_grpc.RankerServiceStub(channel)


async def until(probe: Callable[[], Awaitable[bool]]) -> None:
    end = time.monotonic() + 30
    while not await probe():
        assert time.monotonic() < end, "it did not come true in time"
        await asyncio.sleep(0.02)


async def folded(stub: Stub, end: int, shard: str) -> None:
    async def is_there() -> bool:
        status = await stub.GetFeatureStoreStatus(pb.GetFeatureStoreStatusRequest(), wait_for_ready=True, timeout=20)
        assert status.shard == shard
        return status.offset >= end

    await until(is_there)


async def knows_items(ranker: ranker_pb2_grpc.RankerServiceAsyncStub, end: int) -> None:
    async def is_there() -> bool:
        return (await ranker.GetRankerStatus(ranker_pb2.GetRankerStatusRequest())).feature_offset >= end

    await until(is_there)


async def items_of(stub: Stub) -> list[tuple[bytes, ...]]:
    """Everything that is told of items."""
    watch, told = stub.WatchItemFeatures(pb.WatchItemFeaturesRequest()), []
    async for message in watch:
        documents = b"".join(one.SerializeToString(deterministic=True) for one in message.documents)
        neighbours = (message.neighbour_ordinals, message.neighbour_weights)
        told.append((message.item_ordinals, message.features.values, *neighbours, documents))
        if message.snapshot_end:
            watch.cancel()
            return told
    raise AssertionError("the stream ended")


async def answers(ranker: ranker_pb2_grpc.RankerServiceAsyncStub, user_key: str) -> list[list[tuple[str, float]]]:
    """What the person is shown where their state decides, and that nothing of it was missing."""
    who = {"user_id" if user_key.startswith("u:") else "visitor_id": user_key[2:]}
    shown = []
    for config in ("home", "recently-viewed", "repurchase"):
        request = ranker_pb2.RecommendRequest(serving_config=config, **who)
        response = await ranker.Recommend(request, timeout=20)
        assert not [reason for reason in response.info.degraded_reasons if reason.startswith("state")]
        shown.append([(result.product_id, result.score) for result in response.results])
    return shown


async def groups_of(rows: TrainingRows, end: int) -> list[tuple[object, ...]]:
    """Groups one by one, with all that is learned of them; the last part says that all are there."""
    groups: list[tuple[object, ...]] = []
    reached = 0
    async for part in rows.parts(0, end):
        assert all(reached < offset for offset in part.offsets_G.tolist())
        reached = part.complete_offset
        assert all(offset <= reached + 1 for offset in part.offsets_G.tolist())
        groups += one_by_one(part)
    assert reached == end
    return groups


def one_by_one(part: RowPart) -> list[tuple[object, ...]]:
    ends = np.cumsum(part.sizes_G).tolist()
    columns = (part.ordinals_R, part.features_RF, part.labels_R, part.weights_R)
    return [
        (
            int(part.offsets_G[place]),
            part.user_keys[place],
            int(part.times_us_G[place]),
            part.histories[place].ordinals.tobytes() + part.histories[place].times_us.tobytes(),
            *(column[start:end].tobytes() for column in columns),
        )
        for place, (start, end) in enumerate(zip([0, *ends], ends, strict=False))
    ]


async def test_two_shards_are_one_feature_store_and_each_stands_for_its_own_people(
    fleet: Fleet, serve, shop_records, event_log: SqliteEventLog, tmp_path: Path
) -> None:
    # without the planted events of 2090, which the door would refuse: the log's time would stand still after one
    records = [record for record in shop_records(SHOP) if record.time_us < END_US]
    end = (await event_log.append(records))[-1].offset
    await asyncio.gather(*(fleet.start(shard) for shard in range(SHARDS)))
    people = sorted({record.key for record in records if record.kind == "user-event"})
    first = [user_key for user_key in people if shard_of_person(user_key, SHARDS) == 0][:5]
    second = [user_key for user_key in people if shard_of_person(user_key, SHARDS) == 1][:5]
    addresses = ";".join(map(fleet.address, range(SHARDS)))
    async with AsyncExitStack() as stack:
        channels = [await stack.enter_async_context(open_channel(fleet.address(shard))) for shard in range(SHARDS)]
        stubs = [feature_store_pb2_grpc.FeatureStoreServiceStub(channel) for channel in channels]
        whole = await stack.enter_async_context(serve(stitch=False))
        for stub, shard in ((whole, "0/1"), (stubs[0], "0/2"), (stubs[1], "1/2")):
            await folded(stub, end, shard)
        assert len(await items_of(whole)) > 0
        assert await items_of(stubs[0]) == await items_of(stubs[1]) == await items_of(whole)
        await _others_are_refused(stubs[0], second[0])
        await _states_are_those_of_the_whole(whole, stubs, people)

        in_shards = await stack.enter_async_context(ranking(tmp_path, addresses))
        at_whole = await stack.enter_async_context(ranking(tmp_path, whole.address))
        await knows_items(in_shards, end)
        await knows_items(at_whole, end)
        before = {user_key: await answers(in_shards, user_key) for user_key in first + second}
        assert before == {user_key: await answers(at_whole, user_key) for user_key in before}
        assert any(recent for _, recent, _ in before.values())

        await _rows_are_those_of_the_whole(whole, channels, end)

        await fleet.kill(1)
        request = ranker_pb2.RecommendRequest(serving_config="home", user_id=_customer(second))
        without = await in_shards.Recommend(request, timeout=20)
        assert "state: shard 1 unavailable" in without.info.degraded_reasons
        assert len(without.results) == 20
        # many failures of one shard are no reason not to ask the other
        for _ in range(5):
            await in_shards.Recommend(request, timeout=20)
        assert {user_key: await answers(in_shards, user_key) for user_key in first} == {
            user_key: before[user_key] for user_key in first
        }
        with pytest.raises(grpc.aio.AioRpcError):
            await groups_of(training_rows([[channel] for channel in channels]), end)

        await fleet.start(1)
        await folded(stubs[1], end, "1/2")

        async def is_asked_again() -> bool:
            return "state: shard 1 unavailable" not in (await in_shards.Recommend(request)).info.degraded_reasons

        await until(is_asked_again)
        assert {user_key: await answers(in_shards, user_key) for user_key in second} == {
            user_key: before[user_key] for user_key in second
        }


def _customer(user_keys: list[str]) -> str:
    return next(user_key[2:] for user_key in user_keys if user_key.startswith("u:"))


async def _others_are_refused(stub: Stub, user_key: str) -> None:
    packed = np.array([1], "<i8").tobytes()
    calls = [
        stub.GetUserState(pb.GetUserStateRequest(user_key=user_key)),
        stub.GetOnlineFeatures(pb.GetOnlineFeaturesRequest(user_key=user_key)),
        stub.GetHistoricalFeatures(pb.GetHistoricalFeaturesRequest(user_keys=[user_key], offsets=packed)).read(),
    ]
    for call in calls:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call
        assert refused.value.code() == grpc.StatusCode.FAILED_PRECONDITION
        assert refused.value.details() == "user_key: that person is in shard 1/2, and this is shard 0/2"


async def _states_are_those_of_the_whole(whole: Stub, stubs: list[Stub], people: list[str]) -> None:
    for user_key in people:
        request = pb.GetUserStateRequest(user_key=user_key)
        assert await stubs[shard_of_person(user_key, SHARDS)].GetUserState(request) == await whole.GetUserState(request)


async def _rows_are_those_of_the_whole(whole: Stub, channels: list[grpc.aio.Channel], end: int) -> None:
    merged = await groups_of(training_rows([[channel] for channel in channels]), end)
    async with open_channel(whole.address) as channel:
        assert sorted(merged) == sorted(await groups_of(training_rows([[channel]]), end))
    offsets = [group[0] for group in merged]
    assert offsets == sorted(offsets)
    assert {shard_of_person(group[1], SHARDS) for group in merged} == {0, 1}
    # a replica that is away changes nothing, nor does asking again
    async with open_channel(NOBODY, retries=False) as nobody:
        replicas = training_rows([[nobody, channels[0]], [channels[1]]])
        assert await groups_of(replicas, end) == merged == await groups_of(replicas, end)


async def test_another_replica_is_asked_for_people_and_items_and_a_wrong_shard_is_found_out(
    serve, event, event_log: SqliteEventLog
) -> None:
    people = [f"u:{number}" for number in range(6)]
    end = (await event_log.append([event(number, number, [1], user=key) for number, key in enumerate(people)]))[
        -1
    ].offset
    async with serve(shard="0/2", stitch=False) as first, serve(shard="1/2", stitch=False) as second:
        await folded(first, end, "0/2")
        await folded(second, end, "1/2")
        async with open_feature_store(addresses_of(f"{NOBODY},{first.address};{second.address}")) as store:
            for user_key in people:
                assert len((await store.state(user_key, end, 10.0)).history) == 1
            failures = 0
            for _ in range(4):
                try:
                    assert (await anext(aiter(store.watch_items()))).offset == end
                except UnavailableError:
                    failures += 1
            assert failures <= 1
        # in the wrong order
        async with open_feature_store(addresses_of(f"{second.address};{first.address}")) as store:
            with pytest.raises(FailedPreconditionError, match="is in shard"):
                await store.state(people[0], end, 10.0)


async def test_each_shard_says_for_itself_that_people_are_forgotten(
    serve, event, event_log: SqliteEventLog, tmp_path: Path
) -> None:
    privacy = open_privacy(CommonSettings(data_dir=tmp_path))
    await event_log.append([event(number, number, [1], user="u:ann") for number in range(3)])
    async with serve(shard="0/2", stitch=False) as first, serve(shard="1/2", stitch=False) as second:
        names = {"u:ann": privacy.digest("u:ann")}
        await event_log.append([tombstone("e", names, 2 * 10**15, privacy.fingerprint)])
        async with asyncio.timeout(20):
            while len(found := await event_log.read(0, kinds=(DONE,))) < SHARDS:
                await event_log.wait((await event_log.end())[0], 0.05)
        said = {done_of(record).consumer: dict(done_of(record).erased) for record in found}
        assert set(said) == {consumer_name(Shard(number, SHARDS)) for number in range(SHARDS)}
        # the purchases of others are forgotten too
        assert [erased["people"] for erased in said.values()] == [1, 1]
        for stub in (first, second):
            status = await stub.GetFeatureStoreStatus(pb.GetFeatureStoreStatusRequest())
            assert status.users == 0
