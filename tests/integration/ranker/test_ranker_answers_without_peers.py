"""A storefront always gets an answer; it says what was missing."""

from __future__ import annotations

import asyncio

import grpc
import pytest

from headrace.runtime.eventlog.opening import open_event_log
from headrace.runtime.settings import CommonSettings
from headrace.v1 import common_pb2, log_pb2, ranker_pb2

VIEW = 1


async def test_without_any_peer_ever_the_answer_is_empty_with_reasons(tmp_path, make):
    async with make.world(tmp_path, products=0) as world:
        for peer in world.peers.values():
            await peer.stop()
        response = await world.recommend()
        assert "state: unavailable" in response.info.degraded_reasons
        assert len(response.results) == 0
        assert "release: none loaded" in response.info.degraded_reasons
        assert len((await world.search("mug")).results) == 0


async def test_a_ranker_that_never_met_its_peers_says_that_it_has_no_items(tmp_path, make):
    nobody = "127.0.0.1:1"
    addresses = {f"{name}_address": nobody for name in ("feature_store", "index", "trainer")}
    async with make.world(tmp_path, products=0, **addresses) as world:
        response = await world.recommend()
        assert len(response.results) == 0
        assert {"release: none loaded", "items: none loaded", "state: unavailable"} <= set(
            response.info.degraded_reasons
        )


async def test_all_peers_down_still_gives_full_pages_from_memory(full_shop):
    await full_shop.store.act("v:ann", 3, VIEW)
    for peer in full_shop.peers.values():
        await peer.stop()
    # what is alike is found in memory, without the index
    for config, missing in (
        ("home", {"state: unavailable", "index: unavailable"}),
        ("similar-items", {"state: unavailable"}),
    ):
        response = await full_shop.recommend(config, product_ids=["p-0"])
        assert len(response.results) == 20
        assert response.info.release == "r-1"
        assert missing <= set(response.info.degraded_reasons)
    found = await full_shop.search("red mug", visitor_id="ann")
    assert found.results[0].product_id == "p-0"
    ranked = await full_shop.ranker.Rank(ranker_pb2.RankRequest(visitor_id="ann", product_ids=["p-1", "p-2"]))
    assert len(ranked.results) == 2
    status = await full_shop.status()
    assert status.degraded_answers >= 4


async def test_dead_peers_cost_the_later_answers_no_budget(tmp_path, make):
    async with make.world(tmp_path, state_budget_s=0.2, breaker_open_s=60) as world:
        for peer in world.peers.values():
            await peer.stop()
        for _ in range(3):
            await world.recommend()
        response = await world.recommend(explain=True)
    assert "state: unavailable" in response.info.degraded_reasons
    assert response.info.stage_ms["state"] < 50


@pytest.mark.parametrize("name", ["feature-store", "index", "trainer"])
async def test_a_peer_that_comes_back_is_used_again(full_shop, make, name):
    peer = full_shop.peers[name]
    await peer.stop()
    await full_shop.recommend()
    await peer.start()

    async def whole() -> bool:
        return not (await full_shop.recommend()).info.degraded_reasons

    await make.eventually(whole)


async def test_what_changed_while_the_store_was_away_is_caught_up(full_shop, make):
    store = full_shop.store
    await full_shop.peers["feature-store"].stop()
    store.describe(0, None)
    store.describe(60, make.product(60, "teal teapot"))
    del store.documents[1]
    await full_shop.peers["feature-store"].start()
    await full_shop.until(lambda status: status.items == 59 and status.lexical_documents == 59)
    assert (await full_shop.search("teal teapot")).results[0].product_id == "p-60"
    everything = await full_shop.recommend(page_size=500)
    assert not {"p-0", "p-1"} & {result.product_id for result in everything.results}


async def test_a_slow_store_is_left_out_within_the_callers_deadline(full_shop):
    await full_shop.store.act("v:ann", 3, VIEW)
    full_shop.store.slow_s = 5
    request = ranker_pb2.RecommendRequest(serving_config="home", visitor_id="ann")
    response = await full_shop.ranker.Recommend(request, timeout=1.0)
    assert len(response.results) == 20
    assert "state: deadline" in response.info.degraded_reasons


async def test_without_time_to_score_the_page_is_full_of_what_was_proposed(tmp_path, make):
    async with make.world(tmp_path, score_budget_s=1e-9) as world:
        for config, products in (("home", []), ("similar-items", ["nobody"])):
            response = await world.recommend(config, product_ids=products, page_size=30)
            assert len(response.results) == 30
            assert {"candidates: deadline", "score: deadline"} & set(response.info.degraded_reasons)
        ranked = await world.ranker.Rank(ranker_pb2.RankRequest(product_ids=["p-1", "p-2", "?"]))
        assert [result.product_id for result in ranked.results] == ["p-1", "p-2", "?"]
        found = await world.search("", filter=common_pb2.ProductFilter(brands=["acme"]))
        assert len(found.results) == 20
        assert list((await world.search("mug")).info.degraded_reasons)[-1:] == ["score: deadline"]


async def test_more_calls_than_may_wait_are_refused_at_once(tmp_path, make):
    async with make.world(tmp_path, max_concurrent=1, max_waiting=1) as world:
        world.store.slow_s = 1
        results = await asyncio.gather(*(world.recommend() for _ in range(6)), return_exceptions=True)
    refused = [each for each in results if isinstance(each, grpc.aio.AioRpcError)]
    assert [each.code() for each in refused] == [grpc.StatusCode.RESOURCE_EXHAUSTED] * 4


async def test_a_store_with_other_columns_is_not_taken_in(tmp_path, make):
    async with make.world(tmp_path) as world:
        await world.peers["feature-store"].stop()
        world.store.feature_names = ("other",)
        world.store.describe(60, make.product(60, "teal teapot"))
        await world.peers["feature-store"].start()

        async def state_is_back() -> bool:
            return "state: unavailable" not in (await world.recommend()).info.degraded_reasons

        await make.eventually(state_is_back)
        assert (await world.status()).items == 60


async def test_what_was_shown_is_in_the_log_with_the_features_used(full_shop):
    await full_shop.store.act("v:ann", 3, VIEW)
    response = await full_shop.recommend(page_size=4)
    await full_shop.until(lambda status: status.impressions_logged >= 1)
    log = open_event_log(CommonSettings(data_dir=full_shop.data_dir))
    records = await log.read(0, kinds=["impression"])
    await log.close()
    shown = log_pb2.Impression.FromString(records[-1].payload)
    assert records[-1].key == shown.user_key == "v:ann"
    assert shown.attribution_token == response.info.attribution_token
    assert (shown.release, shown.track, shown.serving_config) == ("r-1", "stable", "home")
    ordinals = [int.from_bytes(shown.item_ordinals[at : at + 4], "little") for at in range(0, 16, 4)]
    assert [f"p-{ordinal}" for ordinal in ordinals] == [result.product_id for result in response.results]
    assert shown.features.rows == 4
    assert len(shown.features.values) == 4 * shown.features.columns * 4
    assert shown.propensities == b"\x00\x00\x80\x3f" * 4
    assert shown.time_us == 1_700_000_000_000_000


async def test_impressions_can_be_switched_off(tmp_path, make):
    async with make.world(tmp_path, log_impressions=False) as world:
        await world.recommend()
        assert (await world.status()).impressions_logged == 0
    assert not (tmp_path / "events.db").exists()
