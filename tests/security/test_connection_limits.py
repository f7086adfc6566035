"""Those who mean no good at the port: dribblers, hoarders of connections, huge headers and huge messages."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import grpc
import pytest

from headrace.runtime.channels import open_channel
from headrace.runtime.entrance import Entrance, Security
from headrace.v1 import ingest_pb2 as pb
from headrace.v1 import ingest_pb2_grpc
from headrace.v1.common_pb2 import UserEvent
from tests.security.authority import Authority
from tests.security.conftest import Echo, delete, failure

Served = Callable[..., Any]
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


async def hung_up(reader: asyncio.StreamReader) -> None:
    """Returns when the server closed the connection."""
    async with asyncio.timeout(10):
        with contextlib.suppress(ConnectionError):
            while await reader.read(1 << 16):
                pass


@pytest.mark.parametrize("said", [b"", PREFACE[:10], PREFACE], ids=["nothing", "half a preface", "no settings"])
async def test_who_does_not_finish_the_greeting_is_hung_up_on(served: Served, said: bytes) -> None:
    async with served(handshake_s=0.3) as server, open_channel(server.address) as channel:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(said)
        # others are served meanwhile
        assert (await delete(channel)).offset == 1
        await hung_up(reader)
        writer.close()


async def test_who_does_not_finish_the_tls_handshake_is_hung_up_on(
    served: Served, authority: Authority, tmp_path: Any
) -> None:
    files = authority.write(tmp_path / "ingest", authority.pair("ingest"))
    async with served(Security(files, Entrance("ingest", with_peers=True)), handshake_s=0.3) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        # a record of TLS that announces more than ever comes
        writer.write(b"\x16\x03\x01\x02\x00\x01")
        await hung_up(reader)
        writer.close()


async def test_connections_beyond_the_limit_are_turned_away_and_those_within_are_served(served: Served) -> None:
    async with served(max_connections=3) as server, open_channel(server.address) as channel:
        await delete(channel)
        others = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(6)]
        closed = [asyncio.create_task(hung_up(reader)) for reader, _ in others]
        done: set[Any] = set()
        async with asyncio.timeout(10):
            while len(done) < 4:
                done, _ = await asyncio.wait(closed, timeout=0.1)
        assert (await delete(channel)).offset == 1
        for _, writer in others:
            writer.close()
        await asyncio.gather(*closed)


async def test_calls_beyond_a_connections_limit_wait_at_the_caller(served: Served, echo: Echo) -> None:
    async with served(max_streams=2) as server, open_channel(server.address) as channel:
        slow = [asyncio.ensure_future(delete(channel, "slow")) for _ in range(2)]
        await echo.entered.wait()
        assert (await failure(delete(channel, timeout=0.3))).code() == grpc.StatusCode.DEADLINE_EXCEEDED
        for call in slow:
            call.cancel()
        # another caller has a connection of its own
        async with open_channel(server.address) as other:
            assert (await delete(other)).offset == 1


async def test_huge_headers_are_refused_and_the_connection_lives(served: Served, echo: Echo) -> None:
    async with served() as server, open_channel(server.address, retries=False) as channel:
        error = await failure(delete(channel, metadata=(("x-api-key", "k" * (20 << 10)),)))
        assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert echo.certificates == []
        assert (await delete(channel, metadata=(("x-api-key", "k" * (8 << 10)),))).offset == 1


async def test_a_message_over_the_limit_is_refused_before_it_is_read(served: Served) -> None:
    async with served(max_message_bytes=1 << 16) as server, open_channel(server.address) as channel:
        error = await failure(delete(channel, "p" * (1 << 17)))
        assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        stream = ingest_pb2_grpc.IngestServiceStub(channel).StreamUserEvents()
        await stream.write(pb.StreamUserEventsRequest(event=UserEvent(search_query="q" * (1 << 17))))
        assert (await failure(stream.read())).code() == grpc.StatusCode.RESOURCE_EXHAUSTED
