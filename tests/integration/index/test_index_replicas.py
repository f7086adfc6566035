"""Replicas of one shard: they catch up from each other, and tell when they differ."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from zlib import crc32

import grpc
import numpy as np
import pytest

from headrace.index.__main__ import compose
from headrace.index.settings import IndexSettings
from headrace.runtime.channels import open_channel
from headrace.runtime.errors import FailedPreconditionError
from headrace.runtime.serving import running
from headrace.runtime.settings import CommonSettings
from headrace.v1 import common_pb2, index_pb2, index_pb2_grpc

DIMENSION = 8


class Replica:
    def __init__(self, address: str, channel: grpc.aio.Channel) -> None:
        self.address = address
        self.stub: index_pb2_grpc.IndexServiceAsyncStub = index_pb2_grpc.IndexServiceStub(channel)

    async def apply(self, requests: list[index_pb2.ApplyEmbeddingsRequest]) -> None:
        async def all_requests() -> AsyncIterator[index_pb2.ApplyEmbeddingsRequest]:
            for request in requests:
                yield request

        async for answer in self.stub.ApplyEmbeddings(all_requests()):
            assert not answer.gap

    async def create(self) -> None:
        await self.stub.CreateSpace(index_pb2.CreateSpaceRequest(space="s", dimension=DIMENSION))
        await self.stub.ActivateSpace(index_pb2.ActivateSpaceRequest(space="s"))

    async def stats(self) -> index_pb2.GetIndexStatsResponse:
        return await self.stub.GetIndexStats(index_pb2.GetIndexStatsRequest(with_digest=True))

    async def space(self) -> index_pb2.SpaceStats:
        [space] = (await self.stats()).spaces
        return space


@asynccontextmanager
async def replica(folder: Path, **changed: object) -> AsyncIterator[Replica]:
    quick = {"port": 0, "drain_s": 0.1, "device": "cpu", "peers_wait_s": 0.2, "compare_every_s": 0.05}
    settings = IndexSettings(**quick | changed)  # type: ignore[arg-type]
    async with (
        compose(settings, CommonSettings(data_dir=folder)) as parts,
        running(parts, settings) as server,
        open_channel(server.address) as channel,
    ):
        yield Replica(server.address, channel)


async def until(probe: Callable[[], Awaitable[object]], limit_s: float = 20.0) -> None:
    end = time.monotonic() + limit_s
    while not await probe():
        assert time.monotonic() < end, "it did not come true in time"
        await asyncio.sleep(0.02)


def same(one: index_pb2.SpaceStats, other: index_pb2.SpaceStats) -> bool:
    return (one.applied_sequence, one.log_offset, one.digest, list(one.hash_marks)) == (
        other.applied_sequence,
        other.log_offset,
        other.digest,
        list(other.hash_marks),
    )


@pytest.fixture
def sender(sender_of):  # type: ignore[no-untyped-def]
    return sender_of("s", DIMENSION)


@pytest.mark.parametrize("shard", ["0/1", "1/2"])
@pytest.mark.parametrize("held_batches", [0, 3])
async def test_a_replica_that_is_behind_catches_up_before_it_serves(
    tmp_path: Path, sender, shard: str, held_batches: int
) -> None:  # type: ignore[no-untyped-def]
    batches = [sender.batch(rows=2_500, items=3_000) for _ in range(6)]
    async with replica(tmp_path / "a", shard=shard) as first:
        await first.create()
        await first.apply(batches[:5])
        if held_batches:
            async with replica(tmp_path / "b", shard=shard) as second:
                await second.create()
                await second.apply(batches[:held_batches])
        async with replica(tmp_path / "b", shard=shard, peers=first.address) as second:
            assert same(await second.space(), await first.space())
            assert (await second.stats()).active_space == "s"
            for one in (first, second):
                await one.apply(batches[5:])
            assert same(await second.space(), await first.space())
        # it is durable, without the other one
        async with replica(tmp_path / "b", shard=shard) as again:
            assert same(await again.space(), await first.space())


async def test_without_a_replica_it_serves_what_it_has_and_says_so(
    tmp_path: Path, sender, caplog: pytest.LogCaptureFixture
) -> None:  # type: ignore[no-untyped-def]
    async with replica(tmp_path / "a") as first:
        await first.create()
        await first.apply([sender.batch()])
        before = await first.space()
    with caplog.at_level(logging.WARNING):
        async with replica(tmp_path / "a", peers="127.0.0.1:1") as again:
            assert same(await again.space(), before)
    assert "no_replica_reached" in [record.message for record in caplog.records]


async def test_a_replica_that_stays_behind_while_it_serves_catches_up(tmp_path: Path, sender) -> None:  # type: ignore[no-untyped-def]
    async with replica(tmp_path / "a") as first, replica(tmp_path / "b", peers=first.address) as second:
        await first.create()
        await first.apply([sender.batch(rows=5_000, items=1_000)])

        async def equal() -> bool:
            spaces = (await second.stats()).spaces
            return len(spaces) == 1 and same(spaces[0], await first.space())

        await until(equal)


async def test_replicas_that_took_other_rows_are_told_apart(
    tmp_path: Path, sender, caplog: pytest.LogCaptureFixture
) -> None:  # type: ignore[no-untyped-def]
    batches = [sender.batch(rows=4_096) for _ in range(3)]
    changed = index_pb2.ApplyEmbeddingsRequest()
    changed.CopyFrom(batches[1])
    values = np.frombuffer(changed.vectors.values, "<f4").reshape(-1, DIMENSION).copy()
    row = int(np.flatnonzero(values.any(axis=1))[0])
    values[row] *= np.float32(1.5)
    changed.vectors.values = values.tobytes()
    changed.checksum = crc32(changed.tombstones, crc32(changed.vectors.values, crc32(changed.item_ordinals)))
    async with replica(tmp_path / "a") as first, replica(tmp_path / "b", peers=first.address) as second:
        for one, its in ((first, batches), (second, [batches[0], changed, batches[2]])):
            await one.create()
            await one.apply(its)
        await until(lambda: _has_diverged(second))
        [divergence] = (await second.space()).diverged
        assert (divergence.peer, divergence.sequence) == (first.address, 2 * 4_096)
    errors = [record for record in caplog.records if record.message == "replica_diverged"]
    assert [(record.space, record.sequence) for record in errors] == [("s", 8_192)]  # type: ignore[attr-defined]


async def _has_diverged(one: Replica) -> bool:
    return bool((await one.space()).diverged)


async def test_replicas_that_took_the_same_rows_in_other_batches_are_equal(tmp_path: Path, sender) -> None:  # type: ignore[no-untyped-def]
    whole = sender.batch(rows=10_000)
    async with replica(tmp_path / "a") as first, replica(tmp_path / "b", peers=first.address) as second:
        for one in (first, second):
            await one.create()
        await first.apply([whole])
        await second.apply([part_of(whole, start, min(start + 700, 10_000)) for start in range(0, 10_000, 700)])
        assert [mark.sequence for mark in (await second.space()).hash_marks] == [4_096, 8_192]
        assert list((await first.space()).hash_marks) == list((await second.space()).hash_marks)


def part_of(whole: index_pb2.ApplyEmbeddingsRequest, start: int, end: int) -> index_pb2.ApplyEmbeddingsRequest:
    ordinals = whole.item_ordinals[4 * start : 4 * end]
    values = whole.vectors.values[4 * DIMENSION * start : 4 * DIMENSION * end]
    tombstones = whole.tombstones[start:end]
    return index_pb2.ApplyEmbeddingsRequest(
        space="s",
        first_sequence=whole.first_sequence + start,
        item_ordinals=ordinals,
        vectors=common_pb2.Matrix(rows=end - start, columns=DIMENSION, values=values),
        tombstones=tombstones,
        checksum=crc32(tombstones, crc32(values, crc32(ordinals))),
        log_offset=whole.log_offset,
    )


async def test_a_peer_of_another_shard_is_not_taken_for_a_replica(
    tmp_path: Path, sender, caplog: pytest.LogCaptureFixture
) -> None:  # type: ignore[no-untyped-def]
    async with replica(tmp_path / "a", shard="0/2") as first:
        await first.create()
        await first.apply([sender.batch()])
        async with replica(tmp_path / "b", shard="1/2", peers=first.address) as second:
            assert not (await second.stats()).spaces
            assert ((await second.stats()).shard, (await second.stats()).shards) == (1, 2)
    assert "peer_is_another_shard" in [record.message for record in caplog.records]


async def test_an_index_does_not_open_another_shards_directory(tmp_path: Path) -> None:
    async with replica(tmp_path / "a", shard="0/2"):
        pass
    with pytest.raises(FailedPreconditionError, match="holds shard 0/2"):
        async with replica(tmp_path / "a", shard="1/2"):
            pass


async def test_a_copy_is_whole_to_the_row(tmp_path: Path, sender) -> None:  # type: ignore[no-untyped-def]
    async with replica(tmp_path / "a") as first:
        await first.create()
        await first.apply([sender.batch(rows=9_000, items=8_000)])
        messages = [message async for message in first.stub.CopySpace(index_pb2.CopySpaceRequest(space="s"))]
    head, *parts, end = messages
    assert end.end
    assert not any(part.end for part in parts)
    assert head.copied.rows == len(sender.vectors) == sum(len(part.item_ordinals) // 4 for part in parts)
    assert (head.copied.applied_sequence, head.copied.dimension) == (9_000, DIMENSION)
    sequences = np.concatenate([np.frombuffer(part.sequences, "<i8") for part in parts])
    assert sequences.max() <= 9_000
    assert len(np.unique(sequences)) == len(sequences)
