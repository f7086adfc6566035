from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import grpc
import pytest

from headrace.ingest.catalogue import Catalogue
from headrace.ingest.storage import open_store
from headrace.runtime.errors import CorruptDataError
from headrace.runtime.eventlog import Record
from headrace.runtime.eventlog.opening import open_event_log
from headrace.runtime.rpc_status import faults_of
from headrace.v1 import ingest_pb2 as pb
from headrace.v1.common_pb2 import Product, UserEvent
from headrace.v1.log_pb2 import ProductChange

ACCEPTED, DUPLICATE, REJECTED = (
    pb.WriteResult.OUTCOME_ACCEPTED,
    pb.WriteResult.OUTCOME_DUPLICATE,
    pb.WriteResult.OUTCOME_REJECTED,
)
Event = Callable[..., UserEvent]


async def write(door: Any, *products: Product) -> list[tuple[int, int]]:
    answer = await door.stub.WriteProducts(pb.WriteProductsRequest(products=products))
    assert [result.id for result in answer.results] == [product.id for product in products]
    return [(result.outcome, result.offset) for result in answer.results]


async def delete(door: Any, product_id: str) -> int:
    return int((await door.stub.DeleteProduct(pb.DeleteProductRequest(product_id=product_id))).offset)


async def changes(door: Any) -> list[ProductChange]:
    return [ProductChange.FromString(record.payload) for record in await door.records("product-change")]


def stored(backend: Any) -> list[tuple[int, bytes, bool, int]]:
    query = "SELECT ordinal, product, deleted, log_offset FROM products ORDER BY ordinal"
    with backend.catalogue() as db:
        rows = db.exec_driver_sql(query).fetchall()
    return [(ordinal, bytes(product), bool(deleted), offset) for ordinal, product, deleted, offset in rows]


def folded(records: list[Any]) -> list[tuple[int, bytes, bool, int]]:
    rows: dict[int, tuple[int, bytes, bool, int]] = {}
    for record in records:
        change = ProductChange.FromString(record.payload)
        content = change.product.SerializeToString(deterministic=True)
        rows[change.ordinal] = (change.ordinal, content, change.deleted, record.offset)
    return [rows[ordinal] for ordinal in sorted(rows)]


def boots(title: str = "Boots") -> Product:
    return Product(id="boots", title=title)


async def test_a_product_is_in_the_log_and_in_the_catalogue(door: Any, backend: Any) -> None:
    product = Product(id="boots", title="Boots", attributes={"b": "2", "a": "1"}, available_quantity=3)
    assert await write(door, product) == [(ACCEPTED, 1)]
    (record,) = await door.records("product-change")
    (change,) = await changes(door)
    assert (record.key, change.ordinal, change.product, change.deleted) == ("boots", 0, product, False)
    assert change.change_time_us == record.time_us
    assert stored(backend) == folded([record])


async def test_the_same_content_again_changes_nothing(door: Any) -> None:
    first = await write(door, boots(), Product(id="socks", title="Socks"))
    again = await write(door, boots(), Product(id="socks", title="Socks"))
    assert [outcome for outcome, _ in again] == [DUPLICATE, DUPLICATE]
    assert [offset for _, offset in again] == [offset for _, offset in first]
    assert len(await changes(door)) == 2


async def test_there_and_back_again_is_three_changes(door: Any) -> None:
    for title in ("A", "B", "A", "A"):
        await write(door, boots(title))
    assert [change.product.title for change in await changes(door)] == ["A", "B", "A"]


async def test_within_one_batch_it_is_the_same(door: Any, backend: Any) -> None:
    results = await write(door, boots("A"), boots("A"), boots("B"), boots("A"), boots("A"))
    assert results == [(ACCEPTED, 1), (DUPLICATE, 1), (ACCEPTED, 2), (ACCEPTED, 3), (DUPLICATE, 3)]
    assert stored(backend) == folded(await door.records("product-change"))


async def test_one_bad_product_never_fails_its_batch(door: Any) -> None:
    request = pb.WriteProductsRequest(products=[boots(), Product(id="x"), Product(id="socks", title="Socks")])
    results = (await door.stub.WriteProducts(request)).results
    assert [result.outcome for result in results] == [ACCEPTED, REJECTED, ACCEPTED]
    assert (results[1].reason, results[1].violations[0].field) == ("missing", "title")
    assert [change.ordinal for change in await changes(door)] == [0, 1]


@pytest.mark.parametrize("count", [0, 2_001])
async def test_no_products_or_too_many_are_refused(door: Any, count: int) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await write(door, *[Product(id=str(number), title="T") for number in range(count)])
    assert [fault.field for fault in faults_of(refused.value)] == ["products"]


async def test_the_largest_batch_of_products_is_taken(door: Any) -> None:
    results = await write(door, *[Product(id=f"p{number}", title="T") for number in range(2_000)])
    assert {outcome for outcome, _ in results} == {ACCEPTED}
    assert [change.ordinal for change in await changes(door)] == list(range(2_000))


async def test_a_deleted_product_leaves_a_tombstone_and_keeps_its_ordinal(door: Any) -> None:
    await write(door, Product(id="socks", title="Socks"), boots())
    offset = await delete(door, "boots")
    last = (await changes(door))[-1]
    assert (last.ordinal, last.deleted, last.product) == (1, True, Product(id="boots"))
    assert offset == (await door.records("product-change"))[-1].offset
    assert await delete(door, "boots") == offset
    assert await write(door, boots()) == [(ACCEPTED, offset + 1)]
    assert (await changes(door))[-1].ordinal == 1
    assert await delete(door, "boots") == offset + 2


async def test_deleting_what_was_never_seen_is_not_found(door: Any, event: Event) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await delete(door, "unicorn")
    assert refused.value.code() == grpc.StatusCode.NOT_FOUND
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await delete(door, "")
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    await door.write(event(0, "detail-page-view", "unicorn"))
    assert await delete(door, "unicorn") == 2


async def test_an_event_of_an_unknown_product_is_joined_when_the_product_arrives(door: Any, event: Event) -> None:
    await door.write(event(0, "detail-page-view", "socks", "boots"))
    await write(door, boots())
    assert list((await door.logged())[0].item_ordinals) == [0, 1]
    assert [change.ordinal for change in await changes(door)] == [1]


async def test_ordinals_survive_a_restart_and_go_on(open_door: Any, event: Event) -> None:
    async with open_door() as door:
        await write(door, boots())
        await door.write(event(0, "detail-page-view", "socks"))
    async with open_door() as door:
        await door.write(event(1, "detail-page-view", "hat", "socks", "boots"))
        assert list((await door.logged())[-1].item_ordinals) == [2, 1, 0]


async def test_a_lost_database_comes_back_from_the_log(open_door: Any, event: Event, backend: Any) -> None:
    async with open_door() as door:
        await door.write(event(0, "detail-page-view", "socks", "hat"))
        await write(door, boots("A"), boots("B"))
        await delete(door, "boots")
        before = stored(backend)
    with backend.catalogue() as db:
        for table in ("items", "products", "dead_letters", "folds", "forgotten", "erasures", "alembic_version"):
            db.exec_driver_sql(f"DROP TABLE {table}")
    async with open_door() as door:
        assert stored(backend) == before
        await door.write(event(1, "detail-page-view", "new", "boots", "hat", "socks"))
        assert list((await door.logged())[-1].item_ordinals) == [3, 2, 1, 0]


async def test_a_change_that_was_logged_but_not_applied_is_caught_up(open_door: Any, backend: Any) -> None:
    async with open_door() as door:
        await write(door, boots("A"))
        await write(door, boots("B"))
        records = await door.records("product-change")
    with backend.catalogue() as db:
        db.exec_driver_sql("DELETE FROM products")
    async with open_door() as door:
        assert stored(backend) == folded(records)
        assert await write(door, boots("B")) == [(DUPLICATE, 2)]


async def test_two_replicas_share_ordinals_and_products(open_door: Any, event: Event) -> None:
    async with open_door() as one, open_door() as two:
        names = [f"p{number}" for number in range(40)]
        mine, yours = (
            [event(number, "detail-page-view", name, visitor_id=who) for number, name in enumerate(order)]
            for who, order in (("a", names), ("b", names[::-1]))
        )
        await asyncio.gather(*(one.write(given) for given in mine), *(two.write(given) for given in yours))
        seen = {(logged.event.product_details[0].product_id, logged.item_ordinals[0]) for logged in await one.logged()}
        assert len(seen) == 40
        assert {ordinal for _, ordinal in seen} == set(range(40))
        await write(one, boots("A"))
        assert await write(two, boots("A")) == [(DUPLICATE, 81)]
        assert await delete(two, "boots") == 82
        assert await delete(one, "boots") == 82


async def test_a_log_that_disagrees_about_ordinals_stops_the_start(backend: Any) -> None:
    log = open_event_log(backend.common)
    store = open_store(backend.database_url, backend.common.data_dir / "ingest")
    await store.migrate()
    await store.add_items(["socks"])
    change = ProductChange(ordinal=0, product=boots())
    await log.append([Record("product-change", "boots", "c", 1, change.SerializeToString())])
    with pytest.raises(CorruptDataError, match="disagree about ordinals"):
        await Catalogue(store, log).open()
    await store.close()
    await log.close()
