from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from headrace.runtime.calls import TRACEPARENT, call_options, remaining_s, set_deadline
from headrace.runtime.channels import open_channel
from headrace.runtime.errors import DeadlineError, Fault, InvalidRequestError, NotFoundError, OverloadedError
from headrace.runtime.rpc_status import faults_of
from headrace.runtime.serving import Background, Face, Parts, running
from headrace.runtime.settings import ServingSettings
from headrace.runtime.telemetry import traceparent
from headrace.v1 import ingest_pb2 as pb
from headrace.v1 import ingest_pb2_grpc

PARENT = f"00-{0xABC:032x}-{0x12:016x}-01"


class Answering(ingest_pb2_grpc.IngestServiceServicer):
    """Raises what the product is called, or says what the call carried."""

    ended: asyncio.Event

    async def DeleteProduct(self, request: pb.DeleteProductRequest, context: Any) -> pb.DeleteProductResponse:
        errors: dict[str, Exception] = {
            "faulty": InvalidRequestError([Fault("a", "is wrong"), Fault("b", "is worse")]),
            "missing": NotFoundError("no product 'missing'"),
            "busy": OverloadedError("too much", retry_after_s=2.5),
            "bug": ZeroDivisionError("the secret of a customer"),
        }
        if request.product_id in errors:
            raise errors[request.product_id]
        if request.product_id == "aborts":
            await context.abort(grpc.StatusCode.OUT_OF_RANGE, "its own")
        if request.product_id == "trace":
            return pb.DeleteProductResponse(offset=int(traceparent().split("-")[1], 16))
        if request.product_id == "onward":
            return pb.DeleteProductResponse(offset=int((call_options()["timeout"] or -1) * 1e3))
        left = remaining_s()
        return pb.DeleteProductResponse(offset=-1 if left is None else int(left * 1e3))

    async def StreamUserEvents(
        self, request_iterator: AsyncIterator[pb.StreamUserEventsRequest], context: Any
    ) -> AsyncIterator[pb.StreamUserEventsResponse]:
        try:
            async for request in request_iterator:
                if request.sequence < 0:
                    raise InvalidRequestError.of("sequence", f"must be at least 0, got {request.sequence}")
                yield pb.StreamUserEventsResponse(sequence=request.sequence)
        finally:
            self.ended.set()


@pytest.fixture
async def servicer() -> Answering:
    servicer = Answering()
    servicer.ended = asyncio.Event()
    return servicer


@pytest.fixture
async def channel(servicer: Answering) -> AsyncIterator[grpc.aio.Channel]:
    face = Face(
        "headrace.v1.IngestService",
        lambda server: ingest_pb2_grpc.add_IngestServiceServicer_to_server(servicer, server),
    )
    settings = ServingSettings(drain_s=0)
    async with running(Parts([face], Background()), settings) as server, open_channel(server.address) as opened:
        yield opened


@pytest.fixture
def stub(channel: grpc.aio.Channel) -> Any:
    return ingest_pb2_grpc.IngestServiceStub(channel)


async def failure(call: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call
    return refused.value


def delete(stub: Any, product_id: str, **options: Any) -> Any:
    return stub.DeleteProduct(pb.DeleteProductRequest(product_id=product_id), **options)


async def test_faults_reach_the_caller_one_by_one(stub: Any) -> None:
    error = await failure(delete(stub, "faulty"))
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert faults_of(error) == (Fault("a", "is wrong"), Fault("b", "is worse"))


async def test_an_error_known_by_name_has_its_status(stub: Any) -> None:
    error = await failure(delete(stub, "missing"))
    assert (error.code(), error.details()) == (grpc.StatusCode.NOT_FOUND, "no product 'missing'")


async def test_a_busy_server_says_when_to_come_back(stub: Any) -> None:
    error = await failure(delete(stub, "busy"))
    assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    info = error_details_pb2.RetryInfo()
    status = rpc_status.from_call(error)
    assert status.details[0].Unpack(info)
    assert info.retry_delay.ToMilliseconds() == 2_500


async def test_a_bug_is_internal_and_its_text_stays_inside(stub: Any, caplog: pytest.LogCaptureFixture) -> None:
    error = await failure(delete(stub, "bug"))
    assert (error.code(), error.details()) == (grpc.StatusCode.INTERNAL, "DeleteProduct: ZeroDivisionError")
    assert "the secret of a customer" in caplog.text


async def test_an_abort_of_the_method_itself_passes(stub: Any) -> None:
    error = await failure(delete(stub, "aborts"))
    assert (error.code(), error.details()) == (grpc.StatusCode.OUT_OF_RANGE, "its own")


async def test_a_method_that_is_not_served_is_unimplemented(stub: Any) -> None:
    error = await failure(stub.ForgetUser(pb.ForgetUserRequest()))
    assert error.code() == grpc.StatusCode.UNIMPLEMENTED


async def test_a_method_that_does_not_exist_is_unimplemented(channel: grpc.aio.Channel) -> None:
    error = await failure(channel.unary_unary("/headrace.v1.IngestService/Nothing")(b""))
    assert error.code() == grpc.StatusCode.UNIMPLEMENTED


async def test_bytes_that_are_no_message_are_the_callers_fault(channel: grpc.aio.Channel) -> None:
    error = await failure(channel.unary_unary("/headrace.v1.IngestService/DeleteProduct")(b"\xff\xff\xff"))
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert faults_of(error)[0].field == "request"


async def test_bytes_in_a_stream_that_are_no_message_are_the_callers_fault(channel: grpc.aio.Channel) -> None:
    call = channel.stream_stream("/headrace.v1.IngestService/StreamUserEvents")(iter([b"\xff\xff\xff"]))
    error = await failure(call.read())
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT


async def test_the_time_left_is_known_inside_and_passed_on(stub: Any) -> None:
    left = (await delete(stub, "left", timeout=30)).offset
    onward = (await delete(stub, "onward", timeout=30)).offset
    # on the wire a timeout has few digits and is rounded up: 30.1 s
    assert 25_000 < left <= 30_200
    assert 25_000 < onward <= 30_200


async def test_a_call_without_a_deadline_has_none(stub: Any) -> None:
    assert (await delete(stub, "left")).offset == -1


def test_the_tighter_of_two_limits_wins_and_no_time_is_an_error() -> None:
    set_deadline(None)
    assert call_options(0.5)["timeout"] == 0.5
    assert call_options()["timeout"] is None
    set_deadline(100)
    assert call_options(0.5)["timeout"] == 0.5
    set_deadline(0)
    with pytest.raises(DeadlineError, match="no time left"):
        call_options(0.5)
    # tests that run after this one share its context
    set_deadline(None)


async def test_the_trace_of_the_caller_goes_on_inside(stub: Any) -> None:
    answer = await delete(stub, "trace", metadata=((TRACEPARENT, PARENT),))
    assert answer.offset == 0xABC


async def test_a_stream_answers_until_the_fault(stub: Any) -> None:
    call = stub.StreamUserEvents(pb.StreamUserEventsRequest(sequence=n) for n in (0, 1, -1))
    assert [(await call.read()).sequence for _ in range(2)] == [0, 1]
    error = await failure(call.read())
    assert faults_of(error) == (Fault("sequence", "must be at least 0, got -1"),)


async def test_a_stream_that_the_caller_gives_up_ends_inside_too(
    stub: Any, servicer: Answering, caplog: pytest.LogCaptureFixture
) -> None:
    call = stub.StreamUserEvents()
    await call.write(pb.StreamUserEventsRequest(sequence=4))
    assert (await call.read()).sequence == 4
    call.cancel()
    await asyncio.wait_for(servicer.ended.wait(), 30)
    assert not caplog.records
