"""Rollouts as objects of a cluster, over HTTP as its API speaks it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx2
import pytest
from lightkube import AsyncClient
from lightkube.config.kubeconfig import SingleConfig
from lightkube.config.models import Cluster as ClusterConfig
from lightkube.config.models import Context, User

from headrace.trainer.rollouts.mirror import Mirror
from headrace.v1.trainer_pb2 import Rollout, RolloutKind, RolloutPhase, RolloutTransition


@dataclass
class Cluster:
    """As much of the API as is used: apply to an object, apply to its status, create an event once."""

    url: str = ""
    is_away: bool = False
    objects: dict[str, dict[str, Any]] = field(default_factory=dict)
    events: dict[str, dict[str, Any]] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                verb, target, _ = line.decode().split()
                body = json.loads(await reader.readexactly(await _length(reader)) or b"{}")
                code, answer = self._answer(verb, target.split("?")[0], target, body)
                data = json.dumps(answer).encode()
                head = f"HTTP/1.1 {code} x\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
                writer.write(head.encode() + data)
                await writer.drain()
        except ConnectionResetError:
            pass
        finally:
            writer.close()

    def _answer(self, verb: str, path: str, target: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        self.calls.append(f"{verb} {target}")
        if self.is_away:
            return 503, _status(503, "the server is currently unable to handle the request")
        parts = path.split("/")
        if verb == "PATCH" and "modelrollouts" in parts:
            name = parts[parts.index("modelrollouts") + 1]
            if parts[-1] == "status" and name not in self.objects:
                return 404, _status(404, "not found")
            known = self.objects.setdefault(name, {"metadata": body["metadata"]})
            known |= {"status": body["status"]} if parts[-1] == "status" else {"spec": body["spec"]}
            return 200, body
        if verb == "POST" and parts[-1] == "events":
            name = body["metadata"]["name"]
            if name in self.events:
                return 409, _status(409, "already exists")
            self.events[name] = body
            return 201, body
        return 405, _status(405, f"{verb} {path}")


def _status(code: int, message: str) -> dict[str, Any]:
    return {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "message": message}


async def _length(reader: asyncio.StreamReader) -> int:
    length = 0
    while (line := await reader.readline()) not in (b"\r\n", b""):
        name, _, value = line.decode().partition(":")
        length = int(value) if name.lower() == "content-length" else length
    return length


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    cluster = Cluster()
    server = await asyncio.start_server(cluster.serve, "127.0.0.1", 0)
    cluster.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    yield cluster
    server.close()


class Registry:
    """What the mirror is told."""

    def __init__(self) -> None:
        self.rollout = Rollout(
            rollout="ro-000007",
            kind=RolloutKind.ROLLOUT_KIND_LINEAGE,
            phase=RolloutPhase.ROLLOUT_PHASE_CANARY,
            release="r-000042",
            baseline="r-000040",
            lineage="wide",
            share_bp=1_000,
            steps_bp=[100, 1_000, 5_000],
            reason="waits for more people",
            version=3,
        )
        self.rollout.comparisons.add(metric="clicks_per_user", difference=-0.05, lower=-0.12, upper=0.02)
        self.transitions = [self.transition(11, RolloutPhase.ROLLOUT_PHASE_CANARY, "gate 1 found no harm")]

    def transition(self, number: int, to_phase: RolloutPhase.ValueType, reason: str) -> RolloutTransition:
        made = RolloutTransition(
            number=number, rollout="ro-000007", from_phase=4, to_phase=to_phase, actor="controller", reason=reason
        )
        made.time.FromMicroseconds(1_764_000_000_123_456)
        return made

    async def told(self) -> Sequence[tuple[Rollout, Sequence[RolloutTransition]]]:
        return [(self.rollout, self.transitions)]


async def until(holds: Callable[[], bool]) -> None:
    while not holds():  # noqa: ASYNC110  # what is waited for happens elsewhere
        await asyncio.sleep(0.01)


def client_of(url: str) -> AsyncClient:
    config = SingleConfig("test", Context(cluster="test", user="test"), ClusterConfig(server=url), User())
    return AsyncClient(config, namespace="shop", timeout=httpx2.Timeout(1.0), trust_env=False)


def mirror_of(cluster: Cluster, registry: Registry) -> Mirror:
    return Mirror(client_of(cluster.url), "shop", registry.told, every_s=0.01)


async def test_a_rollout_is_an_object_with_its_status(cluster: Cluster) -> None:
    registry = Registry()

    await mirror_of(cluster, registry).show(await registry.told())

    shown = cluster.objects["ro-000007"]
    assert shown["spec"] == {
        "rollout": "ro-000007",
        "release": "r-000042",
        "baseline": "r-000040",
        "lineage": "wide",
        "kind": "canary",
    }
    status = shown["status"]
    assert (status["phase"], status["share"], status["step"]) == ("Canary", "10%", 2)
    assert status["comparisons"][0]["difference"] == -0.05


async def test_conditions_can_be_waited_for(cluster: Cluster) -> None:
    registry = Registry()
    registry.rollout.phase = RolloutPhase.ROLLOUT_PHASE_ROLLED_BACK

    await mirror_of(cluster, registry).show(await registry.told())

    conditions = {one["type"]: one["status"] for one in cluster.objects["ro-000007"]["status"]["conditions"]}
    assert conditions == {"Progressing": "False", "Paused": "False", "Promoted": "False", "RolledBack": "True"}


async def test_a_transition_is_one_event_also_after_a_restart(cluster: Cluster) -> None:
    registry = Registry()
    registry.transitions.append(registry.transition(12, RolloutPhase.ROLLOUT_PHASE_ROLLING_BACK, "clicks fell"))
    for _ in range(2):
        await mirror_of(cluster, registry).show(await registry.told())

    assert list(cluster.events) == ["ro-000007.11", "ro-000007.12"]
    event = cluster.events["ro-000007.12"]
    assert (event["type"], event["reason"], event["note"]) == ("Warning", "RollingBack", "clicks fell")
    assert event["regarding"]["name"] == "ro-000007"
    assert event["eventTime"] == "2025-11-24T16:00:00.123456Z"


async def test_nothing_is_written_while_nothing_changes(cluster: Cluster) -> None:
    registry = Registry()
    mirror = mirror_of(cluster, registry)
    await mirror.show(await registry.told())
    before = len(cluster.calls)

    await mirror.show(await registry.told())

    assert len(cluster.calls) == before


async def test_a_cluster_that_was_away_is_brought_up_to_date(cluster: Cluster) -> None:
    registry = Registry()
    cluster.is_away = True
    running = asyncio.create_task(mirror_of(cluster, registry).run())
    async with asyncio.timeout(10):
        await until(lambda: len(cluster.calls) >= 3)
        assert cluster.objects == {}
        cluster.is_away = False
        await until(lambda: "ro-000007.11" in cluster.events)
    running.cancel()


async def test_a_cluster_that_cannot_be_reached_does_not_end_the_mirror(cluster: Cluster) -> None:
    registry = Registry()
    client = client_of("http://127.0.0.1:1")
    running = asyncio.create_task(Mirror(client, "shop", registry.told, every_s=0.01).run())
    await asyncio.sleep(0.1)

    assert not running.done()
    running.cancel()
