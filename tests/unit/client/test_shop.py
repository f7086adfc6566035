from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import nullcontext
from typing import Any

import grpc
import pytest
from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags

from headrace.client import ApiKey, Bearer, Deadlines, Shop, connect
from headrace.runtime.errors import (
    DeadlineError,
    FailedPreconditionError,
    Fault,
    InvalidRequestError,
    NotFoundError,
    OverloadedError,
)
from headrace.runtime.serving import Background, Face, Parts, running
from headrace.runtime.settings import ServingSettings
from headrace.v1 import ingest_pb2, ingest_pb2_grpc, ranker_pb2, ranker_pb2_grpc
from headrace.v1.common_pb2 import UserEvent

FACES = ("headrace.v1.IngestService", "headrace.v1.RankerService")


class Suite(ingest_pb2_grpc.IngestServiceServicer, ranker_pb2_grpc.RankerServiceServicer):
    """Notes what calls carried; refuses what it is told to."""

    def __init__(self) -> None:
        self.metadata: list[dict[str, str]] = []
        self.batches: list[int] = []
        self.refusals: list[Exception] = []
        self.let = asyncio.Event()
        self.let.set()

    async def _taken(self, context: Any) -> None:
        self.metadata.append({key: str(value) for key, value in context.invocation_metadata()})
        await self.let.wait()
        if self.refusals:
            raise self.refusals.pop(0)

    async def Recommend(self, request: ranker_pb2.RecommendRequest, context: Any) -> ranker_pb2.RecommendResponse:
        await self._taken(context)
        return ranker_pb2.RecommendResponse(results=[ranker_pb2.RankedProduct(product_id=request.visitor_id)])

    async def WriteUserEvents(
        self, request: ingest_pb2.WriteUserEventsRequest, context: Any
    ) -> ingest_pb2.WriteUserEventsResponse:
        await self._taken(context)
        self.batches.append(len(request.events))
        results = [ingest_pb2.WriteResult(id=event.event_id) for event in request.events]
        return ingest_pb2.WriteUserEventsResponse(results=results)

    async def DeleteProduct(
        self, request: ingest_pb2.DeleteProductRequest, context: Any
    ) -> ingest_pb2.DeleteProductResponse:
        raise NotFoundError(f"no product {request.product_id!r}")


def add(suite: Suite, server: grpc.aio.Server) -> None:
    ingest_pb2_grpc.add_IngestServiceServicer_to_server(suite, server)
    ranker_pb2_grpc.add_RankerServiceServicer_to_server(suite, server)


@pytest.fixture
async def suite() -> Suite:
    return Suite()


@pytest.fixture
async def address(suite: Suite) -> AsyncIterator[str]:
    faces = [Face(FACES[0], lambda server: add(suite, server)), Face(FACES[1], lambda server: None)]
    async with running(Parts(faces, Background()), ServingSettings(drain_s=0)) as server:
        yield server.address


@pytest.fixture
async def shop(address: str) -> AsyncIterator[Shop]:
    async with connect(ingest=address, ranker=address, deadlines=Deadlines(answer_s=30)) as shop:
        yield shop


async def test_a_storefront_asks_for_products(shop: Shop) -> None:
    answer = await shop.recommend(ranker_pb2.RecommendRequest(serving_config="home", visitor_id="v1"))
    assert [product.product_id for product in answer.results] == ["v1"]


async def test_a_ranker_that_is_not_ready_is_not_asked(suite: Suite, address: str) -> None:
    beginning, is_ready = Suite(), asyncio.Event()

    async def ready() -> None:
        await is_ready.wait()

    faces = [Face(FACES[1], lambda server: add(beginning, server))]
    parts = Parts(faces, Background(), ready=ready)
    async with (
        running(parts, ServingSettings(drain_s=0)) as server,
        connect(ranker=f"{address},{server.address}", deadlines=Deadlines(answer_s=30)) as shop,
    ):
        request = ranker_pb2.RecommendRequest(serving_config="home", visitor_id="v1")
        for _ in range(20):
            await shop.recommend(request)
        assert (len(suite.metadata), beginning.metadata) == (20, [])
        is_ready.set()
        async with asyncio.timeout(30):
            while not beginning.metadata:
                await shop.recommend(request)


async def test_events_of_any_number_are_written_in_order(shop: Shop, suite: Suite) -> None:
    results = await shop.write_events([UserEvent(event_id=str(number)) for number in range(4_500)])
    assert suite.batches == [2_000, 2_000, 500]
    assert [result.id for result in results] == [str(number) for number in range(4_500)]


@pytest.mark.parametrize(
    ("credentials", "sent"),
    [
        (ApiKey("k-1"), ("x-api-key", "k-1")),
        (Bearer(lambda: "a.b.c"), ("authorization", "Bearer a.b.c")),
    ],
)
async def test_each_call_says_who_calls(address: str, suite: Suite, credentials: Any, sent: tuple[str, str]) -> None:
    async with connect(ingest=address, credentials=credentials) as shop:
        await shop.write_events([UserEvent()])
    assert sent in suite.metadata[0].items()
    assert sent[1] not in repr(credentials)


async def test_a_token_is_asked_for_at_every_call(address: str, suite: Suite) -> None:
    tokens = iter(["old", "new"])
    async with connect(ingest=address, credentials=Bearer(lambda: next(tokens))) as shop:
        for _ in range(2):
            await shop.write_events([UserEvent()])
    assert [each["authorization"] for each in suite.metadata] == ["Bearer old", "Bearer new"]


async def test_the_current_span_is_the_parent_of_what_the_suite_does(shop: Shop, suite: Suite) -> None:
    context = SpanContext(0xABC, 0x12, is_remote=False, trace_flags=TraceFlags(1))
    with trace.use_span(NonRecordingSpan(context)):
        await shop.write_events([UserEvent()])
    await shop.write_events([UserEvent()])
    assert suite.metadata[0]["traceparent"] == f"00-{0xABC:032x}-{0x12:016x}-01"
    assert "traceparent" not in suite.metadata[1]


async def test_a_write_comes_back_when_the_door_says_so(shop: Shop, suite: Suite) -> None:
    suite.refusals = [OverloadedError("the log is behind", retry_after_s=0.01)] * 3
    assert len(await shop.write_events([UserEvent()])) == 1
    assert len(suite.metadata) == 4


async def test_a_write_does_not_come_back_after_its_deadline(address: str, suite: Suite) -> None:
    suite.refusals = [OverloadedError("the log is behind", retry_after_s=60)]
    async with connect(ingest=address, deadlines=Deadlines(write_s=5)) as shop:
        with pytest.raises(OverloadedError, match="the log is behind") as refused:
            await shop.write_events([UserEvent()])
    assert refused.value.retry_after_s == 60


@pytest.mark.parametrize(("refusals", "is_answered"), [(1, True), (2, False)])
async def test_an_answer_that_is_refused_for_overload_is_asked_for_once_more(
    shop: Shop, suite: Suite, refusals: int, is_answered: bool
) -> None:
    suite.refusals = [OverloadedError("too much", retry_after_s=0.01)] * refusals
    with nullcontext() if is_answered else pytest.raises(OverloadedError):
        await shop.recommend(ranker_pb2.RecommendRequest())
    assert len(suite.metadata) == 2


async def test_faults_of_a_request_are_told_field_by_field(shop: Shop, suite: Suite) -> None:
    suite.refusals = [InvalidRequestError([Fault("a", "is wrong"), Fault("b", "is worse")])]
    with pytest.raises(InvalidRequestError) as refused:
        await shop.recommend(ranker_pb2.RecommendRequest())
    assert refused.value.faults == (Fault("a", "is wrong"), Fault("b", "is worse"))


async def test_what_is_not_there_is_told(shop: Shop) -> None:
    with pytest.raises(NotFoundError, match="no product 'p1'"):
        await shop.delete_product("p1")


async def test_a_call_ends_at_its_deadline(address: str, suite: Suite) -> None:
    suite.let.clear()
    async with connect(ranker=address, deadlines=Deadlines(answer_s=0.05)) as shop:
        with pytest.raises(DeadlineError):
            await shop.recommend(ranker_pb2.RecommendRequest())
    suite.let.set()


async def test_a_service_without_an_address_cannot_be_asked(address: str) -> None:
    async with connect(ranker=address) as shop:
        with pytest.raises(FailedPreconditionError, match="no address of ingest was given"):
            await shop.write_events([UserEvent()])


async def test_a_storefront_may_start_before_the_suite(suite: Suite) -> None:
    async with running(Parts([], Background()), ServingSettings(drain_s=0)) as before:
        port = before.port
    async with connect(ingest=f"127.0.0.1:{port}") as shop:
        waiting = asyncio.create_task(shop.write_events([UserEvent(event_id="e1")]))
        await asyncio.sleep(0)
        settings = ServingSettings(port=port, drain_s=0)
        async with running(Parts([Face(FACES[0], lambda server: add(suite, server))], Background()), settings):
            assert [result.id for result in await waiting] == ["e1"]
