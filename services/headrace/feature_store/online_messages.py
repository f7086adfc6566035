"""The messages of online features and views: requests read with every fault named, answers as packed columns."""

# N items, F features

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from headrace.feature_store.feature_names import AnyView, FeatureNames, Keys, Selection
from headrace.feature_store.online_features import OnlineFeatures, Wanted
from headrace.model.history import History
from headrace.runtime.errors import Faults, InvalidRequestError
from headrace.v1 import common_pb2, feature_store_pb2

MOST_ITEMS = 1_000

_LIVE = feature_store_pb2.FEATURE_VIEW_STATE_LIVE
BACK_FILLING = feature_store_pb2.FEATURE_VIEW_STATE_BACK_FILLING


def online_request(
    request: feature_store_pb2.GetOnlineFeaturesRequest, names: FeatureNames
) -> tuple[Selection, Wanted]:
    """What is read, and of whom. InvalidRequestError names every fault."""
    faults = Faults()
    ordinals = _ordinals(request, faults)
    for field in ("max_events", "min_offset"):
        value: int = getattr(request, field)
        faults.check(value >= 0, field, f"must be at least 0, got {value}")
    channel = request.channel
    faults.check(channel in common_pb2.Channel.values(), "channel", f"must be a Channel, got {channel}")
    has_items = bool(request.item_ordinals or request.product_ids)
    names_none = not (request.user_key or has_items or channel)
    faults.check(not names_none, "user_key", "must not be empty where neither items nor a channel are named")
    keys = Keys(user=bool(request.user_key), item=has_items, channel=channel > 0)
    selection = names.select(request.features, keys, faults)
    faults.raise_if_any()
    if selection is None:
        raise InvalidRequestError.of("features", "cannot be read")
    return selection, Wanted(
        request.user_key, ordinals, request.product_ids, channel, request.store_id, request.max_events
    )


def _ordinals(request: feature_store_pb2.GetOnlineFeaturesRequest, faults: Faults) -> NDArray[np.uint32]:
    packed, ids = request.item_ordinals, request.product_ids
    faults.check(not (packed and ids), "product_ids", "must be empty where item_ordinals are given")
    faults.check(len(ids) <= MOST_ITEMS, "product_ids", f"must be at most {MOST_ITEMS}, got {len(ids)}")
    if not faults.check(len(packed) % 4 == 0, "item_ordinals", f"must be uint32s, got {len(packed)} bytes"):
        return np.empty(0, np.uint32)
    count = len(packed) // 4
    faults.check(count <= MOST_ITEMS, "item_ordinals", f"must be at most {MOST_ITEMS}, got {count}")
    return np.frombuffer(packed, "<u4")


def online_response(
    selection: Selection, found: OnlineFeatures, with_ordinals: bool
) -> feature_store_pb2.GetOnlineFeaturesResponse:
    return feature_store_pb2.GetOnlineFeaturesResponse(
        user_features=found.user.tobytes(),
        user_feature_names=selection.user.names,
        item_features=matrix_message(found.items),
        item_feature_names=selection.item.names,
        channel_features=found.channel.tobytes(),
        channel_feature_names=selection.channel.names,
        history=history_message(found.history),
        item_ordinals=found.ordinals.tobytes() if with_ordinals else b"",
        feature_schema=selection.schema,
        offset=found.offset,
        now_us=found.now_us,
    )


def matrix_message(values: NDArray[np.float32]) -> common_pb2.Matrix:
    rows, columns = values.shape
    return common_pb2.Matrix(rows=rows, columns=columns, values=values.tobytes())


def history_message(history: History) -> feature_store_pb2.UserHistory:
    return feature_store_pb2.UserHistory(
        item_ordinals=history.ordinals.tobytes(),
        event_types=history.event_types.tobytes(),
        times_us=history.times_us.tobytes(),
        channels=history.channels.tobytes(),
    )


def view_message(view: AnyView, back_fill: tuple[int, int] | None) -> feature_store_pb2.FeatureView:
    """A view as it is listed; `back_fill` is how far that is and of where, None for a live one."""
    offset, end = back_fill or (0, 0)
    return feature_store_pb2.FeatureView(
        name=view.name,
        entity=view.entity,
        features=view.features,
        description=view.description,
        version=view.version,
        definition_hash=view.definition_hash(),
        windows=view.windows,
        state=_LIVE if back_fill is None else BACK_FILLING,
        back_fill_offset=offset,
        back_fill_end_offset=end,
        is_online=view.is_online,
    )
