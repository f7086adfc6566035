"""The suite as production has it: a process for each role, mutual TLS, tenants at its doors, and signed releases."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from headrace.cli.process import ServiceProcess
from headrace.runtime.release_signing import new_pair
from headrace.runtime.settings import env_prefix
from headrace.runtime.tenants import entry_of, new_api_key
from headrace.runtime.tls import TlsFiles
from tests.deploy.mini_cluster import Ports, free_ports
from tests.security.authority import Authority

# name of the process → its service, which is who its certificate says it is
SERVICE_OF = {
    "registry": "trainer",
    "learner": "trainer",
    "feature-store": "feature-store",
    "index": "index",
    "ingest": "ingest",
    "ranker": "ranker",
    "canary": "ranker",
}
_SCOPES = {
    "shop": ("read", "write"),
    "reader": ("read",),
    "operations": ("read", "write", "people:write", "letters:write", "rollout:write"),
}
_READY_S = 90.0


class SecuredSuite:
    """All processes while open. `keys` are tenants' API keys by tenant."""

    def __init__(self, folder: Path, postgres_url: str) -> None:
        self.folder = folder
        self.registry_url = postgres_url.replace("postgresql://", "postgresql+psycopg://")
        self.artifacts = folder / "artifacts"
        self.authority = Authority()
        self.keys = {tenant: new_api_key() for tenant in _SCOPES}
        self._postgres_url = postgres_url
        ports = free_ports(len(SERVICE_OF))
        self._ports = dict(zip(SERVICE_OF, ports, strict=True))
        self._processes = {name: self._process(name) for name in SERVICE_OF}

    def address(self, name: str) -> str:
        return f"127.0.0.1:{self._ports[name].grpc}"

    def certificate(self, caller: str) -> TlsFiles:
        """The files of somebody whom the suite's authority vouches for; new ones at every call."""
        return self.authority.write(self.folder / f"tls-{caller}", self.authority.pair(SERVICE_OF.get(caller, caller)))

    def command_environment(self, tenant: str) -> dict[str, str]:
        """What the `headrace` command is told by an operator who has a tenant's key."""
        return _tls(self.certificate("operator")) | {"HEADRACE_CLI_API_KEY": self.keys[tenant]}

    def log_tail(self, name: str) -> str:
        return self._processes[name].log_tail(20)

    async def __aenter__(self) -> SecuredSuite:
        private, public = new_pair()
        (self.folder / "signing.pem").write_bytes(private)
        (self.folder / "verify.pem").write_bytes(public)
        (self.folder / "auth.toml").write_text(self._tenants())
        try:
            for name, process in self._processes.items():
                self.certificate(name)
                await process.start()
            await asyncio.gather(*map(self._until_ready, self._processes))
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stop()

    async def _stop(self) -> None:
        await asyncio.gather(*(process.stop(15) for process in self._processes.values()))

    def _tenants(self) -> str:
        return "".join(
            f"[tenants.{tenant}]\nscopes = {list(scopes)}\n{entry_of(tenant, 'key-1', self.keys[tenant])}"
            for tenant, scopes in _SCOPES.items()
        )

    def _process(self, name: str) -> ServiceProcess:
        service = SERVICE_OF[name]
        given = self._listening(service, self._ports[name]) | self._own(name)
        own = {env_prefix(service) + variable: value for variable, value in given.items()}
        kept = {variable: value for variable, value in os.environ.items() if not variable.startswith("HEADRACE_")}
        return ServiceProcess(service, kept | self._common(name) | own, self.folder / f"{name}.log")

    def _common(self, name: str) -> dict[str, str]:
        folder = self.folder / f"tls-{name}"
        keys = {"HEADRACE_RELEASE_VERIFY_KEY_FILE": str(self.folder / "verify.pem")}
        if name == "learner":
            # nobody else has it
            keys = {"HEADRACE_RELEASE_SIGNING_KEY_FILE": str(self.folder / "signing.pem")}
        return {
            "HEADRACE_DATA_DIR": str(self.folder / name),
            "HEADRACE_EVENT_LOG_URL": self._postgres_url,
            "HEADRACE_PRIVACY_KEY": "a key that all processes share",
            **keys,
            **_tls(TlsFiles(folder / "tls.crt", folder / "tls.key", folder / "ca.crt")),
        }

    def _listening(self, service: str, ports: Ports) -> dict[str, str]:
        has_tenants = service in ("ingest", "ranker", "trainer")
        auth = {"AUTH_FILE": str(self.folder / "auth.toml")} if has_tenants else {}
        return {"PORT": str(ports.grpc), "HEALTH_PORT": str(ports.health), "DRAIN_S": "1", **auth}

    def _own(self, name: str) -> Mapping[str, str]:
        peers = {f"{peer.upper().replace('-', '_')}_ADDRESS": self.address(peer) for peer in ("feature-store", "index")}
        trainer = peers | {"REGISTRY_URL": self.registry_url, "ARTIFACTS_URL": str(self.artifacts)}
        ranker = peers | {"TRAINER_ADDRESS": self.address("registry"), "EXPLORE_SHARE": "0", "REPORT_EVERY_S": "0.2"}
        return {
            "ingest": {"DATABASE_URL": self.registry_url},
            # one release is enough for what is shown here
            "learner": trainer | {"ROLE": "learn", "PUBLISH_EVERY_S": "600", "LEAST_SKEW": "0"},
            "registry": trainer | {"ROLE": "registry"},
            "ranker": ranker | {"CANARY_ADDRESS": self.address("canary"), "CANARY_BUDGET_S": "2"},
            "canary": ranker | {"TRACK": "canary"},
        }.get(name, {})

    async def _until_ready(self, name: str) -> None:
        process = self._processes[name]
        async with asyncio.timeout(_READY_S), grpc.aio.insecure_channel(_probe(self._ports[name])) as channel:
            health = health_pb2_grpc.HealthStub(channel)
            while not await _is_serving(health):
                assert process.is_running, f"{name} ended:\n{process.log_tail(20)}"
                await asyncio.sleep(0.05)


def _tls(files: TlsFiles) -> dict[str, str]:
    return {
        "HEADRACE_TLS_CERT": str(files.cert),
        "HEADRACE_TLS_KEY": str(files.key),
        "HEADRACE_TLS_CA": str(files.ca),
    }


def _probe(ports: Ports) -> str:
    return f"127.0.0.1:{ports.health}"


async def _is_serving(health: health_pb2_grpc.HealthStub) -> bool:
    try:
        answer = await health.Check(health_pb2.HealthCheckRequest(), timeout=1)
    except grpc.aio.AioRpcError:
        return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)
