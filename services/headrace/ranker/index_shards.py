"""An index of several shards as if it were one: all are asked at once, and their answers are one answer.

A shard that gives none leaves an answer without its items, which says so. Only when no shard answers is it an error.
"""

# Q queries, D dimension

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from headrace.ranker.joined_watch import joined_watch
from headrace.ranker.nearest import Nearest, merged
from headrace.ranker.peers import Embeddings, IndexPeer, Neighbours, VectorsUpdate, why_missing
from headrace.ranker.replica_channels import replica_channels
from headrace.ranker.replicas import Replicas
from headrace.ranker.vector_index import VectorIndex
from headrace.runtime.channels import open_channel
from headrace.runtime.errors import HeadraceError
from headrace.runtime.shard_addresses import ShardAddresses
from headrace.runtime.shards import shard_of
from headrace.runtime.tls import TlsFiles


class _InSpace(Protocol):
    @property
    def space(self) -> str: ...


T = TypeVar("T", bound=_InSpace)

# of a search by items, what looking up their vectors may take
_LOOK_UP_SHARE = 0.4

_Ask = Callable[[IndexPeer, float], Awaitable[T]]


@asynccontextmanager
async def open_index(addresses: ShardAddresses, tls: TlsFiles | None = None) -> AsyncIterator[VectorIndex]:
    """The index at these addresses; one process is asked directly."""
    async with AsyncExitStack() as stack:
        if sum(len(shard) for shard in addresses) == 1:
            yield IndexPeer(await stack.enter_async_context(open_channel(addresses[0][0], tls=tls)))
            return
        channels = [
            [await stack.enter_async_context(one) for one in replica_channels(shard, tls)] for shard in addresses
        ]
        yield IndexShards([Replicas([IndexPeer(channel) for channel in shard]) for shard in channels])


@dataclass(frozen=True, slots=True)
class _Given(Generic[T]):
    """What the shards gave, by number, and which of those that were asked gave nothing."""

    answers: Mapping[int, T]
    missing: tuple[str, ...]


class IndexShards:
    """Asks every shard, by the number that stands for its place among `shards`."""

    def __init__(self, shards: Sequence[Replicas[IndexPeer]]) -> None:
        self._shards = tuple(shards)

    async def near_vector(
        self, space: str, query_D: NDArray[np.float32], k: int, bitmap: bytes, timeout_s: float
    ) -> Neighbours:
        """The k allowed items nearest to a vector. DeadlineError, UnavailableError, NotFoundError: from all shards."""
        return await self._near(space, query_D[None], k, bitmap, timeout_s)

    async def near_items(
        self, space: str, ordinals: NDArray[np.uint32], k: int, bitmap: bytes, timeout_s: float
    ) -> Neighbours:
        """The k allowed items nearest to each item that has a vector, looked up where the item is."""
        if not len(ordinals):
            return Neighbours.none()
        end = time.monotonic() + timeout_s
        found = await self._embeddings(space, ordinals, _LOOK_UP_SHARE * timeout_s)
        queries_QD = _in_order(ordinals, list(found.answers.values()))
        space = next((answer.space for answer in found.answers.values()), space)
        if not len(queries_QD):
            return replace(Neighbours.none(), space=space, missing=found.missing)
        near = await self._near(space, queries_QD, k, bitmap, end - time.monotonic())
        return replace(near, missing=tuple(dict.fromkeys((*found.missing, *near.missing))))

    async def watch_vectors(self, space: str) -> AsyncIterator[VectorsUpdate]:
        """All vectors of a space, then every change. UnavailableError; NotFoundError: some shard has no such space."""
        async for update in joined_watch(
            [shard.watched(lambda peer: peer.watch_vectors(space)) for shard in self._shards]
        ):
            yield update

    async def _near(
        self, space: str, queries_QD: NDArray[np.float32], k: int, bitmap: bytes, timeout_s: float
    ) -> Neighbours:
        asks = dict.fromkeys(range(len(self._shards)), _search(space, queries_QD, k, bitmap))
        given = _of_one_space(await self._asked(asks, timeout_s))
        nearest = merged(list(given.answers.values()))
        return Neighbours(*nearest.end_to_end(), nearest.space, nearest.applied_sequence, given.missing)

    async def _embeddings(self, space: str, ordinals: NDArray[np.uint32], timeout_s: float) -> _Given[Embeddings]:
        owners = shard_of(ordinals, len(self._shards))
        asks = {int(number): _look_up(space, ordinals[owners == number]) for number in np.unique(owners)}
        return _of_one_space(await self._asked(asks, timeout_s))

    async def _asked(self, asks: Mapping[int, _Ask[T]], timeout_s: float) -> _Given[T]:
        """What the shards give that are asked; the error of the first where all shards fail."""
        tried = await asyncio.gather(*(_tried(self._shards[number], ask, timeout_s) for number, ask in asks.items()))
        by_number = dict(zip(asks, tried, strict=True))
        failed = {number: answer for number, answer in by_number.items() if isinstance(answer, HeadraceError)}
        answers = {number: answer for number, answer in by_number.items() if not isinstance(answer, HeadraceError)}
        if len(failed) == len(self._shards):
            raise next(iter(failed.values()))
        return _Given(answers, tuple(f"shard {number} {why_missing(error)}" for number, error in failed.items()))


def _search(space: str, queries_QD: NDArray[np.float32], k: int, bitmap: bytes) -> _Ask[Nearest]:
    return lambda peer, left_s: peer.nearest(space, queries_QD, k, bitmap, left_s)


def _look_up(space: str, ordinals: NDArray[np.uint32]) -> _Ask[Embeddings]:
    return lambda peer, left_s: peer.embeddings(space, ordinals, left_s)


async def _tried(shard: Replicas[IndexPeer], ask: _Ask[T], timeout_s: float) -> T | HeadraceError:
    try:
        return await shard.asked(ask, timeout_s)
    except HeadraceError as error:
        return error


def _of_one_space(given: _Given[T]) -> _Given[T]:
    """Without the shards whose active space is another one than the first one's: scores of two do not compare."""
    spaces = {number: answer.space for number, answer in given.answers.items()}
    others = [number for number, space in spaces.items() if space != next(iter(spaces.values()))]
    answers = {number: answer for number, answer in given.answers.items() if number not in others}
    return _Given(answers, (*given.missing, *(f"shard {number} in another space" for number in others)))


def _in_order(ordinals: NDArray[np.uint32], found: Sequence[Embeddings]) -> NDArray[np.float32]:
    """The vectors of the items that have one, in the order asked."""
    vectors = {
        ordinal: vector_D
        for part in found
        for ordinal, vector_D in zip(part.ordinals.tolist(), part.vectors_ND, strict=True)
    }
    there = [vectors[ordinal] for ordinal in ordinals.tolist() if ordinal in vectors]
    return np.stack(there) if there else np.zeros((0, 0), np.float32)
