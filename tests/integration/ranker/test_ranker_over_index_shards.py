"""The ranker's sources over an index of which a shard cannot be asked."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from zlib import crc32

import numpy as np
import pytest

from headrace.index.__main__ import compose as compose_index
from headrace.index.settings import IndexSettings
from headrace.ranker.filters import Allowed
from headrace.ranker.index_shards import open_index
from headrace.ranker.peers import FeatureStorePeer
from headrace.ranker.settings import RankerSettings
from headrace.ranker.sources import Sources
from headrace.ranker.stages import Stages
from headrace.runtime.channels import open_channel
from headrace.runtime.errors import UnavailableError
from headrace.runtime.serving import running
from headrace.runtime.settings import CommonSettings
from headrace.runtime.shards import Shard
from headrace.v1 import common_pb2, index_pb2, index_pb2_grpc

NOBODY = "127.0.0.1:1"
# its only replica is asked again while the budget lasts
GONE = ("index: shard 1 unavailable", "index: shard 1 deadline")
ITEMS = 40


@asynccontextmanager
async def shard(folder: Path, number: int) -> AsyncIterator[str]:
    """The address of one of two shards, which holds its part of the items."""
    settings = IndexSettings(port=0, device="cpu", drain_s=0, shard=f"{number}/2")
    async with (
        compose_index(settings, CommonSettings(data_dir=folder / str(number))) as parts,
        running(parts, settings) as server,
        open_channel(server.address) as channel,
    ):
        await fill(index_pb2_grpc.IndexServiceStub(channel))
        yield server.address


async def fill(stub: index_pb2_grpc.IndexServiceStub) -> None:
    await stub.CreateSpace(index_pb2.CreateSpaceRequest(space="s", dimension=2))
    await stub.ActivateSpace(index_pb2.ActivateSpaceRequest(space="s"))
    ordinals = np.arange(ITEMS, dtype="<u4").tobytes()
    values = np.stack([np.ones(ITEMS), np.arange(ITEMS)], axis=1).astype("<f4").tobytes()

    async def batches() -> AsyncIterator[index_pb2.ApplyEmbeddingsRequest]:
        yield index_pb2.ApplyEmbeddingsRequest(
            space="s",
            first_sequence=1,
            item_ordinals=ordinals,
            vectors=common_pb2.Matrix(rows=ITEMS, columns=2, values=values),
            checksum=crc32(values, crc32(ordinals)),
        )

    assert [answer.applied_sequence async for answer in stub.ApplyEmbeddings(batches())] == [ITEMS]


async def near(addresses: tuple[tuple[str, ...], ...], items: list[int]) -> tuple[list[int], list[str]]:
    """The five items nearest to some items, and what was missing."""
    stages, settings = Stages(5.0), RankerSettings(search_budget_s=2.0)
    async with open_index(addresses) as index, open_channel(NOBODY) as channel:
        sources = Sources(FeatureStorePeer(channel), index, settings)
        allowed = Allowed(np.ones(ITEMS, np.bool_), b"", ITEMS)
        found = await sources.near_items(None, np.array(items, np.uint32), allowed, 5, stages)
    return found.ordinals.tolist(), stages.missing


async def test_both_shards_are_one_index(tmp_path: Path) -> None:
    async with shard(tmp_path, 0) as first, shard(tmp_path, 1) as second:
        assert await near(((first,), (second,)), [3]) == ([39, 38, 37, 36, 35], [])


async def test_a_shard_that_is_gone_is_a_reason_for_a_degraded_answer(tmp_path: Path) -> None:
    owned = np.flatnonzero(Shard(0, 2).owns(np.arange(ITEMS, dtype=np.uint32))).tolist()
    async with shard(tmp_path, 0) as first:
        found, missing = await near(((first,), (NOBODY,)), [owned[1]])
    assert found == owned[::-1][:5]
    assert missing[0] in GONE


async def test_an_item_of_a_shard_that_is_gone_cannot_be_looked_up(tmp_path: Path) -> None:
    owned = np.flatnonzero(Shard(0, 2).owns(np.arange(ITEMS, dtype=np.uint32))).tolist()
    foreign = next(item for item in range(ITEMS) if item not in owned)
    async with shard(tmp_path, 0) as first:
        found, missing = await near(((first,), (NOBODY,)), [foreign])
    assert (found, missing[0] in GONE) == ([], True)


async def test_without_any_shard_it_is_an_error() -> None:
    async with open_index(((NOBODY,), ("127.0.0.1:2",))) as index:
        with pytest.raises(UnavailableError):
            await index.near_vector("s", np.ones(2, np.float32), 5, b"", 1.0)
