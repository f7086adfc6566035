"""Poisoned releases never serve, and nobody notices a swap."""

from __future__ import annotations

import asyncio
import os
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import grpc
import pytest
from safetensors.torch import load, save

from headrace.model.candidates import CANDIDATE_FEATURES
from headrace.model.ranker_network import RankerNetwork, RankerShape
from headrace.model.towers import Towers, TowerShape
from headrace.runtime.release_signing import ReleaseSigner, Statement, new_pair
from headrace.v1 import ranker_pb2, ranker_pb2_grpc, trainer_pb2

# parts, and fields of the manifest
Poison = tuple[dict[str, bytes], dict[str, object]]


@dataclass
class RankerProcess:
    """The process's client beside the peers that it was given."""

    stub: ranker_pb2_grpc.RankerServiceAsyncStub
    pid: int

    async def recommend(self) -> ranker_pb2.RecommendResponse:
        request = ranker_pb2.RecommendRequest(serving_config="home", visitor_id="ann")
        return await self.stub.Recommend(request, timeout=10)

    async def status(self) -> ranker_pb2.GetRankerStatusResponse:
        return await self.stub.GetRankerStatus(ranker_pb2.GetRankerStatusRequest(), timeout=10)


@asynccontextmanager
async def ranker_process(
    world, tmp_path: Path, port: int, common: Mapping[str, str] = MappingProxyType({})
) -> AsyncIterator[RankerProcess]:
    peers = {f"{name.upper().replace('-', '_')}_ADDRESS": peer.address for name, peer in world.peers.items()}
    chosen = {"PORT": str(port), "RETRY_S": "0.05", "VECTORS_WAIT_S": "0.3", "REPORT_EVERY_S": "0.05"}
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HEADRACE_")}
    environment |= {f"HEADRACE_RANKER_{name}": value for name, value in (chosen | peers).items()} | common
    environment["HEADRACE_DATA_DIR"] = str(tmp_path / "process")
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "headrace.ranker", env=environment)
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            await asyncio.wait_for(channel.channel_ready(), 60)
            yield RankerProcess(ranker_pb2_grpc.RankerServiceStub(channel), process.pid)
    finally:
        process.terminate()
        await asyncio.wait_for(process.wait(), 30)


@pytest.fixture
async def world(tmp_path, make):
    async with make.world(tmp_path) as world:
        await world.push("main", 1, range(60), make.vectors())
        yield world


def nan_weights(make) -> Poison:
    parts = make.model_parts(seed=1)
    weights = load(parts["ranker.safetensors"])
    weights["deep.0.weight"][3, 1] = float("nan")
    return parts | {"ranker.safetensors": save(weights)}, {}


def infinite_towers(make) -> Poison:
    parts = make.model_parts(seed=1)
    weights = load(parts["towers.safetensors"])
    name = next(name for name, weight in weights.items() if weight.is_floating_point() and weight.ndim == 2)
    weights[name][0, 0] = float("inf")
    return parts | {"towers.safetensors": save(weights)}, {}


def other_space(make) -> Poison:
    return make.model_parts(seed=1, space="elsewhere"), {}


def other_schema(make) -> Poison:
    network = RankerNetwork(RankerShape(len(CANDIDATE_FEATURES) + 1, hidden=16))
    return make.model_parts(seed=1, feature_schema="of tomorrow", ranker=network), {}


def other_schema_in_the_manifest(make) -> Poison:
    return make.model_parts(seed=1), {"feature_schema": "of tomorrow"}


def other_dimension(make) -> Poison:
    towers = Towers(TowerShape(dimension=8, max_length=8, text_width=16, brand_buckets=8, category_buckets=8))
    return make.model_parts(seed=1, towers=towers), {"dimension": 8}


def truncated_part(make) -> Poison:
    parts = make.model_parts(seed=1)
    return parts | {"towers.safetensors": parts["towers.safetensors"][:-100]}, {}


def altered_weights(make) -> Poison:
    parts = make.model_parts(seed=1)
    weights = load(parts["ranker.safetensors"])
    weights["heads.weight"] *= -1
    return parts | {"ranker.safetensors": save(weights)}, {}


POISONS: dict[str, tuple[Callable[..., Poison], str]] = {
    "nan": (nan_weights, "not finite"),
    "infinite": (infinite_towers, "not finite"),
    "space": (other_space, "space is 'elsewhere'"),
    "schema": (other_schema, "of tomorrow"),
    "schema-said": (other_schema_in_the_manifest, "of tomorrow"),
    "dimension": (other_dimension, "dimension is 8"),
    "truncated": (truncated_part, "towers.safetensors"),
    "altered": (altered_weights, "golden scores"),
}


class Learner:
    """Signs what it publishes, and publishes whatever it is given."""

    def __init__(self, registry, folder: Path, name: str) -> None:
        private, public = new_pair()
        self.public = folder / f"{name}.pub"
        self.public.write_bytes(public)
        (folder / f"{name}.pem").write_bytes(private)
        self._signer = ReleaseSigner(folder / f"{name}.pem")
        self._registry = registry

    def published(self, name: str, parts: dict[str, bytes], fields: dict[str, object]) -> trainer_pb2.Release:
        manifest = self._registry.release(name, parts, **{"delta_sequence": 60} | fields)
        manifest.signature = self._signer.signature(
            Statement(
                release=manifest.release,
                space=manifest.space,
                delta_sequence=manifest.delta_sequence,
                feature_schema=manifest.feature_schema,
                dimension=manifest.dimension,
                parts={part.name: part.sha256 for part in manifest.parts},
                checksum=manifest.checksum,
            )
        )
        return manifest


def forgeries(make, learner: Learner, stranger: Learner, sound: trainer_pb2.Release) -> list[tuple[object, str]]:
    """Releases that might be good, and which the learner did not sign; why each is refused."""
    parts = make.model_parts(seed=1)
    unsigned, replayed = (learner.published(name, parts, {}) for name in ("unsigned", "replayed"))
    unsigned.signature, replayed.signature = "", sound.signature
    not_ours = "not what a trusted key signed"
    return [
        (unsigned, "unsigned is not signed"),
        (replayed, not_ours),
        (stranger.published("forged", parts, {}), not_ours),
    ]


async def test_poisoned_releases_never_serve_and_are_named(world, make, tmp_path, unused_tcp_port):
    learner, stranger = (Learner(world.registry, tmp_path, name) for name in ("learner", "stranger"))
    sound = learner.published("sound", make.model_parts(seed=0), {})
    poisoned = [(learner.published(name, *poison(make)), reason) for name, (poison, reason) in POISONS.items()]
    await world.registry.serve(sound)
    key = {"HEADRACE_RELEASE_VERIFY_KEY_FILE": str(learner.public)}
    async with ranker_process(world, tmp_path, unused_tcp_port, key) as ranker:

        async def serves_sound() -> bool:
            return (await ranker.status()).release == "sound"

        await make.eventually(serves_sound, 30)
        for manifest, reason in (*poisoned, *forgeries(make, learner, stranger, sound)):
            for stable, shadow in ((manifest, None), (sound, manifest)):
                await world.registry.serve(stable, shadow=shadow)
                await make.eventually(lambda name=manifest.release: is_told(world, ranker, name))
                status = await ranker.status()
                assert reason in status.refused_reason, manifest.release
                assert (status.release, status.shadow_release) == ("sound", ""), manifest.release


async def is_told(world, ranker: RankerProcess, name: str) -> bool:
    """Whether the ranker, which still answers by the sound release, has named the other in a report."""
    assert (await ranker.recommend()).info.release == "sound"
    own = [report for ranker_name, report in world.registry.reports.items() if ranker_name.endswith(f"-{ranker.pid}")]
    return any(
        report.refused_release == name and report.plan_sequence == world.registry.plan.sequence for report in own
    )


async def test_no_call_fails_while_releases_are_swapped(world, make):
    releases = [
        world.registry.release(f"r-{number}", make.model_parts(seed=number), delta_sequence=60) for number in range(6)
    ]
    answered: Counter[str] = Counter()
    is_over = asyncio.Event()

    async def ask() -> None:
        while not is_over.is_set():
            answered[(await world.recommend()).info.release] += 1

    asking = [asyncio.create_task(ask()) for _ in range(3)]
    # the last one is an undo
    for release in (*releases, releases[-2]):
        before = answered[release.release]
        await world.registry.serve(release)
        await make.eventually(lambda name=release.release, count=before: has_more(answered, name, count))
    is_over.set()
    await asyncio.gather(*asking)
    assert set(answered) - {""} == {release.release for release in releases}


async def has_more(answered: Counter[str], name: str, before: int) -> bool:
    return answered[name] > before
