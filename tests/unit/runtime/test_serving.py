from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from headrace.runtime.channels import is_lost, open_channel
from headrace.runtime.health import LIVENESS, told_health
from headrace.runtime.serving import Background, Face, Parts, running
from headrace.runtime.settings import ServingSettings
from headrace.v1 import index_pb2, index_pb2_grpc, ingest_pb2_grpc
from headrace.v1 import ingest_pb2 as pb

NAME = "headrace.v1.IngestService"
SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


class Slow(ingest_pb2_grpc.IngestServiceServicer):
    """Answers when it is let."""

    def __init__(self) -> None:
        self.entered = asyncio.Event()
        self.let = asyncio.Event()

    async def GetIngestStatus(self, request: pb.GetIngestStatusRequest, context: Any) -> pb.GetIngestStatusResponse:
        self.entered.set()
        await self.let.wait()
        return pb.GetIngestStatusResponse(accepted=7)


def parts_of(servicer: Slow, background: Background | None = None) -> Parts:
    face = Face(NAME, lambda server: ingest_pb2_grpc.add_IngestServiceServicer_to_server(servicer, server))
    return Parts([face], background or Background())


async def health(channel: grpc.aio.Channel, service: str = NAME) -> int:
    answer = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service=service))
    return int(answer.status)


@pytest.fixture
async def slow() -> Slow:
    return Slow()


async def test_a_running_server_is_healthy_under_each_name(slow: Slow) -> None:
    async with running(parts_of(slow), ServingSettings()) as server, open_channel(server.address) as channel:
        assert server.address == f"127.0.0.1:{server.port}"
        assert [await health(channel, name) for name in ("", NAME)] == [SERVING, SERVING]


async def test_reflection_lists_the_services(slow: Slow) -> None:
    async with running(parts_of(slow), ServingSettings()) as server, open_channel(server.address) as channel:
        asked = reflection_pb2.ServerReflectionRequest(list_services="")
        call = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(iter([asked]))
        names = [service.name for service in (await call.read()).list_services_response.service]
        assert NAME in names


async def test_a_background_task_that_dies_takes_health_with_it(slow: Slow) -> None:
    broken = asyncio.Event()

    async def work() -> None:
        await broken.wait()
        raise RuntimeError("the log is gone")

    background = Background()
    background.start(work(), "follow")
    settings = ServingSettings(drain_s=0)
    async with running(parts_of(slow, background), settings) as server, open_channel(server.address) as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service=NAME))
        assert (await watch.read()).status == SERVING
        broken.set()
        assert (await asyncio.wait_for(watch.read(), 30)).status == NOT_SERVING
        assert server.failed.is_set()


async def test_background_tasks_end_with_the_server_and_that_is_no_failure(slow: Slow) -> None:
    ended = asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    background = Background()
    background.start(work(), "follow")
    await asyncio.sleep(0)
    async with running(parts_of(slow, background), ServingSettings(drain_s=0)):
        assert not ended.is_set()
    assert ended.is_set()
    assert not background.failed.is_set()


async def test_a_call_in_flight_is_answered_while_the_server_drains(slow: Slow) -> None:
    stopping = asyncio.Event()

    async def serve(started: asyncio.Future[str]) -> None:
        async with running(parts_of(slow), ServingSettings(drain_s=30)) as server:
            started.set_result(server.address)
            await stopping.wait()

    started: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    serving = asyncio.create_task(serve(started))
    async with open_channel(await started) as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service=NAME))
        assert (await watch.read()).status == SERVING
        call = ingest_pb2_grpc.IngestServiceStub(channel).GetIngestStatus(pb.GetIngestStatusRequest())
        await asyncio.wait_for(slow.entered.wait(), 30)
        stopping.set()
        assert (await asyncio.wait_for(watch.read(), 30)).status == NOT_SERVING
        slow.let.set()
        assert (await call).accepted == 7
        watch.cancel()
        await asyncio.wait_for(serving, 30)


class Watched(index_pb2_grpc.IndexServiceServicer, ingest_pb2_grpc.IngestServiceServicer):
    """A watch without news, and a stream that answers a request when the next one comes."""

    async def WatchEmbeddings(
        self, request: index_pb2.WatchEmbeddingsRequest, context: Any
    ) -> AsyncIterator[index_pb2.WatchEmbeddingsResponse]:
        yield index_pb2.WatchEmbeddingsResponse(applied_sequence=7)
        await asyncio.Event().wait()

    async def StreamUserEvents(
        self, request_iterator: AsyncIterator[pb.StreamUserEventsRequest], context: Any
    ) -> AsyncIterator[pb.StreamUserEventsResponse]:
        held: list[int] = []
        async for request in request_iterator:
            if held:
                yield pb.StreamUserEventsResponse(sequence=held.pop())
            held.append(request.sequence)
        for sequence in held:
            yield pb.StreamUserEventsResponse(sequence=sequence)


def watched() -> Parts:
    servicer = Watched()

    def add(server: grpc.aio.Server) -> None:
        index_pb2_grpc.add_IndexServiceServicer_to_server(servicer, server)
        ingest_pb2_grpc.add_IngestServiceServicer_to_server(servicer, server)

    return Parts([Face(NAME, add)], Background())


async def stopped_on(stopping: asyncio.Event, started: asyncio.Future[str], parts: Parts) -> None:
    async with running(parts, ServingSettings(drain_s=60)) as server:
        started.set_result(server.address)
        await stopping.wait()


async def test_a_server_that_stops_waits_for_no_watch() -> None:
    stopping, started = asyncio.Event(), asyncio.get_running_loop().create_future()
    serving = asyncio.create_task(stopped_on(stopping, started, watched()))
    async with open_channel(await started) as channel:
        watch = index_pb2_grpc.IndexServiceStub(channel).WatchEmbeddings(index_pb2.WatchEmbeddingsRequest())
        assert (await watch.read()).applied_sequence == 7
        stopping.set()
        with pytest.raises(grpc.aio.AioRpcError, match="the server stops") as ended:
            await watch.read()
        assert is_lost(ended.value)
        await asyncio.wait_for(serving, 30)


async def test_what_was_read_of_a_stream_is_answered_before_the_server_stops() -> None:
    stopping, started = asyncio.Event(), asyncio.get_running_loop().create_future()
    serving = asyncio.create_task(stopped_on(stopping, started, watched()))
    async with open_channel(await started) as channel:
        stream = ingest_pb2_grpc.IngestServiceStub(channel).StreamUserEvents()
        await stream.write(pb.StreamUserEventsRequest(sequence=1))
        await stream.write(pb.StreamUserEventsRequest(sequence=2))
        assert (await stream.read()).sequence == 1
        stopping.set()
        assert (await stream.read()).sequence == 2
        with pytest.raises(grpc.aio.AioRpcError, match="the server stops") as ended:
            await stream.read()
        assert is_lost(ended.value)
        await asyncio.wait_for(serving, 30)


async def test_a_second_port_says_not_yet_before_and_not_any_more_after(slow: Slow) -> None:
    with socket.socket() as chosen:
        chosen.bind(("127.0.0.1", 0))
        port = chosen.getsockname()[1]
    settings = ServingSettings(health_port=port, drain_s=0)
    async with told_health(settings) as checks, open_channel(f"127.0.0.1:{port}") as probe:
        assert [await health(probe, name) for name in ("", LIVENESS)] == [NOT_SERVING, SERVING]
        async with running(parts_of(slow), settings, checks):
            assert [await health(probe, name) for name in ("", NAME, LIVENESS)] == [SERVING] * 3
        assert [await health(probe, name) for name in ("", NAME, LIVENESS)] == [NOT_SERVING, NOT_SERVING, SERVING]


async def test_a_service_answers_before_it_is_ready_and_says_so(slow: Slow) -> None:
    slow.let.set()
    loaded = asyncio.Event()
    parts = replace(parts_of(slow), ready=lambda: _done(loaded))
    async with running(parts, ServingSettings(drain_s=0)) as server, open_channel(server.address) as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service=""))
        assert (await watch.read()).status == NOT_SERVING
        stub = ingest_pb2_grpc.IngestServiceStub(channel)
        assert (await stub.GetIngestStatus(pb.GetIngestStatusRequest())).accepted == 7
        loaded.set()
        assert (await asyncio.wait_for(watch.read(), 30)).status == SERVING
        assert await health(channel, NAME) == SERVING


async def _done(event: asyncio.Event) -> None:
    await event.wait()


async def test_a_task_that_dies_takes_liveness_with_it(slow: Slow) -> None:
    background = Background()
    settings = ServingSettings(drain_s=0)
    async with running(parts_of(slow, background), settings) as server, open_channel(server.address) as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service=LIVENESS))
        assert (await watch.read()).status == SERVING
        background.start(asyncio.to_thread(int, "x"), "follow")  # type: ignore[arg-type]
        assert (await asyncio.wait_for(watch.read(), 30)).status == NOT_SERVING


async def test_a_taken_port_is_an_error_that_names_it(slow: Slow) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1:{port}"):
            async with running(parts_of(slow), ServingSettings(port=port)):
                raise AssertionError("it listens")


async def test_a_message_over_the_limit_is_refused(slow: Slow) -> None:
    settings = ServingSettings(max_message_bytes=1 << 16, drain_s=0)
    async with running(parts_of(slow), settings) as server, open_channel(server.address) as channel:
        stub = ingest_pb2_grpc.IngestServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.ForgetUser(pb.ForgetUserRequest(user_id="x" * (1 << 17)))
        assert refused.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_a_channel_finds_a_server_that_was_restarted(slow: Slow) -> None:
    slow.let.set()
    async with running(parts_of(slow), ServingSettings(drain_s=0)) as first:
        channel = open_channel(first.address)
        stub = ingest_pb2_grpc.IngestServiceStub(channel)
        assert (await stub.GetIngestStatus(pb.GetIngestStatusRequest())).accepted == 7
    # asked while nobody listens: the call waits, and is answered by the next server
    waiting = asyncio.create_task(
        _value(stub.GetIngestStatus(pb.GetIngestStatusRequest(), wait_for_ready=True, timeout=30))
    )
    async with running(parts_of(slow), ServingSettings(port=first.port, drain_s=0)):
        assert (await waiting).accepted == 7
    await channel.close()


async def _value(call: Any) -> pb.GetIngestStatusResponse:
    answer: pb.GetIngestStatusResponse = await call
    return answer


_SERVICE = """
import asyncio, sys
from contextlib import asynccontextmanager
from headrace.runtime.serving import Background, Parts, run_service
from headrace.runtime.settings import CommonSettings, ServingSettings

@asynccontextmanager
async def compose():
    background = Background()
    async def work():
        await asyncio.to_thread(sys.stdin.readline)
        raise RuntimeError("the log is gone")
    if "dies" in sys.argv:
        background.start(work(), "follow")
    yield Parts([], background)
    print("closed", flush=True)

sys.exit(run_service("test", compose, ServingSettings(drain_s=0), CommonSettings()))
"""


def _start(*arguments: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", _SERVICE, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    assert '"serving"' in process.stderr.readline()
    return process


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_service_ends_cleanly_when_it_is_asked_to(number: signal.Signals) -> None:
    with _start() as process:
        process.send_signal(number)
        output, errors = process.communicate(timeout=60)
    assert (process.returncode, output) == (0, "closed\n"), errors
    assert '"asked to"' in errors


def test_a_service_ends_with_an_error_when_a_task_dies() -> None:
    with _start("dies") as process:
        output, errors = process.communicate("now\n", timeout=60)
    assert (process.returncode, output) == (1, "closed\n"), errors
    assert "background_task_died" in errors
    assert "the log is gone" in errors
