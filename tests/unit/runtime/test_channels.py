from __future__ import annotations

import ast
import asyncio
import contextlib
import re
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc._cython import cygrpc

import headrace
from headrace.runtime.channels import open_channel, target_of
from headrace.runtime.errors import InvalidRequestError
from headrace.runtime.serving import Background, Face, Parts, running
from headrace.runtime.settings import ServingSettings
from headrace.v1 import ingest_pb2 as pb
from headrace.v1 import ingest_pb2_grpc

CALLERS, REPLACEMENTS = 64, 8
OPTION = re.compile(r"grpc\.[a-z0-9_]+(\.[a-z0-9_]+)*")


class Counting(ingest_pb2_grpc.IngestServiceServicer):
    """Says how often it was asked; is away the first `away` times."""

    def __init__(self, away: int = 0) -> None:
        self.asked, self._away = 0, away
        self.progress = asyncio.Event()

    async def GetIngestStatus(self, request: pb.GetIngestStatusRequest, context: Any) -> pb.GetIngestStatusResponse:
        self.asked += 1
        self.progress.set()
        self.progress = asyncio.Event()
        return pb.GetIngestStatusResponse(accepted=self.asked)

    async def WriteUserEvents(self, request: pb.WriteUserEventsRequest, context: Any) -> pb.WriteUserEventsResponse:
        self.asked += 1
        if self.asked <= self._away:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "away")
        return pb.WriteUserEventsResponse()


def parts_of(servicer: Counting) -> Parts:
    return Parts(
        [Face("headrace.v1.IngestService", lambda server: _add(servicer, server))],
        Background(),
    )


def _add(servicer: Counting, server: grpc.aio.Server) -> None:
    ingest_pb2_grpc.add_IngestServiceServicer_to_server(servicer, server)


def options_in(source: str) -> set[str]:
    strings = {node.value for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Constant)}
    return {text for text in strings if isinstance(text, str) and OPTION.fullmatch(text)}


def test_grpc_knows_every_option_that_is_set() -> None:
    # one that it does not know does nothing, and nobody is told
    known = Path(cygrpc.__file__).read_bytes()
    runtime = Path(headrace.__file__).parent / "runtime"
    named = set().union(*(options_in(path.read_text()) for path in runtime.glob("*.py")))
    assert "grpc.keepalive_time_ms" in named
    # the library's strings end in a zero byte
    assert [name for name in sorted(named) if name.encode() + b"\0" not in known] == []


@pytest.mark.parametrize(
    ("address", "target"),
    [
        ("ranker:7405", "ranker:7405"),
        ("dns:///ranker.shop.svc:7405", "dns:///ranker.shop.svc:7405"),
        ("10.0.0.1:1, 10.0.0.2:2", "ipv4:10.0.0.1:1,10.0.0.2:2"),
        ("[::1]:1,[::2]:2", "ipv6:[::1]:1,[::2]:2"),
        ("ipv4:10.0.0.1:1,10.0.0.2:2", "ipv4:10.0.0.1:1,10.0.0.2:2"),
    ],
)
def test_an_address_names_one_server_or_several(address: str, target: str) -> None:
    assert target_of(address) == target


@pytest.mark.parametrize("address", ["a:1,b:2", "10.0.0.1:1,b:2", "10.0.0.1:1,[::1]:2", "10.0.0.1,10.0.0.2"])
def test_a_list_of_names_is_refused(address: str) -> None:
    with pytest.raises(InvalidRequestError, match=re.escape(f"IP addresses of one kind, got {address!r}")):
        open_channel(address)


async def test_a_batch_of_a_megabyte_is_tried_again_too() -> None:
    servicer = Counting(away=2)
    settings = ServingSettings(drain_s=0)
    async with running(parts_of(servicer), settings) as server, open_channel(server.address) as channel:
        request = pb.WriteUserEventsRequest()
        request.events.add(visitor_id="v" * (1 << 20))
        await ingest_pb2_grpc.IngestServiceStub(channel).WriteUserEvents(request, timeout=30)
    assert servicer.asked == 3


async def test_calls_go_to_each_server_in_turn_and_past_one_that_is_not_there() -> None:
    one, two, settings = Counting(), Counting(), ServingSettings(drain_s=0)
    async with (
        running(parts_of(one), settings) as first,
        running(parts_of(two), settings) as second,
        open_channel(f"{first.address},{second.address},127.0.0.1:1") as channel,
    ):
        stub = ingest_pb2_grpc.IngestServiceStub(channel)

        async def ask(until: Callable[[], bool]) -> None:
            while not until():
                await stub.GetIngestStatus(pb.GetIngestStatusRequest(), timeout=30)

        await asyncio.wait_for(ask(lambda: one.asked > 5 and two.asked > 5), 30)
        assert abs(one.asked - two.asked) < 30


async def test_no_call_is_lost_while_a_server_is_replaced_again_and_again() -> None:
    over, servicer = asyncio.Event(), Counting()

    async def answered(count: int) -> None:
        target = servicer.asked + count
        while servicer.asked < target:
            await servicer.progress.wait()

    async def ask(stub: Any) -> None:
        while not over.is_set():
            await stub.GetIngestStatus(pb.GetIngestStatusRequest(), timeout=30, wait_for_ready=True)

    async with running(parts_of(servicer), ServingSettings(drain_s=0)) as first:
        # a call that comes in the moment of a stop falls at the end of the drain, and is tried again by then
        settings = ServingSettings(port=first.port, drain_s=5)
    async with open_channel(first.address) as channel, asyncio.TaskGroup() as group:
        asking = [group.create_task(ask(ingest_pb2_grpc.IngestServiceStub(channel))) for _ in range(CALLERS)]
        for _ in range(REPLACEMENTS):
            async with running(parts_of(servicer), settings):
                await asyncio.wait_for(answered(CALLERS), 30)
        async with running(parts_of(servicer), settings):
            over.set()
            # each has one call on its way, which may have been counted before
            await asyncio.wait_for(asyncio.wait(asking), 30)


@asynccontextmanager
async def slow_network(port: int, pause_s: float) -> AsyncIterator[str]:
    """Hands connections on to `port`, `pause_s` after they were made."""
    tasks: set[asyncio.Task[None]] = set()

    async def hand_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(task := asyncio.current_task())  # type: ignore[arg-type]
        try:
            await asyncio.sleep(pause_s)
            there, back = await asyncio.open_connection("127.0.0.1", port)
            await asyncio.gather(_copy(reader, back), _copy(there, writer))
        except (OSError, asyncio.CancelledError):
            writer.close()
        finally:
            tasks.discard(task)  # type: ignore[arg-type]

    server = await asyncio.start_server(hand_on, "127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(1 << 16):
            writer.write(data)
        writer.close()


async def test_a_connection_that_takes_longer_than_the_back_off_is_waited_for() -> None:
    servicer = Counting()
    async with (
        running(parts_of(servicer), ServingSettings(drain_s=0)) as server,
        slow_network(server.port, 0.6) as address,
        open_channel(address) as channel,
    ):
        begun = time.monotonic()
        await ingest_pb2_grpc.IngestServiceStub(channel).GetIngestStatus(pb.GetIngestStatusRequest(), timeout=30)
        # in one attempt: with the back-off as its limit there were four
        assert time.monotonic() - begun < 1.2


async def test_connections_that_grow_old_are_replaced_without_a_lost_call() -> None:
    peers: set[str] = set()
    settings = ServingSettings(drain_s=0, max_connection_age_s=0.1)

    class Noting(Counting):
        async def GetIngestStatus(self, request: pb.GetIngestStatusRequest, context: Any) -> pb.GetIngestStatusResponse:
            peers.add(context.peer())
            return await super().GetIngestStatus(request, context)

    servicer = Noting()
    async with running(parts_of(servicer), settings) as server, open_channel(server.address) as channel:
        stub = ingest_pb2_grpc.IngestServiceStub(channel)

        async def ask() -> None:
            while len(peers) < 4:
                await stub.GetIngestStatus(pb.GetIngestStatusRequest(), timeout=30)

        await asyncio.wait_for(asyncio.gather(*(ask() for _ in range(8))), 60)
