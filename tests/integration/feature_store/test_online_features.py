"""Features of one person and many items in one call, at one offset."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import grpc
import numpy as np
import pytest

from headrace.feature_store.windowed_view import WindowedView
from headrace.model.items import ITEM_FEATURES
from headrace.runtime.eventlog import Record
from headrace.runtime.eventlog.sqlite import SqliteEventLog
from headrace.v1 import common_pb2
from headrace.v1 import feature_store_pb2 as pb

Make = Callable[..., Record]

VIEW = "detail-page-view"
VIEWS = (
    WindowedView("store_views", "item", (VIEW,), ("1h", "1d"), channels=(common_pb2.CHANNEL_STORE,)),
    WindowedView("shelf", "category", (VIEW,), ("1d",)),
    WindowedView("searches", "user", ("search",), ("1d",)),
    WindowedView("acts", "channel", (VIEW, "search", "purchase-complete"), ("1d",)),
)


async def _append(log: SqliteEventLog, *records: Record) -> int:
    return (await log.append(records))[-1].offset


def _items(message: pb.GetOnlineFeaturesResponse) -> np.ndarray:
    matrix = message.item_features
    return np.frombuffer(matrix.values, "<f4").reshape(matrix.rows, matrix.columns)


def _packed(*ordinals: int) -> bytes:
    return np.array(ordinals, "<u4").tobytes()


async def test_one_call_reads_a_person_and_items_at_one_offset(
    serve, event_log: SqliteEventLog, event: Make, product: Make
) -> None:
    async with serve() as stub:
        offset = await _append(event_log, product(0), product(3), event(1, 1, [3, 4], VIEW), event(2, 2, [3]))
        request = pb.GetOnlineFeaturesRequest(
            user_key="u:ann",
            item_ordinals=_packed(3, 0, 4),
            features=["views_1h", "item_windows:purchases_1h", "price", "user_views_5m"],
            max_events=2,
            min_offset=offset,
        )
        request.features[0] = "item_windows:views_1h"
        found = await stub.GetOnlineFeatures(request, timeout=10)
    assert list(found.item_feature_names) == [
        "item_windows:views_1h",
        "item_windows:purchases_1h",
        "item_document:price",
    ]
    assert _items(found).tolist() == [[1, 1, 10], [0, 0, 10], [1, 0, 0]]
    assert np.frombuffer(found.user_features, "<f4").tolist() == [1]
    assert list(found.user_feature_names) == ["user_windows:user_views_5m"]
    assert np.frombuffer(found.history.item_ordinals, "<u4").tolist() == [4, 3]
    assert found.offset == offset
    assert len(found.feature_schema) == 64


async def test_items_are_named_by_product_too_and_unknown_ones_are_blank(
    serve, event_log: SqliteEventLog, event: Make, product: Make
) -> None:
    async with serve() as stub:
        offset = await _append(event_log, product(0), product(3), event(1, 1, [3], VIEW))
        request = pb.GetOnlineFeaturesRequest(
            product_ids=["p3", "p77"], features=["item_document", "item_windows"], min_offset=offset
        )
        found = await stub.GetOnlineFeatures(request, timeout=10)
    assert np.frombuffer(found.item_ordinals, "<u4").tolist() == [3, 0xFFFFFFFF]
    names = [name.split(":")[1] for name in found.item_feature_names]
    known, unknown = (dict(zip(names, row, strict=True)) for row in _items(found).tolist())
    assert (known["price"], known["views_7d"]) == (10, 1)
    assert (unknown["described"], unknown["available"], unknown["views_7d"]) == (0, 1, 0)


async def test_without_names_all_that_the_keys_can_read_is_read(
    serve, event_log: SqliteEventLog, event: Make, product: Make
) -> None:
    async with serve(views=VIEWS) as stub:
        records = [
            product(0),
            product(1),
            event(1, 1, [0], VIEW, channel=common_pb2.CHANNEL_STORE),
            event(2, 1, [1], VIEW),
            event(3, 2, [], "search"),
        ]
        offset = await _append(event_log, *records)
        request = pb.GetOnlineFeaturesRequest(
            user_key="u:ann",
            item_ordinals=_packed(0, 1),
            channel=common_pb2.CHANNEL_WEB,
            min_offset=offset,
        )
        found = await stub.GetOnlineFeatures(request, timeout=10)
    columns = dict(zip(found.item_feature_names, _items(found).T.tolist(), strict=True))
    assert len(columns) == len(ITEM_FEATURES) + 2 * 12 + 4 + 3
    assert columns["store_views:count_1h"] == [1, 0]
    # both are of one category
    assert columns["shelf:count_1d"] == columns["category_windows:views_1d"] == [2, 2]
    assert (
        dict(zip(found.user_feature_names, np.frombuffer(found.user_features, "<f4"), strict=True))["searches:count_1d"]
        == 1
    )
    assert np.frombuffer(found.channel_features, "<f4").tolist() == [2]


async def test_every_fault_is_named(serve, event_log: SqliteEventLog) -> None:
    async with serve() as stub:
        request = pb.GetOnlineFeaturesRequest(
            item_ordinals=_packed(*range(1001)),
            product_ids=["p1"],
            features=["views_1h", "colour", "user_views_1h", "candidate", "item_windows:price"],
            channel=99,
            max_events=-1,
            min_offset=-1,
        )
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await stub.GetOnlineFeatures(request)
        with pytest.raises(grpc.aio.AioRpcError) as of_nobody:
            await stub.GetOnlineFeatures(pb.GetOnlineFeaturesRequest(item_ordinals=b"abc"))
        with pytest.raises(grpc.aio.AioRpcError) as many:
            await stub.GetOnlineFeatures(pb.GetOnlineFeaturesRequest(user_key="u:a", features=["x" * 9_000] * 1_000))
        with pytest.raises(grpc.aio.AioRpcError) as too_many:
            await stub.GetOnlineFeatures(pb.GetOnlineFeaturesRequest(user_key="u:a", features=["price"] * 1_001))
    assert "980 more are faulty" in many.value.details()
    assert "features: must be at most 1000, got 1001" in too_many.value.details()
    assert raised.value.code() == of_nobody.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    details = raised.value.details()
    for field in ("item_ordinals", "product_ids", "channel", "max_events", "min_offset"):
        assert field in details
    for fault in (
        "'views_1h' is ambiguous: item_windows:views_1h or category_windows:views_1h or brand_windows:views_1h",
        "there is no view and no feature 'colour'",
        "'user_views_1h' is read by user",
        "'candidate' is computed by rankers",
        "there is no view and no feature 'item_windows:price'",
    ):
        assert fault in details
    assert "must be uint32s, got 3 bytes" in of_nobody.value.details()


async def test_answers_while_the_log_is_folded_are_whole(
    serve, event_log: SqliteEventLog, event: Make, product: Make
) -> None:
    """An event that names two items is in the counts of both or of neither, and of its person."""
    async with serve(fold_slice_s=0.05) as stub:
        request = pb.GetOnlineFeaturesRequest(
            user_key="u:ann",
            item_ordinals=_packed(0, 1),
            features=["item_windows:views_7d", "user_views_7d"],
            max_events=1_000,
        )
        end = await _append(event_log, *(event(number, number / 50, [0, 1], VIEW) for number in range(1_500)))
        offsets: list[int] = []
        while not offsets or offsets[-1] < end:
            for found in await asyncio.gather(*(stub.GetOnlineFeatures(request) for _ in range(4))):
                (first,), (second,) = _items(found).tolist()
                (of_user,) = np.frombuffer(found.user_features, "<f4").tolist()
                assert first == second == of_user == found.offset
                offsets.append(found.offset)
    # it was asked in the middle of the fold, not only before and after
    assert len(set(offsets)) > 5
