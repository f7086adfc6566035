"""Rendered manifests run as processes on this machine: their commands, variables, volumes, probes and preStop hooks.

What a node would do is done here: Secrets filled in, names of Services and pods resolved (to ports of this machine),
volumes made (folders), probes asked with their periods and thresholds, pods ended by preStop, SIGTERM and, after the
grace period, SIGKILL.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from deploy.check.addresses import calls
from deploy.check.disruption import pre_stop_command
from deploy.check.manifests import Manifests, Workload, environment_of, servers, workloads

_SERVING = health_pb2.HealthCheckResponse.SERVING
Secrets = Mapping[str, Mapping[str, str]]


class PodError(Exception):
    """A pod did what a node would have replaced it for."""


@dataclass(frozen=True)
class Ports:
    """Where a pod listens on this machine."""

    grpc: int
    health: int


@dataclass
class Pod:
    """One process, as a node would run it."""

    workload: Workload
    ports: Ports
    environment: dict[str, str]
    folder: Path
    is_ready: bool = False
    is_terminating: bool = False
    process: asyncio.subprocess.Process | None = None
    probes: list[asyncio.Task[None]] = field(default_factory=list)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.ports.grpc}"

    @property
    def log(self) -> Path:
        return self.folder / "log"

    @property
    def working_folder(self) -> Path:
        """Stands for the read-only root: nothing may be written there."""
        return self.folder / "root"

    async def start(self) -> None:
        self.working_folder.mkdir(parents=True)
        with self.log.open("wb") as log:
            self.process = await asyncio.create_subprocess_exec(
                *self.workload.main["command"],
                env=self.environment,
                cwd=self.working_folder,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    async def watch(self) -> None:
        """Asks the probes: startup first, then readiness and liveness until the pod is to end. PodError."""
        async with grpc.aio.insecure_channel(f"127.0.0.1:{self.ports.health}") as channel:
            health = health_pb2_grpc.HealthStub(channel)
            await self._until_started(health)
            async with asyncio.TaskGroup() as both:
                both.create_task(self._readiness(health))
                both.create_task(self._liveness(health))

    async def _until_started(self, health: Any) -> None:
        probe, failures = self.workload.main["startupProbe"], 0
        while not await _passes(health, probe):
            failures += 1
            if failures >= probe["failureThreshold"] or self._has_ended:
                raise PodError(f"{self.workload.label} did not start; the end of its log:\n{self.log_tail()}")
            await asyncio.sleep(probe["periodSeconds"])

    async def _readiness(self, health: Any) -> None:
        probe, failures = self.workload.main["readinessProbe"], 0
        while not self._has_ended:
            passes = await _passes(health, probe)
            failures = 0 if passes else failures + 1
            self.is_ready = passes or (self.is_ready and failures < probe["failureThreshold"])
            await asyncio.sleep(probe["periodSeconds"])

    async def _liveness(self, health: Any) -> None:
        # a node asks no longer once the pod is to end
        probe, failures = self.workload.main["livenessProbe"], 0
        while not self.is_terminating:
            failures = 0 if await _passes(health, probe) else failures + 1
            if failures >= probe["failureThreshold"]:
                raise PodError(f"{self.workload.label} is not alive; the end of its log:\n{self.log_tail()}")
            await asyncio.sleep(probe["periodSeconds"])

    async def end(self) -> float:
        """preStop, SIGTERM, and the seconds of the grace period that were left at exit 0. PodError."""
        assert self.process is not None, "start() comes first"
        self.is_terminating = True
        grace_s, begun = float(self.workload.pod["terminationGracePeriodSeconds"]), time.monotonic()
        hook = await asyncio.create_subprocess_exec(*pre_stop_command(self.workload), env=self.environment)
        assert await hook.wait() == 0
        self.process.send_signal(signal.SIGTERM)
        try:
            status = await asyncio.wait_for(self.process.wait(), grace_s - (time.monotonic() - begun))
        except TimeoutError as error:
            raise PodError(f"{self.workload.label} outlived its grace period of {grace_s:g} s") from error
        if status:
            raise PodError(f"{self.workload.label} ended with {status}; the end of its log:\n{self.log_tail()}")
        return grace_s - (time.monotonic() - begun)

    async def kill(self) -> None:
        for probe in self.probes:
            probe.cancel()
        await asyncio.gather(*self.probes, return_exceptions=True)
        if self.process is not None and not self._has_ended:
            self.process.kill()
            await self.process.wait()

    def log_tail(self) -> str:
        return self.log.read_text(errors="replace")[-3_000:]

    @property
    def _has_ended(self) -> bool:
        return self.process is not None and self.process.returncode is not None


class MiniCluster:
    """One pod of every server, and the Jobs before them."""

    def __init__(self, manifests: Manifests, secrets: Secrets, folder: Path) -> None:
        self._manifests, self._secrets, self._folder = manifests, secrets, folder
        started = servers(manifests)
        self._ports = dict(zip((server.label for server in started), free_ports(len(started)), strict=True))
        self.pods = {server.name: self._pod(server) for server in started}

    async def __aenter__(self) -> MiniCluster:
        try:
            for job in (owner for owner in workloads(self._manifests) if owner.kind == "Job"):
                await self._run(job)
            for pod in self.pods.values():
                await pod.start()
                pod.probes.append(asyncio.create_task(pod.watch()))
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._close()

    async def wait_ready(self, timeout_s: float = 90.0) -> None:
        """Returns when every pod is ready. PodError: a probe failed for good, or the time is over."""
        until = time.monotonic() + timeout_s
        while not all(pod.is_ready for pod in self.pods.values()):
            self.raise_failed()
            if time.monotonic() > until:
                waiting = [pod for pod in self.pods.values() if not pod.is_ready]
                raise PodError("\n".join(f"{pod.workload.label} is not ready:\n{pod.log_tail()}" for pod in waiting))
            await asyncio.sleep(0.05)

    def raise_failed(self) -> None:
        """PodError of a pod that a node would have replaced."""
        for pod in self.pods.values():
            for probe in pod.probes:
                if probe.done() and (error := probe.exception()) is not None:
                    raise error

    async def _run(self, job: Workload) -> None:
        pod = Pod(job, Ports(0, 0), self._environment(job), self._folder / job.name)
        await pod.start()
        assert pod.process is not None
        if await pod.process.wait():
            raise PodError(f"{job.label} failed:\n{pod.log_tail()}")

    def _pod(self, server: Workload) -> Pod:
        return Pod(server, self._ports[server.label], self._environment(server), self._folder / server.name)

    def _environment(self, owner: Workload) -> dict[str, str]:
        given = environment_of(owner, self._manifests, self._secrets)
        told = {name: self._moved(owner, value) for name, value in given.items()}
        told |= self._addresses(owner)
        if owner.label in self._ports:
            prefix = f"HEADRACE_{owner.service.upper().replace('-', '_')}"
            ports = self._ports[owner.label]
            own = {"HOST": "127.0.0.1", "PORT": str(ports.grpc), "HEALTH_PORT": str(ports.health)}
            told |= {f"{prefix}_{name}": value for name, value in own.items()}
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        # and where the tree that is tested is
        return {"PATH": path, "HOME": self._moved(owner, "/tmp"), "PYTHONPATH": os.pathsep.join(sys.path), **told}

    def _moved(self, owner: Workload, value: str) -> str:
        """A path on a volume, as a path in this test's folder. A claim that several pods mount is one folder."""
        for mount in owner.main.get("volumeMounts", []):
            if value == mount["mountPath"] or value.startswith(mount["mountPath"] + "/"):
                claims = [one["name"] for one in owner.pod["volumes"] if "persistentVolumeClaim" in one]
                place = "claims" if mount["name"] in claims else owner.name
                folder = self._folder / place / mount["name"]
                folder.mkdir(parents=True, exist_ok=True)
                return str(folder) + value.removeprefix(mount["mountPath"])
        return value

    def _addresses(self, owner: Workload) -> dict[str, str]:
        found: dict[str, str] = environment_of(owner, self._manifests, self._secrets)
        moved: dict[str, str] = {}
        for call in calls(self._manifests):
            if call.caller == owner.label:
                here = f"127.0.0.1:{self._ports[call.callee].grpc}"
                before = moved.get(call.variable, found[call.variable])
                moved[call.variable] = before.replace(f"{call.host}:{call.port}", here)
        return moved

    async def _close(self) -> None:
        await asyncio.gather(*(pod.kill() for pod in self.pods.values()))


async def _passes(health: Any, probe: Mapping[str, Any]) -> bool:
    request = health_pb2.HealthCheckRequest(service=probe["grpc"].get("service", ""))
    try:
        answer = await health.Check(request, timeout=probe.get("timeoutSeconds", 1))
    except grpc.aio.AioRpcError:
        return False
    return bool(answer.status == _SERVING)


def free_ports(count: int) -> Sequence[Ports]:
    """Ports of this machine that nobody listens on, for so many pods; below those that connections are given."""
    with ExitStack() as stack:
        numbers = [_bound(stack) for _ in range(2 * count)]
    return [Ports(numbers[2 * place], numbers[2 * place + 1]) for place in range(count)]


def _bound(stack: ExitStack) -> int:
    while True:
        one, port = stack.enter_context(socket.socket()), random.SystemRandom().randrange(10_000, 32_000)
        with suppress(OSError):
            one.bind(("127.0.0.1", port))
            return port
