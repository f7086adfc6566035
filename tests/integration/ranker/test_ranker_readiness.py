"""A ranker that starts among peers is sent calls when it can answer them."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from headrace.ranker.__main__ import compose
from headrace.ranker.settings import RankerSettings
from headrace.runtime.channels import open_channel
from headrace.runtime.serving import running
from headrace.runtime.settings import CommonSettings
from headrace.v1 import ranker_pb2, ranker_pb2_grpc

LONG_S = 60.0


class Started:
    """A ranker that began to serve a moment ago."""

    def __init__(self, channel: Any) -> None:
        self._health = health_pb2_grpc.HealthStub(channel)
        self.ranker = ranker_pb2_grpc.RankerServiceStub(channel)

    async def is_ready(self) -> bool:
        answer = await self._health.Check(health_pb2.HealthCheckRequest())
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


@asynccontextmanager
async def started(world: Any, make: Any, **settings: object) -> AsyncIterator[Started]:
    addresses = {f"{name.replace('-', '_')}_address": peer.address for name, peer in world.peers.items()}
    chosen = RankerSettings(**(make.quick | {"ready_wait_s": LONG_S} | addresses | settings))
    common = CommonSettings(data_dir=world.data_dir)
    async with (
        compose(chosen, common) as parts,
        running(parts, chosen) as server,
        open_channel(server.address) as channel,
    ):
        yield Started(channel)


async def test_it_is_ready_when_its_first_answer_lacks_neither_release_nor_items(shop, make):
    manifest = shop.registry.release("r-1", make.model_parts(), delta_sequence=len(make.products))
    await shop.registry.serve(manifest)
    async with started(shop, make) as late:

        async def has_refused() -> bool:
            status = await late.ranker.GetRankerStatus(ranker_pb2.GetRankerStatusRequest())
            return status.refused_release == "r-1"

        # the release waits for vectors that the index has not got
        await make.eventually(has_refused)
        assert not await late.is_ready()
        await shop.push("main", 1, range(len(make.products)), make.vectors())
        await make.eventually(late.is_ready)
        request = ranker_pb2.RecommendRequest(serving_config="home", visitor_id="ann")
        info = (await late.ranker.Recommend(request, timeout=10)).info
        assert (info.release, [one for one in info.degraded_reasons if one.startswith(("release", "items"))]) == (
            "r-1",
            [],
        )


@pytest.mark.parametrize("track", ["stable", "canary"])
async def test_it_is_ready_at_once_where_the_plan_has_nothing_for_its_track(shop, make, track):
    async with started(shop, make, track=track) as late:
        await make.eventually(late.is_ready)


async def test_a_registry_that_is_away_holds_it_up_for_so_long_and_no_longer(shop, make, caplog):
    begun = time.monotonic()
    async with started(shop, make, trainer_address="127.0.0.1:1", ready_wait_s=0.5) as late:
        assert not await late.is_ready()
        await make.eventually(late.is_ready)
    assert time.monotonic() - begun >= 0.5
    [told] = [record for record in caplog.records if record.message == "ready_without"]
    assert told.missing == "no serving plan came"
