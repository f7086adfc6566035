"""Replicas of the five services as processes, replaced one after the other the way Kubernetes does it."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from headrace.cli.process import ServiceProcess
from headrace.runtime.channels import open_channel
from headrace.runtime.errors import UnavailableError
from headrace.runtime.settings import PREFIX, env_prefix

_SERVING = health_pb2.HealthCheckResponse.SERVING
_ASKS = {"trainer": ("index", "feature-store"), "ranker": ("index", "feature-store", "trainer")}
_READY_S, _GRACE_S, _LOOK_S = 120.0, 60.0, 0.05


@dataclass(frozen=True)
class Replica:
    """One process of a service; `probe` is the address of its health port."""

    process: ServiceProcess
    address: str
    probe: str


class Fleet:
    """Replicas by service."""

    def __init__(self, replicas: Mapping[str, Sequence[Replica]]) -> None:
        self.replicas = replicas

    def addresses(self, service: str) -> str:
        """All replicas of a service, as channels and settings take them."""
        return ",".join(replica.address for replica in self.replicas[service])

    async def replace(self, service: str) -> list[int]:
        """Stops and starts each replica in turn, going on when the new one is ready; the exit statuses of the old."""
        statuses = []
        for replica in self.replicas[service]:
            await replica.process.stop(_GRACE_S)
            if status := await replica.process.wait():
                print(f"{service} ended with {status}:\n{replica.process.log_tail()}", flush=True)
            statuses.append(status)
            await replica.process.start()
            await _until_ready(replica)
        return statuses


@asynccontextmanager
async def fleet(
    folder: Path,
    counts: Mapping[str, int],
    environment: Mapping[str, str],
    own: Mapping[tuple[str, int], Mapping[str, str]] | None = None,
) -> AsyncIterator[Fleet]:
    """So many replicas of each service of `counts`, ready and told of each other; each has a data folder of its own.

    All get `environment`, and by service and number what is their `own`. UnavailableError: one is not ready in time.
    """
    ports = iter(_free_ports(2 * sum(counts.values())))
    places = {service: [(next(ports), next(ports)) for _ in range(count)] for service, count in counts.items()}
    named = {service: ",".join(f"127.0.0.1:{port}" for port, _ in pairs) for service, pairs in places.items()}
    replicas = {
        service: [
            _replica(
                service,
                port,
                probe,
                folder / f"{service}-{number}",
                {**environment, **_peers(service, named), **(own or {}).get((service, number), {})},
            )
            for number, (port, probe) in enumerate(pairs)
        ]
        for service, pairs in places.items()
    }
    async with AsyncExitStack() as stack:
        every = [replica for each in replicas.values() for replica in each]
        for replica in every:
            stack.push_async_callback(replica.process.stop, _GRACE_S)
            await replica.process.start()
        await asyncio.gather(*(_until_ready(replica) for replica in every))
        yield Fleet(replicas)


def _peers(service: str, named: Mapping[str, str]) -> dict[str, str]:
    prefix = env_prefix(service)
    asked = (peer for peer in _ASKS.get(service, ()) if peer in named)
    peers = {f"{prefix}{env_prefix(peer)[len(PREFIX) :]}ADDRESS": named[peer] for peer in asked}
    return peers | ({f"{prefix}PEERS": named[service]} if service == "index" else {})


def _replica(service: str, port: int, probe: int, folder: Path, environment: Mapping[str, str]) -> Replica:
    prefix = env_prefix(service)
    own = {f"{prefix}PORT": str(port), f"{prefix}HEALTH_PORT": str(probe), f"{PREFIX}DATA_DIR": str(folder)}
    process = ServiceProcess(service, {**os.environ, **own, **environment}, folder / "log.json")
    return Replica(process, f"127.0.0.1:{port}", f"127.0.0.1:{probe}")


async def _until_ready(replica: Replica) -> None:
    try:
        async with asyncio.timeout(_READY_S), open_channel(replica.probe) as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            while not await _is_serving(stub):
                if not replica.process.is_running:
                    raise UnavailableError(f"{replica.process.service} ended:\n{replica.process.log_tail()}")
                await asyncio.sleep(_LOOK_S)
    except TimeoutError as error:
        raise UnavailableError(f"{replica.process.service} was not ready:\n{replica.process.log_tail()}") from error


async def _is_serving(stub: health_pb2_grpc.HealthStub) -> bool:
    try:
        answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=1.0)
    except grpc.aio.AioRpcError:
        return False
    return bool(answer.status == _SERVING)


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()
