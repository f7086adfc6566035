"""A canary that answers wrongly: it stands before a real one and spoils what that says.

So everything but the one fault is right, and only the check for it can catch it. As a process of its own, which may be
killed or stopped: `python -m benchmarks.faulty_canary --port 7500 --before 127.0.0.1:7405 --fault nan`.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

import grpc
import uvloop

from headrace.v1 import ranker_pb2

Response: TypeAlias = ranker_pb2.RecommendResponse | ranker_pb2.SearchResponse | ranker_pb2.RankResponse

_SERVICE = "headrace.v1.RankerService"
_RESPONSES: dict[str, type[Response]] = {
    "Recommend": ranker_pb2.RecommendResponse,
    "Search": ranker_pb2.SearchResponse,
    "Rank": ranker_pb2.RankResponse,
}
_SLOWER = 10


def _not_finite(response: Response) -> None:
    for result in response.results:
        result.score = float("nan")


def _of_old_schema(response: Response) -> None:
    # as rankers answered before there were tracks
    for field in ("track", "impression", "plan_sequence"):
        response.info.ClearField(field)


def _empty(response: Response) -> None:
    del response.results[:]


def _of_another_release(response: Response) -> None:
    response.info.release = "r-999999"


def _with_a_forged_token(response: Response) -> None:
    token = response.info.attribution_token
    response.info.attribution_token = ("B" if token[20] == "A" else "A").join((token[:20], token[21:]))


def _with_a_product_twice(response: Response) -> None:
    for result in response.results[1:]:
        result.product_id = response.results[0].product_id


def _without_ids(response: Response) -> None:
    for result in response.results:
        result.product_id = ""


def _with_too_many(response: Response) -> None:
    for number in range(600):
        response.results.add(product_id=f"none-{number}")


def _with_anothers_impression(response: Response) -> None:
    response.info.impression = b"\x0a\x05other"


# what becomes of a sound answer; `slow` and `garbled` are more than that, `none` is less
SPOILED: dict[str, Callable[[Response], None]] = {
    "nan": _not_finite,
    "old-schema": _of_old_schema,
    "empty": _empty,
    "other-release": _of_another_release,
    "forged-token": _with_a_forged_token,
    "product-twice": _with_a_product_twice,
    "no-ids": _without_ids,
    "too-many": _with_too_many,
    "other-impression": _with_anothers_impression,
}
FAULTS = ("none", "slow", "garbled", "refusing", *SPOILED)


class FaultyCanary:
    """Passes calls on to the canary at `before` and spoils its answers by `fault`, which may change at any time."""

    def __init__(self, before: str = "", fault: str = "none") -> None:
        self.fault = fault
        self.calls = 0
        self.stand_before(before)

    def stand_before(self, address: str) -> None:
        """Passes calls on to another canary from now on."""
        self._channel = grpc.aio.insecure_channel(address)

    async def close(self) -> None:
        await self._channel.close()

    def add_to(self, server: grpc.aio.Server) -> None:
        handlers: dict[str, Any] = {
            method: grpc.unary_unary_rpc_method_handler(self._handler(method)) for method in _RESPONSES
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_SERVICE, handlers),))

    def _handler(self, method: str) -> Any:
        async def handle(request: bytes, context: Any) -> bytes:
            self.calls += 1
            if self.fault == "refusing":
                await context.abort(grpc.StatusCode.INTERNAL, "it was asked to")
            begun = time.perf_counter()
            marks = [(key, value) for key, value in context.invocation_metadata() if key.startswith("headrace-")]
            ask: Any = self._channel.unary_unary(f"/{_SERVICE}/{method}")
            data: bytes = await ask(request, timeout=context.time_remaining(), metadata=marks)
            if self.fault == "slow":
                await asyncio.sleep((_SLOWER - 1) * (time.perf_counter() - begun))
            return self._spoiled(_RESPONSES[method], data)

        return handle

    def _spoiled(self, kind: type[Response], data: bytes) -> bytes:
        if self.fault == "garbled":
            return b"\xff" + data
        if self.fault not in SPOILED:
            return data
        response = kind.FromString(data)
        SPOILED[self.fault](response)
        return response.SerializeToString()


@asynccontextmanager
async def served(canary: FaultyCanary, port: int) -> AsyncIterator[int]:
    """Serves it on a port, 0 for a free one; the port."""
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    canary.add_to(server)
    bound = server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    try:
        yield bound
    finally:
        await server.stop(0)
        await canary.close()


class FaultyProcess:
    """A faulty canary as a process, to be killed, frozen and started again on its port."""

    def __init__(self, before: str, fault: str = "none") -> None:
        self.port = 0
        self._options = ("--before", before, "--fault", fault)
        self._process: asyncio.subprocess.Process | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Starts it; it serves when this returns."""
        command = ("-m", "benchmarks.faulty_canary", "--port", str(self.port), *self._options)
        self._process = await asyncio.create_subprocess_exec(sys.executable, *command, stdout=asyncio.subprocess.PIPE)
        assert self._process.stdout is not None, "asked for above"
        self.port = int(await self._process.stdout.readline())

    def freeze(self) -> None:
        assert self._process is not None, "start() comes first"
        self._process.send_signal(signal.SIGSTOP)

    async def kill(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()


async def _run(port: int, before: str, fault: str) -> None:
    async with served(FaultyCanary(before, fault), port) as bound:
        print(bound, flush=True)  # its parent waits for it
        await asyncio.Event().wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=0, help="0: a free one, which is printed")
    parser.add_argument("--before", required=True, help="host:port of a real canary")
    parser.add_argument("--fault", choices=FAULTS, default="none")
    arguments = parser.parse_args()
    uvloop.run(_run(arguments.port, arguments.before, arguments.fault))


if __name__ == "__main__":
    main()
