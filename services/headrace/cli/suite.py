"""The five services as child processes on one machine, with embedded backends; two more where a lineage is tried.

::

    async with Suite(Path(".headrace")) as suite:   # every service is SERVING here
        async with suite.client() as client:
            ...
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from headrace.cli.client import Client
from headrace.cli.conversation import client_of
from headrace.cli.members import environment_of
from headrace.cli.process import ServiceProcess, stop_left_behind
from headrace.cli.suite_file import (
    CANDIDATE,
    MEMBERS,
    SERVICES,
    ServiceEntry,
    read_entries,
    suite_file,
    write_entries,
)
from headrace.runtime.channels import open_channel
from headrace.runtime.errors import FailedPreconditionError, InvalidRequestError, NotFoundError, UnavailableError
from headrace.runtime.settings import CommonSettings, load
from headrace.runtime.tls import tls_files

__all__ = ["SERVICES", "Change", "Suite"]

_GRACE_S = 15.0
_POLL_S = 0.1
_BACKOFF_S = (0.5, 1.0, 2.0, 4.0, 8.0, 15.0)
# a service that lived this long starts its back-off anew
_STEADY_S = 60.0


@dataclass(frozen=True, slots=True)
class Change:
    """What happened to a service: started, ready, died, restarting, killed, stopped or left-behind."""

    service: str
    what: str
    detail: str = ""


class Suite:
    """Runs services until the context ends; then stops them all (SIGTERM, later SIGKILL).

    `services` may name some of them only. Ports follow `port_base` in the order of MEMBERS, or are free ones.
    With `candidate` there are two more, CANDIDATE: a learner of the lineage `candidate`, whose trainer settings differ
    by these, and a canary ranker. A rollout of that lineage is begun by whoever wants one.
    `environment` is added to what every service gets. With `restart`, a service that dies is started again after
    a growing pause; without, it stays down. Either is reported to `on_change`.

    Entering waits until all are SERVING. UnavailableError: one died or was not ready in `ready_timeout_s`.
    FailedPreconditionError: another suite runs on the same `data_dir`.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        services: Sequence[str] = SERVICES,
        candidate: Mapping[str, str] | None = None,
        port_base: int | None = None,
        host: str = "127.0.0.1",
        environment: Mapping[str, str] | None = None,
        restart: bool = False,
        ready_timeout_s: float = 90.0,
        on_change: Callable[[Change], None] = lambda change: None,
    ) -> None:
        unknown = sorted(set(services) - set(SERVICES))
        if unknown:
            raise InvalidRequestError.of("services", f"must be among {', '.join(SERVICES)}; got {', '.join(unknown)}")
        self.data_dir = data_dir.absolute()
        self.addresses: dict[str, str] = {}
        self._services = tuple(name for name in SERVICES if name in services)
        if candidate is not None:
            self._services += CANDIDATE
        self._candidate = dict(candidate or {})
        self._host, self._port_base = host, port_base
        self._environment = dict(environment or {})
        self._restart = restart
        self._ready_timeout_s = ready_timeout_s
        self._on_change = on_change
        self._processes: dict[str, ServiceProcess] = {}
        self._watches: dict[str, asyncio.Task[None]] = {}
        self._lock: IO[bytes] | None = None

    async def __aenter__(self) -> Suite:
        self.data_dir.mkdir(parents=True, exist_ok=True)
        self._lock = locked(self.data_dir)
        try:
            await self._stop_left_behind()
            self._choose_addresses()
            for service in self._services:
                await self.start(service)
            await self.wait_ready()
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._close()

    def client(self) -> Client:
        """A client of this suite's services."""
        return client_of(self.addresses)

    def log_of(self, service: str) -> Path:
        """The file that holds the service's log."""
        return self.data_dir / "logs" / f"{service}.log"

    def pid(self, service: str) -> int:
        """The process id of a service; 0 when it does not run."""
        return self._process(service).pid

    async def start(self, service: str) -> None:
        """Starts a service that does not run; it is not ready yet (see `wait_ready`)."""
        if service not in self._services:
            raise NotFoundError(f"{service!r} is not part of this suite: {', '.join(self._services)}")
        process = self._processes.get(service)
        if process is not None and process.is_running:
            return
        process = ServiceProcess(service, self._environment_of(service), self.log_of(service))
        self._processes[service] = process
        await process.start()
        self._watches[service] = asyncio.create_task(self._watch(process), name=f"watch {service}")
        self._write_file()
        self._on_change(Change(service, "started", f"pid {process.pid}"))

    async def stop(self, service: str, grace_s: float = _GRACE_S) -> None:
        """Stops a service the way Kubernetes does, for good: SIGTERM, and SIGKILL after `grace_s`."""
        await self._unwatch(service)
        await self._process(service).stop(grace_s)
        self._write_file()
        self._on_change(Change(service, "stopped"))

    async def kill(self, service: str) -> None:
        """SIGKILL. It stays down until `start` or `restart`, whatever the `restart` option says."""
        await self._unwatch(service)
        await self._process(service).kill()
        self._write_file()
        self._on_change(Change(service, "killed"))

    async def restart(self, service: str) -> None:
        """Stops the service if it runs, starts it again and waits until it is ready."""
        await self.stop(service)
        await self.start(service)
        await self.wait_ready([service])

    async def wait_ready(self, services: Sequence[str] = (), timeout_s: float | None = None) -> None:
        """Returns when the services (all, when none is named) are SERVING; UnavailableError when that fails."""
        wanted = services or self._services
        limit = self._ready_timeout_s if timeout_s is None else timeout_s
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._ready_fault(service, limit)) for service in wanted]
        faults = [fault for fault in (task.result() for task in tasks) if fault]
        if faults:
            raise UnavailableError("; ".join(faults))

    def _choose_addresses(self) -> None:
        if self._port_base is None:
            ports = free_ports(len(self._services), self._host)
        else:
            ports = [self._port_base + MEMBERS.index(service) for service in self._services]
        self.addresses = {service: f"{self._host}:{port}" for service, port in zip(self._services, ports, strict=True)}

    def _environment_of(self, service: str) -> dict[str, str]:
        return environment_of(service, self.data_dir, self.addresses, self._environment, self._candidate)

    async def _watch(self, process: ServiceProcess) -> None:
        pauses = iter(_BACKOFF_S)
        while True:
            begun = time.monotonic()
            status = await process.wait()
            self._write_file()
            self._on_change(Change(process.service, "died", f"{_ending(status)}; see {process.log}"))
            if not self._restart:
                return
            if time.monotonic() - begun > _STEADY_S:
                pauses = iter(_BACKOFF_S)
            pause_s = next(pauses, _BACKOFF_S[-1])
            self._on_change(Change(process.service, "restarting", f"in {pause_s:g} s"))
            await asyncio.sleep(pause_s)
            await process.start()
            self._write_file()
            self._on_change(Change(process.service, "started", f"pid {process.pid}"))

    async def _unwatch(self, service: str) -> None:
        watch = self._watches.pop(service, None)
        if watch is not None:
            watch.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watch

    async def _ready_fault(self, service: str, limit_s: float) -> str:
        process, deadline = self._process(service), time.monotonic() + limit_s
        async with open_channel(self.addresses[service], tls=tls_files(load(CommonSettings))) as channel:
            health = health_pb2_grpc.HealthStub(channel)
            while time.monotonic() < deadline:
                if await _is_serving(health):
                    self._on_change(Change(service, "ready", self.addresses[service]))
                    return ""
                if not process.is_running and not self._restart:
                    return f"{service} ended before it was ready; the end of {process.log}:\n{process.log_tail()}"
                await asyncio.sleep(_POLL_S)
        return f"{service} was not ready in {limit_s:g} s; the end of {process.log}:\n{process.log_tail()}"

    def _process(self, service: str) -> ServiceProcess:
        if service not in self._processes:
            raise NotFoundError(f"{service!r} was not started; this suite runs: {', '.join(self._processes)}")
        return self._processes[service]

    def _write_file(self) -> None:
        entries = {
            name: ServiceEntry(self.addresses[name], process.pid, str(process.log))
            for name, process in self._processes.items()
        }
        write_entries(self.data_dir, entries)

    async def _stop_left_behind(self) -> None:
        for service, entry in read_entries(self.data_dir).items():
            if await stop_left_behind(entry.pid, service, _GRACE_S):
                self._on_change(Change(service, "left-behind", f"stopped pid {entry.pid} of an earlier suite"))

    async def _close(self) -> None:
        for service in list(self._watches):
            await self._unwatch(service)
        running = [process for process in self._processes.values() if process.is_running]
        await asyncio.gather(*(process.stop(_GRACE_S) for process in running))
        for process in running:
            self._on_change(Change(process.service, "stopped"))
        if self._lock is not None:
            suite_file(self.data_dir).unlink(missing_ok=True)
            self._lock.close()
            self._lock = None


def locked(data_dir: Path) -> IO[bytes]:
    """Holds a data folder until it is closed. FailedPreconditionError: a suite runs on it."""
    lock = (data_dir / "suite.lock").open("wb")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        lock.close()
        raise FailedPreconditionError(f"a suite runs in {data_dir} already") from error
    return lock


def free_ports(count: int, host: str = "127.0.0.1") -> list[int]:
    """Ports of this machine that nobody listens on, all different."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind((host, 0))
        return [one.getsockname()[1] for one in sockets]


async def _is_serving(health: health_pb2_grpc.HealthStub) -> bool:
    try:
        answer = await health.Check(health_pb2.HealthCheckRequest(), timeout=1.0)
    except grpc.aio.AioRpcError:
        return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def _ending(status: int) -> str:
    return f"killed by signal {-status}" if status < 0 else f"exit status {status}"
