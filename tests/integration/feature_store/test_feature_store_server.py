"""The feature store over gRPC, on a real log."""

from __future__ import annotations

from collections.abc import Callable

import grpc
import numpy as np
import pytest
from grpc_status import rpc_status

from headrace.model.candidates import CANDIDATE_FEATURES, FEATURE_SCHEMA
from headrace.model.items import ITEM_FEATURES, Items
from headrace.runtime.eventlog import EventLog, Record
from headrace.v1 import feature_store_pb2 as pb

Make = Callable[..., Record]


async def _append(log: EventLog, *records: Record) -> int:
    return (await log.append(records))[-1].offset


async def _status(stub, offset: int) -> pb.GetFeatureStoreStatusResponse:
    """The status once the fold is at `offset`."""
    await stub.GetUserState(pb.GetUserStateRequest(user_key="u:nobody", min_offset=offset), timeout=10)
    return await stub.GetFeatureStoreStatus(pb.GetFeatureStoreStatusRequest(with_digest=True))


async def test_an_appended_event_is_in_the_state(serve, event_log: EventLog, event: Make) -> None:
    async with serve() as stub:
        offset = await _append(event_log, event(1, 0, [3, 4], "detail-page-view"), event(2, 1, [3]))
        state = await stub.GetUserState(pb.GetUserStateRequest(user_key="u:ann", min_offset=offset), timeout=10)
    assert np.frombuffer(state.history.item_ordinals, "<u4").tolist() == [3, 4, 3]
    assert list(state.history.event_types) == [pb.EVENT_TYPE_CODE_VIEW] * 2 + [pb.EVENT_TYPE_CODE_PURCHASE]
    assert len(np.frombuffer(state.history.times_us, "<i8")) == len(state.history.channels) == 3
    assert np.frombuffer(state.features, "<f4")[:3].tolist() == [1, 0, 1]
    assert state.offset >= offset


async def test_max_events_keeps_the_newest(serve, event_log: EventLog, event: Make) -> None:
    async with serve() as stub:
        offset = await _append(event_log, event(1, 0, [3]), event(2, 1, [4]), event(3, 2, [5]))
        request = pb.GetUserStateRequest(user_key="u:ann", min_offset=offset, max_events=2)
        state = await stub.GetUserState(request, timeout=10)
    assert np.frombuffer(state.history.item_ordinals, "<u4").tolist() == [4, 5]


async def test_a_person_never_seen_has_an_empty_state(serve, event_log: EventLog) -> None:
    async with serve() as stub:
        state = await stub.GetUserState(pb.GetUserStateRequest(user_key="u:new"))
    assert state.history == pb.UserHistory()
    assert not np.frombuffer(state.features, "<f4").any()


async def test_every_fault_of_a_request_is_named(serve, event_log: EventLog) -> None:
    async with serve() as stub:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await stub.GetUserState(pb.GetUserStateRequest(max_events=-1, min_offset=-1))
    assert raised.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    for field in ("user_key", "max_events", "min_offset"):
        assert field in raised.value.details()


async def test_an_offset_that_never_comes_ends_with_the_deadline(serve, event_log: EventLog) -> None:
    async with serve() as stub:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await stub.GetUserState(pb.GetUserStateRequest(user_key="u:ann", min_offset=99), timeout=0.1)
    assert raised.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED


async def test_a_watcher_rebuilds_the_items_from_snapshot_and_deltas(
    serve, event_log: EventLog, event: Make, product: Make
) -> None:
    async with serve() as stub:
        offset = await _append(event_log, product(0), product(1), event(1, 1, [0, 1]))
        await _status(stub, offset)
        call = stub.WatchItemFeatures(pb.WatchItemFeaturesRequest())
        first = await call.read()
        assert (first.snapshot, first.snapshot_end) == (True, True)
        assert list(first.feature_names) == list(ITEM_FEATURES)
        assert first.feature_schema == FEATURE_SCHEMA
        assert [document.product.title for document in first.documents] == ["Boot 0", "Boot 1"]
        items = _apply(Items(), first)
        assert items.column("purchases_7d").tolist() == [1, 1]
        assert items.neighbour_ordinals_NK[0, 0] == 1

        await _append(event_log, event(2, 2, [1]), product(2, 3))
        documents = []
        while items.count < 3 or not documents:
            delta = await call.read()
            assert not delta.snapshot
            documents += [document.ordinal for document in delta.documents]
            items = _apply(items, delta)
        assert items.column("purchases_7d").tolist() == [1, 2, 0]
        assert documents == [2]
        call.cancel()


def _apply(items: Items, message: pb.WatchItemFeaturesResponse) -> Items:
    ordinals = np.frombuffer(message.item_ordinals, "<u4")
    shape = (len(ordinals), message.neighbour_count)
    items.update(
        ordinals,
        np.frombuffer(message.features.values, "<f4").reshape(len(ordinals), -1),
        np.frombuffer(message.neighbour_ordinals, "<u4").reshape(shape),
        np.frombuffer(message.neighbour_weights, "<f4").reshape(shape),
    )
    return items


async def test_counts_that_leave_a_window_are_sent(serve, event_log: EventLog, event: Make) -> None:
    async with serve() as stub:
        await _status(stub, await _append(event_log, event(1, 0, [0], "detail-page-view")))
        call = stub.WatchItemFeatures(pb.WatchItemFeaturesRequest())
        items = _apply(Items(), await call.read())
        assert items.column("views_5m").tolist() == [1]
        await _append(event_log, event(2, 10, [], "search"))
        while items.column("views_5m")[0]:
            _apply(items, await call.read())
        assert items.column("views_1h").tolist() == [1]
        call.cancel()


async def test_a_large_snapshot_comes_in_parts_under_two_megabytes(serve, event_log: EventLog, product: Make) -> None:
    async with serve() as stub:
        await _status(stub, await _append(event_log, *(product(ordinal) for ordinal in range(4_500))))
        parts = []
        async for message in stub.WatchItemFeatures(pb.WatchItemFeaturesRequest()):
            parts.append(message)
            if message.snapshot_end:
                break
    assert len(parts) > 1
    assert max(part.ByteSize() for part in parts) < 2 << 20
    ordinals = np.concatenate([np.frombuffer(part.item_ordinals, "<u4") for part in parts])
    assert ordinals.tolist() == list(range(4_500))
    assert sum(len(part.documents) for part in parts) == 4_500
    assert [part.snapshot_end for part in parts] == [False] * (len(parts) - 1) + [True]


async def test_an_empty_store_sends_an_empty_snapshot(serve, event_log: EventLog) -> None:
    async with serve() as stub:
        call = stub.WatchItemFeatures(pb.WatchItemFeaturesRequest())
        message = await call.read()
        call.cancel()
    assert (message.snapshot, message.snapshot_end, message.item_ordinals) == (True, True, b"")


async def test_training_rows_come_with_history_labels_and_weights(serve, event_log: EventLog, event: Make) -> None:
    async with serve() as stub:
        offset = await _append(
            event_log, event(1, 0, [0]), event(2, 60, [0, 1]), event(3, 120, [2], user="u:bob"), event(4, 300, [2])
        )
        await _status(stub, offset)
        request = pb.GetTrainingRowsRequest(after_offset=1, until_offset=offset)
        messages = [message async for message in stub.GetTrainingRows(request)]
    assert messages[-1].complete_offset == offset
    message = messages[0]
    assert np.frombuffer(message.group_offsets, "<i8").tolist() == [2, 3, 4]
    assert list(message.user_keys) == ["u:ann", "u:ann", "u:bob"]
    assert np.frombuffer(message.history_lengths, "<u4").tolist() == [0, 1, 0]
    assert np.frombuffer(message.histories.item_ordinals, "<u4").tolist() == [0]
    sizes = np.frombuffer(message.group_sizes, "<u4")
    rows = int(sizes.sum())
    assert message.features.rows == len(message.labels) == len(message.item_ordinals) // 4 == rows
    assert np.frombuffer(message.weights, "<f4").shape == (rows,)
    assert list(message.feature_names) == list(CANDIDATE_FEATURES)
    assert len(message.features.values) == rows * len(CANDIDATE_FEATURES) * 4


async def test_rows_beyond_the_fold_are_refused_with_a_time_to_come_back(
    serve, event_log: EventLog, event: Make
) -> None:
    async with serve() as stub:
        await _status(stub, await _append(event_log, event(1, 0, [0])))
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await _all(stub, pb.GetTrainingRowsRequest(until_offset=99))
        folded = await _all(stub, pb.GetTrainingRowsRequest(until_offset=99, up_to_folded=True))
    assert raised.value.code() == grpc.StatusCode.FAILED_PRECONDITION
    assert "RetryInfo" in str(rpc_status.from_call(raised.value))
    assert folded[-1].complete_offset == 1


@pytest.mark.parametrize(("after", "until", "field"), [(-1, 5, "after_offset"), (5, 5, "until_offset")])
async def test_a_bad_range_is_the_callers_fault(serve, event_log: EventLog, after: int, until: int, field: str) -> None:
    async with serve() as stub:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await _all(stub, pb.GetTrainingRowsRequest(after_offset=after, until_offset=until))
    assert raised.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert field in raised.value.details()


async def _all(stub, request: pb.GetTrainingRowsRequest) -> list[pb.GetTrainingRowsResponse]:
    return [message async for message in stub.GetTrainingRows(request)]


async def test_views_name_every_feature(serve, event_log: EventLog) -> None:
    async with serve() as stub:
        answer = await stub.ListFeatureViews(pb.ListFeatureViewsRequest())
    by_name = {view.name: view for view in answer.feature_views}
    assert list(by_name["candidate"].features) == list(CANDIDATE_FEATURES)
    assert {view.entity for view in answer.feature_views} == {"user", "item", "category", "brand", "candidate"}
    assert answer.feature_schema == FEATURE_SCHEMA


async def test_the_status_counts_events_by_type(serve, event_log: EventLog, event: Make) -> None:
    cancel = event(3, 2, [0], "purchase-cancel", cancelled="e1")
    async with serve() as stub:
        offset = await _append(event_log, event(1, 0, [0]), event(2, 1, [], "search"), cancel)
        status = await _status(stub, offset)
    assert dict(status.events_by_type) == {"purchase-complete": 1, "search": 1, "purchase-cancel": 1}
    assert (status.offset, status.users, status.items, status.events_folded) == (offset, 1, 1, 3)
    assert status.lag_p99_ms >= status.lag_p50_ms > 0


async def test_a_traced_record_is_folded_like_any_other(serve, event_log: EventLog, event: Make) -> None:
    parent = "00-0123456789abcdef0123456789abcdef-0123456789abcdef-01"
    async with serve() as stub:
        status = await _status(stub, await _append(event_log, event(1, 0, [0], traceparent=parent)))
    assert status.events_folded == 1
