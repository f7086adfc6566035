"""The door and the feature store after the power went under both: log, catalogue, dead letters and snapshots agree."""

from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import pytest
import sqlalchemy as sa
from google.protobuf.timestamp_pb2 import Timestamp

from benchmarks.power_loss.recording import KILL, Recording
from headrace.cli.process import ServiceProcess
from headrace.cli.suite import free_ports
from headrace.feature_store.__main__ import compose as compose_feature_store
from headrace.feature_store.settings import FeatureStoreSettings
from headrace.ingest.__main__ import compose as compose_ingest
from headrace.ingest.settings import IngestSettings
from headrace.runtime.channels import is_lost, open_channel
from headrace.runtime.eventlog import LoggedRecord
from headrace.runtime.eventlog.opening import open_event_log
from headrace.runtime.serving import running
from headrace.runtime.settings import CommonSettings
from headrace.v1 import feature_store_pb2, feature_store_pb2_grpc
from headrace.v1 import ingest_pb2 as pb
from headrace.v1.common_pb2 import Product, ProductDetail, UserEvent
from headrace.v1.ingest_pb2_grpc import IngestServiceStub
from headrace.v1.log_pb2 import LoggedUserEvent, ProductChange

# a thousand cuts take their time
pytestmark = pytest.mark.timeout(1_800)
CALLERS, TURNS, PRODUCTS = 4, 40, 60
KINDS = ("detail-page-view", "add-to-cart", "purchase-complete", "purchase-cancel")
REFUSED = pb.WriteResult.OUTCOME_REJECTED


def event(caller: int, turn: int, extra: int) -> UserEvent:
    """The same in every run; one in fifty is of a type that the door refuses."""
    name = f"e{caller}-{turn}-{extra}"
    chance = random.Random(name)
    return UserEvent(
        event_id=name,
        event_type="teleport" if chance.random() < 0.02 else chance.choice(KINDS),
        visitor_id=f"v{chance.randrange(12)}",
        event_time=Timestamp(seconds=1_500_000_000 + turn * 60 + extra),
        product_details=[ProductDetail(product_id=f"p{chance.randrange(PRODUCTS)}")],
    )


def events(caller: int, turn: int) -> list[UserEvent]:
    return [event(caller, turn, extra) for extra in range(random.Random(caller * TURNS + turn).randint(1, 9))]


@dataclass
class Told:
    """What clients were told: offsets of events, ids that were refused, and how often each product was written."""

    offsets: dict[str, int] = field(default_factory=dict)
    refused: set[str] = field(default_factory=set)
    products: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, acknowledged: Iterable[bytes]) -> Told:
        told = cls()
        for part in map(json.loads, acknowledged):
            told.offsets |= part["offsets"]
            told.refused |= set(part["refused"])
            told.products |= part["products"]
        return told


class Services:
    """The two processes on one folder, both recorded."""

    def __init__(self, recording: Recording, logs: Path) -> None:
        [port] = free_ports(1)
        self.address = f"127.0.0.1:{port}"
        shared = {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(sys.path)} | recording.environment()
        shared["HEADRACE_DATA_DIR"] = str(recording.folder)
        own = {
            "ingest": {"HEADRACE_INGEST_PORT": str(port)},
            "feature-store": {
                "HEADRACE_FEATURE_STORE_PORT": "0",
                "HEADRACE_FEATURE_STORE_SNAPSHOT_EVERY_S": "0.1",
                "HEADRACE_FEATURE_STORE_ROW_CHUNK_BYTES": "65536",
            },
        }
        self._processes = [ServiceProcess(name, shared | settings, logs / name) for name, settings in own.items()]

    async def start(self) -> None:
        await asyncio.gather(*(process.start() for process in self._processes))

    async def kill(self) -> None:
        for process in self._processes:
            os.kill(process.pid, KILL)
        assert await asyncio.gather(*(process.wait() for process in self._processes)) == [-signal.SIGKILL] * 2


async def test_log_catalogue_and_features_agree_after_the_power_went(
    record: Callable[..., Recording], cuts: Callable[[int], int], tmp_path: Path
) -> None:
    recording = record(tmp_path / "data")
    services = Services(recording, tmp_path / "logs")
    await services.start()
    try:
        async with open_channel(services.address) as channel:
            callers = Callers(IngestServiceStub(channel), recording, kill_after=CALLERS * TURNS // 3)
            calls = [asyncio.create_task(callers.call(caller)) for caller in range(CALLERS)]
            await callers.is_time.wait()
            await services.kill()
            await services.start()
            await asyncio.gather(*calls)
    finally:
        await services.kill()
    assert recording.faults() == []
    for loss in recording.power_losses(cuts(8), seed=1, after_first_answer=True):
        await check(loss.folder, Told.of(loss.acknowledged))


class Callers:
    """Clients that note what they are told; `is_time` is set once they have noted `kill_after` answers."""

    def __init__(self, stub: IngestServiceStub, recording: Recording, kill_after: int) -> None:
        self._stub, self._recording = stub, recording
        self._left = kill_after
        self.is_time = asyncio.Event()

    async def call(self, caller: int) -> None:
        """Sends each batch until it is answered, and notes the answer."""
        for turn in range(TURNS):
            sent = events(caller, turn)
            product = Product(id=f"p{caller}", title=f"turn {turn}")
            answer = await self._answer(sent, product)
            pairs = list(zip(sent, answer.results, strict=True))
            told = {
                "offsets": {one.event_id: result.offset for one, result in pairs if result.outcome != REFUSED},
                "refused": [one.event_id for one, result in pairs if result.outcome == REFUSED],
                "products": {product.id: turn},
            }
            self._recording.acknowledgements.note(json.dumps(told).encode())
            self._left -= 1
            if self._left == 0:
                self.is_time.set()

    async def _answer(self, sent: list[UserEvent], product: Product) -> pb.WriteUserEventsResponse:
        products = pb.WriteProductsRequest(products=[product])
        while True:
            try:
                request = pb.WriteUserEventsRequest(events=sent)
                answer = await self._stub.WriteUserEvents(request, wait_for_ready=True, timeout=60)
                await self._stub.WriteProducts(products, wait_for_ready=True, timeout=60)
                return answer
            except grpc.aio.AioRpcError as error:
                if not is_lost(error):
                    raise


async def check(folder: Path, told: Told) -> None:
    common = CommonSettings(data_dir=folder)
    copy = folder.parent / "log-only"
    copy.mkdir()
    async with door(common) as stub:
        records = await read_all(common)
        check_log(records, told)
        await check_retries(stub, told)
        check_catalogue(folder, records, told)
        for name in ("events.db", "events.db-wal"):
            shutil.copy(folder / name, copy)
        assert await digest(common) == await digest(CommonSettings(data_dir=copy))


def check_log(records: list[LoggedRecord], told: Told) -> None:
    assert [record.offset for record in records] == list(range(1, len(records) + 1))
    places = {record.event_id: record.offset for record in records}
    assert len(places) == len(records)
    assert [name for name, offset in told.offsets.items() if places.get(name) != offset] == []
    logged = [LoggedUserEvent.FromString(record.payload) for record in records if record.kind == "user-event"]
    pairs = {(one.event.product_details[0].product_id, one.item_ordinals[0]) for one in logged}
    assert len({name for name, _ in pairs}) == len({ordinal for _, ordinal in pairs}) == len(pairs)
    cancelled = Counter(one.cancelled_event_id for one in logged if one.cancelled_event_id)
    assert set(cancelled.values()) <= {1}


async def check_retries(stub: IngestServiceStub, told: Told) -> None:
    """Everything sent once more is known, where it was."""
    for caller in range(CALLERS):
        again = [one for turn in range(TURNS) for one in events(caller, turn) if one.event_id in told.offsets]
        if not again:
            continue
        answer = await stub.WriteUserEvents(pb.WriteUserEventsRequest(events=again))
        for one, result in zip(again, answer.results, strict=True):
            assert result.outcome == pb.WriteResult.OUTCOME_DUPLICATE
            assert result.offset == told.offsets[one.event_id]


def check_catalogue(folder: Path, records: list[LoggedRecord], told: Told) -> None:
    standing: dict[int, tuple[bytes, int]] = {}
    titles: dict[str, int] = {}
    for record in records:
        if record.kind == "product-change":
            change = ProductChange.FromString(record.payload)
            standing[change.ordinal] = (change.product.SerializeToString(deterministic=True), record.offset)
            titles[change.product.id] = int(change.product.title.rpartition(" ")[2])
    engine = sa.create_engine(f"sqlite:///{folder / 'ingest' / 'catalogue.db'}")
    with engine.begin() as db:
        rows = db.exec_driver_sql("SELECT ordinal, product, log_offset FROM products").fetchall()
        (letters,) = db.exec_driver_sql("SELECT count(*) FROM dead_letters").one()
    engine.dispose()
    assert {ordinal: (product, offset) for ordinal, product, offset in rows} == standing
    assert [name for name, turn in told.products.items() if titles.get(name, -1) < turn] == []
    assert letters >= len(told.refused)


async def read_all(common: CommonSettings) -> list[LoggedRecord]:
    log = open_event_log(common)
    records = await log.read(0, limit=1_000_000)
    await log.close()
    return records


@asynccontextmanager
async def door(common: CommonSettings) -> AsyncIterator[IngestServiceStub]:
    settings = IngestSettings(port=0, drain_s=0)
    async with (
        compose_ingest(settings, common) as parts,
        running(parts, settings) as server,
        open_channel(server.address) as channel,
    ):
        yield IngestServiceStub(channel)


async def digest(common: CommonSettings) -> str:
    """What a feature store on the folder holds once it has folded the whole log."""
    settings = FeatureStoreSettings(port=0, drain_s=0)
    end = (await read_all(common))[-1].offset
    async with (
        compose_feature_store(settings, common) as parts,
        running(parts, settings) as server,
        open_channel(server.address) as channel,
    ):
        stub = feature_store_pb2_grpc.FeatureStoreServiceStub(channel)
        await stub.GetUserState(feature_store_pb2.GetUserStateRequest(user_key="v:v0", min_offset=end), timeout=30)
        status = await stub.GetFeatureStoreStatus(feature_store_pb2.GetFeatureStoreStatusRequest(with_digest=True))
    assert status.offset == end
    return str(status.state_digest)
