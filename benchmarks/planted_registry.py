"""A registry that serves the same weights under as many names as are wanted, in a process of its own.

`python -m benchmarks.planted_registry FOLDER` (a `release.pb` and the parts) prints its address, then does as the
lines on its input say: "STABLE SHADOW", two numbers of releases, of which the second may be 0.
"""

from __future__ import annotations

import asyncio
import hashlib
import struct
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from headrace.runtime.serving import Background, Face, Parts, running
from headrace.runtime.settings import ServingSettings
from headrace.v1 import trainer_pb2, trainer_pb2_grpc

_CHUNK_BYTES = 1 << 20
# what differs from one release of a lineage to the next; its words are read by the same encoder
_LEARNED = ("towers.safetensors", "ranker.safetensors", "golden.safetensors")


def name_of(number: int) -> str:
    return f"r-{number:06d}"


class Control:
    """Tells a planted registry what to plan."""

    def __init__(self, process: asyncio.subprocess.Process, address: str) -> None:
        self.address = address
        self._process = process

    async def plan(self, stable: int, shadow: int = 0) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{stable} {shadow}\n".encode())
        await self._process.stdin.drain()


@asynccontextmanager
async def planted(folder: Path) -> AsyncIterator[Control]:
    """The registry of a folder while open."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "benchmarks.planted_registry",
        str(folder),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        yield Control(process, (await process.stdout.readline()).decode().strip())
    finally:
        process.terminate()
        await process.wait()


class _Registry(trainer_pb2_grpc.TrainerServiceServicer):
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._release = trainer_pb2.Release.FromString((folder / "release.pb").read_bytes())
        self._parts = {part.name: (folder / part.name).read_bytes() for part in self._release.parts}
        self._learned: dict[str, dict[str, bytes]] = {}
        self._plan = trainer_pb2.WatchServingPlanResponse(sequence=1)
        self._changed = asyncio.Condition()

    async def plan(self, stable: int, shadow: int) -> None:
        async with self._changed:
            self._plan = trainer_pb2.WatchServingPlanResponse(
                sequence=self._plan.sequence + 1,
                stable=self._named(stable),
                shadow=self._named(shadow) if shadow else None,
                valid_for_ms=30_000,
            )
            self._changed.notify_all()

    def _named(self, number: int) -> trainer_pb2.Release:
        named = trainer_pb2.Release()
        named.CopyFrom(self._release)
        named.release = name_of(number)
        self._learned[named.release] = {name: _padded(self._parts[name], number) for name in _LEARNED}
        for part in named.parts:
            if part.name in _LEARNED:
                part.sha256 = hashlib.sha256(self._learned[named.release][part.name]).hexdigest()
        return named

    async def WatchServingPlan(
        self, request: trainer_pb2.WatchServingPlanRequest, context: object
    ) -> AsyncIterator[trainer_pb2.WatchServingPlanResponse]:
        while True:
            plan = self._plan
            yield plan
            async with self._changed:
                await self._changed.wait_for(lambda plan=plan: self._plan is not plan)

    async def FetchArtifact(
        self, request: trainer_pb2.FetchArtifactRequest, context: object
    ) -> AsyncIterator[trainer_pb2.FetchArtifactResponse]:
        data = self._learned[request.release].get(request.part) or self._parts[request.part]
        for begin in range(0, len(data), _CHUNK_BYTES):
            yield trainer_pb2.FetchArtifactResponse(data=data[begin : begin + _CHUNK_BYTES])

    async def ReportServing(
        self, request: trainer_pb2.ReportServingRequest, context: object
    ) -> trainer_pb2.ReportServingResponse:
        return trainer_pb2.ReportServingResponse()


def _padded(part: bytes, number: int) -> bytes:
    """The same tensors in other bytes: a safetensors header may end in spaces."""
    (length,) = struct.unpack_from("<Q", part)
    padding = b" " * (8 * number)
    return struct.pack("<Q", length + len(padding)) + part[8 : 8 + length] + padding + part[8 + length :]


async def _serve(folder: Path) -> None:
    registry = _Registry(folder)
    add = trainer_pb2_grpc.add_TrainerServiceServicer_to_server
    face = Face("headrace.v1.TrainerService", lambda server: add(registry, server))  # type: ignore[arg-type]
    async with running(Parts([face], Background()), ServingSettings(port=0)) as server:
        print(server.address, flush=True)
        loop = asyncio.get_running_loop()
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            stable, shadow = map(int, line.split())
            await registry.plan(stable, shadow)


if __name__ == "__main__":
    asyncio.run(_serve(Path(sys.argv[1])))
