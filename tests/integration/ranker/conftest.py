"""A ranker among its peers: the real index, and a small feature store and registry that keep the contracts."""

from __future__ import annotations

import asyncio
import hashlib
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import grpc
import numpy as np
import pytest
import torch

from headrace.index.__main__ import compose as compose_index
from headrace.index.settings import IndexSettings
from headrace.model.candidates import CANDIDATE_FEATURES, FEATURE_SCHEMA
from headrace.model.items import COLUMN, ITEM_FEATURES, NEIGHBOURS, NO_NEIGHBOUR, Items, hours
from headrace.model.ranker_network import RankerNetwork, RankerShape
from headrace.model.serving_model import parts_of
from headrace.model.text.ngrams import HashedNgramEncoder
from headrace.model.towers import Towers, TowerShape
from headrace.ranker.__main__ import compose
from headrace.ranker.settings import RankerSettings
from headrace.runtime.channels import open_channel
from headrace.runtime.serving import Background, Face, Parts, running
from headrace.runtime.settings import CommonSettings, ServingSettings
from headrace.v1 import (
    common_pb2,
    feature_store_pb2,
    feature_store_pb2_grpc,
    index_pb2,
    index_pb2_grpc,
    ranker_pb2,
    ranker_pb2_grpc,
    trainer_pb2,
    trainer_pb2_grpc,
)

NOW_US = 1_700_000_000_000_000
DIMENSION = 16
_NOUNS = ("mug", "lamp", "chair", "kettle", "cushion", "clock")
_COLOURS = ("red", "blue", "green", "white", "black", "yellow", "pink", "grey", "orange", "purple")
PRODUCTS = tuple(f"{colour} {noun}" for noun in _NOUNS for colour in _COLOURS)


def product(ordinal: int, title: str, **fields: object) -> common_pb2.Product:
    made = common_pb2.Product(
        id=f"p-{ordinal}",
        title=title,
        categories=[f"Home > {title.split()[-1].title()}s"],
        brands=["acme" if ordinal % 2 else "zenith"],
        price_info=common_pb2.PriceInfo(price=float(ordinal + 1)),
    )
    made.MergeFrom(common_pb2.Product(**fields))
    return made


class FeatureStore(feature_store_pb2_grpc.FeatureStoreServiceServicer):
    """People, items and followers, all in memory; it outlives the server that serves it."""

    def __init__(self) -> None:
        self.items = Items()
        self.documents: dict[int, feature_store_pb2.ItemDocument] = {}
        self.histories: dict[str, list[tuple[int, int, int]]] = {}
        self.offset = 1
        self.told_offset = 0
        self.slow_s = 0.0
        self.feature_names: Sequence[str] = ITEM_FEATURES
        self._moved = asyncio.Condition()
        self._followers: set[asyncio.Queue[feature_store_pb2.WatchItemFeaturesResponse]] = set()

    def describe(self, ordinal: int, made: common_pb2.Product | None) -> None:
        """Lists a product (None: deletes it) and tells the followers."""
        self.items.grow(ordinal + 1)
        row = self.items.features_NF[ordinal]
        row[COLUMN["described"]], row[COLUMN["deleted"]] = made is not None, made is None
        row[COLUMN["first_seen_h"]] = hours(NOW_US)
        document = feature_store_pb2.ItemDocument(ordinal=ordinal, product=made, deleted=made is None)
        self.documents[ordinal] = document
        self._tell(np.array([ordinal], np.uint32), [document])

    def relate(self, ordinal: int, others: Mapping[int, float]) -> None:
        """Sets what an item was seen along with."""
        neighbours = np.full(NEIGHBOURS, NO_NEIGHBOUR, np.uint32)
        weights = np.zeros(NEIGHBOURS, np.float32)
        neighbours[: len(others)], weights[: len(others)] = list(others), list(others.values())
        self.items.set_neighbours(np.array([ordinal]), neighbours[None], weights[None])
        self._tell(np.array([ordinal], np.uint32), [])

    def make_popular(self, ordinal: int, log_purchases: float) -> None:
        row = self.items.features_NF[[ordinal]].copy()
        for days in (1, 7, 30):
            row[0, COLUMN[f"log_purchases_{days}d"]] = log_purchases
        self.items.set_features(np.array([ordinal]), row)
        self._tell(np.array([ordinal], np.uint32), [])

    async def act(self, user_key: str, ordinal: int, code: int, time_us: int = NOW_US) -> int:
        """Something happens; answers its offset."""
        async with self._moved:
            self.histories.setdefault(user_key, []).append((ordinal, code, time_us))
            self.offset += 1
            self._moved.notify_all()
        return self.offset

    def _tell(self, ordinals: np.ndarray, documents: Sequence[feature_store_pb2.ItemDocument]) -> None:
        self.offset += 1
        self.told_offset = self.offset
        for follower in self._followers:
            follower.put_nowait(self._message(ordinals, documents))

    def _message(
        self, ordinals: np.ndarray, documents: Sequence[feature_store_pb2.ItemDocument]
    ) -> feature_store_pb2.WatchItemFeaturesResponse:
        return feature_store_pb2.WatchItemFeaturesResponse(
            item_ordinals=ordinals.tobytes(),
            features=common_pb2.Matrix(
                rows=len(ordinals), columns=len(ITEM_FEATURES), values=self.items.features_NF[ordinals].tobytes()
            ),
            neighbour_count=NEIGHBOURS,
            neighbour_ordinals=self.items.neighbour_ordinals_NK[ordinals].tobytes(),
            neighbour_weights=self.items.neighbour_weights_NK[ordinals].tobytes(),
            documents=documents,
            offset=self.offset,
            now_us=NOW_US,
        )

    async def GetUserState(
        self, request: feature_store_pb2.GetUserStateRequest, context: grpc.aio.ServicerContext
    ) -> feature_store_pb2.GetUserStateResponse:
        if self.slow_s:
            await asyncio.sleep(self.slow_s)
        async with self._moved:
            await self._moved.wait_for(lambda: self.offset >= request.min_offset)
        events = self.histories.get(request.user_key, [])
        ordinals, codes, times = zip(*events, strict=True) if events else ((), (), ())
        return feature_store_pb2.GetUserStateResponse(
            history=feature_store_pb2.UserHistory(
                item_ordinals=np.array(ordinals, "<u4").tobytes(),
                event_types=np.array(codes, np.uint8).tobytes(),
                times_us=np.array(times, "<i8").tobytes(),
                channels=np.ones(len(events), np.uint8).tobytes(),
            ),
            offset=self.offset,
            now_us=NOW_US,
        )

    async def WatchItemFeatures(
        self, request: feature_store_pb2.WatchItemFeaturesRequest, context: grpc.aio.ServicerContext
    ) -> AsyncIterator[feature_store_pb2.WatchItemFeaturesResponse]:
        queue: asyncio.Queue[feature_store_pb2.WatchItemFeaturesResponse] = asyncio.Queue()
        self._followers.add(queue)
        try:
            whole = self._message(np.arange(self.items.count, dtype=np.uint32), list(self.documents.values()))
            whole.snapshot = whole.snapshot_end = True
            whole.feature_names.extend(self.feature_names)
            whole.feature_schema = FEATURE_SCHEMA
            yield whole
            while True:
                yield await queue.get()
        finally:
            self._followers.discard(queue)


class Registry(trainer_pb2_grpc.TrainerServiceServicer):
    """Releases and the serving plan, all in memory; it outlives the server that serves it."""

    def __init__(self) -> None:
        self.plan = trainer_pb2.WatchServingPlanResponse(sequence=1)
        self.parts: dict[tuple[str, str], bytes] = {}
        self.broken_fetches = 0
        self.fetches = 0
        # the last of each ranker
        self.reports: dict[str, trainer_pb2.ReportServingRequest] = {}
        self._changed = asyncio.Condition()

    def release(self, name: str, parts: Mapping[str, bytes], **fields: object) -> trainer_pb2.Release:
        """Keeps the parts and answers their manifest."""
        self.parts |= {(name, part): data for part, data in parts.items()}
        manifest = trainer_pb2.Release(
            release=name,
            space="main",
            feature_schema=FEATURE_SCHEMA,
            dimension=DIMENSION,
            parts=[
                trainer_pb2.ReleasePart(name=part, sha256=hashlib.sha256(data).hexdigest(), size_bytes=len(data))
                for part, data in parts.items()
            ],
        )
        manifest.MergeFrom(trainer_pb2.Release(**fields))
        return manifest

    async def serve(self, manifest: trainer_pb2.Release | None, sequence: int | None = None, **others: object) -> None:
        """Makes a release the stable one, with `others` (canary, shadow …) beside it."""
        async with self._changed:
            self.plan = trainer_pb2.WatchServingPlanResponse(
                sequence=sequence or self.plan.sequence + 1, stable=manifest, **others
            )
            self._changed.notify_all()

    async def WatchServingPlan(
        self, request: trainer_pb2.WatchServingPlanRequest, context: grpc.aio.ServicerContext
    ) -> AsyncIterator[trainer_pb2.WatchServingPlanResponse]:
        while True:
            plan = self.plan
            yield plan
            async with self._changed:
                await self._changed.wait_for(lambda plan=plan: self.plan is not plan)

    async def FetchArtifact(
        self, request: trainer_pb2.FetchArtifactRequest, context: grpc.aio.ServicerContext
    ) -> AsyncIterator[trainer_pb2.FetchArtifactResponse]:
        self.fetches += 1
        data = self.parts.get((request.release, request.part))
        if data is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such part")
            return
        half = len(data) // 2
        yield trainer_pb2.FetchArtifactResponse(data=data[:half])
        if self.broken_fetches:
            self.broken_fetches -= 1
            await context.abort(grpc.StatusCode.UNAVAILABLE, "going down")
        yield trainer_pb2.FetchArtifactResponse(data=data[half:], sha256=hashlib.sha256(data).hexdigest())

    async def ReportServing(
        self, request: trainer_pb2.ReportServingRequest, context: grpc.aio.ServicerContext
    ) -> trainer_pb2.ReportServingResponse:
        self.reports[request.ranker] = request
        return trainer_pb2.ReportServingResponse()


def model_parts(seed: int = 0, **fields: object) -> dict[str, bytes]:
    """The parts of a small model with random weights."""
    torch.manual_seed(seed)
    shape = TowerShape(dimension=DIMENSION, max_length=8, text_width=DIMENSION, brand_buckets=8, category_buckets=8)
    chosen = {
        "space": "main",
        "feature_schema": FEATURE_SCHEMA,
        "towers": Towers(shape),
        "ranker": RankerNetwork(RankerShape(len(CANDIDATE_FEATURES), hidden=16)),
        "encoder": HashedNgramEncoder.fit(PRODUCTS, DIMENSION, seed),
    }
    return parts_of(**(chosen | fields))


@dataclass
class Peer:
    """A server that can be stopped and started again on its port."""

    parts: Parts
    port: int = 0
    _stack: AsyncExitStack = field(default_factory=AsyncExitStack)

    async def start(self) -> None:
        self._stack = AsyncExitStack()
        server = await self._stack.enter_async_context(running(self.parts, ServingSettings(port=self.port, drain_s=0)))
        self.port = server.port

    async def stop(self) -> None:
        await self._stack.aclose()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"


async def eventually(holds: Callable[[], Awaitable[bool]], within_s: float = 15) -> None:
    """Waits until something holds."""
    async with asyncio.timeout(within_s):
        while True:
            if await holds():
                return
            await asyncio.sleep(0.01)


@dataclass
class World:
    """The ranker's client, and the peers to play with."""

    store: FeatureStore
    registry: Registry
    peers: dict[str, Peer]
    index: index_pb2_grpc.IndexServiceStub
    ranker: ranker_pb2_grpc.RankerServiceStub
    data_dir: Path

    async def recommend(self, config: str = "home", **fields: object) -> ranker_pb2.RecommendResponse:
        fields = {"visitor_id": "ann"} | fields
        return await self.ranker.Recommend(ranker_pb2.RecommendRequest(serving_config=config, **fields), timeout=10)

    async def search(self, query: str, **fields: object) -> ranker_pb2.SearchResponse:
        return await self.ranker.Search(ranker_pb2.SearchRequest(query=query, **fields), timeout=10)

    async def status(self) -> ranker_pb2.GetRankerStatusResponse:
        return await self.ranker.GetRankerStatus(ranker_pb2.GetRankerStatusRequest())

    async def until(self, holds: Callable[[ranker_pb2.GetRankerStatusResponse], object]) -> None:
        """Waits until the status is as wanted."""

        async def status_holds() -> bool:
            return bool(holds(await self.status()))

        await eventually(status_holds)

    async def caught_up(self) -> None:
        """Waits until the ranker knows all that the store told its followers."""
        await self.until(lambda status: status.feature_offset >= self.store.told_offset)

    async def push(self, space: str, first_sequence: int, ordinals: Sequence[int], vectors: np.ndarray) -> None:
        """Puts vectors into a space of the index, made when it is missing."""
        await self.index.CreateSpace(index_pb2.CreateSpaceRequest(space=space, dimension=DIMENSION))
        if not len(ordinals):
            return
        names = np.array(ordinals, "<u4").tobytes()
        values = vectors.astype("<f4").tobytes()
        batch = index_pb2.ApplyEmbeddingsRequest(
            space=space,
            first_sequence=first_sequence,
            item_ordinals=names,
            vectors=common_pb2.Matrix(rows=len(ordinals), columns=DIMENSION, values=values),
            checksum=zlib.crc32(names + values),
            log_offset=7,
        )
        call = self.index.ApplyEmbeddings(iter([batch]))
        async for answer in call:
            assert not answer.gap

    async def serve_release(self, name: str = "r-1", seed: int = 0, **fields: object) -> None:
        """Publishes a sound release and waits until it answers."""
        await self.registry.serve(self.registry.release(name, model_parts(seed), **fields))
        await self.until(lambda status: status.release == name)


def noun_vectors() -> np.ndarray:
    """Items of one noun lie together: unit vectors near one axis a noun, nearest first by colour."""
    vectors = np.zeros((len(PRODUCTS), DIMENSION), np.float32)
    for ordinal in range(len(PRODUCTS)):
        noun, colour = divmod(ordinal, len(_COLOURS))
        vectors[ordinal, noun] = 1.0
        vectors[ordinal, len(_NOUNS)] = 0.01 * colour
    return vectors


def face_of(add: Callable[[object, object], None], servicer: object, name: str) -> Parts:
    return Parts([Face(name, lambda server: add(servicer, server))], Background())


# settings of a ranker that is tested: it hurries, and waits for a slow machine
QUICK = {
    "port": 0,
    "retry_s": 0.05,
    "drain_s": 0,
    "vectors_wait_s": 0.3,
    "state_budget_s": 2.0,
    "search_budget_s": 2.0,
    "score_budget_s": 5.0,
    "default_deadline_s": 10.0,
    "breaker_open_s": 0.1,
    "impression_interval_s": 0.02,
    # orders are to be foreseen
    "explore_share": 0.0,
    "report_every_s": 0.05,
}


@asynccontextmanager
async def world_of(data_dir: Path, *, products: int = len(PRODUCTS), **settings: object) -> AsyncIterator[World]:
    """Peers with a stocked shop, and a ranker that has met them. No release is served yet."""
    common = CommonSettings(data_dir=data_dir)
    store, registry = FeatureStore(), Registry()
    for ordinal, title in enumerate(PRODUCTS[:products]):
        store.describe(ordinal, product(ordinal, title))
    async with AsyncExitStack() as stack:
        index_parts = await stack.enter_async_context(compose_index(IndexSettings(port=0, device="cpu"), common))
        peers = {
            "feature-store": Peer(
                face_of(
                    feature_store_pb2_grpc.add_FeatureStoreServiceServicer_to_server,
                    store,
                    "headrace.v1.FeatureStoreService",
                )
            ),
            "index": Peer(index_parts),
            "trainer": Peer(
                face_of(trainer_pb2_grpc.add_TrainerServiceServicer_to_server, registry, "headrace.v1.TrainerService")
            ),
        }
        for peer in peers.values():
            await peer.start()
            stack.push_async_callback(peer.stop)
        chosen = QUICK | {
            "feature_store_address": peers["feature-store"].address,
            "index_address": peers["index"].address,
            "trainer_address": peers["trainer"].address,
        }
        ranker_settings = RankerSettings(**(chosen | settings))
        parts = await stack.enter_async_context(compose(ranker_settings, common))
        server = await stack.enter_async_context(running(parts, ranker_settings))
        ranker_channel = await stack.enter_async_context(open_channel(server.address))
        index_channel = await stack.enter_async_context(open_channel(peers["index"].address))
        world = World(
            store,
            registry,
            peers,
            index_pb2_grpc.IndexServiceStub(index_channel),
            ranker_pb2_grpc.RankerServiceStub(ranker_channel),
            data_dir,
        )
        await world.until(lambda status: status.items == products and status.lexical_documents == products)
        yield world


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[World]:
    """Stocked, without vectors and release."""
    async with world_of(tmp_path) as world:
        yield world


@pytest.fixture
async def full_shop(tmp_path: Path) -> AsyncIterator[World]:
    """Stocked, with vectors and a release that is served."""
    async with world_of(tmp_path) as world:
        await world.push("main", 1, range(len(PRODUCTS)), noun_vectors())
        await world.serve_release(delta_sequence=len(PRODUCTS))
        yield world


@pytest.fixture
def make() -> SimpleNamespace:
    """The helpers of this folder, for tests that build their own world."""
    return SimpleNamespace(
        world=world_of,
        peer=Peer,
        quick=QUICK,
        eventually=eventually,
        product=product,
        model_parts=model_parts,
        vectors=noun_vectors,
        products=PRODUCTS,
        now_us=NOW_US,
        dimension=DIMENSION,
    )
