"""Pushes the delta log to one replica of the index, whatever happens to it.

The replica says what it has applied and is sent what follows; nothing is dropped before it is acknowledged.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
import zlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import grpc

from headrace.runtime.clock import now_us
from headrace.runtime.errors import FailedPreconditionError
from headrace.runtime.quantiles import RecentQuantiles
from headrace.runtime.shards import Shard
from headrace.runtime.telemetry import counter, histogram
from headrace.trainer.delta_log import Batch, DeltaLog
from headrace.trainer.index_progress import ReplicaProgress
from headrace.trainer.rotation import lineage_of
from headrace.v1 import common_pb2, index_pb2, index_pb2_grpc

log = logging.getLogger(__name__)

_pushed = counter("headrace.trainer.push.rows", "{row}", "delta rows that the index acknowledged, by every replica")
_lag = histogram("headrace.trainer.push.lag", "ms", "from a record's append to the index's acknowledgement")

_RETRY_S = 0.3
# how often an idle stream looks whether the replica still has everything
_CHECK_S = 1.0
_ANSWER_S = 30.0
# an index that refused to activate a space is asked again after so long: to look takes it a while
_REFUSED_S = 2.0

_Stream = grpc.aio.StreamStreamCall[index_pb2.ApplyEmbeddingsRequest, index_pb2.ApplyEmbeddingsResponse]


class _LostGroundError(Exception):
    """The replica does not stand where it stood: begin again from what it says."""


@dataclass(frozen=True)
class Fit:
    """What a space must be like to be activated: shares of the active one's items, and of what is to be found."""

    coverage: float = 0.99
    recall: float = 0.95


@dataclass(frozen=True)
class Pushing:
    """What the streams to all replicas share."""

    delta_log: DeltaLog
    dimension: int
    fit: Fit
    lag_ms: RecentQuantiles
    # told that a replica cannot go on in a space, and whether it has sequences there that the log never gave
    cannot_go_on: Callable[[str, bool], Awaitable[None]]
    # told that a replica came further in a space
    acknowledged: Callable[[str], Awaitable[None]]
    # the lineage that serves; empty before any does
    serving: Callable[[], str]


class IndexReplica:
    """Follows the delta log and pushes it to one process of a shard. `wake` tells it that there may be more."""

    def __init__(self, channel: grpc.aio.Channel, shard: Shard, progress: ReplicaProgress, pushing: Pushing) -> None:
        self._stub = index_pb2_grpc.IndexServiceStub(channel)
        self._shard = shard
        self._progress = progress
        self._pushing = pushing
        self._delta_log = pushing.delta_log
        self._news = asyncio.Event()
        self._is_connected: bool | None = None
        self._activate_at = 0
        # the space that queries which name none go to, as last heard of
        self._default = ""
        self._refused_at_s = -math.inf

    def wake(self) -> None:
        self._news.set()

    async def run(self) -> None:
        """Pushes for ever; a replica that is away is tried again quietly."""
        while True:
            try:
                await self._session()
            except (grpc.aio.AioRpcError, TimeoutError, _LostGroundError) as error:
                self._note(False, error)
                await asyncio.sleep(_RETRY_S)

    async def _session(self) -> None:
        applied = await self._begin()
        self._note(True)
        # the call is cancelled with the session: a second stream must not race with it
        stream = self._stub.ApplyEmbeddings()
        try:
            await self._push(stream, applied)
        finally:
            stream.cancel()

    async def _begin(self) -> int:
        """Makes sure of the space; the sequence from which the replica goes on."""
        stats = await self._stats()
        spaces = {found.space: found.applied_sequence for found in stats.spaces}
        self._progress.note_reached(spaces)
        space, applied, last = await self._followed_space(spaces)
        create = index_pb2.CreateSpaceRequest(space=space, dimension=self._pushing.dimension)
        await self._stub.CreateSpace(create, timeout=_ANSWER_S)
        self._default = stats.active_space
        self._progress.stands_at(space, applied, is_fit=stats.active_space == space)
        # a space takes over from another one when it holds what that one may have held
        self._activate_at = last if stats.active_space else 0
        return applied

    async def _stats(self) -> index_pb2.GetIndexStatsResponse:
        stats = await self._stub.GetIndexStats(index_pb2.GetIndexStatsRequest(), timeout=_ANSWER_S)
        is_shard = Shard(stats.shard, stats.shards or 1)
        if is_shard != self._shard:
            raise _LostGroundError(f"it is shard {is_shard} of the index, not {self._shard} as the settings say")
        return stats

    async def _followed_space(self, spaces: dict[str, int]) -> tuple[str, int, int]:
        """The space that the log fills, what the replica has of it, and its last sequence.

        _LostGroundError: the log cannot give what it lacks.
        """
        space, horizon, last = await asyncio.to_thread(self._delta_log.bounds)
        applied = spaces.get(space, 0)
        if not horizon <= applied <= last:
            self._note_lost(space, {"applied": applied, "horizon": horizon, "last_sequence": last})
            await self._pushing.cannot_go_on(space, applied > last)
            space, horizon, last = await asyncio.to_thread(self._delta_log.bounds)
            applied = spaces.get(space, 0)
            if not horizon <= applied <= last:
                raise _LostGroundError(f"it has {applied}, the log begins after {horizon}: a replica must help it")
        return space, applied, last

    def _note_lost(self, space: str, facts: dict[str, int]) -> None:
        if self._progress.lost_in != space:
            log.warning("index_cannot_go_on", extra={"address": self._progress.address, "space": space, **facts})
        self._progress.lost_in = space

    async def _push(self, stream: _Stream, applied: int) -> None:
        while True:
            if applied >= self._activate_at and self._may_ask_again() and self._is_to_activate():
                await self._activate()
            self._news.clear()
            batch = await asyncio.to_thread(self._following, applied)
            if batch is None:
                await self._idle()
            else:
                applied = await self._send(stream, batch)
            await self._pushing.acknowledged(self._progress.space)

    def _following(self, applied: int) -> Batch | None:
        """The batch to send next. _LostGroundError: the log fills another space now, or has folded the batch."""
        space = self._progress.space
        if self._delta_log.space == space:
            try:
                batch = self._delta_log.batch_after(applied)
            except FailedPreconditionError as error:
                raise _LostGroundError(str(error)) from error
            # another space may have begun between the two looks
            if batch is None or batch.space == space:
                return batch
        raise _LostGroundError(f"the space is {self._delta_log.space} now")

    async def _send(self, stream: _Stream, batch: Batch) -> int:
        # it may have ended while there was nothing to send; gRPC calls a write to it a mistake of ours
        if stream.done():
            raise _LostGroundError("the index ended the stream")
        await stream.write(_request(batch, self._pushing.dimension))
        async with asyncio.timeout(_ANSWER_S):
            response = await stream.read()
        if not isinstance(response, index_pb2.ApplyEmbeddingsResponse):
            raise _LostGroundError("the index ended the stream")
        if response.gap:
            raise _LostGroundError(f"the index has only {response.applied_sequence}")
        self._progress.acknowledged = response.applied_sequence
        self._measure(batch)
        return response.applied_sequence

    def _measure(self, batch: Batch) -> None:
        _pushed.add(batch.rows)
        if batch.append_time_us:
            lag_ms = (now_us() - batch.append_time_us) / 1e3
            self._pushing.lag_ms.add(lag_ms)
            _lag.record(lag_ms)

    async def _idle(self) -> None:
        try:
            # not wait_for: before Python 3.12 that swallows a cancellation that comes with the news
            async with asyncio.timeout(_CHECK_S):
                await self._news.wait()
        except TimeoutError:
            await self._check()

    async def _check(self) -> None:
        stats = await self._stats()
        space, acknowledged = self._progress.space, self._progress.acknowledged
        self._default = stats.active_space
        applied = next((found.applied_sequence for found in stats.spaces if found.space == space), -1)
        if applied != acknowledged:
            raise _LostGroundError(f"the index has {applied} of {acknowledged} acknowledged")

    def _is_to_activate(self) -> bool:
        if not self._progress.is_fit:
            return True
        return self._default != self._progress.space and self._pushing.serving() == self._lineage

    def _takes_default(self) -> bool:
        """Whether the space may become the default: never in place of another's while another lineage serves."""
        is_own = lineage_of(self._default) == self._lineage
        return not self._default or is_own or self._pushing.serving() in ("", self._lineage)

    @property
    def _lineage(self) -> str:
        return lineage_of(self._progress.space)

    async def _activate(self) -> None:
        """Makes the space the default, or only sure that it is fit where the default is another lineage's."""
        space, fit = self._progress.space, self._pushing.fit
        gone = await asyncio.to_thread(self._delta_log.gone)
        takes_default = self._takes_default()
        request = index_pb2.ActivateSpaceRequest(
            space=space,
            min_coverage=fit.coverage,
            min_recall=fit.recall,
            min_sequence=self._activate_at,
            gone_ordinals=gone.astype("<u4").tobytes(),
            check_only=not takes_default,
        )
        facts: dict[str, object] = {"space": space, "address": self._progress.address}
        try:
            found = await self._stub.ActivateSpace(request, timeout=_ANSWER_S)
        except grpc.aio.AioRpcError as error:
            if error.code() != grpc.StatusCode.FAILED_PRECONDITION:
                raise
            # the active space goes on answering; rows that are still to come may make this one fit
            self._refused_at_s = time.monotonic()
            log.warning("space_not_activated", extra={**facts, "reason": error.details()})
            return
        self._progress.is_fit = True
        self._default = space if takes_default else self._default
        found_facts = {**facts, "coverage": found.coverage, "recall": found.recall}
        log.info("space_activated" if takes_default else "space_fit", extra=found_facts)

    def _may_ask_again(self) -> bool:
        return time.monotonic() >= self._refused_at_s + _REFUSED_S

    def _note(self, is_connected: bool, error: Exception | None = None) -> None:
        if isinstance(error, grpc.aio.AioRpcError | TimeoutError):
            self._progress.note_away()
        if is_connected != self._is_connected:
            facts = {"address": self._progress.address} | ({"reason": _reason(error)} if error else {})
            log.info("index_reached" if is_connected else "index_lost", extra=facts)
        self._is_connected = is_connected


def _reason(error: Exception) -> str:
    return f"{error.code().name}: {error.details()}" if isinstance(error, grpc.aio.AioRpcError) else repr(error)


def _request(batch: Batch, dimension: int) -> index_pb2.ApplyEmbeddingsRequest:
    tombstones = batch.tombstones if any(batch.tombstones) else b""
    return index_pb2.ApplyEmbeddingsRequest(
        space=batch.space,
        first_sequence=batch.first_sequence,
        item_ordinals=batch.ordinals,
        vectors=common_pb2.Matrix(rows=batch.rows, columns=dimension, values=batch.vectors),
        tombstones=tombstones,
        checksum=zlib.crc32(batch.ordinals + batch.vectors + tombstones),
        log_offset=batch.log_offset,
        traceparent=batch.traceparent,
    )
