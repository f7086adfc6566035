"""A storefront's side of Headrace: ask for products, tell what people did.

Calls are balanced over all replicas (of rankers: those that are ready), sent again when one goes away, wait when none
is there, and end at their deadline. Everything that is written is idempotent, so nothing counts twice.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, TypeVar

import grpc

from headrace.client.credentials import Credentials, Metadata
from headrace.runtime.calls import TRACEPARENT
from headrace.runtime.channels import open_channel
from headrace.runtime.errors import FailedPreconditionError, OverloadedError, UnavailableError
from headrace.runtime.rpc_status import error_of
from headrace.runtime.telemetry import traceparent
from headrace.runtime.tls import TlsFiles
from headrace.v1.common_pb2 import DatedFact, Product, UserEvent
from headrace.v1.ingest_pb2 import (
    DeleteProductRequest,
    ForgetUserRequest,
    ForgetUserResponse,
    WriteFactsRequest,
    WriteProductsRequest,
    WriteResult,
    WriteUserEventsRequest,
)
from headrace.v1.ingest_pb2_grpc import IngestServiceStub
from headrace.v1.ranker_pb2 import (
    RankRequest,
    RankResponse,
    RecommendRequest,
    RecommendResponse,
    SearchRequest,
    SearchResponse,
)
from headrace.v1.ranker_pb2_grpc import RankerServiceStub

if TYPE_CHECKING:
    from headrace.v1.ingest_pb2_grpc import IngestServiceAsyncStub
    from headrace.v1.ranker_pb2_grpc import RankerServiceAsyncStub

# the most that the door takes in one call
_BATCH = 2_000
_PAUSE_S = 0.2

Asked = TypeVar("Asked", contravariant=True)
Answer = TypeVar("Answer", covariant=True)
Stub = TypeVar("Stub")


class _Method(Protocol[Asked, Answer]):
    def __call__(
        self, request: Asked, *, timeout: float, metadata: Metadata, wait_for_ready: bool
    ) -> Awaitable[Answer]: ...


@dataclass(frozen=True, slots=True)
class Deadlines:
    """Seconds that calls may take in all, with everything that is tried again inside them."""

    # a page waits for it; the ranker answers what it has by then
    answer_s: float = 1.0
    # a batch of events or products, through the restart of a single ingest as well
    write_s: float = 30.0
    # a person is erased everywhere
    forget_s: float = 300.0


class Shop:
    """The doors of a suite. Made by `connect`; safe to share between tasks, and meant to live as long as the program.

    Every method raises a HeadraceError: InvalidRequestError with each faulty field, NotFoundError, OverloadedError,
    UnavailableError when no replica could be reached, DeadlineError, or one that says that this caller may not.
    """

    def __init__(
        self,
        ingest: grpc.aio.Channel | None,
        ranker: grpc.aio.Channel | None,
        who: Credentials | None,
        within: Deadlines,
    ) -> None:
        self._channels = [channel for channel in (ingest, ranker) if channel is not None]
        self._ingest_stub = None if ingest is None else IngestServiceStub(ingest)
        self._ranker_stub = None if ranker is None else RankerServiceStub(ranker)
        self._who = who
        self._within = within

    async def __aenter__(self) -> Shop:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Ends the connections, and the calls that are under way."""
        for channel in self._channels:
            await channel.close()

    async def recommend(self, request: RecommendRequest, *, within_s: float | None = None) -> RecommendResponse:
        """Products for a person or a page; `info.attribution_token` belongs into the events that follow."""
        return await self._answer(self._ranker.Recommend, request, within_s or self._within.answer_s)

    async def search(self, request: SearchRequest, *, within_s: float | None = None) -> SearchResponse:
        """Products for words and filters."""
        return await self._answer(self._ranker.Search, request, within_s or self._within.answer_s)

    async def rank(self, request: RankRequest, *, within_s: float | None = None) -> RankResponse:
        """The caller's own products, best first."""
        return await self._answer(self._ranker.Rank, request, within_s or self._within.answer_s)

    async def write_events(self, events: Sequence[UserEvent]) -> list[WriteResult]:
        """Tells what people did, of any number. A result each, in order; what was accepted is durable.

        Events without an id get one of their content, so the same event is counted once however often it is written.
        """
        results: list[WriteResult] = []
        for place in range(0, len(events), _BATCH):
            request = WriteUserEventsRequest(events=events[place : place + _BATCH])
            results += (await self._write(self._ingest.WriteUserEvents, request)).results
        return results

    async def write_products(self, products: Sequence[Product]) -> list[WriteResult]:
        """Creates or replaces products, of any number. A result each, in order."""
        results: list[WriteResult] = []
        for place in range(0, len(products), _BATCH):
            request = WriteProductsRequest(products=products[place : place + _BATCH])
            results += (await self._write(self._ingest.WriteProducts, request)).results
        return results

    async def write_facts(self, facts: Sequence[DatedFact]) -> list[WriteResult]:
        """Tells of promotions, coupons and campaigns with the time in which they hold. A result each, in order."""
        results: list[WriteResult] = []
        for place in range(0, len(facts), _BATCH):
            request = WriteFactsRequest(facts=facts[place : place + _BATCH])
            results += (await self._write(self._ingest.WriteFacts, request)).results
        return results

    async def delete_product(self, product_id: str) -> int:
        """Takes a product out of every answer; the log offset of that. NotFoundError: never seen."""
        return (await self._write(self._ingest.DeleteProduct, DeleteProductRequest(product_id=product_id))).offset

    async def forget(self, request: ForgetUserRequest) -> ForgetUserResponse:
        """Erases a person everywhere; the answer carries a signed receipt."""
        return await self._ask(self._ingest.ForgetUser, request, self._within.forget_s)

    async def _answer(self, method: _Method[Asked, Answer], request: Asked, within_s: float) -> Answer:
        """Asks, and once more when it is refused for overload: it is another replica's turn then."""
        until_s = time.monotonic() + within_s
        try:
            return await self._ask(method, request, within_s)
        except OverloadedError as error:
            pause_s = _PAUSE_S if error.retry_after_s is None else error.retry_after_s
            if time.monotonic() + pause_s >= until_s:
                raise
        await asyncio.sleep(pause_s)
        return await self._ask(method, request, until_s - time.monotonic())

    async def _write(self, method: _Method[Asked, Answer], request: Asked) -> Answer:
        """Writes, and comes back when the door says so, for as long as the deadline allows."""
        until_s = time.monotonic() + self._within.write_s
        while True:
            try:
                return await self._ask(method, request, until_s - time.monotonic())
            except (OverloadedError, UnavailableError) as error:
                pause_s = _PAUSE_S if error.retry_after_s is None else error.retry_after_s
                if time.monotonic() + pause_s >= until_s:
                    raise
            await asyncio.sleep(pause_s)

    async def _ask(self, method: _Method[Asked, Answer], request: Asked, within_s: float) -> Answer:
        try:
            return await method(request, timeout=within_s, metadata=self._metadata(), wait_for_ready=True)
        except grpc.aio.AioRpcError as error:
            raise error_of(error) from error

    def _metadata(self) -> Metadata:
        who = () if self._who is None else self._who.metadata()
        current = traceparent()
        return (*who, (TRACEPARENT, current)) if current else who

    @property
    def _ingest(self) -> IngestServiceAsyncStub:
        return _given(self._ingest_stub, "ingest")

    @property
    def _ranker(self) -> RankerServiceAsyncStub:
        return _given(self._ranker_stub, "ranker")


def _given(stub: Stub | None, service: str) -> Stub:
    if stub is None:
        raise FailedPreconditionError(f"no address of {service} was given to connect()")
    return stub


def connect(
    *,
    ingest: str = "",
    ranker: str = "",
    credentials: Credentials | None = None,
    tls: TlsFiles | None = None,
    deadlines: Deadlines | None = None,
) -> Shop:
    """A connection to a suite, by the address of either service or of both; used as a context.

    An address is host:port; a DNS name with several addresses, such as a headless Service's
    (`dns:///ranker.shop.svc:7405`); or several IP addresses separated by commas. Nothing is connected before the
    first call, so a storefront starts whether or not the suite is up. With `tls` the connections are by mutual TLS,
    and follow its files when they are renewed; both sides must have certificates of the suite's authority.

    ::

        async with connect(ingest="ingest:7401", ranker="ranker:7405", credentials=ApiKey(key)) as shop:
            answer = await shop.recommend(RecommendRequest(serving_config="home", visitor_id="v-17", page_size=12))
            for product in answer.results:
                print(product.product_id)
            click = UserEvent(event_type="detail-page-view", visitor_id="v-17", event_time=now,
                              product_details=[ProductDetail(product_id=answer.results[0].product_id)],
                              attribution_token=answer.info.attribution_token)
            await shop.write_events([click])

    The current OpenTelemetry span, where there is one, is the parent of what the suite does.
    InvalidRequestError: a list of names. SettingsError: certificates that cannot be read.
    """
    return Shop(
        open_channel(ingest, tls=tls) if ingest else None,
        open_channel(ranker, to_ready=True, tls=tls) if ranker else None,
        credentials,
        deadlines or Deadlines(),
    )
