"""The gRPC face of the index."""

# Q queries, K wanted, N rows, D dimension

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from secrets import token_hex
from typing import Literal

import faiss

from headrace.index.batch import Batch, BatchColumns, checked_batch
from headrace.index.columns import NORM_LIMIT, bitmap, matrix, norms, ordinals_column
from headrace.index.copying import copied_rows
from headrace.index.cut_over import Conditions, coverage, cut_over
from headrace.index.delta_traces import DeltaTraces, TracedBatch
from headrace.index.divergence import Divergences
from headrace.index.following import Part, followed
from headrace.index.peers import copy_head, copy_part, marks_message
from headrace.index.rows import F32, Found, Rows
from headrace.index.searching import Query, Searcher
from headrace.index.settings import IndexSettings
from headrace.index.space import Space
from headrace.index.store import Applied, Store
from headrace.runtime.calls import remaining_s
from headrace.runtime.door import Context
from headrace.runtime.errors import FailedPreconditionError, Faults
from headrace.runtime.quantiles import RecentQuantiles
from headrace.runtime.serving import Face
from headrace.runtime.telemetry import counter, histogram, span, traceparent
from headrace.v1 import common_pb2, index_pb2, index_pb2_grpc

_NAME = re.compile(r"[a-z0-9-]{1,64}")
_MAX_K = 10_000
_MAX_RESULTS = 1_000_000
_MAX_GET = 10_000
_MAX_DENIED = 100_000
_MAX_DIMENSION = 4_096
_SHARES: tuple[Literal["min_coverage", "min_recall"], ...] = ("min_coverage", "min_recall")
# a larger batch is checked on another thread: 16 MB would hold the event loop up for some 40 ms
_CHECKED_INLINE_BYTES = 1 << 18

_apply_lag = histogram("headrace.index.apply.lag", "ms", "from a batch's arrival to its being visible")
_search_duration = histogram("headrace.index.search.duration", "ms", "time to search, without waiting for a sequence")
_applied = counter("headrace.index.rows", "{row}", "rows of batches that were taken, repeats included")
_gaps = counter("headrace.index.gaps", "{batch}", "batches that did not follow on")
_queries = counter("headrace.index.queries", "{query}", "queries answered")


@dataclass(frozen=True)
class Pools:
    """Threads for work that would hold the event loop up."""

    searcher: Searcher
    readers: ThreadPoolExecutor


@dataclass(frozen=True)
class Standing:
    """Who this process is among the replicas of its shard, and which of them differ from it."""

    instance: str = field(default_factory=partial(token_hex, 8))
    divergences: Divergences = field(default_factory=Divergences)


class IndexServicer(index_pb2_grpc.IndexServiceServicer):
    """Translates calls for a `Store`; `segment_reason` says why its segments are of their kind."""

    def __init__(
        self, store: Store, pools: Pools, settings: IndexSettings, segment_reason: str, standing: Standing
    ) -> None:
        self._store = store
        self._pools = pools
        self._settings = settings
        self._segment_reason = segment_reason
        self._standing = standing
        self._apply_ms = RecentQuantiles()
        self._traces = DeltaTraces()

    def face(self) -> Face:
        name = index_pb2.DESCRIPTOR.services_by_name["IndexService"].full_name
        return Face(name, lambda server: index_pb2_grpc.add_IndexServiceServicer_to_server(self, server))

    async def ApplyEmbeddings(
        self, requests: AsyncIterator[index_pb2.ApplyEmbeddingsRequest], context: Context
    ) -> AsyncIterator[index_pb2.ApplyEmbeddingsResponse]:
        answers: asyncio.Queue[asyncio.Task[index_pb2.ApplyEmbeddingsResponse] | None] = asyncio.Queue(
            self._settings.pipeline_batches
        )
        reader = asyncio.create_task(self._read_batches(requests, answers))
        try:
            while (answer := await answers.get()) is not None:
                yield await answer
            await reader
        finally:
            reader.cancel()

    async def _read_batches(
        self,
        requests: AsyncIterator[index_pb2.ApplyEmbeddingsRequest],
        answers: asyncio.Queue[asyncio.Task[index_pb2.ApplyEmbeddingsResponse] | None],
    ) -> None:
        # tasks begin in the order of their making, and a lock is given in the order of asking
        turn = asyncio.Lock()
        try:
            async for request in requests:
                answer = asyncio.create_task(self._apply(request, turn))
                answer.add_done_callback(_seen)
                await answers.put(answer)
        finally:
            await answers.put(None)

    async def _apply(
        self, request: index_pb2.ApplyEmbeddingsRequest, turn: asyncio.Lock
    ) -> index_pb2.ApplyEmbeddingsResponse:
        begun = time.perf_counter()
        with span("index.apply", parent=request.traceparent, attributes={"space": request.space}):
            async with turn:
                batch = await self._checked(request)
                self._traces.note(TracedBatch(request.space, batch.last_sequence, traceparent(), request.item_ordinals))
                committed = self._store.apply(batch)
            applied = await committed
        self._note_applied(applied, len(batch), (time.perf_counter() - begun) * 1e3)
        return index_pb2.ApplyEmbeddingsResponse(
            space=request.space,
            applied_sequence=applied.sequence,
            gap=applied.gap,
            log_offset=applied.log_offset,
        )

    async def _checked(self, request: index_pb2.ApplyEmbeddingsRequest) -> Batch:
        space = self._store.space(_named(request.space))
        check = partial(checked_batch, _columns(request), space.dimension, self._settings.max_ordinal)
        if len(request.vectors.values) <= _CHECKED_INLINE_BYTES:
            return check()
        return await asyncio.get_running_loop().run_in_executor(self._pools.readers, check)

    def _note_applied(self, applied: Applied, rows: int, lag_ms: float) -> None:
        if applied.gap:
            _gaps.add(1)
            return
        self._apply_ms.add(lag_ms)
        _apply_lag.record(lag_ms)
        _applied.add(rows)

    async def Search(
        self, request: index_pb2.IndexServiceSearchRequest, context: Context
    ) -> index_pb2.IndexServiceSearchResponse:
        query = _query(request, self._settings.max_ordinal)
        space = self._store.space(request.space)
        _check_dimension(space, query.queries_QD)
        if request.min_sequence > space.applied_sequence:
            left = remaining_s()
            await space.reached(request.min_sequence, self._settings.max_wait_s if left is None else left)
        begun = time.perf_counter()
        found = await self._pools.searcher.nearest(space.segment, query)
        _search_duration.record((time.perf_counter() - begun) * 1e3)
        _queries.add(len(found.counts_Q))
        return _search_response(space.name, found)

    async def GetEmbeddings(
        self, request: index_pb2.GetEmbeddingsRequest, context: Context
    ) -> index_pb2.GetEmbeddingsResponse:
        faults = Faults()
        _check_name(request.space, faults, may_be_empty=True)
        ordinals = ordinals_column(request.item_ordinals, "item_ordinals", faults, self._settings.max_ordinal)
        faults.check(len(ordinals) <= _MAX_GET, "item_ordinals", f"must be at most {_MAX_GET}, got {len(ordinals)}")
        faults.raise_if_any()
        space = self._store.space(request.space)
        # read before the rows: they are at least that new
        sequence = space.applied_sequence
        loop = asyncio.get_running_loop()
        if len(ordinals):
            rows = await loop.run_in_executor(self._pools.readers, space.segment.get, ordinals)
        else:
            _check_all_fit(space, self._settings.max_message_bytes)
            sequence, rows = await loop.run_in_executor(self._pools.readers, space.all_rows)
        return _embeddings_response(space.name, rows, sequence)

    async def WatchEmbeddings(
        self, request: index_pb2.WatchEmbeddingsRequest, context: Context
    ) -> AsyncIterator[index_pb2.WatchEmbeddingsResponse]:
        faults = Faults()
        _check_name(request.space, faults, may_be_empty=True)
        faults.raise_if_any()
        space = self._store.space(request.space)
        sent = 0
        async for part in followed(space, self._pools.readers, self._settings.watch_snapshot_limit_s):
            # what a snapshot holds is not news
            traces = [] if part.snapshot else self._traces.between(space.name, sent, part.sequence)
            sent = part.sequence
            yield _watch_response(space.name, part, traces)

    async def CopySpace(
        self, request: index_pb2.CopySpaceRequest, context: Context
    ) -> AsyncIterator[index_pb2.CopySpaceResponse]:
        space = self._store.space(_named(request.space))
        with ExitStack() as pins:
            view, rolling_hash = await self._store.pinned(space, pins)
            yield copy_head(space, view, rolling_hash, self._store.shard)
            async for rows in copied_rows(view, self._pools.readers, pins, self._settings.watch_snapshot_limit_s):
                yield copy_part(rows)
            yield index_pb2.CopySpaceResponse(end=True)

    async def CreateSpace(
        self, request: index_pb2.CreateSpaceRequest, context: Context
    ) -> index_pb2.CreateSpaceResponse:
        faults = Faults()
        _check_name(request.space, faults)
        fits = 1 <= request.dimension <= _MAX_DIMENSION
        faults.check(fits, "dimension", f"must be 1 to {_MAX_DIMENSION}, got {request.dimension}")
        faults.raise_if_any()
        await self._store.create(request.space, request.dimension)
        return index_pb2.CreateSpaceResponse()

    async def ActivateSpace(
        self, request: index_pb2.ActivateSpaceRequest, context: Context
    ) -> index_pb2.ActivateSpaceResponse:
        conditions = _conditions(request, self._settings.max_ordinal)
        done = await cut_over(
            self._store, request.space, conditions, self._pools.readers, check_only=request.check_only
        )
        response = index_pb2.ActivateSpaceResponse(previous_space=done.previous)
        if done.fitness is not None:
            response.coverage, response.recall = done.fitness.coverage, done.fitness.recall
        return response

    async def DropSpace(self, request: index_pb2.DropSpaceRequest, context: Context) -> index_pb2.DropSpaceResponse:
        await self._store.drop(_named(request.space))
        return index_pb2.DropSpaceResponse()

    async def GetIndexStats(
        self, request: index_pb2.GetIndexStatsRequest, context: Context
    ) -> index_pb2.GetIndexStatsResponse:
        spaces = self._store.spaces
        return index_pb2.GetIndexStatsResponse(
            spaces=[await self._space_stats(space, request.with_digest) for space in spaces],
            active_space=self._store.active,
            backend=f"faiss {faiss.__version__}",
            apply_p50_ms=self._apply_ms.at(0.5),
            apply_p99_ms=self._apply_ms.at(0.99),
            memory_bytes=sum(space.segment.memory_bytes() for space in spaces),
            checked_queries=self._pools.searcher.checker.checked,
            checked_recall=self._pools.searcher.checker.recall,
            shard=self._store.shard.number,
            shards=self._store.shard.count,
            instance=self._standing.instance,
        )

    async def _space_stats(self, space: Space, with_digest: bool) -> index_pb2.SpaceStats:
        look = space.digest if with_digest else space.extent
        loop = asyncio.get_running_loop()
        extent = await loop.run_in_executor(self._pools.readers, look)
        active = self._store.space("") if self._store.active else None
        covered = await loop.run_in_executor(self._pools.readers, coverage, space, active)
        return index_pb2.SpaceStats(
            space=space.name,
            dimension=space.dimension,
            vectors=extent.vectors,
            applied_sequence=extent.sequence,
            log_offset=extent.log_offset,
            active=space.name == self._store.active,
            segment_kind=space.segment.kind,
            segment_reason=self._segment_reason,
            digest=extent.sha256,
            hash_marks=marks_message(space.rolling_hash),
            diverged=[
                index_pb2.Divergence(peer=peer, sequence=sequence)
                for peer, sequence in self._standing.divergences.of(space.name)
            ],
            coverage=covered,
        )


def _seen(answer: asyncio.Task[index_pb2.ApplyEmbeddingsResponse]) -> None:
    # after the first refused batch nobody asks for the answers behind it
    if not answer.cancelled():
        answer.exception()


def _named(space: str) -> str:
    faults = Faults()
    _check_name(space, faults)
    faults.raise_if_any()
    return space


def _check_name(space: str, faults: Faults, *, may_be_empty: bool = False) -> None:
    fits = (may_be_empty and not space) or _NAME.fullmatch(space) is not None
    faults.check(fits, "space", f"must be 1 to 64 of [a-z0-9-], got {space[:80]!r}")


def _columns(request: index_pb2.ApplyEmbeddingsRequest) -> BatchColumns:
    return BatchColumns(
        space=request.space,
        first_sequence=request.first_sequence,
        ordinals=request.item_ordinals,
        rows=request.vectors.rows,
        columns=request.vectors.columns,
        values=request.vectors.values,
        tombstones=request.tombstones,
        checksum=request.checksum,
        log_offset=request.log_offset,
    )


def _conditions(request: index_pb2.ActivateSpaceRequest, max_ordinal: int) -> Conditions:
    faults = Faults()
    _check_name(request.space, faults)
    shares = {name: getattr(request, name) if request.HasField(name) else None for name in _SHARES}
    for name, share in shares.items():
        faults.check(share is None or 0 <= share <= 1, name, f"must be 0 to 1, got {share}")
    faults.check(request.min_sequence >= 0, "min_sequence", f"must not be negative, got {request.min_sequence}")
    gone = ordinals_column(request.gone_ordinals, "gone_ordinals", faults, max_ordinal)
    faults.raise_if_any()
    return Conditions(request.min_sequence, shares["min_coverage"], shares["min_recall"], gone)


def _query(request: index_pb2.IndexServiceSearchRequest, max_ordinal: int) -> Query:
    faults = Faults()
    _check_name(request.space, faults, may_be_empty=True)
    queries_QD = _query_vectors(request.queries, faults) if request.HasField("queries") else None
    items_Q = None
    if request.query_item_ordinals:
        items_Q = ordinals_column(request.query_item_ordinals, "query_item_ordinals", faults, max_ordinal)
    given = request.HasField("queries") + bool(request.query_item_ordinals)
    faults.check(given == 1, "queries", "give either queries or query_item_ordinals")
    fits = faults.check(1 <= request.k <= _MAX_K, "k", f"must be 1 to {_MAX_K}, got {request.k}")
    results = request.k * (request.queries.rows + len(request.query_item_ordinals) // 4)
    faults.check(not fits or results <= _MAX_RESULTS, "k", f"queries × k must be at most {_MAX_RESULTS}, got {results}")
    allow = bitmap(request.allow_bitmap, "allow_bitmap", faults, max_ordinal)
    deny = ordinals_column(request.deny_ordinals, "deny_ordinals", faults, max_ordinal)
    faults.check(len(deny) <= _MAX_DENIED, "deny_ordinals", f"must be at most {_MAX_DENIED}, got {len(deny)}")
    faults.check(request.min_sequence >= 0, "min_sequence", f"must not be negative, got {request.min_sequence}")
    faults.raise_if_any()
    return Query(queries_QD, items_Q, request.k, allow, deny)


def _query_vectors(queries: common_pb2.Matrix, faults: Faults) -> F32 | None:
    faults.check(queries.rows >= 1, "queries.rows", "must be at least 1, got 0")
    faults.check(queries.columns >= 1, "queries.columns", "must be at least 1, got 0")
    queries_QD = matrix(queries.rows, queries.columns, queries.values, "queries", faults)
    if queries_QD is not None:
        highest = float(norms(queries_QD).max(initial=0.0))
        faults.check(highest <= NORM_LIMIT, "queries", f"norms must be at most {NORM_LIMIT:g}, got {highest:g}")
    return queries_QD


def _check_dimension(space: Space, queries_QD: F32 | None) -> None:
    if queries_QD is not None and queries_QD.shape[1] != space.dimension:
        raise FailedPreconditionError(
            f"space {space.name!r} has dimension {space.dimension}, the queries have {queries_QD.shape[1]}"
        )


def _check_all_fit(space: Space, max_message_bytes: int) -> None:
    size = len(space.segment) * (4 * space.dimension + 20)
    if size > max_message_bytes - 1024:
        raise FailedPreconditionError(
            f"all {len(space.segment)} vectors of space {space.name!r} are {size} bytes, more than a message may have: "
            "name the ordinals, or use WatchEmbeddings"
        )


def _search_response(space: str, found: Found) -> index_pb2.IndexServiceSearchResponse:
    return index_pb2.IndexServiceSearchResponse(
        space=space,
        applied_sequence=found.sequence,
        counts=found.counts_Q.astype("<u4", copy=False).tobytes(),
        item_ordinals=found.ordinals_QK.astype("<u4", copy=False).tobytes(),
        scores=found.scores_QK.astype("<f4", copy=False).tobytes(),
    )


def _embeddings_response(space: str, rows: Rows, sequence: int) -> index_pb2.GetEmbeddingsResponse:
    return index_pb2.GetEmbeddingsResponse(
        space=space,
        item_ordinals=rows.ordinals.astype("<u4", copy=False).tobytes(),
        vectors=_matrix(rows.vectors_ND),
        sequences=rows.sequences.astype("<i8", copy=False).tobytes(),
        log_offsets=rows.log_offsets.astype("<i8", copy=False).tobytes(),
        applied_sequence=sequence,
    )


def _watch_response(space: str, part: Part, traces: Sequence[TracedBatch]) -> index_pb2.WatchEmbeddingsResponse:
    return index_pb2.WatchEmbeddingsResponse(
        space=space,
        snapshot=part.snapshot,
        snapshot_end=part.snapshot_end,
        item_ordinals=part.ordinals.astype("<u4", copy=False).tobytes(),
        vectors=_matrix(part.vectors_ND),
        tombstones=part.tombstones_N.tobytes() if part.tombstones_N.any() else b"",
        applied_sequence=part.sequence,
        log_offset=part.log_offset,
        traces=[index_pb2.DeltaTrace(traceparent=one.traceparent, item_ordinals=one.ordinals) for one in traces],
    )


def _matrix(matrix_ND: F32) -> common_pb2.Matrix:
    rows, columns = matrix_ND.shape
    return common_pb2.Matrix(rows=rows, columns=columns, values=matrix_ND.astype("<f4", copy=False).tobytes())
