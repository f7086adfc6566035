"""What a rollout happens on, as processes that may be killed: two registries, two stable rankers and a canary.

Feature store and index live in the process that opens the stage, over the event log that all share: nobody kills them.
"""

from __future__ import annotations

import asyncio
import os
import zlib
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import numpy as np

from benchmarks.ranker_process import free_port, polled
from headrace.cli.process import ServiceProcess
from headrace.feature_store.__main__ import compose as compose_feature_store
from headrace.feature_store.settings import FeatureStoreSettings
from headrace.index.__main__ import compose as compose_index
from headrace.index.settings import IndexSettings
from headrace.runtime.channels import open_channel
from headrace.runtime.clock import now_us
from headrace.runtime.eventlog import Record
from headrace.runtime.eventlog.opening import open_event_log
from headrace.runtime.serving import running
from headrace.runtime.settings import PREFIX, CommonSettings
from headrace.v1 import common_pb2, index_pb2, index_pb2_grpc, log_pb2, trainer_pb2, trainer_pb2_grpc
from headrace.v1.ranker_pb2 import GetRankerStatusRequest, GetRankerStatusResponse
from headrace.v1.ranker_pb2_grpc import RankerServiceStub

if TYPE_CHECKING:
    from headrace.v1.index_pb2_grpc import IndexServiceAsyncStub
    from headrace.v1.ranker_pb2_grpc import RankerServiceAsyncStub
    from headrace.v1.trainer_pb2_grpc import TrainerServiceAsyncStub

REGISTRIES, STABLES, CANARY = ("registry-0", "registry-1"), ("stable-0", "stable-1"), "canary"
DIMENSION = 16
_NOUNS = ("mug", "lamp", "chair", "kettle", "cushion", "clock")
_COLOURS = ("red", "blue", "green", "white", "black", "yellow", "pink", "grey", "orange", "purple")
TITLES = tuple(f"{colour} {noun}" for noun in _NOUNS for colour in _COLOURS)

# hours become seconds, so that fifty rollouts go by in minutes
RULES = {
    "LOOK_EVERY_S": "0.1",
    "LEASE_S": "1",
    "PLAN_EVERY_S": "0.5",
    "PLAN_VALID_S": "5",
    "REPORT_VALID_S": "2",
    "GATE_PAIRS": "5",
    "GATE_WAIT_S": "8",
    "ONE_KIND_S": "0.2",
    "UNSERVED_S": "5",
    "SUPERSEDE_AFTER_S": "3",
    "PROMOTE_WAIT_S": "3",
    "INCREMENT_SOAK_S": "0.3",
    "LINEAGE_SOAK_S": "0.5",
    "STEPS_BP": "4000,8000",
    "STEP_HOURS": "0.0003",
    "STEP_LIMIT_HOURS": "0.004",
}
# the machine is full of processes that start: nothing here is about how fast it answers
_RANKER = {
    "RETRY_S": "0.1",
    "REPORT_EVERY_S": "0.2",
    "VECTORS_WAIT_S": "2",
    "SHADOW_PER_S": "50",
    "EXPLORE_SHARE": "0",
    "MOST_TIMES_SLOWER": "1000",
    "STATE_BUDGET_S": "1",
    "SEARCH_BUDGET_S": "1",
    "SCORE_BUDGET_S": "2",
    "CANARY_BUDGET_S": "0.5",
    "MAX_WAITING": "1000",
    "IMPRESSION_INTERVAL_S": "0.1",
}
_READY_S = 120.0


@dataclass(frozen=True)
class Databases:
    """Where the registry and the event log are; empty: SQLite below the stage's folder."""

    registry_url: str = ""
    log_url: str = ""


@dataclass(frozen=True)
class Member:
    """One process, and where it listens."""

    process: ServiceProcess
    address: str


class Stage:
    """The processes by name."""

    def __init__(self, members: Mapping[str, Member]) -> None:
        self._members = members

    def __getitem__(self, name: str) -> Member:
        return self._members[name]

    @property
    def registries(self) -> str:
        return ",".join(self[name].address for name in REGISTRIES)

    @property
    def stables(self) -> str:
        return ",".join(self[name].address for name in STABLES)

    def is_up(self, name: str) -> bool:
        return self[name].process.is_running

    async def ready(self, name: str) -> None:
        """Returns when it answers; a ranker of the stable track, when it does so with a release and products."""
        async with open_channel(self[name].address) as channel, asyncio.timeout(_READY_S):
            await polled(lambda: _tells_plan(channel) if name in REGISTRIES else _answers(channel, name in STABLES))


@asynccontextmanager
async def stage(folder: Path, databases: Databases, webhook: str) -> AsyncIterator[Stage]:
    """All processes started over a shop of a few products, the vectors of both `spaces` of which are in the index."""
    common = CommonSettings(data_dir=folder, event_log_url=databases.log_url)
    async with AsyncExitStack() as stack:
        await _stock(common)
        peers = {}
        store, index = FeatureStoreSettings(port=0), IndexSettings(port=0, device="cpu")
        parts = await stack.enter_async_context(compose_feature_store(store, common))
        peers["FEATURE_STORE"] = (await stack.enter_async_context(running(parts, store))).address
        parts = await stack.enter_async_context(compose_index(index, common))
        peers["INDEX"] = (await stack.enter_async_context(running(parts, index))).address
        for space in SPACES.values():
            await _fill(peers["INDEX"], space)
        members = _members(folder, databases, webhook, peers)
        for member in members.values():
            stack.push_async_callback(member.process.kill)
        await asyncio.gather(*(member.process.start() for member in members.values()))
        yield Stage(members)


SPACES = {"main": "main-1", "wide": "wide-1"}


def _members(folder: Path, databases: Databases, webhook: str, peers: Mapping[str, str]) -> dict[str, Member]:
    ports = {name: free_port() for name in (*REGISTRIES, *STABLES, CANARY)}
    places = {name: f"127.0.0.1:{port}" for name, port in ports.items()}
    addresses = {f"{peer}_ADDRESS": address for peer, address in peers.items()}
    registry = {
        "ROLE": "registry",
        "NICENESS": "0",
        "REGISTRY_URL": databases.registry_url or f"sqlite:///{folder / 'registry.db'}",
        "ARTIFACTS_URL": str(folder / "artifacts"),
    }
    rules = {f"{PREFIX}ROLLOUT_{name}": value for name, value in (RULES | {"WEBHOOK_URLS": webhook}).items()}
    ranker = _RANKER | {"TRAINER_ADDRESS": ",".join(places[name] for name in REGISTRIES)}
    members = {}
    for name, port in ports.items():
        service, own = ("trainer", registry) if name in REGISTRIES else ("ranker", ranker)
        told = addresses | own | {"PORT": str(port)}
        if name in STABLES:
            told["CANARY_ADDRESS"] = places[CANARY]
        if name == CANARY:
            told["TRACK"] = "canary"
        environment = {f"{PREFIX}{service.upper()}_{key}": value for key, value in told.items()}
        if service == "trainer":
            environment |= rules
        log = folder / "logs" / f"{name}.log"
        members[name] = Member(ServiceProcess(service, _shared(folder, databases) | environment, log), places[name])
    return members


def _shared(folder: Path, databases: Databases) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    return kept | {f"{PREFIX}DATA_DIR": str(folder), f"{PREFIX}EVENT_LOG_URL": databases.log_url}


async def _stock(common: CommonSettings) -> None:
    log = open_event_log(common)
    await log.append([_product(ordinal, title) for ordinal, title in enumerate(TITLES)])
    await log.close()


def _product(ordinal: int, title: str) -> Record:
    time_us = now_us()
    product = common_pb2.Product(
        id=f"p{ordinal}", title=title, price_info=common_pb2.PriceInfo(price=1.0 + ordinal), brands=[title.split()[0]]
    )
    change = log_pb2.ProductChange(ordinal=ordinal, product=product, change_time_us=time_us)
    return Record("product-change", product.id, f"product-{ordinal}", time_us, change.SerializeToString())


async def _fill(index: str, space: str) -> None:
    """Puts a vector of every product into a space: the same in each, or no release of one could follow the other's."""
    rng = np.random.default_rng(len(TITLES))
    vectors = rng.normal(size=(len(TITLES), DIMENSION)).astype("<f4")
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    names, values = np.arange(len(TITLES), dtype="<u4").tobytes(), vectors.tobytes()
    batch = index_pb2.ApplyEmbeddingsRequest(
        space=space,
        first_sequence=1,
        item_ordinals=names,
        vectors=common_pb2.Matrix(rows=len(TITLES), columns=DIMENSION, values=values),
        checksum=zlib.crc32(names + values),
        log_offset=1,
    )
    async with open_channel(index) as channel:
        stub: IndexServiceAsyncStub = index_pb2_grpc.IndexServiceStub(channel)
        await stub.CreateSpace(index_pb2.CreateSpaceRequest(space=space, dimension=DIMENSION))
        async for answer in stub.ApplyEmbeddings(iter([batch])):
            assert not answer.gap


async def _tells_plan(channel: grpc.aio.Channel) -> bool:
    stub: TrainerServiceAsyncStub = trainer_pb2_grpc.TrainerServiceStub(channel)
    try:
        await stub.ListReleases(trainer_pb2.ListReleasesRequest(page_size=1), timeout=5)
    except grpc.aio.AioRpcError:
        return False
    return True


async def _answers(channel: grpc.aio.Channel, with_release: bool) -> bool:
    stub: RankerServiceAsyncStub = RankerServiceStub(channel)
    try:
        status: GetRankerStatusResponse = await stub.GetRankerStatus(GetRankerStatusRequest(), timeout=5)
    except grpc.aio.AioRpcError:
        return False
    return status.items == len(TITLES) and (bool(status.release) or not with_release)
