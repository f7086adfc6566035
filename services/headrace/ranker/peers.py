"""The ranker's peers as it sees them: translate out, one call, translate back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

import grpc
import numpy as np
from numpy.typing import NDArray

from headrace.model.history import History, is_customer
from headrace.model.items import NEIGHBOURS
from headrace.ranker.catalogue import FOREVER_US, ItemRows, Listing
from headrace.ranker.nearest import Nearest
from headrace.ranker.plan import Assignment, ReleaseManifest, ServingPlan
from headrace.runtime.calls import call_options
from headrace.runtime.errors import (
    CorruptDataError,
    DeadlineError,
    FailedPreconditionError,
    HeadraceError,
    NotFoundError,
    UnavailableError,
)
from headrace.v1 import (
    common_pb2,
    feature_store_pb2,
    feature_store_pb2_grpc,
    index_pb2,
    index_pb2_grpc,
    trainer_pb2,
    trainer_pb2_grpc,
)

# a registry that hangs must not hold up the next release for ever
_FETCH_TIMEOUT_S = 60.0
_NOT_BUYABLE = common_pb2.AVAILABILITY_OUT_OF_STOCK
_STOCKED = (common_pb2.AVAILABILITY_UNSPECIFIED, common_pb2.AVAILABILITY_IN_STOCK)


@dataclass(frozen=True, slots=True)
class UserState:
    """A person's history, and up to where the log was folded for it."""

    history: History
    offset: int
    now_us: int
    # where the person's newest traced event was folded
    traceparent: str = ""


@dataclass(frozen=True, slots=True)
class ItemsUpdate:
    """One message of the item stream. `feature_names` come with the first one only."""

    is_snapshot: bool
    ends_snapshot: bool
    rows: ItemRows
    listings: tuple[Listing, ...]
    deleted: tuple[int, ...]
    feature_names: tuple[str, ...]
    feature_schema: str
    offset: int
    now_us: int


@dataclass(frozen=True, slots=True)
class Neighbours:
    """Nearest items of each query, end to end; scores are inner products.

    `missing` names the shards whose items could not be looked at, and why.
    """

    ordinals: NDArray[np.uint32]
    scores: NDArray[np.float32]
    space: str
    applied_sequence: int
    missing: tuple[str, ...] = ()

    @classmethod
    def none(cls) -> Neighbours:
        return cls(np.zeros(0, np.uint32), np.zeros(0, np.float32), "", 0)


@dataclass(frozen=True, slots=True)
class Embeddings:
    """Items of a space with their vectors."""

    space: str
    ordinals: NDArray[np.uint32]
    vectors_ND: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class TracedChange:
    """Items that a traced event led to a change of."""

    traceparent: str
    ordinals: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class VectorsUpdate:
    """One message of a space's stream of vectors."""

    is_snapshot: bool
    ends_snapshot: bool
    ordinals: NDArray[np.uint32]
    vectors: NDArray[np.float32]
    tombstones: NDArray[np.bool_]
    applied_sequence: int
    log_offset: int
    traces: tuple[TracedChange, ...] = ()


class FeatureStorePeer:
    """What is true of users and items, from one process."""

    shards = 1

    def __init__(self, channel: grpc.aio.Channel) -> None:
        stub: feature_store_pb2_grpc.FeatureStoreServiceAsyncStub
        stub = feature_store_pb2_grpc.FeatureStoreServiceStub(channel)
        self._stub = stub

    async def state(self, user_key: str, min_offset: int, timeout_s: float) -> UserState:
        """A person's state. DeadlineError, UnavailableError, FailedPreconditionError: asked of the wrong shard."""
        request = feature_store_pb2.GetUserStateRequest(user_key=user_key, min_offset=min_offset)
        try:
            response = await self._stub.GetUserState(request, **call_options(timeout_s))
        except grpc.aio.AioRpcError as error:
            if error.code() == grpc.StatusCode.FAILED_PRECONDITION:
                raise FailedPreconditionError(error.details() or "") from error
            raise _translated(error) from error
        history = _history(response.history, response.person_key or user_key)
        return UserState(history, response.offset, response.now_us, response.traceparent)

    async def watch_items(self) -> AsyncIterator[ItemsUpdate]:
        """All items, then every change, until the peer is lost. UnavailableError."""
        try:
            async for message in self._stub.WatchItemFeatures(feature_store_pb2.WatchItemFeaturesRequest()):
                yield _items_update(message)
        except grpc.aio.AioRpcError as error:
            raise _translated(error) from error


class IndexPeer:
    """Nearest vectors in each space."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub: index_pb2_grpc.IndexServiceAsyncStub = index_pb2_grpc.IndexServiceStub(channel)

    async def near_vector(
        self, space: str, query_D: NDArray[np.float32], k: int, bitmap: bytes, timeout_s: float
    ) -> Neighbours:
        """The k allowed items nearest to a vector. DeadlineError, UnavailableError, NotFoundError."""
        return _neighbours(await self.nearest(space, query_D[None], k, bitmap, timeout_s))

    async def near_items(
        self, space: str, ordinals: NDArray[np.uint32], k: int, bitmap: bytes, timeout_s: float
    ) -> Neighbours:
        """The k allowed items nearest to each item that has a vector; an empty `space` is the active one."""
        request = index_pb2.IndexServiceSearchRequest(
            space=space, query_item_ordinals=ordinals.astype("<u4").tobytes(), k=k, allow_bitmap=bitmap
        )
        return _neighbours(await self._search(request, timeout_s))

    async def nearest(
        self, space: str, queries_QD: NDArray[np.float32], k: int, bitmap: bytes, timeout_s: float
    ) -> Nearest:
        """The k allowed items nearest to each of several vectors."""
        rows, columns = queries_QD.shape
        queries = common_pb2.Matrix(rows=rows, columns=columns, values=queries_QD.astype("<f4").tobytes())
        request = index_pb2.IndexServiceSearchRequest(space=space, queries=queries, k=k, allow_bitmap=bitmap)
        return await self._search(request, timeout_s)

    async def embeddings(self, space: str, ordinals: NDArray[np.uint32], timeout_s: float) -> Embeddings:
        """The vectors of those of the items that have one."""
        request = index_pb2.GetEmbeddingsRequest(space=space, item_ordinals=ordinals.astype("<u4").tobytes())
        try:
            response = await self._stub.GetEmbeddings(request, **call_options(timeout_s))
        except grpc.aio.AioRpcError as error:
            raise _translated(error) from error
        return Embeddings(response.space, np.frombuffer(response.item_ordinals, "<u4"), _matrix(response.vectors))

    async def _search(self, request: index_pb2.IndexServiceSearchRequest, timeout_s: float) -> Nearest:
        try:
            response = await self._stub.Search(request, **call_options(timeout_s))
        except grpc.aio.AioRpcError as error:
            raise _translated(error) from error
        counts = np.frombuffer(response.counts, "<u4")
        shape = (len(counts), request.k)
        ordinals_QK = np.frombuffer(response.item_ordinals, "<u4").reshape(shape)
        scores_QK = np.frombuffer(response.scores, "<f4").reshape(shape)
        return Nearest(counts, ordinals_QK, scores_QK, response.space, response.applied_sequence)

    async def watch_vectors(self, space: str) -> AsyncIterator[VectorsUpdate]:
        """All vectors of a space, then every change. UnavailableError; NotFoundError: no such space."""
        try:
            async for message in self._stub.WatchEmbeddings(index_pb2.WatchEmbeddingsRequest(space=space)):
                yield _vectors_update(message)
        except grpc.aio.AioRpcError as error:
            raise _translated(error) from error


class TrainerPeer:
    """The registry: which release serves, and its parts."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub: trainer_pb2_grpc.TrainerServiceAsyncStub = trainer_pb2_grpc.TrainerServiceStub(channel)

    async def watch_plan(self) -> AsyncIterator[ServingPlan]:
        """The serving plan now, at every change, and again now and then while it holds. UnavailableError."""
        try:
            async for message in self._stub.WatchServingPlan(trainer_pb2.WatchServingPlanRequest()):
                yield _plan(message)
        except grpc.aio.AioRpcError as error:
            raise _translated(error) from error

    async def part(self, release: str, name: str) -> bytes:
        """One part of a release. UnavailableError; NotFoundError: no such part."""
        request = trainer_pb2.FetchArtifactRequest(release=release, part=name)
        try:
            chunks = self._stub.FetchArtifact(request, timeout=_FETCH_TIMEOUT_S)
            return b"".join([chunk.data async for chunk in chunks])
        except grpc.aio.AioRpcError as error:
            raise _translated(error) from error


def why_missing(error: HeadraceError) -> str:
    """Why a peer gave no answer, as answers that do without it say."""
    if isinstance(error, DeadlineError):
        return "deadline"
    if isinstance(error, FailedPreconditionError):
        return "wrong shard"
    return "unknown space" if isinstance(error, NotFoundError) else "unavailable"


def _neighbours(nearest: Nearest) -> Neighbours:
    ordinals, scores = nearest.end_to_end()
    return Neighbours(ordinals, scores, nearest.space, nearest.applied_sequence)


def _translated(error: grpc.aio.AioRpcError) -> DeadlineError | NotFoundError | CorruptDataError | UnavailableError:
    details = error.details() or error.code().name
    if error.code() == grpc.StatusCode.DEADLINE_EXCEEDED:
        return DeadlineError(details)
    if error.code() == grpc.StatusCode.NOT_FOUND:
        return NotFoundError(details)
    if error.code() == grpc.StatusCode.DATA_LOSS:
        return CorruptDataError(details)
    return UnavailableError(details)


def _history(message: feature_store_pb2.UserHistory, user_key: str) -> History:
    return History(
        np.frombuffer(message.item_ordinals, "<u4"),
        np.frombuffer(message.event_types, np.uint8),
        np.frombuffer(message.times_us, "<i8"),
        np.frombuffer(message.channels, np.uint8),
        is_customer(user_key),
    )


def _items_update(message: feature_store_pb2.WatchItemFeaturesResponse) -> ItemsUpdate:
    width = message.neighbour_count or NEIGHBOURS
    rows = ItemRows(
        np.frombuffer(message.item_ordinals, "<u4"),
        _matrix(message.features),
        np.frombuffer(message.neighbour_ordinals, "<u4").reshape(-1, width),
        np.frombuffer(message.neighbour_weights, "<f4").reshape(-1, width),
    )
    return ItemsUpdate(
        is_snapshot=message.snapshot,
        ends_snapshot=message.snapshot_end,
        rows=rows,
        listings=tuple(listing_of(each.ordinal, each.product) for each in message.documents if not each.deleted),
        deleted=tuple(each.ordinal for each in message.documents if each.deleted),
        feature_names=tuple(message.feature_names),
        feature_schema=message.feature_schema,
        offset=message.offset,
        now_us=message.now_us,
    )


def listing_of(ordinal: int, product: common_pb2.Product) -> Listing:
    """What the ranker needs to know of a product."""
    has_price = product.HasField("price_info")
    return Listing(
        ordinal=ordinal,
        id=product.id,
        title=product.title,
        description=product.description,
        brands=tuple(product.brands),
        categories=tuple(product.categories),
        attributes=tuple(product.attributes.values()),
        price=product.price_info.price if has_price else float("nan"),
        is_available=_is_available(product),
        publish_us=product.publish_time.ToMicroseconds() if product.HasField("publish_time") else 0,
        expire_us=product.expire_time.ToMicroseconds() if product.HasField("expire_time") else int(FOREVER_US),
        document=product.SerializeToString(),
    )


def _is_available(product: common_pb2.Product) -> bool:
    # a pre-order or a back-order can be bought with nothing on stock
    if product.availability in _STOCKED and product.HasField("available_quantity"):
        return product.available_quantity > 0
    return product.availability != _NOT_BUYABLE


def _vectors_update(message: index_pb2.WatchEmbeddingsResponse) -> VectorsUpdate:
    ordinals = np.frombuffer(message.item_ordinals, "<u4")
    tombstones = np.frombuffer(message.tombstones, np.uint8).astype(np.bool_)
    return VectorsUpdate(
        is_snapshot=message.snapshot,
        ends_snapshot=message.snapshot_end,
        ordinals=ordinals,
        vectors=_matrix(message.vectors),
        tombstones=tombstones if len(tombstones) else np.zeros(len(ordinals), np.bool_),
        applied_sequence=message.applied_sequence,
        log_offset=message.log_offset,
        traces=tuple(
            TracedChange(each.traceparent, tuple(np.frombuffer(each.item_ordinals, "<u4").tolist()))
            for each in message.traces
        ),
    )


def _plan(message: trainer_pb2.WatchServingPlanResponse) -> ServingPlan:
    assignment = message.assignment
    return ServingPlan(
        sequence=message.sequence,
        stable=_manifest(message.stable),
        canary=_manifest(message.canary),
        assignment=Assignment(assignment.rollout, assignment.salt, assignment.share_bp) if assignment.rollout else None,
        shadow=_manifest(message.shadow),
        valid_for_s=message.valid_for_ms / 1e3,
    )


def _manifest(release: trainer_pb2.Release) -> ReleaseManifest | None:
    """The manifest of a release; None of one that is not there."""
    if not release.release:
        return None
    return ReleaseManifest(
        release=release.release,
        space=release.space,
        delta_sequence=release.delta_sequence,
        feature_schema=release.feature_schema,
        dimension=release.dimension,
        checksums=tuple((part.name, part.sha256) for part in release.parts),
        checksum=release.checksum,
        signature=release.signature,
    )


def _matrix(message: common_pb2.Matrix) -> NDArray[np.float32]:
    return np.frombuffer(message.values, "<f4").reshape(message.rows, message.columns)
