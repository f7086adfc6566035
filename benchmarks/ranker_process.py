"""A ranker as a process of its own, beside a suite's other services."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import grpc

from headrace.cli.process import ServiceProcess
from headrace.cli.suite import Suite
from headrace.runtime.channels import open_channel
from headrace.v1.ranker_pb2 import GetRankerStatusRequest
from headrace.v1.ranker_pb2_grpc import RankerServiceStub

if TYPE_CHECKING:
    from headrace.v1.ranker_pb2_grpc import RankerServiceAsyncStub


class RankerProcess:
    """One ranker as a process."""

    def __init__(self, suite: Suite, relay: str, port: int, **settings: str) -> None:
        self.address = f"127.0.0.1:{port}"
        addresses = {name: suite.addresses[name] for name in ("feature-store", "index")} | {"trainer": relay}
        named = {f"{name.replace('-', '_')}_address".upper(): address for name, address in addresses.items()}
        given = named | {"PORT": str(port)} | settings
        environment = {f"HEADRACE_RANKER_{name}": value for name, value in given.items()}
        kept = {name: value for name, value in os.environ.items() if not name.startswith("HEADRACE_")}
        self.process = ServiceProcess(
            "ranker",
            kept | environment | {"HEADRACE_DATA_DIR": str(suite.data_dir)},
            suite.data_dir / "logs" / f"ranker-{port}.log",
        )

    async def start(self, release: str) -> None:
        """Starts it and waits until it answers with a release."""
        await self.process.start()
        async with open_channel(self.address) as channel:
            stub: RankerServiceAsyncStub = RankerServiceStub(channel)
            async with asyncio.timeout(90):
                await polled(lambda: _serves(stub, release))

    async def stop(self) -> None:
        # a frozen process ends by nothing else
        await self.process.kill()

    def freeze(self) -> None:
        os.kill(self.process.pid, signal.SIGSTOP)


async def polled(holds: Callable[[], Awaitable[bool]]) -> None:
    while True:
        if await holds():
            return
        await asyncio.sleep(0.02)


async def _serves(stub: RankerServiceAsyncStub, release: str) -> bool:
    try:
        status = await stub.GetRankerStatus(GetRankerStatusRequest(), timeout=1)
    except grpc.aio.AioRpcError:
        return False
    return status.release == release and status.items > 0


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])
