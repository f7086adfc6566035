"""The replicas of this shard as the index sees them: translate out, one call, translate back."""

# N rows, D dimension

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass

import grpc
import numpy as np

from headrace.index.rolling_hash import Mark, RollingHash
from headrace.index.rows import Rows
from headrace.index.segment import Segment, SegmentView
from headrace.index.space import Space
from headrace.runtime.channels import open_channel
from headrace.runtime.errors import CorruptDataError, FailedPreconditionError, UnavailableError
from headrace.runtime.shards import Shard
from headrace.runtime.tls import TlsFiles
from headrace.v1 import common_pb2, index_pb2, index_pb2_grpc

_ANSWER_S = 2.0
# silence of a replica that is being copied
_PART_S = 30.0

_Copy = AsyncIterator[index_pb2.CopySpaceResponse]


@dataclass(frozen=True)
class SpaceStanding:
    """How far a replica has come in a space, and its rolling hashes."""

    sequence: int
    marks: tuple[Mark, ...]


@dataclass(frozen=True)
class PeerStanding:
    """What a replica says of itself."""

    instance: str
    shard: Shard
    active: str
    spaces: dict[str, SpaceStanding]


class Peer:
    """One replica, by address."""

    def __init__(self, address: str, tls: TlsFiles | None = None) -> None:
        self.address = address
        self._channel = open_channel(address, tls=tls)
        self._stub: index_pb2_grpc.IndexServiceAsyncStub = index_pb2_grpc.IndexServiceStub(self._channel)

    async def close(self) -> None:
        await self._channel.close()

    async def standing(self) -> PeerStanding:
        """Where it stands now. UnavailableError."""
        try:
            stats = await self._stub.GetIndexStats(index_pb2.GetIndexStatsRequest(), timeout=_ANSWER_S)
        except grpc.aio.AioRpcError as error:
            raise _unavailable(error) from error
        # replicas of before there were shards say nothing
        shard = Shard(stats.shard, stats.shards or 1)
        spaces = {one.space: SpaceStanding(one.applied_sequence, _marks(one.hash_marks)) for one in stats.spaces}
        return PeerStanding(stats.instance, shard, stats.active_space, spaces)

    async def copy(self, space: str, shard: Shard, make_segment: Callable[[int], Segment]) -> Space:
        """A space as the replica holds it. UnavailableError; FailedPreconditionError: it is another shard."""
        call = self._stub.CopySpace(index_pb2.CopySpaceRequest(space=space))
        try:
            return await _space(aiter(call), shard, make_segment)
        except grpc.aio.AioRpcError as error:
            raise _unavailable(error) from error
        except TimeoutError as error:
            raise UnavailableError(f"no part of space {space!r} came for {_PART_S:g} s") from error
        finally:
            call.cancel()


async def _space(messages: _Copy, shard: Shard, make_segment: Callable[[int], Segment]) -> Space:
    head = (await _next(messages)).copied
    sent = Shard(head.shard, head.shards)
    if sent != shard:
        raise FailedPreconditionError(f"the replica is shard {sent}, not {shard}")
    parts = [part async for part in _parts(messages)]
    if sum(len(part) for part in parts) != head.rows:
        raise CorruptDataError(f"{sum(len(part) for part in parts)} of {head.rows} rows of space {head.space!r} came")
    segment = make_segment(head.dimension)
    await asyncio.to_thread(segment.fill, parts, head.applied_sequence, head.log_offset)
    return Space(head.space, head.dimension, segment, _rolling_hash(head))


async def _parts(messages: _Copy) -> AsyncIterator[Rows]:
    while not (message := await _next(messages)).end:
        yield _rows(message)


async def _next(messages: _Copy) -> index_pb2.CopySpaceResponse:
    async with asyncio.timeout(_PART_S):
        try:
            return await anext(messages)
        except StopAsyncIteration as error:
            raise UnavailableError("the replica ended the copy before it was whole") from error


def _rows(message: index_pb2.CopySpaceResponse) -> Rows:
    actual = _checksum(message)
    if actual != message.checksum:
        raise CorruptDataError(f"a part of the copy has checksum {actual}, not {message.checksum}")
    return Rows(
        np.frombuffer(message.item_ordinals, "<u4"),
        np.frombuffer(message.vectors.values, "<f4").reshape(message.vectors.rows, message.vectors.columns),
        np.frombuffer(message.sequences, "<i8"),
        np.frombuffer(message.log_offsets, "<i8"),
    )


def copy_head(space: Space, view: SegmentView, rolling_hash: RollingHash, shard: Shard) -> index_pb2.CopySpaceResponse:
    """The first message of a copy."""
    return index_pb2.CopySpaceResponse(
        copied=index_pb2.CopiedSpace(
            space=space.name,
            dimension=space.dimension,
            rows=view.count,
            applied_sequence=view.sequence,
            log_offset=view.log_offset,
            hash_chain=rolling_hash.chain or (),
            hash_marks=marks_message(rolling_hash),
            shard=shard.number,
            shards=shard.count,
        )
    )


def copy_part(rows: Rows) -> index_pb2.CopySpaceResponse:
    """Some rows of a copy."""
    count, columns = rows.vectors_ND.shape
    values = rows.vectors_ND.astype("<f4", copy=False).tobytes()
    message = index_pb2.CopySpaceResponse(
        item_ordinals=rows.ordinals.astype("<u4", copy=False).tobytes(),
        vectors=common_pb2.Matrix(rows=count, columns=columns, values=values),
        sequences=rows.sequences.astype("<i8", copy=False).tobytes(),
        log_offsets=rows.log_offsets.astype("<i8", copy=False).tobytes(),
    )
    message.checksum = _checksum(message)
    return message


def marks_message(rolling_hash: RollingHash) -> list[index_pb2.HashMark]:
    """The marks of a rolling hash."""
    return [index_pb2.HashMark(sequence=mark.sequence, hash=mark.digest) for mark in rolling_hash.marks]


def _checksum(message: index_pb2.CopySpaceResponse) -> int:
    crc = 0
    for column in (message.item_ordinals, message.vectors.values, message.sequences, message.log_offsets):
        crc = zlib.crc32(column, crc)
    return crc


def _rolling_hash(head: index_pb2.CopiedSpace) -> RollingHash:
    if not head.hash_chain:
        return RollingHash(head.applied_sequence, None)
    ordinals, vectors, tombstones = head.hash_chain
    return RollingHash(head.applied_sequence, (ordinals, vectors, tombstones), _marks(head.hash_marks))


def _marks(messages: Sequence[index_pb2.HashMark]) -> tuple[Mark, ...]:
    return tuple(Mark(message.sequence, message.hash) for message in messages)


def _unavailable(error: grpc.aio.AioRpcError) -> UnavailableError:
    return UnavailableError(f"{error.code().name}: {error.details()}")
