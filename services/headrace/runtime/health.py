"""What probes are told of a process: whether it lives, and whether it is to be sent calls.

By the service's own port, and where HEALTH_PORT is set by a second one that has nothing else and is never
encrypted, since Kubernetes' gRPC probes speak no TLS. The second one listens before the parts of a service are
opened and until they are closed.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from headrace.runtime.settings import ServingSettings

# asked for by this name: SERVING from the start to the end, unless one of the service's tasks has died
LIVENESS = "liveness"

_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class Health:
    """The health of one process, under "" and the names of its services; NOT_SERVING until `serves`."""

    def __init__(self) -> None:
        self._checks = health.aio.HealthServicer()
        self._names: tuple[str, ...] = ("",)
        self._is_over = False

    def add_to(self, server: grpc.aio.Server) -> None:
        """Lets a server answer for it."""
        health_pb2_grpc.add_HealthServicer_to_server(self._checks, server)

    async def begins(self) -> None:
        """It lives, and is to be sent nothing yet."""
        await self._checks.set(LIVENESS, _SERVING)
        await self._set(_NOT_SERVING)

    async def serves(self, names: Sequence[str]) -> None:
        """It can be sent calls, of the services of these full names; no longer after its end."""
        if self._is_over:
            return
        self._names = ("", *names)
        await self._set(_SERVING)

    async def fails(self) -> None:
        """It is to be sent nothing, and to be replaced."""
        self._is_over = True
        await self._checks.set(LIVENESS, _NOT_SERVING)
        await self._set(_NOT_SERVING)

    async def ends(self) -> None:
        """It is to be sent nothing more."""
        self._is_over = True
        await self._set(_NOT_SERVING)

    async def _set(self, status: int) -> None:
        for name in self._names:
            await self._checks.set(name, status)


@asynccontextmanager
async def told_health(settings: ServingSettings) -> AsyncIterator[Health]:
    """A health that says "not yet", by a port of its own where the settings name one. OSError: the port is taken."""
    told = Health()
    await told.begins()
    if not settings.health_port:
        yield told
        return
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    told.add_to(server)
    bind(server, f"{settings.host}:{settings.health_port}")
    await server.start()
    try:
        yield told
    finally:
        await server.stop(None)


def bind(server: grpc.aio.Server, wanted: str, credentials: grpc.ServerCredentials | None = None) -> int:
    """The port that a server now listens on. OSError: it is taken."""
    try:
        if credentials is None:
            return server.add_insecure_port(wanted)
        return server.add_secure_port(wanted, credentials)
    except RuntimeError as error:
        raise OSError(f"cannot listen on {wanted}: is the port taken?") from error
