"""One click can be followed through all five services to the answers that it changed, by a real OTLP receiver."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2, metrics_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.common.v1 import common_pb2

from headrace.cli.suite import Suite
from headrace.v1.common_pb2 import Product, ProductDetail, UserEvent
from headrace.v1.ingest_pb2 import WriteProductsRequest, WriteUserEventsRequest
from headrace.v1.ranker_pb2 import GetRankerStatusRequest, RecommendRequest

Eventually = Callable[..., Awaitable[None]]

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
METADATA = (("traceparent", f"00-{TRACE_ID}-b7ad6b7169203331-01"),)
# the storefront asks for a page in a trace of its own
PAGE_ID = "0af7651916cd43dd8448eb211c80319d"
PAGE_METADATA = (("traceparent", f"00-{PAGE_ID}-b7ad6b7169203331-01"),)
LEARNING = {"ingest", "feature-store", "trainer", "index"}


@dataclass(frozen=True)
class Seen:
    """A span as it was sent; `links` are (trace, span, what the linked one did)."""

    service: str
    name: str
    id: str
    attributes: dict[str, str]
    links: tuple[tuple[str, str, str], ...]


class Receiver(trace_service_pb2_grpc.TraceServiceServicer, metrics_service_pb2_grpc.MetricsServiceServicer):
    """Keeps the spans of each trace, and which metrics exist."""

    def __init__(self) -> None:
        self.spans: dict[str, list[Seen]] = {}
        self.metrics: set[str] = set()

    async def Export(self, request: object, context: object) -> object:
        if isinstance(request, trace_service_pb2.ExportTraceServiceRequest):
            self._keep(request)
            return trace_service_pb2.ExportTraceServiceResponse()
        assert isinstance(request, metrics_service_pb2.ExportMetricsServiceRequest)
        self.metrics |= {
            metric.name
            for resource in request.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }
        return metrics_service_pb2.ExportMetricsServiceResponse()

    def _keep(self, request: trace_service_pb2.ExportTraceServiceRequest) -> None:
        for resource in request.resource_spans:
            service = next(a.value.string_value for a in resource.resource.attributes if a.key == "service.name")
            for scope in resource.scope_spans:
                for span in scope.spans:
                    links = tuple(
                        (link.trace_id.hex(), link.span_id.hex(), texts(link.attributes).get("headrace.link", ""))
                        for link in span.links
                    )
                    seen = Seen(service, span.name, span.span_id.hex(), texts(span.attributes), links)
                    self.spans.setdefault(span.trace_id.hex(), []).append(seen)

    def services(self, trace_id: str) -> set[str]:
        return {span.service for span in self.spans.get(trace_id, ())}

    def answer(self) -> Seen | None:
        """The span of the page's answer, when it has come."""
        return next((span for span in self.spans.get(PAGE_ID, ()) if span.name == "Recommend"), None)


def texts(attributes: Iterable[common_pb2.KeyValue]) -> dict[str, str]:
    return {each.key: each.value.string_value or str(each.value.int_value) for each in attributes}


@asynccontextmanager
async def receiving() -> AsyncIterator[tuple[Receiver, str]]:
    receiver, server = Receiver(), grpc.aio.server()
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(receiver, server)
    metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server(receiver, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield receiver, f"http://127.0.0.1:{port}"
    finally:
        await server.stop(1)


def view(visitor: str, product_id: str) -> UserEvent:
    now = Timestamp()
    now.GetCurrentTime()
    return UserEvent(
        event_type="detail-page-view",
        visitor_id=visitor,
        event_time=now,
        product_details=[ProductDetail(product_id=product_id)],
    )


@pytest.mark.timeout(120)
async def test_a_click_is_followed_through_all_five_services_to_the_answer_that_it_changed(
    tmp_path: Path, eventually: Eventually
) -> None:
    async with receiving() as (receiver, endpoint):
        environment = {"HEADRACE_OTLP_ENDPOINT": endpoint, "HEADRACE_TELEMETRY_INTERVAL_S": "0.2"}
        async with Suite(tmp_path, environment=environment) as suite, suite.client() as client:
            products = [Product(id=f"p{number}", title=f"mug number {number}") for number in range(8)]
            await client.ingest.WriteProducts(WriteProductsRequest(products=products))

            async def has_vectors() -> bool:
                return (await client.ranker.GetRankerStatus(GetRankerStatusRequest())).vectors == len(products)

            await eventually(has_vectors)
            events = [view("v1", "p1"), view("v1", "p2")]
            written = await client.ingest.WriteUserEvents(WriteUserEventsRequest(events=events), metadata=METADATA)
            offset = written.results[-1].offset

            async def learned() -> bool:
                status = await client.ranker.GetRankerStatus(GetRankerStatusRequest())
                return status.vectors_log_offset >= offset

            await eventually(learned)
            request = RecommendRequest(serving_config="home", visitor_id="v1", min_offset=offset)
            answer = await client.ranker.Recommend(request, metadata=PAGE_METADATA, timeout=5)

            async def whole() -> bool:
                return receiver.services(TRACE_ID) == LEARNING and receiver.answer() is not None

            try:
                await eventually(whole, 15)
            except AssertionError:
                pytest.fail(f"the traces have spans {receiver.spans.get(TRACE_ID)} and {receiver.spans.get(PAGE_ID)}")
            page = receiver.answer()
            assert page is not None
            assert page.service == "ranker"
            assert page.attributes["headrace.release"] == answer.info.release
            assert page.attributes["headrace.state_offset"] == str(answer.info.state_offset)
            assert page.attributes["headrace.delta_sequence"] == str(answer.info.delta_sequence)
            by_id = {span.id: span for span in receiver.spans[TRACE_ID]}
            led_to = {(what, by_id[span_id].name) for trace_id, span_id, what in page.links if trace_id == TRACE_ID}
            assert led_to == {("state", "feature-store.fold"), ("vectors", "index.apply")}
            await eventually(lambda: _any(receiver.metrics))


async def _any(names: set[str]) -> bool:
    return any(name.startswith("headrace.") for name in names)
