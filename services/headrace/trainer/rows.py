"""Training rows of the ranker network, asked from the feature store.

G groups, R rows, F features, L history length.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol

import grpc
import numpy as np
from numpy.typing import NDArray

from headrace.model.candidates import FEATURE_SCHEMA
from headrace.model.history import History
from headrace.v1 import feature_store_pb2, feature_store_pb2_grpc


@dataclass(frozen=True, slots=True)
class RowPart:
    """Groups as the feature store has them: the columns of the towers' scores are still empty."""

    ordinals_R: NDArray[np.uint32]
    features_RF: NDArray[np.float32]
    labels_R: NDArray[np.uint8]
    weights_R: NDArray[np.float32]
    sizes_G: NDArray[np.int64]
    times_us_G: NDArray[np.int64]
    # of the records that closed the groups
    offsets_G: NDArray[np.int64]
    histories: tuple[History, ...]
    user_keys: tuple[str, ...]
    # everything up to here has been handed out with this part
    complete_offset: int


class RowsError(Exception):
    """The feature store computes other features than this code."""


class TrainingRows(Protocol):
    """Where training rows come from, by offset."""

    def parts(self, after: int, until: int) -> AsyncIterator[RowPart]:
        """Groups closed at after < offset ≤ until, as far as they are folded. RowsError: another schema."""
        ...


class RowSource:
    """The rows of one process."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = feature_store_pb2_grpc.FeatureStoreServiceStub(channel)

    async def parts(self, after: int, until: int) -> AsyncIterator[RowPart]:
        request = feature_store_pb2.GetTrainingRowsRequest(after_offset=after, until_offset=until, up_to_folded=True)
        async for response in self._stub.GetTrainingRows(request):
            yield _part(response)


def _part(response: feature_store_pb2.GetTrainingRowsResponse) -> RowPart:
    if response.feature_schema != FEATURE_SCHEMA:
        raise RowsError(f"the feature store's features are {response.feature_schema!r}, ours {FEATURE_SCHEMA!r}")
    labels = np.frombuffer(response.labels, np.uint8)
    offsets = np.frombuffer(response.group_offsets, "<i8")
    # groups of one offset may be split over parts: the last offset is complete with the next part
    reached = int(offsets[-1]) - 1 if len(offsets) else 0
    return RowPart(
        np.frombuffer(response.item_ordinals, "<u4"),
        np.frombuffer(response.features.values, "<f4").reshape(response.features.rows, response.features.columns),
        labels,
        np.frombuffer(response.weights, "<f4") if response.weights else np.ones(len(labels), np.float32),
        np.frombuffer(response.group_sizes, "<u4").astype(np.int64),
        np.frombuffer(response.group_times_us, "<i8"),
        offsets,
        _histories(response),
        tuple(response.user_keys),
        max(response.complete_offset, reached),
    )


def _histories(response: feature_store_pb2.GetTrainingRowsResponse) -> tuple[History, ...]:
    packed = response.histories
    columns = History(
        np.frombuffer(packed.item_ordinals, "<u4"),
        np.frombuffer(packed.event_types, np.uint8),
        np.frombuffer(packed.times_us, "<i8"),
        np.frombuffer(packed.channels, np.uint8),
    )
    ends = np.cumsum(np.frombuffer(response.history_lengths, "<u4").astype(np.int64)).tolist()
    return tuple(
        History(
            columns.ordinals[start:end],
            columns.event_types[start:end],
            columns.times_us[start:end],
            columns.channels[start:end],
        )
        for start, end in zip([0, *ends], ends, strict=False)
    )
