"""The messages of features at moments of the past: labels read with every fault named, answers as packed columns."""

# L labels

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from headrace.feature_store.feature_names import FeatureNames, Keys, Selection
from headrace.feature_store.online_messages import matrix_message
from headrace.feature_store.point_in_time import Labels, PastFeatures
from headrace.runtime.errors import Faults, InvalidRequestError
from headrace.v1 import common_pb2, feature_store_pb2

MOST_LABELS = 100_000


def historical_request(
    request: feature_store_pb2.GetHistoricalFeaturesRequest, names: FeatureNames
) -> tuple[Selection, Labels]:
    """What is read, of whom and as of when. InvalidRequestError names every fault."""
    faults = Faults()
    ordinals = _unpacked(request.item_ordinals, "item_ordinals", "<u4", faults).astype(np.uint32)
    offsets = _unpacked(request.offsets, "offsets", "<i8", faults).astype(np.int64)
    times_us = _unpacked(request.times_us, "times_us", "<i8", faults).astype(np.int64)
    is_one = bool(len(offsets)) != bool(len(times_us))
    faults.check(is_one, "offsets", f"either these or times_us, got {len(offsets)} and {len(times_us)}")
    moments = times_us if len(times_us) else offsets
    _check_lengths(request, len(ordinals), moments, faults)
    channel = request.channel
    faults.check(channel in common_pb2.Channel.values(), "channel", f"must be a Channel, got {channel}")
    keys = Keys(user=any(request.user_keys), item=len(ordinals) > 0, channel=channel > 0)
    selection = names.select(request.features, keys, faults)
    faults.raise_if_any()
    if selection is None:
        raise InvalidRequestError.of("features", "cannot be read")
    return selection, Labels(list(request.user_keys), ordinals, moments, len(times_us) > 0, channel, request.store_id)


def _unpacked(packed: bytes, field: str, kind: str, faults: Faults) -> NDArray[np.generic]:
    width = np.dtype(kind).itemsize
    whole = faults.check(len(packed) % width == 0, field, f"must be {width} bytes a label, got {len(packed)} bytes")
    return np.frombuffer(packed if whole else b"", kind)


def _check_lengths(
    request: feature_store_pb2.GetHistoricalFeaturesRequest, items: int, moments: NDArray[np.int64], faults: Faults
) -> None:
    labels = len(moments)
    field = "times_us" if request.times_us else "offsets"
    faults.check(labels <= MOST_LABELS, field, f"must be at most {MOST_LABELS}, got {labels}")
    faults.check(int(moments.min(initial=0)) >= 0, field, f"must be at least 0, got {int(moments.min(initial=0))}")
    for name, count in (("user_keys", len(request.user_keys)), ("item_ordinals", items)):
        faults.check(count in (0, labels), name, f"must be one a label or none, got {count} for {labels}")
    is_of_nobody = not (request.user_keys or items or request.channel)
    faults.check(not is_of_nobody, "user_keys", "must not be empty where neither items nor a channel are named")


def historical_response(
    selection: Selection, part: PastFeatures, is_first: bool
) -> feature_store_pb2.GetHistoricalFeaturesResponse:
    return feature_store_pb2.GetHistoricalFeaturesResponse(
        labels=part.labels.tobytes(),
        user_features=matrix_message(part.user),
        item_features=matrix_message(part.items),
        channel_features=matrix_message(part.channel),
        user_feature_names=selection.user.names if is_first else (),
        item_feature_names=selection.item.names if is_first else (),
        channel_feature_names=selection.channel.names if is_first else (),
        feature_schema=selection.schema if is_first else "",
        offsets=part.offsets.tobytes(),
        now_us=part.now_us.tobytes(),
    )
