"""A real feature store on a real log: records in, answers over gRPC."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest

from headrace.datasets.feed import feed
from headrace.datasets.simulated_shop import ShopSettings, SimulatedShop
from headrace.feature_store.__main__ import compose
from headrace.feature_store.settings import FeatureStoreSettings
from headrace.feature_store.windowed_view import WindowedView
from headrace.runtime.channels import open_channel
from headrace.runtime.eventlog import EventLog, Record
from headrace.runtime.eventlog.opening import open_event_log
from headrace.runtime.serving import running
from headrace.runtime.settings import CommonSettings
from headrace.v1 import common_pb2, feature_store_pb2_grpc, log_pb2

START_US = 1_700_000_000_000_000
MINUTE_US = 60_000_000


def _event(
    number: int,
    minutes: float,
    ordinals: list[int],
    event_type: str = "purchase-complete",
    user: str = "u:ann",
    cancelled: str = "",
    traceparent: str = "",
    channel: common_pb2.Channel.ValueType = common_pb2.CHANNEL_WEB,
) -> Record:
    time_us = START_US + int(minutes * MINUTE_US)
    event = common_pb2.UserEvent(event_id=f"e{number}", event_type=event_type, channel=channel)
    event.event_time.FromMicroseconds(time_us)
    for ordinal in ordinals:
        event.product_details.add(product_id=f"p{ordinal}")
    logged = log_pb2.LoggedUserEvent(
        event=event, user_key=user, item_ordinals=ordinals, event_time_us=time_us, cancelled_event_id=cancelled
    )
    return Record("user-event", user, f"e{number}", time_us, logged.SerializeToString(), traceparent)


def _product(ordinal: int, minutes: float = 0, price: float = 10.0) -> Record:
    product = common_pb2.Product(id=f"p{ordinal}", title=f"Boot {ordinal}", categories=["Shoes > Boots"], brands=["B"])
    product.price_info.price = price
    product.price_info.original_price = 2 * price
    change = log_pb2.ProductChange(ordinal=ordinal, product=product, change_time_us=START_US + int(minutes * MINUTE_US))
    payload = change.SerializeToString()
    return Record("product-change", f"p{ordinal}", f"c{ordinal}-{minutes}", change.change_time_us, payload)


def _shop_records(settings: ShopSettings) -> Iterator[Record]:
    """The shop's products and events as the door would log them."""
    ordinals: dict[str, int] = {}
    bought: dict[str, str] = {}
    for number, chunk in enumerate(feed(SimulatedShop(settings), size=200)):
        for product in chunk.products:
            ordinal = ordinals.setdefault(product.id, len(ordinals))
            time_us = int(chunk.time.timestamp() * 1e6)
            change = log_pb2.ProductChange(ordinal=ordinal, product=product, change_time_us=time_us)
            yield Record("product-change", product.id, f"{product.id}-{number}", time_us, change.SerializeToString())
        for event in chunk.events:
            time_us = event.event_time.ToMicroseconds()
            ids = [detail.product_id for detail in event.product_details]
            key = f"u:{event.user_id}" if event.user_id else f"v:{event.visitor_id}"
            logged = log_pb2.LoggedUserEvent(event=event, user_key=key, event_time_us=time_us)
            logged.item_ordinals.extend(ordinals.setdefault(one, len(ordinals)) for one in ids)
            if event.event_type == "purchase-cancel":
                logged.cancelled_event_id = bought.get(key, "")
            elif event.event_type == "purchase-complete":
                bought[key] = event.event_id
            yield Record("user-event", key, event.event_id, time_us, logged.SerializeToString())


@pytest.fixture
def shop_records() -> Callable[[ShopSettings], Iterator[Record]]:
    return _shop_records


@pytest.fixture
def event() -> Callable[..., Record]:
    return _event


@pytest.fixture
def product() -> Callable[..., Record]:
    return _product


@pytest.fixture
async def event_log(tmp_path: Path) -> AsyncIterator[EventLog]:
    log = open_event_log(CommonSettings(data_dir=tmp_path))
    yield log
    await log.close()


Serve = Callable[..., AbstractAsyncContextManager["feature_store_pb2_grpc.FeatureStoreServiceAsyncStub"]]


@pytest.fixture
def serve(tmp_path: Path) -> Serve:
    @asynccontextmanager
    async def serving(
        views: Sequence[WindowedView] = (), **changes: object
    ) -> AsyncIterator[feature_store_pb2_grpc.FeatureStoreServiceAsyncStub]:
        settings = FeatureStoreSettings(**{"port": 0, "publish_every_s": 0.01, "drain_s": 0.1, **changes})
        common = CommonSettings(data_dir=tmp_path)
        async with compose(settings, common, views) as parts, running(parts, settings) as server:
            channel = open_channel(server.address)
            stub = feature_store_pb2_grpc.FeatureStoreServiceStub(channel)
            stub.address = server.address
            yield stub
            await channel.close()

    return serving
