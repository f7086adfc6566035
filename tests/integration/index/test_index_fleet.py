"""Two shards of two replicas, as real processes fed by the trainer's publisher and asked by the ranker's client."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from headrace.cli.suite import free_ports
from headrace.ranker.index_shards import open_index
from headrace.ranker.peers import Neighbours
from headrace.ranker.vector_index import VectorIndex
from headrace.runtime.channels import open_channel
from headrace.runtime.shard_addresses import addresses_of
from headrace.runtime.shards import shard_of
from headrace.trainer.delta_log import DeltaLog, Entry
from headrace.trainer.deltas import Deltas
from headrace.trainer.index_replica import Fit
from headrace.trainer.publisher import Publisher
from headrace.v1 import index_pb2, index_pb2_grpc

SHARDS, REPLICAS, DIMENSION, ITEMS, K = 2, 2, 16, 3_000, 20
TIMEOUT_S = 5.0


class Fleet:
    """The processes, by (shard, replica)."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        places = [(shard, replica) for shard in range(SHARDS) for replica in range(REPLICAS)]
        self._ports = dict(zip(places, free_ports(len(places)), strict=True))
        self._processes: dict[tuple[int, int], subprocess.Popen[bytes]] = {}

    @property
    def addresses(self) -> str:
        return ";".join(self._replicas_of(shard) for shard in range(SHARDS))

    def address(self, shard: int, replica: int) -> str:
        return f"127.0.0.1:{self._ports[shard, replica]}"

    def _replicas_of(self, shard: int) -> str:
        return ",".join(self.address(shard, replica) for replica in range(REPLICAS))

    def start(self, shard: int, replica: int) -> None:
        folder = self.folder(shard, replica)
        folder.mkdir(exist_ok=True)
        environment = {name: value for name, value in os.environ.items() if not name.startswith("HEADRACE_")}
        environment |= {
            "HEADRACE_DATA_DIR": str(folder),
            "HEADRACE_INDEX_PORT": str(self._ports[shard, replica]),
            "HEADRACE_INDEX_DEVICE": "cpu",
            "HEADRACE_INDEX_SHARD": f"{shard}/{SHARDS}",
            "HEADRACE_INDEX_PEERS": self._replicas_of(shard),
            "HEADRACE_INDEX_PEERS_WAIT_S": "0.5",
            "HEADRACE_INDEX_COMPARE_EVERY_S": "0.3",
        }
        with self.log(shard, replica).open("ab") as log:
            started = subprocess.Popen([sys.executable, "-m", "headrace.index"], env=environment, stderr=log)
        self._processes[shard, replica] = started

    def kill(self, shard: int, replica: int) -> None:
        self._processes[shard, replica].kill()
        self._processes[shard, replica].wait()

    def stall(self, shard: int, replica: int) -> None:
        self._processes[shard, replica].send_signal(signal.SIGSTOP)

    def kill_all(self) -> None:
        for place in self._processes:
            self.kill(*place)

    def folder(self, shard: int, replica: int) -> Path:
        return self._folder / f"index-{shard}-{replica}"

    def log(self, shard: int, replica: int) -> Path:
        return self._folder / f"index-{shard}-{replica}.log"

    async def is_serving(self, shard: int, replica: int) -> bool:
        async with open_channel(self.address(shard, replica)) as channel:
            try:
                answer = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=1)
            except grpc.aio.AioRpcError:
                return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

    async def space(self, shard: int, replica: int) -> index_pb2.SpaceStats:
        async with open_channel(self.address(shard, replica)) as channel:
            request = index_pb2.GetIndexStatsRequest(with_digest=True)
            [space] = (await index_pb2_grpc.IndexServiceStub(channel).GetIndexStats(request)).spaces
        return space

    async def start_all(self) -> None:
        for place in self._ports:
            self.start(*place)
        for place in self._ports:
            await until(lambda place=place: self.is_serving(*place))


class Feed:
    """The trainer's side: a delta log, its publisher, and what all vectors must be."""

    def __init__(self, folder: Path, publisher: Publisher, delta_log: DeltaLog) -> None:
        self.log = delta_log
        self._publisher = publisher
        self._rng = np.random.default_rng(3)
        self.vectors: dict[int, np.ndarray] = {}
        self._entry = 0

    def commit(self, rows: int) -> None:
        """Moves some items, and deletes some."""
        ordinals = np.sort(self._rng.choice(ITEMS, rows, replace=False)).astype(np.uint32)
        vectors = self._rng.standard_normal((rows, DIMENSION)).astype(np.float32)
        gone = self._rng.random(rows) < 0.05
        vectors[gone] = 0
        for ordinal, vector, is_gone in zip(ordinals.tolist(), vectors, gone, strict=True):
            self.vectors.pop(ordinal, None) if is_gone else self.vectors.update({ordinal: vector})
        self._entry += 1
        entry = Entry(self._entry, "events", self._entry - 1, self._entry, "")
        self.log.commit(entry, Deltas(ordinals, vectors, gone.astype(np.uint8)), log_offset=self._entry)
        self._publisher.wake()

    async def pushed(self) -> None:
        await until(self.is_pushed)

    async def is_pushed(self) -> bool:
        return self._publisher.acknowledged == self.log.last_sequence and self._publisher.has_filled(self.log.space)

    def nearest(self, query: np.ndarray, k: int = K, without_shard: int | None = None) -> list[int]:
        """What one flat list of the vectors gives."""
        ordinals = np.array(sorted(self.vectors), np.uint32)
        if without_shard is not None:
            ordinals = ordinals[shard_of(ordinals, SHARDS) != without_shard]
        scores = np.stack([self.vectors[ordinal] for ordinal in ordinals.tolist()]) @ query
        return ordinals[np.lexsort((ordinals, -scores))[:k]].tolist()


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[Fleet]:
    started = Fleet(tmp_path)
    try:
        async with asyncio.timeout(60):
            await started.start_all()
        yield started
    finally:
        started.kill_all()


@asynccontextmanager
async def fed(fleet: Fleet, folder: Path, compact_rows: int = 500_000) -> AsyncIterator[Feed]:
    async with AsyncExitStack() as stack:
        channels = [
            [(address, await stack.enter_async_context(open_channel(address))) for address in shard]
            for shard in addresses_of(fleet.addresses)
        ]
        delta_log = DeltaLog(folder / "deltas.db", "test", DIMENSION)
        stack.callback(delta_log.close)
        publisher = Publisher(channels, delta_log, DIMENSION, compact_rows, Fit())
        running = asyncio.create_task(publisher.run())
        try:
            yield Feed(folder, publisher, delta_log)
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


async def until(probe: Callable[[], Awaitable[object]], limit_s: float = 30.0) -> None:
    end = time.monotonic() + limit_s
    while not await probe():
        assert time.monotonic() < end, "it did not come true in time"
        await asyncio.sleep(0.05)


def queries(count: int) -> np.ndarray:
    return np.random.default_rng(11).standard_normal((count, DIMENSION)).astype(np.float32)


async def near(index: VectorIndex, space: str, query: np.ndarray) -> Neighbours:
    return await index.near_vector(space, query, K, b"", TIMEOUT_S)


async def test_shards_answer_as_one_index_and_no_search_fails_when_a_replica_is_killed(
    fleet: Fleet, tmp_path: Path
) -> None:
    async with fed(fleet, tmp_path) as feed, open_index(addresses_of(fleet.addresses)) as index:
        for _ in range(6):
            feed.commit(2_000)
        await feed.pushed()
        space = feed.log.space
        await _answers_by_items_are_those_of_their_vectors(index, feed)
        await _a_watch_gives_every_vector_of_all_shards(index, feed)

        wanted = {number: feed.nearest(query) for number, query in enumerate(queries(20))}
        answered = 0
        end = time.monotonic() + 3
        killing = asyncio.get_running_loop().call_later(0.7, fleet.kill, 1, 0)

        async def ask_for_ever() -> None:
            nonlocal answered
            while time.monotonic() < end:
                for number, query in enumerate(queries(20)):
                    found = await near(index, space, query)
                    assert found.missing == ()
                    assert found.ordinals.tolist() == wanted[number]
                    assert found.applied_sequence == feed.log.last_sequence
                    answered += 1

        await asyncio.gather(*(ask_for_ever() for _ in range(4)))
        assert killing.when() < asyncio.get_running_loop().time()
        assert not await fleet.is_serving(1, 0)
        assert answered > 200
        await _a_replica_that_hangs_leaves_time_for_the_other_one(fleet, index, feed)


async def _a_replica_that_hangs_leaves_time_for_the_other_one(fleet: Fleet, index: VectorIndex, feed: Feed) -> None:
    fleet.stall(0, 0)
    for query in queries(6):
        found = await index.near_vector(feed.log.space, query, K, b"", 1.0)
        assert found.missing == ()
        assert found.ordinals.tolist() == feed.nearest(query)


async def _answers_by_items_are_those_of_their_vectors(index: VectorIndex, feed: Feed) -> None:
    items = np.array([*sorted(feed.vectors)[:7], ITEMS + 5], np.uint32)
    for space in (feed.log.space, ""):
        found = await index.near_items(space, items, K, b"", TIMEOUT_S)
        assert found.space == feed.log.space
        assert found.ordinals.tolist() == [
            ordinal for item in items.tolist()[:-1] for ordinal in feed.nearest(feed.vectors[item])
        ]


async def _a_watch_gives_every_vector_of_all_shards(index: VectorIndex, feed: Feed) -> None:
    watched: dict[int, np.ndarray] = {}
    updates = index.watch_vectors(feed.log.space)
    moved = False
    async for update in updates:
        for ordinal, vector, is_gone in zip(update.ordinals.tolist(), update.vectors, update.tombstones, strict=True):
            watched.pop(ordinal, None) if is_gone else watched.update({ordinal: vector})
        if update.ends_snapshot:
            assert update.applied_sequence == feed.log.last_sequence
            assert watched.keys() == feed.vectors.keys()
            feed.commit(500)
            moved = True
        elif moved and update.applied_sequence == feed.log.last_sequence:
            break
    assert watched.keys() == feed.vectors.keys()
    assert all((watched[ordinal] == vector).all() for ordinal, vector in feed.vectors.items())
    await updates.aclose()  # type: ignore[attr-defined]
    await feed.pushed()


async def test_a_shard_that_is_gone_is_told_and_an_emptied_replica_catches_up_from_its_peer(
    fleet: Fleet, tmp_path: Path
) -> None:
    # rows are folded as soon as they are acknowledged, so that only a replica can give them
    async with fed(fleet, tmp_path, compact_rows=1) as feed, open_index(addresses_of(fleet.addresses)) as index:
        for _ in range(6):
            feed.commit(2_000)
        await feed.pushed()
        space, query = feed.log.space, queries(1)[0]

        for replica in range(REPLICAS):
            fleet.kill(1, replica)
        found = await near(index, space, query)
        assert found.missing == ("shard 1 unavailable",)
        assert found.ordinals.tolist() == feed.nearest(query, without_shard=1)

        # one comes back with what it had, the other with nothing
        fleet.start(1, 0)
        await until(lambda: fleet.is_serving(1, 0))
        await until(lambda: _is_whole(index, space, query))
        assert (await near(index, space, query)).ordinals.tolist() == feed.nearest(query)
        shutil.rmtree(fleet.folder(1, 1))
        fleet.start(1, 1)
        await until(lambda: fleet.is_serving(1, 1))
        assert '"caught_up"' in fleet.log(1, 1).read_text()
        first, second = await fleet.space(1, 0), await fleet.space(1, 1)
        assert second.applied_sequence == feed.log.horizon == feed.log.last_sequence
        assert (second.digest, list(second.hash_marks)) == (first.digest, list(first.hash_marks))
        assert len(first.hash_marks) == 2
        assert second.active

        # and both go on from the sender, in the same space
        feed.commit(2_000)
        feed.commit(2_000)
        await feed.pushed()
        await until(lambda: _both_have(fleet, feed.log.last_sequence))
        assert feed.log.space == space
        first, second = await fleet.space(1, 0), await fleet.space(1, 1)
        assert (second.digest, list(second.hash_marks)) == (first.digest, list(first.hash_marks))
        assert not first.diverged
        assert not second.diverged
        assert (await near(index, space, query)).ordinals.tolist() == feed.nearest(query)


async def _is_whole(index: VectorIndex, space: str, query: np.ndarray) -> bool:
    return not (await near(index, space, query)).missing


async def _both_have(fleet: Fleet, sequence: int) -> bool:
    return all([(await fleet.space(1, replica)).applied_sequence == sequence for replica in range(REPLICAS)])


async def test_a_shard_whose_replicas_all_lost_folded_rows_gets_a_new_space(fleet: Fleet, tmp_path: Path) -> None:
    async with fed(fleet, tmp_path, compact_rows=1) as feed, open_index(addresses_of(fleet.addresses)) as index:
        feed.commit(2_000)
        await feed.pushed()
        before, query = feed.log.space, queries(1)[0]
        for replica in range(REPLICAS):
            fleet.kill(0, replica)
            shutil.rmtree(fleet.folder(0, replica))
        fleet.start(0, 0)
        await until(lambda: fleet.is_serving(0, 0))
        # the other one may still have them
        assert feed.log.space == before
        fleet.start(0, 1)
        await until(lambda: _has_moved(feed, before))
        await feed.pushed()
        assert (await near(index, feed.log.space, query)).ordinals.tolist() == feed.nearest(query)


async def _has_moved(feed: Feed, before: str) -> bool:
    return feed.log.space != before
