"""Products for words."""

from __future__ import annotations

import time

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from headrace.runtime.rpc_status import faults_of
from headrace.v1 import common_pb2, ranker_pb2


def ids(response) -> list[str]:
    return [result.product_id for result in response.results]


async def test_words_find_the_product_that_has_them_all(shop):
    assert ids(await shop.search("red mug"))[0] == "p-0"
    assert ids(await shop.search("Mugs, RED!"))[0] == "p-0"


async def test_a_word_finds_all_of_its_kind_and_counts_them(shop):
    response = await shop.search("lamps", page_size=3)
    assert set(ids(response)) <= {f"p-{ordinal}" for ordinal in range(10, 20)}
    assert len(response.results) == 3
    assert response.total_size == 10


async def test_a_typo_finds_what_was_meant(shop):
    assert ids(await shop.search("red ketle"))[0] == "p-30"
    assert set(ids(await shop.search("cushon"))) == {f"p-{ordinal}" for ordinal in range(40, 50)}


async def test_the_products_own_code_finds_it(shop):
    assert ids(await shop.search("p-42"))[0] == "p-42"


async def test_words_and_vectors_are_fused(full_shop):
    response = await full_shop.search("red mug", explain=True)
    assert ids(response)[0] == "p-0"
    sources = {reason for result in response.results for reason in result.reasons}
    assert {"lexical", "vector"} <= sources
    assert response.total_size >= len(response.results)
    assert response.info.release == "r-1"


async def test_a_filter_holds_in_a_search(full_shop):
    wanted = common_pb2.ProductFilter(brands=["acme"], min_price=3, max_price=8)
    response = await full_shop.search("mug", filter=wanted)
    assert set(ids(response)) == {"p-3", "p-5", "p-7"}


async def test_a_filter_without_words_browses_all_that_it_allows(shop):
    shop.store.make_popular(25, 9.0)
    await shop.caught_up()
    wanted = common_pb2.ProductFilter(categories=["Home > Chairs"])
    response = await shop.search("", filter=wanted, page_size=4)
    assert response.total_size == 10
    assert ids(response)[0] == "p-25"
    assert set(ids(response)) <= {f"p-{ordinal}" for ordinal in range(20, 30)}


@pytest.mark.parametrize(
    ("order_by", "expected"),
    [("price", [f"p-{n}" for n in range(10)]), ("price desc", [f"p-{n}" for n in range(9, -1, -1)])],
)
async def test_prices_order_all_that_matches(full_shop, order_by, expected):
    response = await full_shop.search("mug", order_by=order_by)
    assert ids(response) == expected
    assert response.total_size == 10


async def test_the_newest_come_first_when_asked_for(shop, make):
    for ordinal, seconds in ((60, 200), (61, 300), (62, 100)):
        shop.store.describe(ordinal, make.product(ordinal, "teal teapot", publish_time=Timestamp(seconds=seconds)))
    await shop.until(lambda status: status.lexical_documents == 63)
    assert ids(await shop.search("teapot", order_by="newest")) == ["p-61", "p-60", "p-62"]


@pytest.mark.parametrize("order_by", ["relevance", "price"])
async def test_pages_follow_on_without_gap_or_repeat(full_shop, order_by):
    seen: list[str] = []
    token = ""
    while True:
        page = await full_shop.search("mug", page_size=4, page_token=token, order_by=order_by)
        seen += ids(page)
        token = page.next_page_token
        if not token:
            break
        assert len(page.results) == 4
    whole = await full_shop.search("mug", page_size=500, order_by=order_by)
    assert seen == ids(whole)
    assert len(seen) == len(set(seen)) == whole.total_size


async def test_a_new_product_is_found_within_a_second_without_a_vector(full_shop, make):
    begun = time.perf_counter()
    full_shop.store.describe(60, make.product(60, "vermilion samovar"))

    async def found() -> bool:
        return "p-60" in ids(await full_shop.search("samovar"))

    await make.eventually(found)
    assert time.perf_counter() - begun < 1


async def test_changed_and_deleted_products_change_what_is_found(shop, make):
    shop.store.describe(0, make.product(0, "vermilion samovar"))
    shop.store.describe(1, None)

    async def changed() -> bool:
        return ids(await shop.search("samovar")) == ["p-0"]

    await make.eventually(changed)
    await shop.until(lambda status: status.lexical_documents == 59)
    assert "p-1" not in ids(await shop.search("blue mug"))
    assert "p-0" not in ids(await shop.search("red mug"))


async def test_what_is_not_published_or_has_expired_is_not_found(shop, make):
    now_s = make.now_us // 1_000_000
    for ordinal, times in (
        (60, {"publish_time": Timestamp(seconds=now_s + 60)}),
        (61, {"expire_time": Timestamp(seconds=now_s)}),
        (62, {"publish_time": Timestamp(seconds=now_s), "expire_time": Timestamp(seconds=now_s + 60)}),
    ):
        shop.store.describe(ordinal, make.product(ordinal, "teal teapot", **times))
    await shop.until(lambda status: status.lexical_documents == 63)
    assert ids(await shop.search("teapot")) == ["p-62"]


async def test_the_persons_history_breaks_even_matches(shop):
    await shop.store.act("u:eve", 17, 4)
    assert ids(await shop.search("lamp", user_id="eve"))[0] == "p-17"


@pytest.mark.parametrize(
    ("fields", "faulty"),
    [
        ({"query": ""}, {"query"}),
        ({"query": "  ", "filter": common_pb2.ProductFilter(include_unavailable=True)}, {"query"}),
        ({"query": "é" * 501}, {"query"}),
        ({"query": "mug", "page_size": 0}, {"page_size"}),
        ({"query": "mug", "page_size": 501, "order_by": "cheapest"}, {"page_size", "order_by"}),
        ({"query": "mug", "page_token": "!!"}, {"page_token"}),
        ({"query": "mug", "page_token": "AAAAAAAAAAAAAAAA"}, {"page_token"}),
        ({"query": "mug", "user_id": "u" * 129}, {"user_id"}),
    ],
)
async def test_every_fault_of_a_search_is_named(shop, fields, faulty):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await shop.ranker.Search(ranker_pb2.SearchRequest(**fields))
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert {fault.field for fault in faults_of(caught.value)} == faulty


async def test_a_page_token_of_another_search_is_refused(shop):
    token = (await shop.search("mug", page_size=2)).next_page_token
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await shop.search("lamp", page_size=2, page_token=token)
    assert [fault.field for fault in faults_of(caught.value)] == ["page_token"]
