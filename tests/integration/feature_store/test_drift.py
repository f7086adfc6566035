"""Drift as the feature store tells it: prices that doubled are seen, and what stayed is not."""

from __future__ import annotations

from collections.abc import Callable

import grpc
import pytest

from headrace.runtime.eventlog import Record
from headrace.runtime.eventlog.sqlite import SqliteEventLog
from headrace.v1 import feature_store_pb2 as pb

Make = Callable[..., Record]


def _visits(event: Make, first: int, count: int) -> list[Record]:
    """A visit each by persons who never come again, 31 minutes apart."""
    return [event(n, n * 31, [n % 10], "detail-page-view", user=f"u:{n}") for n in range(first, first + count)]


async def test_prices_that_doubled_have_moved(serve, event_log: SqliteEventLog, event: Make, product: Make) -> None:
    async with serve() as stub:
        cheap = [product(number, price=10.0 + number) for number in range(10)]
        dear = [product(number, minutes=1, price=900.0 + number) for number in range(10)]
        middle = (await event_log.append([*cheap, *_visits(event, 0, 60)]))[-1].offset
        end = (await event_log.append([*dear, *_visits(event, 60, 60)]))[-1].offset
        await stub.GetUserState(pb.GetUserStateRequest(user_key="u:x", min_offset=end), timeout=20)
        request = pb.GetFeatureDriftRequest(reference_until_offset=middle, after_offset=middle + 11, until_offset=end)
        drift = await stub.GetFeatureDrift(request, timeout=20)
        of_itself = await stub.GetFeatureDrift(
            pb.GetFeatureDriftRequest(reference_until_offset=middle, until_offset=middle), timeout=20
        )
        default = await stub.GetFeatureDrift(pb.GetFeatureDriftRequest(), timeout=20)
    index = {one.feature: one for one in drift.features}
    assert index["price"].stability > 0.25
    assert index["price"].recent_mean > index["price"].reference_mean
    assert index["available"].stability < 0.01
    assert not any(one.not_finite for one in drift.features)
    assert drift.reference_rows > 100 < drift.recent_rows
    assert max(one.stability for one in of_itself.features) == 0
    assert 0 == default.reference_after_offset < default.reference_until_offset <= default.after_offset
    assert default.until_offset == end


async def test_bad_periods_are_named(serve, event_log: SqliteEventLog) -> None:
    async with serve() as stub:
        request = pb.GetFeatureDriftRequest(after_offset=5, until_offset=5, reference_after_offset=-1)
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await stub.GetFeatureDrift(request)
    assert raised.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    for field in ("until_offset: must be above after_offset 5", "reference_after_offset: must be at least 0"):
        assert field in raised.value.details()
