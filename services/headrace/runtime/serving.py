"""Starts and stops a gRPC server the same way in production and in tests.

On SIGTERM: health says NOT_SERVING, watches end, new calls are sent elsewhere (GOAWAY), calls in flight get
`drain_s`, the parts are closed, exit status 0.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import uvloop
from grpc_health.v1 import health
from grpc_reflection.v1alpha import reflection

from headrace.runtime.connection_limits import connection_limits
from headrace.runtime.door import Door, Gate
from headrace.runtime.entrance import OPEN, Security, security_of
from headrace.runtime.errors import HeadraceError
from headrace.runtime.garbage import keep_small
from headrace.runtime.health import Health, bind, told_health
from headrace.runtime.logs import configure_logs
from headrace.runtime.saturation import Queues, watch_saturation
from headrace.runtime.settings import CommonSettings, ServingSettings, SettingsError
from headrace.runtime.telemetry import telemetry
from headrace.runtime.tls import Certificates, server_credentials

log = logging.getLogger(__name__)

_SWITCH_INTERVAL_S = 0.0005


@dataclass(frozen=True)
class Face:
    """One gRPC service: its full name, and how it is added to a server."""

    name: str
    add: Callable[[grpc.aio.Server], None]


class Background:
    """Tasks that live as long as the service; the first to die takes readiness with it."""

    def __init__(self) -> None:
        self._tasks: list[asyncio.Task[None]] = []
        self.failed = asyncio.Event()

    def start(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        task.add_done_callback(self._notice)
        self._tasks.append(task)

    def _notice(self, task: asyncio.Task[None]) -> None:
        if task.cancelled():
            return
        error = task.exception()
        if error is not None:
            log.error("background_task_died", extra={"task": task.get_name()}, exc_info=error)
            self.failed.set()

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@dataclass(frozen=True)
class Parts:
    """What a composition root hands over: faces to serve, the tasks behind them, and who is refused at the door.

    Health says SERVING when `ready` has ended; it answers calls before that.
    """

    faces: Sequence[Face]
    background: Background
    gate: Gate | None = None
    # what waits inside the service, by name
    queues: Queues = field(default_factory=dict)
    ready: Callable[[], Awaitable[None]] | None = None


@dataclass(frozen=True)
class RunningServer:
    """A server that listens."""

    port: int
    address: str
    failed: asyncio.Event


@asynccontextmanager
async def running(
    parts: Parts, settings: ServingSettings, health_told: Health | None = None, security: Security = OPEN
) -> AsyncIterator[RunningServer]:
    """Serves `parts` while open: health (SERVING once it listens), reflection, drain at the end.

    Raises OSError when the port is taken.
    """
    checks = health_told or Health()
    await checks.begins()
    door = Door(parts.gate, security.entrance)
    server = grpc.aio.server(interceptors=[door], options=_options(settings))
    checks.add_to(server)
    for face in parts.faces:
        face.add(server)
    names = [face.name for face in parts.faces]
    reflection.enable_server_reflection([*names, health.SERVICE_NAME, reflection.SERVICE_NAME], server)
    credentials = server_credentials(Certificates(security.tls)) if security.tls else None
    port = bind(server, f"{settings.host}:{settings.port}", credentials)
    await server.start()
    if parts.ready is None:
        await checks.serves(names)
    else:
        parts.background.start(_serves(checks, names, parts.ready), "become ready")
    watch = asyncio.create_task(_fail_health(checks, parts.background))
    try:
        yield RunningServer(port, f"{settings.host}:{port}", parts.background.failed)
    finally:
        watch.cancel()
        await checks.ends()
        door.end_streams()
        await server.stop(settings.drain_s)
        await parts.background.stop()


def _options(settings: ServingSettings) -> list[tuple[str, int]]:
    options = [
        ("grpc.max_receive_message_length", settings.max_message_bytes),
        ("grpc.max_send_message_length", settings.max_message_bytes),
        ("grpc.so_reuseport", 0),
        *connection_limits(settings),
        # callers ping every 20 s (channels.py); by default three pings within 5 minutes without data are answered
        # by GOAWAY too_many_pings, which ends the call that they were to watch over
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ]
    if settings.max_connection_age_s:
        # calls in flight may take as long as they like: new ones go over a new connection
        options.append(("grpc.max_connection_age_ms", round(settings.max_connection_age_s * 1e3)))
    return options


async def _serves(checks: Health, names: Sequence[str], ready: Callable[[], Awaitable[None]]) -> None:
    await ready()
    await checks.serves(names)


async def _fail_health(checks: Health, background: Background) -> None:
    await background.failed.wait()
    await checks.fails()


def told(service: str, run: Callable[[], int]) -> int:
    """What `run` answers; 2 and one line on standard error when the service cannot be started as it is told to."""
    try:
        return run()
    except (SettingsError, HeadraceError) as error:
        sys.stderr.write(f"{service}: {error}\n")
        return 2


def run_service(
    name: str,
    compose: Callable[[], AbstractAsyncContextManager[Parts]],
    settings: ServingSettings,
    common: CommonSettings,
) -> int:
    """Runs a service until SIGTERM or SIGINT (0), or until one of its tasks dies (1)."""
    configure_logs(name, common.log_level)
    security = security_of(name, settings, common)
    # the loop waits at most so long for the interpreter lock while another thread computes; the default is 5 ms
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    with telemetry(name, common):
        return uvloop.run(_serve(compose, settings, security))


async def _serve(
    compose: Callable[[], AbstractAsyncContextManager[Parts]], settings: ServingSettings, security: Security
) -> int:
    stop = _stop_signal()
    async with (
        told_health(settings) as checks,
        compose() as parts,
        running(parts, settings, checks, security) as server,
    ):
        parts.background.start(keep_small(), "garbage")
        parts.background.start(watch_saturation(parts.queues), "saturation")
        log.info("serving", extra={"address": server.address})
        died = await _first(stop.wait(), server.failed.wait()) == 1
        log.info("stopping", extra={"because": "a task died" if died else "asked to"})
    return 1 if died else 0


def _stop_signal() -> asyncio.Event:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return stop


async def _first(*waits: Awaitable[object]) -> int:
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    first = next(number for number, task in enumerate(tasks) if task.done())
    for task in tasks:
        task.cancel()
    return first
