"""Windowed counts recounted from the log by brute force, beside those that the feature store serves."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from headrace.cli.client import Client
from headrace.model.items import WINDOWS_US
from headrace.runtime.eventlog import EventLog
from headrace.v1.feature_store_pb2 import (
    GetFeatureStoreStatusRequest,
    GetUserStateRequest,
    ListFeatureViewsRequest,
    WatchItemFeaturesRequest,
)
from headrace.v1.log_pb2 import LoggedUserEvent

_TYPES = {"views": "detail-page-view", "carts": "add-to-cart", "purchases": "purchase-complete"}
# an event leaves a count within this share of the window
_EDGE = 1 / 64
_TIMEOUT_S = 120.0
_READ = 20_000


@dataclass(frozen=True, slots=True)
class Recount:
    """How many counts were compared, and those that the log does not bear out."""

    compared: int
    wrong: Sequence[str]


async def recounted(client: Client, log: EventLog, users: int, seed: int) -> Recount:
    """Every item's counts, and those of some users drawn from the log; the load must have stopped.

    A count is right when it lies between the recounts over the window and over 63/64 of it. Purchases of those whose
    purchases were taken back are left out.
    """
    events = await _events(log)
    status = await client.feature_store.GetFeatureStoreStatus(GetFeatureStoreStatusRequest(), timeout=_TIMEOUT_S)
    names = sorted(set(events["user_key"].to_list()))
    chosen = random.Random(seed).sample(names, min(users, len(names)))
    compared = Comparison(events, status.now_us)
    compared.add("ordinal", await _item_counts(client))
    compared.add("user_key", await _user_counts(client, chosen))
    return Recount(compared.count, compared.wrong)


async def _events(log: EventLog) -> pl.DataFrame:
    """One row an event and item: user_key, ordinal, type, time_us, is_cancelled."""
    rows: list[tuple[int, str, int, str, int]] = []
    cancelled: set[str] = set()
    ids: list[str] = []
    after = 0
    while records := await log.read(after, limit=_READ, kinds=("user-event",)):
        for record in records:
            one = LoggedUserEvent.FromString(record.payload)
            cancelled |= {one.cancelled_event_id} - {""}
            for ordinal in set(one.item_ordinals):
                rows.append((record.offset, one.user_key, ordinal, one.event.event_type, one.event_time_us))
                ids.append(record.event_id)
        after = records[-1].offset
    schema = ["offset", "user_key", "ordinal", "type", "time_us"]
    frame = pl.DataFrame(rows, schema=schema, orient="row").with_columns(pl.Series("event_id", ids))
    return frame.with_columns(pl.col("event_id").is_in(list(cancelled)).alias("is_cancelled"))


class Comparison:
    """Served counts held against the log's events."""

    def __init__(self, events: pl.DataFrame, now_us: int) -> None:
        self._events = events
        self._now_us = now_us
        self.count = 0
        self.wrong: list[str] = []

    def add(self, key: str, served: Mapping[object, Mapping[str, float]]) -> None:
        for name, event_type in _TYPES.items():
            of_type = self._events.filter(pl.col("type") == event_type)
            unsure = set(of_type.filter("is_cancelled")[key].to_list())
            for window, window_us in WINDOWS_US.items():
                most = self._recount(of_type, key, window_us)
                least = self._recount(of_type, key, int(window_us * (1 - _EDGE)))
                for entity, counts in served.items():
                    if entity not in unsure:
                        self._compare(
                            f"{key} {entity} {name}_{window}", counts[f"{name}_{window}"], least, most, entity
                        )

    def _recount(self, events: pl.DataFrame, key: str, window_us: int) -> dict[object, int]:
        inside = events.filter(pl.col("time_us") > self._now_us - window_us)
        counted = inside.group_by(key).agg(pl.col("offset").n_unique())
        return dict(zip(counted[key].to_list(), counted["offset"].to_list(), strict=True))

    def _compare(
        self, what: str, served: float, least: Mapping[object, int], most: Mapping[object, int], entity: object
    ) -> None:
        self.count += 1
        low, high = least.get(entity, 0), most.get(entity, 0)
        if not low <= served <= high:
            self.wrong.append(f"{what}: {served:g} served, {low} to {high} in the log")


async def _item_counts(client: Client) -> dict[object, Mapping[str, float]]:
    """The counts of every item, by ordinal."""
    counts: dict[object, Mapping[str, float]] = {}
    names: Sequence[str] = ()
    async for part in client.feature_store.WatchItemFeatures(WatchItemFeaturesRequest(), timeout=_TIMEOUT_S):
        names = names or list(part.feature_names)
        values = np.frombuffer(part.features.values, "<f4").reshape(part.features.rows, -1)
        for ordinal, row in zip(np.frombuffer(part.item_ordinals, "<u4").tolist(), values, strict=True):
            counts[ordinal] = dict(zip(names, row.tolist(), strict=True))
        if part.snapshot_end:
            return counts
    raise AssertionError("the feature store ended its snapshot of the items too early")


async def _user_counts(client: Client, users: Sequence[str]) -> dict[object, Mapping[str, float]]:
    views = await client.feature_store.ListFeatureViews(ListFeatureViewsRequest(), timeout=_TIMEOUT_S)
    (names,) = [view.features for view in views.feature_views if view.name == "user_windows"]
    counts: dict[object, Mapping[str, float]] = {}
    for user in users:
        state = await client.feature_store.GetUserState(GetUserStateRequest(user_key=user), timeout=_TIMEOUT_S)
        values = np.frombuffer(state.features, "<f4").tolist()
        counts[user] = {name.removeprefix("user_"): value for name, value in zip(names, values, strict=True)}
    return counts
