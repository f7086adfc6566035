"""The gRPC face of the feature store: translates in, one call, translates out."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc
import numpy as np

from headrace.feature_store.drift_messages import drift_request, drift_response
from headrace.feature_store.fact_questions import FactQuestion
from headrace.feature_store.historical_messages import historical_request, historical_response
from headrace.feature_store.histories import EVENT
from headrace.feature_store.item_stream import WatchedChunk
from headrace.feature_store.online_messages import (
    BACK_FILLING,
    history_message,
    matrix_message,
    online_request,
    online_response,
    view_message,
)
from headrace.feature_store.row_columns import RowColumns
from headrace.feature_store.store import FeatureStore
from headrace.feature_store.views import USER_SCHEMA
from headrace.model.candidates import CANDIDATE_FEATURES, FEATURE_SCHEMA
from headrace.model.items import ITEM_FEATURES, NEIGHBOURS
from headrace.runtime.calls import remaining_s
from headrace.runtime.errors import Faults
from headrace.runtime.serving import Face
from headrace.v1 import common_pb2, feature_store_pb2, feature_store_pb2_grpc

NAME = "headrace.v1.FeatureStoreService"

# grpc has no types for contexts
_Context = grpc.aio.ServicerContext[Any, Any]


class FeatureStoreServer(feature_store_pb2_grpc.FeatureStoreServiceServicer):
    """Serves one `FeatureStore`."""

    def __init__(self, store: FeatureStore) -> None:
        self._store = store

    def face(self) -> Face:
        return Face(NAME, lambda server: feature_store_pb2_grpc.add_FeatureStoreServiceServicer_to_server(self, server))

    async def GetUserState(
        self, request: feature_store_pb2.GetUserStateRequest, context: _Context
    ) -> feature_store_pb2.GetUserStateResponse:
        _check_user(request)
        state = await self._store.features.user_state(
            request.user_key, request.max_events, request.min_offset, remaining_s()
        )
        return feature_store_pb2.GetUserStateResponse(
            history=history_message(state.history),
            features=state.features.tobytes(),
            feature_schema=USER_SCHEMA,
            offset=state.offset,
            now_us=state.now_us,
            person_key=state.members[0],
            device_keys=state.members[1:],
            traceparent=self._store.follower.traces.newest(state.members),
        )

    async def GetOnlineFeatures(
        self, request: feature_store_pb2.GetOnlineFeaturesRequest, context: _Context
    ) -> feature_store_pb2.GetOnlineFeaturesResponse:
        selection, wanted = online_request(request, self._store.names)
        found = await self._store.features.online_features(selection, wanted, request.min_offset, remaining_s())
        return online_response(selection, found, bool(request.product_ids))

    async def GetHistoricalFeatures(
        self, request: feature_store_pb2.GetHistoricalFeaturesRequest, context: _Context
    ) -> AsyncIterator[feature_store_pb2.GetHistoricalFeaturesResponse]:
        selection, labels = historical_request(request, self._store.names)
        is_first = True
        async for part in self._store.features.historical_features(selection, labels):
            yield historical_response(selection, part, is_first)
            is_first = False

    async def WatchItemFeatures(
        self, request: feature_store_pb2.WatchItemFeaturesRequest, context: _Context
    ) -> AsyncIterator[feature_store_pb2.WatchItemFeaturesResponse]:
        is_first = True
        async for watched in self._store.items.watch():
            yield _items(watched, is_first)
            is_first = False

    async def GetTrainingRows(
        self, request: feature_store_pb2.GetTrainingRowsRequest, context: _Context
    ) -> AsyncIterator[feature_store_pb2.GetTrainingRowsResponse]:
        rows = self._store.training.rows(request.after_offset, request.until_offset, request.up_to_folded)
        async for part, complete_offset in rows:
            yield _rows(part, complete_offset)

    async def GetFeatureDrift(
        self, request: feature_store_pb2.GetFeatureDriftRequest, context: _Context
    ) -> feature_store_pb2.GetFeatureDriftResponse:
        return drift_response(*await self._store.drift.measure(*drift_request(request)))

    async def ListFeatureViews(
        self, request: feature_store_pb2.ListFeatureViewsRequest, context: _Context
    ) -> feature_store_pb2.ListFeatureViewsResponse:
        return feature_store_pb2.ListFeatureViewsResponse(feature_views=self._views(), feature_schema=FEATURE_SCHEMA)

    def _views(self) -> list[feature_store_pb2.FeatureView]:
        return [view_message(view, self._store.view_progress(view.name)) for view in self._store.names.views.values()]

    async def GetFacts(
        self, request: feature_store_pb2.GetFactsRequest, context: _Context
    ) -> feature_store_pb2.GetFactsResponse:
        held = await self._store.features.facts(_fact_question(request), remaining_s())
        facts = [common_pb2.DatedFact.FromString(document) for document in held.documents]
        facts.sort(key=lambda fact: fact.fact_id)
        return feature_store_pb2.GetFactsResponse(facts=facts, offset=held.offset, now_us=held.now_us)

    async def GetFeatureStoreStatus(
        self, request: feature_store_pb2.GetFeatureStoreStatusRequest, context: _Context
    ) -> feature_store_pb2.GetFeatureStoreStatusResponse:
        status = await self._store.status(request.with_digest)
        return feature_store_pb2.GetFeatureStoreStatusResponse(
            offset=status.offset,
            now_us=status.now_us,
            users=status.users,
            hot_users=status.hot_users,
            items=status.items,
            lag_p50_ms=status.lag_p50_ms,
            lag_p99_ms=status.lag_p99_ms,
            events_folded=status.events_folded,
            snapshot_offset=status.snapshot_offset,
            events_by_type=status.events_by_type,
            state_digest=status.state_digest,
            shard=status.shard,
            dated_facts=status.dated_facts,
            devices_joined=status.devices_joined,
            back_filling=[view for view in self._views() if view.state == BACK_FILLING],
        )


def _check_user(request: feature_store_pb2.GetUserStateRequest) -> None:
    faults = Faults()
    faults.check(bool(request.user_key), "user_key", "must not be empty")
    faults.check(request.max_events >= 0, "max_events", f"must be at least 0, got {request.max_events}")
    faults.check(request.min_offset >= 0, "min_offset", f"must be at least 0, got {request.min_offset}")
    faults.raise_if_any()


def _fact_question(request: feature_store_pb2.GetFactsRequest) -> FactQuestion:
    faults = Faults()
    kinds = common_pb2.EntityKind
    is_kind = request.entity_kind in kinds.values() and request.entity_kind != kinds.ENTITY_KIND_UNSPECIFIED
    faults.check(is_kind, "entity_kind", f"must be one of {', '.join(kinds.keys()[1:])}, got {request.entity_kind}")
    faults.check(bool(request.entity_id), "entity_id", "must not be empty")
    faults.check(request.as_of_offset >= 0, "as_of_offset", f"must be at least 0, got {request.as_of_offset}")
    faults.check(request.min_offset >= 0, "min_offset", f"must be at least 0, got {request.min_offset}")
    faults.raise_if_any()
    return FactQuestion(
        entity=(request.entity_kind, request.entity_id),
        store_id=request.store_id,
        time_us=request.time.ToMicroseconds() if request.HasField("time") else None,
        offset=request.as_of_offset or None,
        min_offset=request.min_offset,
    )


def _items(watched: WatchedChunk, is_first: bool) -> feature_store_pb2.WatchItemFeaturesResponse:
    chunk = watched.chunk
    return feature_store_pb2.WatchItemFeaturesResponse(
        snapshot=watched.snapshot,
        snapshot_end=watched.snapshot_end,
        item_ordinals=chunk.ordinals.tobytes(),
        features=matrix_message(chunk.features),
        feature_names=ITEM_FEATURES if is_first else (),
        feature_schema=FEATURE_SCHEMA if is_first else "",
        neighbour_count=NEIGHBOURS,
        neighbour_ordinals=chunk.neighbour_ordinals.tobytes(),
        neighbour_weights=chunk.neighbour_weights.tobytes(),
        documents=map(feature_store_pb2.ItemDocument.FromString, chunk.documents),
        offset=chunk.offset,
        now_us=chunk.now_us,
    )


def _rows(rows: RowColumns, complete_offset: int) -> feature_store_pb2.GetTrainingRowsResponse:
    events = np.frombuffer(b"".join(rows.histories), EVENT)
    return feature_store_pb2.GetTrainingRowsResponse(
        group_offsets=rows.group_offsets.tobytes(),
        group_sizes=rows.group_sizes.tobytes(),
        item_ordinals=rows.ordinals.tobytes(),
        features=matrix_message(rows.features),
        labels=rows.labels.tobytes(),
        weights=rows.weights.tobytes(),
        history_lengths=rows.history_lengths().tobytes(),
        histories=feature_store_pb2.UserHistory(
            item_ordinals=events["ordinal"].tobytes(),
            event_types=events["event_type"].tobytes(),
            times_us=events["time_us"].tobytes(),
            channels=events["channel"].tobytes(),
        ),
        group_times_us=rows.group_times_us.tobytes(),
        feature_names=CANDIDATE_FEATURES,
        feature_schema=FEATURE_SCHEMA,
        complete_offset=complete_offset,
        user_keys=rows.user_keys,
    )
