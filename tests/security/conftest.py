from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from headrace.runtime.entrance import OPEN, Security
from headrace.runtime.serving import Background, Face, Parts, RunningServer, running
from headrace.runtime.settings import ServingSettings
from headrace.v1 import ingest_pb2 as pb
from headrace.v1 import ingest_pb2_grpc
from tests.security.authority import Authority


class Echo(ingest_pb2_grpc.IngestServiceServicer):
    """Says that a call came in; a stream is answered message by message."""

    def __init__(self) -> None:
        self.certificates: list[bytes] = []
        self.entered = asyncio.Event()

    async def DeleteProduct(self, request: pb.DeleteProductRequest, context: Any) -> pb.DeleteProductResponse:
        self.certificates.append(context.auth_context().get("x509_pem_cert", [b""])[0])
        if request.product_id == "slow":
            self.entered.set()
            await asyncio.sleep(60)
        return pb.DeleteProductResponse(offset=1)

    async def GetIngestStatus(self, request: Any, context: Any) -> pb.GetIngestStatusResponse:
        return pb.GetIngestStatusResponse()

    async def StreamUserEvents(
        self, request_iterator: AsyncIterator[pb.StreamUserEventsRequest], context: Any
    ) -> AsyncIterator[pb.StreamUserEventsResponse]:
        async for request in request_iterator:
            yield pb.StreamUserEventsResponse(sequence=request.sequence)


@pytest.fixture(scope="session")
def authority() -> Authority:
    return Authority()


@pytest.fixture
async def echo() -> Echo:
    return Echo()


@pytest.fixture
def served(echo: Echo) -> Callable[..., Any]:
    """`async with served(security=…, max_streams=…) as server`."""
    face = Face(
        "headrace.v1.IngestService",
        lambda server: ingest_pb2_grpc.add_IngestServiceServicer_to_server(echo, server),
    )

    @asynccontextmanager
    async def serve(security: Security = OPEN, **settings: Any) -> AsyncIterator[RunningServer]:
        found = ServingSettings(drain_s=0, **settings)
        async with running(Parts([face], Background()), found, security=security) as server:
            yield server

    return serve


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


def delete(channel: grpc.aio.Channel, product_id: str = "p", **options: Any) -> Any:
    stub = ingest_pb2_grpc.IngestServiceStub(channel)
    return stub.DeleteProduct(pb.DeleteProductRequest(product_id=product_id), **{"timeout": 10, **options})


async def failure(call: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call
    return refused.value
