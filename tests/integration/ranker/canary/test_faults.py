"""Whatever the canary does, its people get an answer: from stable, in the same call."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from benchmarks.faulty_canary import SPOILED
from headrace.ranker.exposure import Exposure
from headrace.ranker.fallback import FallbackError, Reason
from headrace.ranker.hop import CanaryTrack
from headrace.runtime.channels import open_channel
from headrace.v1 import ranker_pb2

BROKEN = ("garbled", "refusing", *SPOILED)


async def answered(rollout, count: int = 12) -> list[Any]:
    """Answers to people of the canary arm, by all methods; `asked` fails where one is an error or empty."""
    methods = ("Recommend", "Search", "Rank")
    people = rollout.people("canary", count)
    return [await rollout.asked(methods[place % 3], visitor) for place, visitor in enumerate(people)]


def assert_by_stable(rollout, responses) -> None:
    """Intention to treat: the people stay in their arm."""
    for response in responses:
        facts = rollout.facts(response)
        assert (response.info.track, response.info.release) == ("stable", "r-1")
        assert (facts.rollout, facts.arm, facts.track) == ("ro-000001", "canary", "stable")


@pytest.fixture
async def shared(tmp_path_factory, two_tracks) -> AsyncIterator[Any]:
    async with two_tracks(tmp_path_factory.mktemp("rollout")) as opened:
        yield opened


async def test_every_wrong_answer_is_replaced_by_stables(shared):
    for fault in BROKEN:
        before = (await shared.world.status()).fallbacks
        shared.faulty.fault = fault
        assert_by_stable(shared, await answered(shared))
        status = await shared.world.status()
        # the probes that found it sound again are none
        assert (fault, status.fallbacks - before, status.canary_is_asked) == (fault, 12, False)
        shared.faulty.fault = "none"
        await shared.until_asked_again()


async def test_a_broken_canary_is_asked_no_more_but_now_and_then_beside_an_answer(tmp_path, two_tracks):
    async with two_tracks(tmp_path, breaker_open_s=30.0) as rollout:
        rollout.faulty.fault = "nan"
        calls = rollout.faulty.calls
        await answered(rollout, 20)
        # three failures, and the first probe is due much later
        assert rollout.faulty.calls - calls == 3


async def test_a_slow_canary_is_waited_for_within_its_budget_only(tmp_path, two_tracks):
    async with two_tracks(tmp_path) as rollout:
        rollout.faulty.fault = "slow"
        assert {response.info.track for response in await answered(rollout)} == {"canary"}
    async with two_tracks(tmp_path / "2", canary_budget_s=0.1) as rollout:
        rollout.faulty.fault = "slow"
        rollout.world.store.slow_s = 0.03
        begun = time.monotonic()
        assert_by_stable(rollout, await answered(rollout, 6))
        assert time.monotonic() - begun < 6 * 0.5


async def test_no_products_are_the_canarys_answer_where_stable_has_none_either(rollout):
    before = (await rollout.world.status()).fallbacks
    for visitor in rollout.people("canary", 5):
        response = await rollout.world.recommend("recently-viewed", visitor_id=visitor)
        assert (len(response.results), response.info.track) == (0, "canary")
    status = await rollout.world.status()
    assert (status.fallbacks - before, status.canary_is_asked) == (0, True)


async def test_a_canary_whose_release_is_refused_answers_nobody(rollout, make):
    bad = rollout.world.registry.release("bad", make.model_parts(3), delta_sequence=len(make.products))
    bad.feature_schema = "of tomorrow"
    rollout.canary_release = bad
    await rollout.plan(rollout="ro-000002")
    response = await rollout.asked("Recommend", rollout.people("canary", 1)[0])
    assert (response.info.track, response.info.release) == ("stable", "r-1")
    assert rollout.facts(response).rollout == "ro-000002"


async def test_zero_replicas_and_a_name_that_does_not_resolve(tmp_path, two_tracks, unused_tcp_port):
    for place, address in enumerate((f"127.0.0.1:{unused_tcp_port}", "ranker-canary.nowhere.invalid:7405", "")):
        settings = {"canary_address": address, "canary_budget_s": 0.2}
        async with two_tracks(tmp_path / str(place), is_sound=False, **settings) as rollout:
            assert_by_stable(rollout, await answered(rollout))
            assert (await rollout.world.status()).fallbacks == 12


async def test_a_channel_that_leads_nowhere_is_opened_anew(rollout, unused_tcp_port):
    port = int(rollout.faulty_address.rsplit(":", 1)[1])
    ports = iter([unused_tcp_port, port])
    opened = []

    def open_next() -> grpc.aio.Channel:
        opened.append(next(ports))
        return open_channel(f"127.0.0.1:{opened[-1]}", retries=False)

    track = CanaryTrack(open_next)
    request = ranker_pb2.RankRequest(visitor_id="v", product_ids=["p-1"])
    for _ in range(4):
        with pytest.raises(FallbackError) as failed:
            await track.ask(ranker_pb2.RankResponse, request, Exposure("ro-000001", "canary"), 5.0)
        assert failed.value.reason == Reason.UNAVAILABLE
    response = await track.ask(ranker_pb2.RankResponse, request, Exposure("ro-000001", "canary"), 5.0)
    assert (response.info.track, len(opened)) == ("canary", 2)
    await track.close()


async def test_fallbacks_do_not_crowd_out_the_stable_arm(tmp_path, two_tracks):
    async with two_tracks(tmp_path, max_fallbacks=1, max_concurrent=2) as rollout:
        rollout.faulty.fault = "refusing"
        await answered(rollout, 3)
        rollout.world.store.slow_s = 0.1
        done: list[str] = []

        async def ask(visitor: str, arm: str) -> None:
            await rollout.asked("Recommend", visitor)
            done.append(arm)

        calls = [asyncio.create_task(ask(visitor, "canary")) for visitor in rollout.people("canary", 6)]
        calls += [asyncio.create_task(ask(visitor, "stable")) for visitor in rollout.people("stable", 2)]
        await asyncio.gather(*calls)
        assert done.index("stable") <= 2
        assert len(done) == 8


@pytest.mark.parametrize("fault", ["killed", "frozen"])
async def test_a_canary_that_is_gone_costs_little_and_is_found_when_it_is_replaced(tmp_path, two_tracks, fault):
    async with two_tracks(tmp_path, is_apart=True, canary_budget_s=0.6, breaker_open_s=0.5) as rollout:
        if fault == "killed":
            await rollout.process.kill()
        else:
            rollout.process.freeze()
        assert_by_stable(rollout, await answered(rollout, 3))
        assert not (await rollout.world.status()).canary_is_asked
        took = [await timed(rollout, visitor) for visitor in rollout.people("canary", 30)]
        # nobody waits for it any more, neither do those beside whose answers it is probed
        assert max(took) < 0.6
        await rollout.process.kill()
        await rollout.process.start()
        await rollout.until_asked_again(within_s=3)


async def timed(rollout, visitor: str) -> float:
    begun = time.monotonic()
    assert_by_stable(rollout, [await rollout.asked("Recommend", visitor)])
    return time.monotonic() - begun
