"""The floor under every call: a grpc.aio server on uvloop that gives back what it got.

`python -m benchmarks.echo` prints its port and serves until it is stopped.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import uvloop

METHOD = "/benchmarks.Echo/Echo"


async def _serve() -> None:
    async def echo(request: bytes, context: Any) -> bytes:
        return request

    server = grpc.aio.server()
    handler = grpc.unary_unary_rpc_method_handler(echo)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("benchmarks.Echo", {"Echo": handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)  # its parent reads it
    await server.wait_for_termination()


@asynccontextmanager
async def running_echo() -> AsyncIterator[tuple[int, str]]:
    """An echo server as a process of its own: its process id and address."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.echo", stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None, "asked for above"
    try:
        port = (await process.stdout.readline()).decode().strip()
        yield process.pid, f"127.0.0.1:{port}"
    finally:
        process.terminate()
        await process.wait()


if __name__ == "__main__":
    uvloop.run(_serve())
