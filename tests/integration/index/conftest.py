"""A real index server, and a sender that knows what it sent."""

from __future__ import annotations

import asyncio
import hashlib
import zlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from headrace.index.__main__ import compose
from headrace.index.settings import IndexSettings
from headrace.runtime.channels import open_channel
from headrace.runtime.serving import running
from headrace.runtime.settings import CommonSettings
from headrace.v1 import common_pb2, index_pb2, index_pb2_grpc


@dataclass
class Sender:
    """Makes batches for a space and keeps what the space must hold once all are applied."""

    space: str
    dimension: int
    seed: int = 0
    sequence: int = 0
    vectors: dict[int, np.ndarray] = field(default_factory=dict)
    sent: list[index_pb2.ApplyEmbeddingsRequest] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._rng = np.random.default_rng(self.seed)

    def batch(self, rows: int = 20, items: int = 200, deletes: float = 0.1) -> index_pb2.ApplyEmbeddingsRequest:
        ordinals = self._rng.integers(0, items, rows).astype("<u4")
        vectors = self._rng.standard_normal((rows, self.dimension)).astype("<f4")
        tombstones = self._rng.random(rows) < deletes
        vectors[tombstones] = 0
        for ordinal, vector, gone in zip(ordinals.tolist(), vectors, tombstones, strict=True):
            if gone:
                self.vectors.pop(ordinal, None)
            else:
                self.vectors[ordinal] = vector
        made = request(self.space, self.sequence + 1, ordinals, vectors, tombstones)
        self.sequence += rows
        self.sent.append(made)
        return made

    def put(self, ordinal: int, vector: Sequence[float]) -> index_pb2.ApplyEmbeddingsRequest:
        values = np.array([vector], "<f4")
        self.vectors[ordinal] = values[0]
        self.sequence += 1
        made = request(self.space, self.sequence, np.array([ordinal]), values, np.array([False]))
        self.sent.append(made)
        return made

    def digest(self) -> str:
        hashed = hashlib.sha256()
        for ordinal in sorted(self.vectors):
            hashed.update(np.uint32(ordinal).tobytes() + self.vectors[ordinal].astype("<f4").tobytes())
        return hashed.hexdigest()


def request(
    space: str, first_sequence: int, ordinals: np.ndarray, vectors: np.ndarray, tombstones: np.ndarray
) -> index_pb2.ApplyEmbeddingsRequest:
    ids, values = ordinals.astype("<u4").tobytes(), vectors.astype("<f4").tobytes()
    flags = tombstones.astype(np.uint8).tobytes() if tombstones.any() else b""
    return index_pb2.ApplyEmbeddingsRequest(
        space=space,
        first_sequence=first_sequence,
        item_ordinals=ids,
        vectors=common_pb2.Matrix(rows=len(vectors), columns=vectors.shape[1], values=values),
        tombstones=flags,
        checksum=zlib.crc32(ids + values + flags),
        log_offset=first_sequence * 3,
    )


@dataclass
class Index:
    """A stub, and the few calls that tests make all the time."""

    stub: index_pb2_grpc.IndexServiceAsyncStub
    address: str

    async def create(self, space: str, dimension: int, *, activate: bool = True) -> Sender:
        await self.stub.CreateSpace(index_pb2.CreateSpaceRequest(space=space, dimension=dimension))
        if activate:
            await self.stub.ActivateSpace(index_pb2.ActivateSpaceRequest(space=space))
        return Sender(space, dimension)

    async def apply(self, *requests: index_pb2.ApplyEmbeddingsRequest) -> list[index_pb2.ApplyEmbeddingsResponse]:
        async def all_requests() -> AsyncIterator[index_pb2.ApplyEmbeddingsRequest]:
            for one in requests:
                yield one

        return [answer async for answer in self.stub.ApplyEmbeddings(all_requests())]

    async def search(self, queries: np.ndarray, k: int, **fields: object) -> tuple[list[list[int]], np.ndarray]:
        matrix = common_pb2.Matrix(
            rows=queries.shape[0], columns=queries.shape[1], values=queries.astype("<f4").tobytes()
        )
        answer = await self.stub.Search(index_pb2.IndexServiceSearchRequest(queries=matrix, k=k, **fields))  # type: ignore[arg-type]
        return results(answer, k)

    async def stats(self, space: str) -> index_pb2.SpaceStats:
        answer = await self.stub.GetIndexStats(index_pb2.GetIndexStatsRequest(with_digest=True))
        return next(one for one in answer.spaces if one.space == space)


def results(answer: index_pb2.IndexServiceSearchResponse, k: int) -> tuple[list[list[int]], np.ndarray]:
    counts = np.frombuffer(answer.counts, "<u4")
    ordinals = np.frombuffer(answer.item_ordinals, "<u4").reshape(len(counts), k)
    scores = np.frombuffer(answer.scores, "<f4").reshape(len(counts), k)
    return [row[:count].tolist() for row, count in zip(ordinals, counts, strict=True)], scores


Serve = Callable[..., AbstractAsyncContextManager[Index]]


@pytest.fixture
def serve(tmp_path: Path) -> Serve:
    """Serves an index from the test's folder: again and again, over what the last one left."""

    @asynccontextmanager
    async def served(**changed: object) -> AsyncIterator[Index]:
        settings = IndexSettings(**{"port": 0, "drain_s": 0.1, "device": "cpu", **changed})  # type: ignore[arg-type]
        common = CommonSettings(data_dir=tmp_path)
        async with (
            compose(settings, common) as parts,
            running(parts, settings) as server,
            open_channel(server.address) as channel,
        ):
            yield Index(index_pb2_grpc.IndexServiceStub(channel), server.address)

    return served


@pytest.fixture
async def index(serve: Serve) -> AsyncIterator[Index]:
    async with asyncio.timeout(60), serve() as served:
        yield served


@pytest.fixture
def sender_of() -> Callable[[str, int], Sender]:
    return Sender
