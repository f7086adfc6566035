"""A shop's log for the feature benchmark: products that are described, and what visitors did with them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from headrace.runtime.eventlog import Record
from headrace.runtime.eventlog.opening import open_event_log
from headrace.runtime.settings import CommonSettings
from headrace.v1 import common_pb2, log_pb2

START_US = 1_700_000_000_000_000
_TYPES = ("detail-page-view", "add-to-cart", "purchase-complete")
_BATCH = 2_000


async def fill_log(data_dir: Path, products: int, users: int, events: int, seed: int) -> int:
    """Writes the log of an embedded suite; answers its end."""
    log = open_event_log(CommonSettings(data_dir=data_dir))
    chance = np.random.default_rng(seed)
    batch: list[Record] = []
    for record in (*_products(products, chance), *_events(products, users, events, chance)):
        batch.append(record)
        if len(batch) == _BATCH:
            await log.append(batch)
            batch = []
    await log.append(batch)
    end, _ = await log.end()
    await log.close()
    return end


def _products(count: int, chance: np.random.Generator) -> Iterator[Record]:
    for ordinal in range(count):
        product = common_pb2.Product(id=f"p{ordinal}", title=f"Thing {ordinal}", brands=[f"Brand {ordinal % 90}"])
        product.categories.append(f"Shelf {ordinal % 200}")
        product.price_info.price = float(chance.integers(1, 200))
        product.price_info.original_price = product.price_info.price * 1.2
        change = log_pb2.ProductChange(ordinal=ordinal, product=product, change_time_us=START_US)
        yield Record("product-change", product.id, f"c{ordinal}", START_US, change.SerializeToString())


def more_events(products: int, users: int, after: int) -> Iterator[Record]:
    """What follows on a log of `after` events, for as long as it is asked for."""
    chance = np.random.default_rng(after)
    while True:
        yield from _events(products, users, _BATCH, chance, after)
        after += _BATCH


def _events(products: int, users: int, count: int, chance: np.random.Generator, after: int = 0) -> Iterator[Record]:
    ordinals = chance.zipf(1.2, count) % products
    people = chance.integers(0, users, count)
    times_us = START_US + after * 2_000_000 + np.cumsum(chance.exponential(2e6, count)).astype(np.int64)
    kinds = chance.choice(len(_TYPES), count, p=(0.7, 0.2, 0.1))
    for number, (ordinal, person, time_us, kind) in enumerate(
        zip(ordinals.tolist(), people.tolist(), times_us.tolist(), kinds.tolist(), strict=True), after
    ):
        event = common_pb2.UserEvent(event_id=f"e{number}", event_type=_TYPES[kind], user_id=f"{person}")
        event.event_time.FromMicroseconds(time_us)
        event.product_details.add(product_id=f"p{ordinal}")
        logged = log_pb2.LoggedUserEvent(
            event=event, user_key=f"u:{person}", item_ordinals=[ordinal], event_time_us=time_us
        )
        yield Record("user-event", logged.user_key, event.event_id, time_us, logged.SerializeToString())
