"""People of the canary arm are answered by the canary; who they are, nobody has to remember."""

from __future__ import annotations

import asyncio

import grpc
import pytest

from headrace.v1 import ranker_pb2

METHODS = ("Recommend", "Search", "Rank")


@pytest.mark.parametrize("method", METHODS)
async def test_each_arm_is_answered_by_its_track(rollout, method):
    for arm, release in (("stable", "r-1"), ("canary", "r-2")):
        response = await rollout.asked(method, rollout.people(arm, 1)[0])
        assert (response.info.track, response.info.release) == (arm, release)
        facts = rollout.facts(response)
        assert (facts.release, facts.rollout, facts.arm, facts.track) == (release, "ro-000001", arm, arm)
        assert not response.info.impression


async def test_the_door_logs_what_it_has_shown_and_nothing_else(rollout, impressions):
    shown = {}
    for arm in ("stable", "canary"):
        for visitor in rollout.people(arm, 3):
            response = await rollout.asked("Recommend", visitor)
            shown[response.info.attribution_token] = ("ro-000001", arm, arm, f"v:{visitor}")
    rollout.faulty.fault = "nan"
    response = await rollout.asked("Recommend", (visitor := rollout.people("canary", 1)[0]))
    shown[response.info.attribution_token] = ("ro-000001", "canary", "stable", f"v:{visitor}")
    logged = await impressions(rollout, set(shown))
    found = {each.attribution_token: (each.rollout, each.arm, each.track, each.user_key) for each in logged}
    assert shown.items() <= found.items()
    # what the canary answered in vain, and to probes, is in nobody's log
    assert len(found) == len(logged) == (await rollout.world.status()).impressions_logged


async def test_who_logs_in_stays_in_the_arm_of_the_visitor(rollout):
    for visitor in rollout.people("canary", 5):
        before = await rollout.world.recommend(visitor_id=visitor)
        after = await rollout.world.recommend(visitor_id=visitor, user_id="eve")
        assert before.info.track == after.info.track == "canary"


async def test_nobody_is_in_the_stable_arm(rollout):
    assert (await rollout.asked("Search", "")).info.track == "stable"


async def test_a_larger_share_keeps_everybody_and_an_older_plan_changes_nothing(rollout):
    early = rollout.people("canary", 8, share_bp=2_000)
    await rollout.plan(2_000)
    await rollout.plan(8_000)
    for visitor in early:
        assert (await rollout.asked("Rank", visitor)).info.track == "canary"
    newest = rollout.world.registry.plan.sequence
    await rollout.world.registry.serve(rollout.stable_release, sequence=newest - 1)
    await rollout.world.registry.serve(rollout.stable_release, sequence=newest - 1)
    await asyncio.gather(*(rollout.asked("Rank", visitor) for visitor in early))
    status = await rollout.world.status()
    assert (status.plan_sequence, status.share_bp, status.rollout) == (newest, 8_000, "ro-000001")


async def test_a_plan_that_nobody_confirms_sends_nobody_to_the_canary(rollout):
    await rollout.plan(10_000, valid_for_ms=50)
    await rollout.world.until(lambda status: status.plan_is_stale)
    status = await rollout.world.status()
    assert (status.share_bp, status.canary_is_asked, status.release) == (0, False, "r-1")
    response = await rollout.asked("Recommend", "ann")
    facts = rollout.facts(response)
    assert (response.info.track, facts.rollout, facts.arm) == ("stable", "", "")


async def test_a_plan_without_a_rollout_gives_everybody_to_stable(rollout):
    await rollout.world.registry.serve(rollout.stable_release, valid_for_ms=600_000)
    await rollout.world.until(lambda status: not status.share_bp)
    response = await rollout.asked("Recommend", rollout.people("canary", 1)[0])
    assert (response.info.track, rollout.facts(response).rollout) == ("stable", "")


async def test_the_canary_takes_its_lineages_increments_while_it_is_asked(rollout, make):
    count, before = len(make.products), (await rollout.world.status()).fallbacks
    rollout.canary_release = rollout.world.registry.release("r-3", make.model_parts(2), delta_sequence=count)
    await rollout.plan()
    visitor, releases = rollout.people("canary", 1)[0], set()
    async with asyncio.timeout(15):
        while "r-3" not in releases:
            response = await rollout.asked("Rank", visitor)
            assert response.info.track == "canary"
            releases.add(response.info.release)
    assert releases <= {"r-2", "r-3"}
    assert (await rollout.world.status()).fallbacks == before


async def test_pages_of_a_search_are_of_the_track_that_began_it(rollout):
    visitor = rollout.people("canary", 1)[0]

    async def page(token: str = "") -> ranker_pb2.SearchResponse:
        return await rollout.world.search("mug", visitor_id=visitor, page_size=3, page_token=token)

    first = await page()
    assert first.info.track == (await page(first.next_page_token)).info.track == "canary"
    rollout.faulty.fault = "nan"
    # the token of the canary's page is as good at stable
    assert (await page(first.next_page_token)).info.track == "stable"
    begun = await page()
    rollout.faulty.fault = "none"
    second = await page(begun.next_page_token)
    assert begun.info.track == second.info.track == "stable"
    assert {each.product_id for each in begun.results}.isdisjoint(each.product_id for each in second.results)
    assert (await page()).info.track == "canary"


async def test_an_arm_can_be_chosen_with_the_key_and_says_nothing_of_the_rollout(tmp_path, two_tracks):
    async with two_tracks(tmp_path, force_arm_key="open sesame") as rollout:
        key = ("headrace-force-arm-key", "open sesame")
        for person, arm in (("stable", "canary"), ("canary", "stable")):
            visitor = rollout.people(person, 1)[0]
            response = await rollout.asked("Recommend", visitor, (("headrace-force-arm", arm), key))
            facts = rollout.facts(response)
            assert (response.info.track, facts.track, facts.rollout, facts.arm) == (arm, arm, "", "")
        for marks, fault in (
            ((("headrace-force-arm", "canary"),), "may not choose"),
            ((("headrace-force-arm", "canary"), ("headrace-force-arm-key", "guess")), "may not choose"),
            ((("headrace-force-arm", "both"), key), "'both'"),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await rollout.asked("Recommend", "ann", marks)
            assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
            assert fault in refused.value.details()


async def test_without_a_key_nobody_may_choose(rollout):
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await rollout.asked("Recommend", "ann", (("headrace-force-arm", "canary"), ("headrace-force-arm-key", "")))
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT


async def test_a_forwarded_call_is_never_sent_on(rollout):
    visitor = rollout.people("canary", 1)[0]
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await rollout.asked("Recommend", visitor, (("headrace-forwarded-to", "canary"),))
    assert refused.value.code() == grpc.StatusCode.FAILED_PRECONDITION
