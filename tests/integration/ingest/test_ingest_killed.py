"""The door as a process of its own, killed at random moments under a client that tries again."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import pytest

from benchmarks.postgres_server import PostgresServer
from headrace.cli.suite import free_ports
from headrace.runtime.channels import is_lost, open_channel
from headrace.runtime.eventlog import LoggedRecord
from headrace.runtime.eventlog.opening import open_event_log
from headrace.v1 import ingest_pb2 as pb
from headrace.v1.common_pb2 import Product, UserEvent
from headrace.v1.ingest_pb2_grpc import IngestServiceStub
from headrace.v1.log_pb2 import LoggedUserEvent, ProductChange

KILLS = 4
EVENTS = 3_000
Event = Callable[..., UserEvent]


class Process:
    """`python -m headrace.ingest` on one port and one backend, started as often as needed."""

    def __init__(self, backend: Any) -> None:
        [self._port] = free_ports(1)
        self.address = f"127.0.0.1:{self._port}"
        mine = {
            "HEADRACE_DATA_DIR": str(backend.common.data_dir),
            "HEADRACE_EVENT_LOG_URL": backend.common.event_log_url,
            "HEADRACE_INGEST_DATABASE_URL": backend.database_url,
            "HEADRACE_INGEST_PORT": str(self._port),
        }
        others = {name: value for name, value in os.environ.items() if not name.startswith("HEADRACE_")}
        self._environment = others | mine
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "headrace.ingest"]
        self._process = subprocess.Popen(command, env=self._environment, stderr=subprocess.DEVNULL)

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def terminate(self) -> int:
        assert self._process is not None
        self._process.terminate()
        return self._process.wait(timeout=60)


@contextmanager
def started(process: Process) -> Iterator[Process]:
    process.start()
    try:
        yield process
    finally:
        process.kill()


@pytest.fixture
def process(backend: Any) -> Iterator[Process]:
    with started(Process(backend)) as process:
        yield process


class Client:
    """Streams events and starts over with those not yet acknowledged whenever the stream breaks."""

    def __init__(self, stub: IngestServiceStub, events: list[UserEvent]) -> None:
        self._stub = stub
        self._events = events
        self.offsets: dict[int, int] = {}
        self.rejected: set[int] = set()

    async def send_all(self, noticed: Callable[[int], None]) -> None:
        while len(self.offsets) + len(self.rejected) < len(self._events):
            try:
                await self._send_rest(noticed)
            except grpc.aio.AioRpcError as error:
                if not is_lost(error):
                    raise

    async def _send_rest(self, noticed: Callable[[int], None]) -> None:
        async for response in self._stub.StreamUserEvents(self._rest(), wait_for_ready=True):
            if response.result.outcome == pb.WriteResult.OUTCOME_REJECTED:
                self.rejected.add(response.sequence)
            else:
                before = self.offsets.setdefault(response.sequence, response.result.offset)
                assert before == response.result.offset
            noticed(len(self.offsets))

    async def _rest(self) -> AsyncIterator[pb.StreamUserEventsRequest]:
        for sequence, event in enumerate(self._events):
            if sequence not in self.offsets and sequence not in self.rejected:
                yield pb.StreamUserEventsRequest(sequence=sequence, event=event)


class Killing:
    """Kills a server KILLS times, at random numbers of acknowledged events, and starts it again each time."""

    def __init__(self, server: Process | PostgresServer, seed: int) -> None:
        self._server = server
        self._moments = sorted(random.Random(seed).sample(range(1, EVENTS - 500), KILLS))

    @property
    def is_over(self) -> bool:
        return not self._moments

    def __call__(self, acknowledged: int) -> None:
        if self._moments and acknowledged >= self._moments[0]:
            del self._moments[0]
            self._server.kill()
            self._server.start()


def brought(event: Event) -> list[UserEvent]:
    kinds = ["detail-page-view", "purchase-complete", "purchase-cancel", "add-to-cart"]
    choose = random.Random(3)
    events = [
        event(number * 7, choose.choice(kinds), f"p{choose.randrange(300)}", visitor_id=f"v{choose.randrange(9)}")
        for number in range(EVENTS)
    ]
    for number in range(0, EVENTS, 500):
        events[number].event_type = "teleport"
    return events


async def test_every_acknowledged_event_is_in_the_log_exactly_once(
    process: Process, backend: Any, event: Event
) -> None:
    killing = Killing(process, seed=5)
    events = brought(event)
    async with open_channel(process.address) as channel:
        client = Client(IngestServiceStub(channel), events)
        await asyncio.wait_for(client.send_all(killing), 120)
    assert killing.is_over
    assert client.rejected == set(range(0, EVENTS, 500))
    process.kill()

    records = await _records(backend)
    logged = {record.offset: LoggedUserEvent.FromString(record.payload) for record in records}
    assert len(records) == EVENTS - len(client.rejected)
    assert set(Counter(record.event_id for record in records).values()) == {1}
    for sequence, offset in client.offsets.items():
        assert logged[offset].event.event_time == events[sequence].event_time
    _one_ordinal_a_product(logged.values())
    _cancelled_once(logged)
    assert _dead_letters(backend) == len(client.rejected)


async def test_the_catalogue_equals_a_fold_of_the_log_after_a_kill(process: Process, backend: Any) -> None:
    async with open_channel(process.address) as channel:
        stub = IngestServiceStub(channel)
        for turn in range(3):
            writing = [asyncio.ensure_future(_write_products(stub, turn, part)) for part in range(6)]
            await asyncio.wait(writing, return_when=asyncio.FIRST_COMPLETED)
            process.kill()
            process.start()
            # those in flight are tried again by the channel, or fail: both are fine
            await asyncio.gather(*writing, return_exceptions=True)
        request = pb.WriteProductsRequest(products=[Product(id="last", title="Last")])
        await stub.WriteProducts(request, wait_for_ready=True, timeout=60)
    assert process.terminate() == 0
    standing: dict[int, tuple[bytes, int]] = {}
    for record in await _records(backend, "product-change"):
        change = ProductChange.FromString(record.payload)
        standing[change.ordinal] = (change.product.SerializeToString(deterministic=True), record.offset)
    with backend.catalogue() as db:
        rows = db.exec_driver_sql("SELECT ordinal, product, log_offset FROM products").fetchall()
    assert {ordinal: (product, offset) for ordinal, product, offset in rows} == standing
    assert len(standing) > 200


async def _write_products(stub: IngestServiceStub, turn: int, part: int) -> None:
    products = [Product(id=f"p{number}", title=f"turn {turn}") for number in range(part * 200, part * 200 + 300)]
    await stub.WriteProducts(pb.WriteProductsRequest(products=products), wait_for_ready=True, timeout=60)


async def _records(backend: Any, kind: str = "user-event") -> list[LoggedRecord]:
    log = open_event_log(backend.common)
    records = await log.read(0, limit=1_000_000, kinds=(kind,))
    await log.close()
    return records


def _one_ordinal_a_product(logged: Iterator[LoggedUserEvent]) -> None:
    pairs = {
        pair
        for one in logged
        for pair in zip((d.product_id for d in one.event.product_details), one.item_ordinals, strict=True)
    }
    assert len({name for name, _ in pairs}) == len({ordinal for _, ordinal in pairs}) == len(pairs)


def _cancelled_once(logged: dict[int, LoggedUserEvent]) -> None:
    bought = {one.event.event_id: one for one in logged.values() if one.event.event_type == "purchase-complete"}
    cancelled = [one for one in logged.values() if one.cancelled_event_id]
    assert cancelled
    assert set(Counter(one.cancelled_event_id for one in cancelled).values()) == {1}
    for one in cancelled:
        purchase = bought[one.cancelled_event_id]
        assert purchase.user_key == one.user_key
        assert purchase.item_ordinals == one.item_ordinals


def _dead_letters(backend: Any) -> int:
    with backend.catalogue() as db:
        return int(db.exec_driver_sql("SELECT count(*) FROM dead_letters").scalar_one())


async def test_a_door_goes_on_when_its_postgresql_is_killed_and_started_again(
    own_postgres: PostgresServer, backend_at: Callable[[str], Any], event: Event
) -> None:
    backend = backend_at(own_postgres.new_database())
    killing = Killing(own_postgres, seed=6)
    with started(Process(backend)) as process:
        async with open_channel(process.address) as channel:
            client = Client(IngestServiceStub(channel), brought(event))
            await asyncio.wait_for(client.send_all(killing), 120)
    assert killing.is_over
    offsets = {record.offset for record in await _records(backend)}
    assert offsets == set(client.offsets.values())
    assert len(offsets) == EVENTS - len(client.rejected)
