"""The sender against a door of our own over real gRPC: order, patience, and what it does not forgive."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from headrace.cli.client import Client
from headrace.cli.sending import Sender
from headrace.runtime.errors import NotFoundError
from headrace.v1.common_pb2 import Product, UserEvent
from headrace.v1.ingest_pb2 import (
    WriteProductsRequest,
    WriteProductsResponse,
    WriteResult,
    WriteUserEventsRequest,
    WriteUserEventsResponse,
)
from headrace.v1.ingest_pb2_grpc import IngestServiceServicer, add_IngestServiceServicer_to_server


@dataclass
class RecordingDoor(IngestServiceServicer):
    """Takes everything, notes the order by person, and refuses the first `busy` calls."""

    busy: int = 0
    refuse: grpc.StatusCode | None = None
    in_flight: int = 0
    most_in_flight: int = 0
    order: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    largest: int = 0

    async def WriteUserEvents(
        self, request: WriteUserEventsRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> WriteUserEventsResponse:
        if self.refuse:
            await context.abort(self.refuse, "no")
        if self.busy:
            self.busy -= 1
            await context.abort_with_status(rpc_status.to_status(_overloaded()))
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        self.largest = max(self.largest, len(request.events))
        # gives other batches the time to overtake, if they can
        await asyncio.sleep(0.001 * (len(request.events) % 7))
        for event in request.events:
            self.order[event.user_id or event.visitor_id].append(event.event_id)
        self.in_flight -= 1
        return WriteUserEventsResponse(results=[_result(event) for event in request.events])

    async def WriteProducts(
        self, request: WriteProductsRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> WriteProductsResponse:
        outcomes = {"new": WriteResult.OUTCOME_ACCEPTED, "same": WriteResult.OUTCOME_DUPLICATE}
        results = [
            WriteResult(id=p.id, outcome=outcomes.get(p.id, WriteResult.OUTCOME_REJECTED), reason="price", offset=5)
            for p in request.products
        ]
        return WriteProductsResponse(results=results)


def _overloaded() -> status_pb2.Status:
    status = status_pb2.Status(code=code_pb2.RESOURCE_EXHAUSTED, message="the log is behind")
    status.details.add().Pack(error_details_pb2.RetryInfo(retry_delay=Duration(nanos=1_000_000)))
    return status


def _result(event: UserEvent) -> WriteResult:
    if event.event_type == "bad":
        return WriteResult(id=event.event_id, outcome=WriteResult.OUTCOME_REJECTED, reason="unknown-type")
    return WriteResult(id=event.event_id, outcome=WriteResult.OUTCOME_ACCEPTED, offset=int(event.event_id) + 1)


@asynccontextmanager
async def served(door: RecordingDoor) -> AsyncIterator[Client]:
    server = grpc.aio.server()
    add_IngestServiceServicer_to_server(door, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with Client({"ingest": f"127.0.0.1:{port}"}) as client:
            yield client
    finally:
        await server.stop(None)


async def send(door: RecordingDoor, events: list[UserEvent], chunk: int = 200, batch: int = 30) -> Sender:
    async with served(door) as client, Sender(client.ingest, batch=batch) as sender:
        for place in range(0, len(events), chunk):
            await sender.send(events[place : place + chunk])
    return sender


async def test_everyones_events_keep_their_order_while_batches_overlap() -> None:
    door = RecordingDoor()
    events = [UserEvent(event_id=str(n), user_id=f"u{n * 7919 % 41}") for n in range(2_000)]

    sender = await send(door, events)

    assert all(ids == sorted(ids, key=int) for ids in door.order.values())
    assert sum(map(len, door.order.values())) == 2_000
    assert door.most_in_flight > 1
    assert door.largest <= 30
    assert (sender.counts.accepted, sender.counts.newest_offset) == (2_000, 2_000)


async def test_a_visitor_who_logs_in_is_not_overtaken_by_the_user() -> None:
    door = RecordingDoor()
    arrived: list[str] = []

    class Noting(RecordingDoor):
        async def WriteUserEvents(
            self, request: WriteUserEventsRequest, context: grpc.aio.ServicerContext[Any, Any]
        ) -> WriteUserEventsResponse:
            response = await super().WriteUserEvents(request, context)
            arrived.extend(event.event_id for event in request.events if event.visitor_id == "v")
            return response

    door = Noting()
    filler = [UserEvent(event_id=str(n), user_id=f"u{n}") for n in range(100, 400)]
    before = [UserEvent(event_id=str(n), visitor_id="v") for n in range(40)]
    after = [UserEvent(event_id=str(n), visitor_id="v", user_id="someone") for n in range(40, 80)]

    await send(door, [*filler, *before, *filler, *after], chunk=340)

    assert arrived == sorted(arrived, key=int)


async def test_a_busy_door_is_waited_for_and_nothing_is_lost() -> None:
    door = RecordingDoor(busy=5)

    sender = await send(door, [UserEvent(event_id=str(n), user_id=f"u{n}") for n in range(300)])

    assert (sender.counts.accepted, sender.counts.waits) == (300, 5)


async def test_refusals_are_counted_by_reason() -> None:
    events = [UserEvent(event_id=str(n), user_id="u", event_type="bad" if n % 3 else "good") for n in range(9)]

    sender = await send(RecordingDoor(), events)

    assert sender.counts.rejected == {"unknown-type": 6}
    assert (sender.counts.accepted, sender.counts.events) == (3, 9)


async def test_an_error_that_waiting_does_not_cure_is_raised() -> None:
    with pytest.raises(grpc.aio.AioRpcError, match="no"):
        await send(RecordingDoor(refuse=grpc.StatusCode.PERMISSION_DENIED), [UserEvent(event_id="1", user_id="u")])


async def test_products_are_counted_by_outcome() -> None:
    async with served(RecordingDoor()) as client, Sender(client.ingest, batch=2) as sender:
        await sender.write_products([Product(id="new"), Product(id="same"), Product(id="bad")])

    counts = sender.counts
    assert (counts.products, counts.unchanged_products, counts.rejected_products) == (1, 1, {"price": 1})
    assert counts.newest_offset == 5


async def test_a_service_without_an_address_is_named() -> None:
    async with Client({"ingest": "127.0.0.1:1"}) as client:
        with pytest.raises(NotFoundError, match="no address of ranker is known; known: ingest"):
            _ = client.ranker
