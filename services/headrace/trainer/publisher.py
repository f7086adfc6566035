"""Pushes the delta log to the index, whatever happens to the index.

The index says what it has applied and is sent what follows; nothing is dropped before it is acknowledged.
An index that lost rows which the log no longer holds one by one gets a new space with everything in it.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import grpc

from headrace.runtime.clock import now_us
from headrace.runtime.quantiles import RecentQuantiles
from headrace.runtime.telemetry import counter, histogram
from headrace.trainer.delta_log import Batch, DeltaLog
from headrace.trainer.rotation import LOST, note_rotation
from headrace.v1 import common_pb2, index_pb2, index_pb2_grpc

log = logging.getLogger(__name__)

_pushed = counter("headrace.trainer.push.rows", "{row}", "delta rows that the index acknowledged")
_lag = histogram("headrace.trainer.push.lag", "ms", "from a record's append to the index's acknowledgement")

_RETRY_S = 0.3
# how often an idle publisher looks whether the index still has everything
_CHECK_S = 1.0
_ANSWER_S = 30.0
# an index that refused to activate a space is asked again after so long: to look takes it a while
_REFUSED_S = 2.0

_Stream = grpc.aio.StreamStreamCall[index_pb2.ApplyEmbeddingsRequest, index_pb2.ApplyEmbeddingsResponse]


class _LostGroundError(Exception):
    """The index does not stand where it stood: begin again from what it says."""


@dataclass(frozen=True)
class Fit:
    """What a space must be like to be activated: shares of the active one's items, and of what is to be found."""

    coverage: float = 0.99
    recall: float = 0.95


class Publisher:
    """Follows the delta log and pushes it. `wake` tells it that there may be more."""

    def __init__(
        self,
        channel: grpc.aio.Channel,
        delta_log: DeltaLog,
        dimension: int,
        compact_rows: int,
        fit: Fit = Fit(),
    ) -> None:
        self._stub = index_pb2_grpc.IndexServiceStub(channel)
        self._delta_log = delta_log
        self._dimension = dimension
        self._compact_rows = compact_rows
        self._fit = fit
        self._refused_at_s = -math.inf
        self._news = asyncio.Event()
        self._is_connected: bool | None = None
        self._space = ""
        self._is_active = False
        self._activate_at = 0
        self.acknowledged = 0
        self.lag_ms = RecentQuantiles()
        # called when the space changes, so that a release for it is published
        self.on_new_space: Callable[[], None] = lambda: None

    def wake(self) -> None:
        self._news.set()

    def has_filled(self, space: str) -> bool:
        """Whether the index holds all that the space began with, and answers by it."""
        return self._is_active and self._space == space

    async def run(self) -> None:
        """Pushes for ever; an index that is away is tried again quietly."""
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
        """Makes sure of the space; the sequence from which the index goes on."""
        stats = await self._stub.GetIndexStats(index_pb2.GetIndexStatsRequest(), timeout=_ANSWER_S)
        spaces = {found.space: found.applied_sequence for found in stats.spaces}
        space, horizon, last = await asyncio.to_thread(self._delta_log.bounds)
        applied = spaces.get(space, 0)
        if not horizon <= applied <= last:
            facts = {"space": space, "applied": applied, "horizon": horizon, "last_sequence": last}
            log.warning("index_cannot_go_on", extra=facts)
            note_rotation(await asyncio.to_thread(self._delta_log.begin_space, spaces, LOST), LOST)
            space, _, last = await asyncio.to_thread(self._delta_log.bounds)
            applied = 0
            self.on_new_space()
        create = index_pb2.CreateSpaceRequest(space=space, dimension=self._dimension)
        await self._stub.CreateSpace(create, timeout=_ANSWER_S)
        self._space, self.acknowledged = space, applied
        self._is_active = stats.active_space == space
        # a space takes over from another one when it holds what that one may have held
        self._activate_at = last if stats.active_space else 0
        return applied

    async def _push(self, stream: _Stream, applied: int) -> None:
        while True:
            if not self._is_active and applied >= self._activate_at and self._may_ask_again():
                await self._activate()
            self._news.clear()
            batch = await asyncio.to_thread(self._following, applied)
            if batch is None:
                await self._idle()
            else:
                applied = await self._send(stream, batch)
            await asyncio.to_thread(self._delta_log.compact, self._space, applied, self._compact_rows)

    def _following(self, applied: int) -> Batch | None:
        """The batch to send next. _LostGroundError: the log fills another space now."""
        if self._delta_log.space == self._space:
            batch = self._delta_log.batch_after(applied)
            # another space may have begun between the two looks
            if batch is None or batch.space == self._space:
                return batch
        raise _LostGroundError(f"the space is {self._delta_log.space} now")

    async def _send(self, stream: _Stream, batch: Batch) -> int:
        await stream.write(_request(batch, self._dimension))
        async with asyncio.timeout(_ANSWER_S):
            response = await stream.read()
        if not isinstance(response, index_pb2.ApplyEmbeddingsResponse):
            raise _LostGroundError("the index ended the stream")
        if response.gap:
            raise _LostGroundError(f"the index has only {response.applied_sequence}")
        self.acknowledged = response.applied_sequence
        self._measure(batch)
        return response.applied_sequence

    def _measure(self, batch: Batch) -> None:
        _pushed.add(batch.rows)
        if batch.append_time_us:
            lag_ms = (now_us() - batch.append_time_us) / 1e3
            self.lag_ms.add(lag_ms)
            _lag.record(lag_ms)

    async def _idle(self) -> None:
        try:
            # not wait_for: before Python 3.12 that swallows a cancellation that comes with the news
            async with asyncio.timeout(_CHECK_S):
                await self._news.wait()
        except TimeoutError:
            await self._check()

    async def _check(self) -> None:
        stats = await self._stub.GetIndexStats(index_pb2.GetIndexStatsRequest(), timeout=_ANSWER_S)
        applied = next((found.applied_sequence for found in stats.spaces if found.space == self._space), -1)
        if applied != self.acknowledged:
            raise _LostGroundError(f"the index has {applied} of {self.acknowledged} acknowledged")

    async def _activate(self) -> None:
        gone = await asyncio.to_thread(self._delta_log.gone)
        request = index_pb2.ActivateSpaceRequest(
            space=self._space,
            min_coverage=self._fit.coverage,
            min_recall=self._fit.recall,
            min_sequence=self._activate_at,
            gone_ordinals=gone.astype("<u4").tobytes(),
        )
        try:
            found = await self._stub.ActivateSpace(request, timeout=_ANSWER_S)
        except grpc.aio.AioRpcError as error:
            if error.code() != grpc.StatusCode.FAILED_PRECONDITION:
                raise
            # the active space goes on answering; rows that are still to come may make this one fit
            self._refused_at_s = time.monotonic()
            log.warning("space_not_activated", extra={"space": self._space, "reason": error.details()})
            return
        self._is_active = True
        log.info("space_activated", extra={"space": self._space, "coverage": found.coverage, "recall": found.recall})

    def _may_ask_again(self) -> bool:
        return time.monotonic() >= self._refused_at_s + _REFUSED_S

    def _note(self, is_connected: bool, error: Exception | None = None) -> None:
        if is_connected != self._is_connected:
            reason = {"reason": _reason(error)} if error else {}
            log.info("index_reached" if is_connected else "index_lost", extra=reason)
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
