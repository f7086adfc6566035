"""Some orders are drawn by chance; what may be shown, and lists whose order is a promise, stay as they are."""

from __future__ import annotations

import numpy as np
import pytest

from headrace.model.serving_model import ServingModel
from headrace.runtime.eventlog.opening import open_event_log
from headrace.runtime.settings import CommonSettings
from headrace.v1 import common_pb2, log_pb2, ranker_pb2


@pytest.fixture
async def curious(tmp_path, make):
    """A shop in which every other answer is drawn by chance."""
    async with make.world(tmp_path, explore_share=0.5, explore_candidates=30) as world:
        for ordinal in range(60):
            world.store.make_popular(ordinal, (ordinal * 7 % 60) / 20)
        for place in (3, 14, 25, 36):
            await world.store.act("v:ann", place, 1)
        await world.caught_up()
        await world.push("main", 1, range(60), make.vectors())
        await world.serve_release(delta_sequence=60)
        yield world


async def impressions(world, count: int) -> list[log_pb2.Impression]:
    await world.until(lambda status: status.impressions_logged >= count)
    event_log = open_event_log(CommonSettings(data_dir=world.data_dir))
    try:
        records = await event_log.read(0, kinds=["impression"])
    finally:
        await event_log.close()
    return [log_pb2.Impression.FromString(each.payload) for each in records]


def ids(answer) -> list[str]:
    return [result.product_id for result in answer.results]


async def test_drawn_orders_are_logged_with_their_policy_and_propensities(curious, make):
    answers = [await curious.recommend() for _ in range(30)]
    model = ServingModel.load(make.model_parts(0))
    logged = {each.attribution_token: each for each in await impressions(curious, 30)}
    assert {each.policy for each in logged.values()} == {"greedy", "softmax"}
    greedy = next(ids(answer) for answer in answers if logged[answer.info.attribution_token].policy == "greedy")
    for answer in answers:
        impression = logged[answer.info.attribution_token]
        assert (impression.explore_share, impression.temperature, impression.slate_size) == (0.5, 0.5, 20)
        # who is on the page doesn't hang on what is drawn
        assert sorted(ids(answer)) == sorted(greedy)
        propensities = np.frombuffer(impression.propensities, "<f4")
        ordinals = np.frombuffer(impression.item_ordinals, "<u4")
        assert [f"p-{ordinal}" for ordinal in ordinals] == ids(answer)
        assert ((propensities > 0) & (propensities <= 1)).all()
        # a greedy list has at least greedy's own half
        assert (ids(answer) == greedy) == (impression.policy == "greedy")
        assert float(np.prod(propensities, dtype=np.float64)) > 0.4999 or impression.policy == "softmax"
        rows = np.frombuffer(impression.features.values, "<f4").reshape(len(ordinals), -1)
        assert len(np.unique(rows, axis=0)) == len(ordinals)
        # each row's own, in the order in which it was shown
        clicks = np.frombuffer(impression.click_probabilities, "<f4")
        assert clicks == pytest.approx(model.task_probabilities(rows.copy())[:, 0], rel=1e-4)


async def test_a_drawn_order_keeps_to_filter_stock_and_page(curious):
    sold_out = common_pb2.Product(
        id="p-7", title="yellow mug", categories=["Home > Mugs"], availability=common_pb2.AVAILABILITY_OUT_OF_STOCK
    )
    curious.store.describe(7, sold_out)
    await curious.caught_up()
    mugs = common_pb2.ProductFilter(categories=["Home > Mugs"])
    for _ in range(20):
        answer = await curious.recommend(filter=mugs, page_size=5, product_ids=["p-3"])
        assert len(answer.results) == 5
        assert set(ids(answer)) <= {f"p-{ordinal}" for ordinal in range(10)} - {"p-7", "p-3"}


async def test_pages_of_a_search_share_nothing_and_lose_nothing(curious):
    for _ in range(5):
        first = await curious.search("mug", page_size=5)
        second = await curious.search("mug", page_size=5, page_token=first.next_page_token)
        assert sorted([*ids(first), *ids(second)]) == sorted(f"p-{ordinal}" for ordinal in range(10))


async def test_lists_whose_order_is_a_promise_are_never_drawn(curious):
    candidates = [f"p-{ordinal}" for ordinal in range(20)]
    asked = {
        "by price": lambda: curious.search("mug", order_by="price"),
        "viewed last": lambda: curious.recommend("recently-viewed"),
        "rank": lambda: curious.ranker.Rank(ranker_pb2.RankRequest(visitor_id="ann", product_ids=candidates)),
    }
    for name, ask in asked.items():
        answers = [ids(await ask()) for _ in range(12)]
        assert all(answer == answers[0] for answer in answers), name
