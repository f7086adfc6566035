"""Every serving config, asked over gRPC."""

from __future__ import annotations

import grpc
import pytest

from headrace.runtime.rpc_status import faults_of
from headrace.v1 import common_pb2, ranker_pb2

VIEW, CART, REMOVE, PURCHASE = 1, 2, 3, 4


def ids(response) -> list[str]:
    return [result.product_id for result in response.results]


async def test_home_is_a_full_page_of_distinct_products_with_release_and_token(full_shop):
    await full_shop.store.act("v:ann", 3, VIEW)
    response = await full_shop.recommend()
    assert len(ids(response)) == len(set(ids(response))) == 20
    assert response.info.release == "r-1"
    assert response.info.space == "main"
    assert response.info.attribution_token
    assert response.info.state_offset == full_shop.store.offset
    assert response.info.delta_sequence == len(full_shop.store.documents)
    assert list(response.info.degraded_reasons) == []
    scores = [result.score for result in response.results]
    assert scores == sorted(scores, reverse=True)


async def test_a_new_person_gets_popular_products_first_before_any_release(shop):
    shop.store.make_popular(41, 9.0)
    shop.store.make_popular(17, 8.0)
    await shop.caught_up()
    response = await shop.recommend(visitor_id="nobody-yet")
    assert ids(response)[:2] == ["p-41", "p-17"]
    assert list(response.info.degraded_reasons) == ["release: none loaded"]
    assert response.info.release == ""


async def test_a_users_own_purchase_leads_before_any_release(shop):
    await shop.store.act("u:eve", 33, PURCHASE)
    assert ids(await shop.recommend(user_id="eve"))[0] == "p-33"


async def test_similar_items_are_the_nearest_without_the_product_itself(tmp_path, make):
    async with make.world(tmp_path, vector_candidates=9) as world:
        await world.push("main", 1, range(60), make.vectors())
        await world.serve_release(delta_sequence=60)
        response = await world.recommend("similar-items", product_ids=["p-0"], explain=True)
    # ordinals 0 to 9 are mugs
    assert set(ids(response)) == {f"p-{ordinal}" for ordinal in range(1, 10)}
    assert all("vector" in result.reasons for result in response.results)


async def test_similar_items_of_an_unknown_product_are_popular_ones_and_say_so(full_shop):
    response = await full_shop.recommend("similar-items", product_ids=["never-seen"])
    assert len(response.results) == 20
    assert list(response.info.degraded_reasons) == ["product: unknown"]


async def test_similar_items_without_vector_and_company_are_popular_in_the_category(shop, make):
    shop.store.describe(60, make.product(60, "striped mug"))
    await shop.caught_up()
    response = await shop.recommend("similar-items", product_ids=["p-60"], page_size=5)
    assert {int(each[2:]) for each in ids(response)} <= set(range(10))
    assert "neighbours: none known" in response.info.degraded_reasons


async def test_bought_together_goes_by_weight_and_leaves_out_what_is_on_the_page(full_shop):
    full_shop.store.relate(0, {20: 0.5, 30: 0.9, 1: 0.7})
    full_shop.store.relate(1, {20: 0.6, 0: 0.7})
    full_shop.store.describe(59, None)
    await full_shop.caught_up()
    response = await full_shop.recommend("frequently-bought-together", product_ids=["p-0", "p-1"])
    assert ids(response) == ["p-20", "p-30"]
    assert response.results[0].score == pytest.approx(1.1)


async def test_bought_together_is_empty_for_a_product_that_nothing_goes_with(full_shop):
    response = await full_shop.recommend("frequently-bought-together", product_ids=["p-5"])
    assert ids(response) == []


async def test_repurchase_holds_only_what_the_person_bought(full_shop):
    for ordinal, code in ((4, PURCHASE), (9, VIEW), (12, PURCHASE), (4, PURCHASE)):
        await full_shop.store.act("u:eve", ordinal, code)
    response = await full_shop.recommend("repurchase", user_id="eve", explain=True)
    assert set(ids(response)) == {"p-4", "p-12"}
    assert all("repurchase" in result.reasons for result in response.results)


async def test_repurchase_is_empty_for_an_unknown_person(full_shop):
    assert ids(await full_shop.recommend("repurchase", visitor_id="new")) == []


async def test_recently_viewed_is_newest_first_without_repeats(full_shop):
    for ordinal in (4, 9, 12, 4):
        await full_shop.store.act("v:ann", ordinal, VIEW)
    await full_shop.store.act("v:ann", 50, REMOVE)
    assert ids(await full_shop.recommend("recently-viewed")) == ["p-4", "p-12", "p-9"]
    assert ids(await full_shop.recommend("recently-viewed", product_ids=["p-4"])) == ["p-12", "p-9"]


async def test_home_after_an_event_holds_what_was_written_when_it_waits_for_the_offset(full_shop):
    offset = await full_shop.store.act("v:ann", 7, VIEW)
    response = await full_shop.recommend("recently-viewed", min_offset=offset)
    assert ids(response) == ["p-7"]
    assert response.info.state_offset >= offset


async def test_waiting_for_an_offset_that_never_comes_answers_with_the_older_state(full_shop):
    await full_shop.store.act("v:ann", 7, VIEW)
    request = ranker_pb2.RecommendRequest(serving_config="recently-viewed", visitor_id="ann", min_offset=10**9)
    response = await full_shop.ranker.Recommend(request, timeout=0.5)
    assert ids(response) == ["p-7"]
    assert list(response.info.degraded_reasons) == ["state: behind min_offset"]


async def test_filters_hold_in_every_list(full_shop, make):
    dear = make.product(61, "silver mug", availability=common_pb2.AVAILABILITY_OUT_OF_STOCK)
    full_shop.store.describe(61, dear)
    await full_shop.caught_up()
    cheap = common_pb2.ProductFilter(
        categories=["Home > Mugs", "Home > Lamps"], brands=["acme"], max_price=16, deny_product_ids=["p-3"]
    )
    expected = {f"p-{ordinal}" for ordinal in range(1, 16, 2)} - {"p-3"}
    assert set(ids(await full_shop.recommend(filter=cheap))) == expected
    everything = common_pb2.ProductFilter(categories=["Home"], include_unavailable=True, allow_product_ids=["p-61"])
    assert ids(await full_shop.recommend(filter=everything)) == ["p-61"]
    assert ids(await full_shop.recommend(filter=common_pb2.ProductFilter(allow_product_ids=["p-61"]))) == []


async def test_fewer_products_than_asked_for_are_all_that_there_are(full_shop):
    assert len((await full_shop.recommend(page_size=500)).results) == 60


async def test_explain_names_sources_features_and_stage_times(full_shop):
    await full_shop.store.act("v:ann", 3, VIEW)
    response = await full_shop.recommend(explain=True, return_products=True, page_size=5)
    assert {"state", "encode", "index", "candidates", "score"} <= set(response.info.stage_ms)
    assert all(result.reasons for result in response.results)
    assert all(result.product.id == result.product_id and result.product.title for result in response.results)
    silent = await full_shop.recommend()
    assert not silent.info.stage_ms
    assert not any(result.reasons or result.HasField("product") for result in silent.results)


async def test_rank_orders_the_callers_own_and_puts_unknown_ones_last(shop):
    await shop.store.act("u:eve", 8, PURCHASE)
    request = ranker_pb2.RankRequest(user_id="eve", product_ids=["no-1", "p-2", "p-8", "no-0", "p-30"])
    response = await shop.ranker.Rank(request)
    assert ids(response) == ["p-8", "p-2", "p-30", "no-1", "no-0"]


async def test_rank_uses_the_served_release(full_shop):
    request = ranker_pb2.RankRequest(product_ids=[f"p-{n}" for n in range(10)], explain=True)
    response = await full_shop.ranker.Rank(request)
    assert response.info.release == "r-1"
    scores = [result.score for result in response.results]
    assert scores == sorted(scores, reverse=True)


async def test_an_empty_catalogue_gives_empty_answers(tmp_path, make):
    async with make.world(tmp_path, products=0) as world:
        for config, products in (("home", []), ("similar-items", ["x"]), ("frequently-bought-together", ["x"])):
            assert ids(await world.recommend(config, product_ids=products)) == []
        assert ids(await world.search("mug")) == []
        assert (await world.search("mug")).total_size == 0


@pytest.mark.parametrize(
    ("fields", "faulty"),
    [
        ({"serving_config": "nonsense", "visitor_id": "a"}, {"serving_config"}),
        ({"serving_config": "home"}, {"visitor_id"}),
        ({"serving_config": "home", "visitor_id": "v" * 129, "user_id": "u" * 129}, {"visitor_id", "user_id"}),
        ({"serving_config": "home", "visitor_id": "a", "page_size": 0}, {"page_size"}),
        ({"serving_config": "home", "visitor_id": "a", "page_size": 501}, {"page_size"}),
        ({"serving_config": "home", "visitor_id": "a", "page_size": -1, "min_offset": -1}, {"page_size", "min_offset"}),
        ({"serving_config": "similar-items", "visitor_id": "a"}, {"product_ids"}),
        ({"serving_config": "frequently-bought-together", "visitor_id": "a"}, {"product_ids"}),
        ({"serving_config": "home", "visitor_id": "a", "product_ids": ["", "x"]}, {"product_ids[0]"}),
        ({"serving_config": "home", "visitor_id": "a", "product_ids": ["x"] * 101}, {"product_ids"}),
        ({"serving_config": "home", "visitor_id": "a", "channel": 99}, {"channel"}),
        (
            {
                "serving_config": "home",
                "visitor_id": "a",
                "filter": common_pb2.ProductFilter(
                    min_price=float("nan"), max_price=float("inf"), brands=[""], categories=["x" * 501]
                ),
            },
            {"filter.min_price", "filter.max_price", "filter.brands[0]", "filter.categories[0]"},
        ),
        (
            {
                "serving_config": "home",
                "visitor_id": "a",
                "filter": common_pb2.ProductFilter(min_price=9, max_price=1, deny_product_ids=["x"] * 10_001),
            },
            {"filter.max_price", "filter.deny_product_ids"},
        ),
    ],
)
async def test_every_fault_of_a_recommendation_is_named_at_once(shop, fields, faulty):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await shop.ranker.Recommend(ranker_pb2.RecommendRequest(**fields))
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert {fault.field for fault in faults_of(caught.value)} == faulty


@pytest.mark.parametrize("products", [[], ["x"] * 2, [f"p-{n}" for n in range(1_001)], [""]])
async def test_bad_rankings_are_refused(shop, products):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await shop.ranker.Rank(ranker_pb2.RankRequest(product_ids=products))
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
