"""The work of an answer alone: the same recommender in one process, with no call to anybody.

States and vectors are taken from a running suite first; then each request is answered from memory.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from headrace.cli.client import Client
from headrace.index.devices import segment_maker
from headrace.index.rows import NO_ORDINALS, Rows
from headrace.index.searching import Query, found
from headrace.index.segment import Segment
from headrace.model.attribution import Tokens
from headrace.model.items import Items
from headrace.ranker import requests
from headrace.ranker.answering import Answering
from headrace.ranker.catalogue import Catalogue
from headrace.ranker.exposure import OUTSIDE
from headrace.ranker.feeds import ItemFeed, VectorFeed
from headrace.ranker.filters import Filters
from headrace.ranker.gate_zero import GateZero, unsigned
from headrace.ranker.lexical import LexicalIndex
from headrace.ranker.loading import ReleaseLoader
from headrace.ranker.nearest import Nearest
from headrace.ranker.peers import FeatureStorePeer, IndexPeer, Neighbours, TrainerPeer, UserState
from headrace.ranker.plan import HeldPlan
from headrace.ranker.recommend import Recommendation, Recommender
from headrace.ranker.releases import Releases
from headrace.ranker.served import Served
from headrace.ranker.server import recommended
from headrace.ranker.settings import RankerSettings
from headrace.ranker.shadow import Shadow
from headrace.ranker.sources import Sources
from headrace.ranker.turns import Turns
from headrace.runtime.channels import open_channel
from headrace.v1.ranker_pb2 import RecommendRequest

T = TypeVar("T")

_FAR_S = 60.0


async def arithmetic_ms(client: Client, messages: Sequence[RecommendRequest]) -> dict[str, float]:
    """Mean CPU milliseconds of an answer's arithmetic by its parts, the vector search apart."""
    # as a ranker's process does
    torch.set_num_threads(1)
    async with _memory(client, messages) as (recommender, index):
        for message in messages:
            await _answered(recommender, message)
        index.seconds = 0.0
        begun = time.process_time()
        for message in messages:
            await _answered(recommender, message)
        whole_s = time.process_time() - begun
    search_ms = 1e3 * index.seconds / len(messages)
    return {"search_ms": round(search_ms, 3), "answer_ms": round(1e3 * whole_s / len(messages) - search_ms, 3)}


async def _answered(recommender: Recommender, message: RecommendRequest) -> bytes:
    data = message.SerializeToString()
    wanted: Recommendation = requests.recommendation(RecommendRequest.FromString(data), OUTSIDE)
    return recommended(await recommender.recommend(wanted, _FAR_S), with_products=False).SerializeToString()


@asynccontextmanager
async def _memory(
    client: Client, messages: Sequence[RecommendRequest]
) -> AsyncIterator[tuple[Recommender, _SearchInProcess]]:
    """A recommender whose peers are this process's memory."""
    settings = RankerSettings(log_impressions=False)
    async with AsyncExitStack() as stack:
        channels = {
            name: await stack.enter_async_context(open_channel(client.addresses[name]))
            for name in ("feature-store", "index", "trainer")
        }
        store, index = FeatureStorePeer(channels["feature-store"]), IndexPeer(channels["index"])
        catalogue, lexical = Catalogue(Items()), LexicalIndex(settings.lexical_commit_s)
        stack.callback(lexical.close)
        trainer = TrainerPeer(channels["trainer"])
        gate = GateZero(settings.most_times_slower, unsigned)
        turns = Turns(lambda: 0)
        loader = stack.enter_context(ThreadPoolExecutor(1))
        releases = Releases(
            trainer.watch_plan,
            HeldPlan(),
            ReleaseLoader(trainer, catalogue, loader, gate, turns, vectors_wait_s=_FAR_S),
            lambda space: VectorFeed(index, space, settings.retry_s),
            retry_s=settings.retry_s,
        )
        tasks = [
            asyncio.create_task(ItemFeed(store, catalogue, lexical, settings.retry_s).run()),
            asyncio.create_task(releases.run()),
        ]
        while not (catalogue.is_loaded and releases.current):  # noqa: ASYNC110  # neither tells of it
            await asyncio.sleep(0.1)
        states = {key: await store.state(key, 0, _FAR_S) for key in {_key(message) for message in messages}}
        await _ended(tasks)
        search = _SearchInProcess(_segment(releases.current))
        sources = Sources(_StatesInProcess(states), search, settings)  # type: ignore[arg-type]  # stand in for peers
        answering = Answering(
            catalogue,
            Filters(catalogue),
            releases,
            sources,
            _Inline(),
            Tokens(b"parts"),
            None,
            settings,
            turns,
            Shadow(lambda: None, turns, 0),
        )
        yield Recommender(answering), search


async def _ended(tasks: Sequence[asyncio.Task[None]]) -> None:
    """Stops following: nothing but the answers is to take time."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _key(message: RecommendRequest) -> str:
    return f"u:{message.user_id}" if message.user_id else f"v:{message.visitor_id}"


def _segment(served: Served) -> Segment:
    vectors = served.vectors
    ordinals = vectors.ordinals()
    segment = segment_maker("cpu").make(vectors.dimension)
    nothing = np.zeros(len(ordinals), np.int64)
    segment.fill([Rows(ordinals, vectors.rows(ordinals), nothing, nothing)], 1, 0)
    return segment


class _Inline(Executor):
    """Runs work at once, in the caller's thread."""

    def submit(self, work: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        done: Future[T] = Future()
        done.set_result(work(*args, **kwargs))
        return done


class _StatesInProcess:
    shards = 1

    def __init__(self, states: dict[str, UserState]) -> None:
        self._states = states

    async def state(self, user_key: str, min_offset: int, timeout_s: float) -> UserState:
        return self._states[user_key]


class _SearchInProcess:
    """The index's segment, and how long it took."""

    def __init__(self, segment: Segment) -> None:
        self._segment = segment
        self.seconds = 0.0

    async def near_vector(
        self, space: str, query: NDArray[np.float32], k: int, bitmap: bytes, timeout_s: float
    ) -> Neighbours:
        return self._searched(Query(query[None], None, k, _bits(bitmap), NO_ORDINALS), space)

    async def near_items(
        self, space: str, ordinals: NDArray[np.uint32], k: int, bitmap: bytes, timeout_s: float
    ) -> Neighbours:
        return self._searched(Query(None, ordinals, k, _bits(bitmap), NO_ORDINALS), space)

    def _searched(self, query: Query, space: str) -> Neighbours:
        begun = time.process_time()
        answer = found(self._segment, query)
        self.seconds += time.process_time() - begun
        nearest = Nearest(answer.counts_Q, answer.ordinals_QK, answer.scores_QK, space, 1)
        return Neighbours(*nearest.end_to_end(), space, nearest.applied_sequence)


def _bits(bitmap: bytes) -> NDArray[np.uint8] | None:
    return np.frombuffer(bitmap, np.uint8) if bitmap else None
