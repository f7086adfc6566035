"""The whole chain as processes, with roles and tracks of their own, over one PostgreSQL: as it runs in a cluster."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from headrace.cli.client import Client
from headrace.cli.process import ServiceProcess
from headrace.runtime.channels import open_channel
from headrace.runtime.settings import env_prefix
from headrace.v1.ranker_pb2 import GetRankerStatusRequest, GetRankerStatusResponse
from headrace.v1.trainer_pb2 import (
    GetRolloutHistoryRequest,
    GetRolloutRequest,
    ListRolloutsRequest,
    Rollout,
    RolloutPhase,
    RolloutTransition,
)
from tests.deploy.mini_cluster import free_ports

PRIVACY_KEY = "sixteen or more characters"
INGEST, FEATURE_STORE, INDEX, REGISTRY = "ingest", "feature-store", "index", "registry"
LEARNER, WIDE, RANKER, CANARY = "learner", "learner-wide", "ranker", "ranker-canary"
# what a shop runs before a second lineage is tried
USUAL = (INGEST, FEATURE_STORE, INDEX, REGISTRY, LEARNER, RANKER)
_SERVICES = {REGISTRY: "trainer", LEARNER: "trainer", WIDE: "trainer", CANARY: "ranker"}
_START_S = 90.0
OVER = ("PROMOTED", "ROLLED_BACK", "SUPERSEDED", "INCONCLUSIVE")


@dataclass(frozen=True)
class Stores:
    """What processes share beside their calls."""

    event_log: str
    registry: str
    artifacts: Path


class Chain:
    """Processes by name, each with a folder of its own. Leaving the context ends those that run."""

    def __init__(self, folder: Path, stores: Stores, settings: Mapping[str, Mapping[str, str]]) -> None:
        self.stores = stores
        self._folder = folder
        self._settings = settings
        self._processes: dict[str, ServiceProcess] = {}
        names = (*USUAL, WIDE, CANARY)
        ports = free_ports(len(names))
        self.addresses = {name: f"127.0.0.1:{port.grpc}" for name, port in zip(names, ports, strict=True)}
        self.client = Client({**self.addresses, "trainer": self.addresses[REGISTRY]})
        self.canary_client = Client({"ranker": self.addresses[CANARY]})

    async def __aenter__(self) -> Chain:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.client.__aexit__(kind, error, trace)
        await self.canary_client.__aexit__(kind, error, trace)
        await self.kill(*self._processes)

    async def start(self, *names: str) -> None:
        """Starts processes side by side and returns when all serve."""
        for name in names:
            service = _SERVICES.get(name, name)
            self._processes[name] = ServiceProcess(service, self._environment(name, service), self.log_of(name))
            await self._processes[name].start()
        await asyncio.gather(*(self._serves(name) for name in names))

    async def stop(self, *names: str) -> None:
        await asyncio.gather(*(self._processes[name].stop(20.0) for name in names))

    async def kill(self, *names: str) -> None:
        """SIGKILL to all of them at once."""
        await asyncio.gather(*(self._processes[name].kill() for name in names))

    @property
    def running(self) -> Sequence[str]:
        return [name for name, process in self._processes.items() if process.is_running]

    def log_of(self, name: str) -> Path:
        return self._folder / "logs" / f"{name}.log"

    async def cli(self, *arguments: str) -> float:
        """Runs `headrace` beside the chain; the moment at which it was started."""
        begun = time.monotonic()
        given = [f"--address=trainer={self.addresses[REGISTRY]}"]
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "headrace.cli.main",
            *arguments,
            *given,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        said, _ = await process.communicate()
        assert process.returncode == 0, said.decode()
        return begun

    async def status(self) -> GetRankerStatusResponse:
        return await self.client.ranker.GetRankerStatus(GetRankerStatusRequest(), timeout=5)

    async def serves(self, release: str) -> bool:
        """Whether the ranker that people ask answers by a release."""
        return (await self.status()).release == release

    async def rollouts(self) -> list[Rollout]:
        """Newest first, increments too."""
        request = ListRolloutsRequest(page_size=1_000, with_increments=True)
        return list((await self.client.trainer.ListRollouts(request, timeout=10)).rollouts)

    async def rollout_of(self, release: str) -> Rollout | None:
        return next((each for each in await self.rollouts() if each.release == release), None)

    async def rollout(self, name: str) -> Rollout:
        return (await self.client.trainer.GetRollout(GetRolloutRequest(rollout=name), timeout=10)).found

    async def is_promoted(self, release: str) -> bool:
        """Whether a rollout of the release came to its good end."""
        found = await self.rollout_of(release)
        return found is not None and phase(found) == "PROMOTED"

    async def is_over(self, rollout: str) -> bool:
        return phase(await self.rollout(rollout)) in OVER

    async def is_quiet(self) -> bool:
        """Whether no rollout runs."""
        return all(phase(each) in OVER for each in await self.rollouts())

    async def history(self, rollout: str) -> list[RolloutTransition]:
        request = GetRolloutHistoryRequest(rollout=rollout, page_size=1_000)
        return list((await self.client.trainer.GetRolloutHistory(request, timeout=10)).transitions)

    def _environment(self, name: str, service: str) -> dict[str, str]:
        prefix = env_prefix(service)
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("HEADRACE_")}
        given = {
            "HEADRACE_DATA_DIR": str(self._folder / name),
            "HEADRACE_EVENT_LOG_URL": self.stores.event_log,
            "HEADRACE_PRIVACY_KEY": PRIVACY_KEY,
            "PYTHONPATH": os.pathsep.join(sys.path),
            f"{prefix}PORT": self.addresses[name].rsplit(":", 1)[1],
        }
        return {**inherited, **given, **self._peers(name, service), **self._settings.get(name, {})}

    def _peers(self, name: str, service: str) -> dict[str, str]:
        index, features = self.addresses[INDEX], self.addresses[FEATURE_STORE]
        if service == "trainer":
            lineage = "wide" if name == WIDE else "main"
            return {
                "HEADRACE_TRAINER_ROLE": "registry" if name == REGISTRY else "learn",
                "HEADRACE_TRAINER_LINEAGE": lineage,
                "HEADRACE_TRAINER_REGISTRY_URL": self.stores.registry,
                "HEADRACE_TRAINER_ARTIFACTS_URL": str(self.stores.artifacts),
                "HEADRACE_TRAINER_INDEX_ADDRESS": index,
                "HEADRACE_TRAINER_FEATURE_STORE_ADDRESS": features,
            }
        if service == "ranker":
            return {
                "HEADRACE_RANKER_TRACK": "canary" if name == CANARY else "stable",
                "HEADRACE_RANKER_CANARY_ADDRESS": "" if name == CANARY else self.addresses[CANARY],
                "HEADRACE_RANKER_TRAINER_ADDRESS": self.addresses[REGISTRY],
                "HEADRACE_RANKER_INDEX_ADDRESS": index,
                "HEADRACE_RANKER_FEATURE_STORE_ADDRESS": features,
            }
        return {}

    async def _serves(self, name: str) -> None:
        process, until = self._processes[name], time.monotonic() + _START_S
        async with open_channel(self.addresses[name]) as channel:
            health = health_pb2_grpc.HealthStub(channel)
            while not await _is_serving(health):
                is_expected = process.is_running and time.monotonic() < until
                assert is_expected, f"{name} does not serve:\n{process.log_tail(30)}"
                await asyncio.sleep(0.05)


async def _is_serving(health: health_pb2_grpc.HealthStub) -> bool:
    try:
        answer = await health.Check(health_pb2.HealthCheckRequest(), timeout=1.0)
    except grpc.aio.AioRpcError:
        return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


async def until(condition: Callable[[], Awaitable[object]], timeout_s: float = 40.0) -> None:
    """Waits until an async condition holds; fails with its last answer when it never does."""
    end = time.monotonic() + timeout_s
    while not (answer := await condition()):
        assert time.monotonic() < end, f"still {answer!r} after {timeout_s:g} s"
        await asyncio.sleep(0.05)


def phase(rollout: Rollout) -> str:
    return said(rollout.phase)


def said(number: RolloutPhase.ValueType) -> str:
    """The name of a phase."""
    return RolloutPhase.Name(number).removeprefix("ROLLOUT_PHASE_")
