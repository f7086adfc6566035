"""Writes many events quickly: batches in flight side by side, every person's events in order, no event lost.

A batch that is refused for overload, or meets a service that is being replaced, is sent again: the door knows
repeats by their ids, so nothing counts twice.
"""

from __future__ import annotations

import asyncio
import zlib
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import grpc

from headrace.runtime.errors import UnavailableError
from headrace.runtime.rpc_status import retry_after_s_of
from headrace.v1.common_pb2 import DatedFact, Product, UserEvent
from headrace.v1.ingest_pb2 import (
    WriteFactsRequest,
    WriteProductsRequest,
    WriteResult,
    WriteUserEventsRequest,
)

if TYPE_CHECKING:
    from headrace.v1.ingest_pb2_grpc import IngestServiceAsyncStub

BATCH = 500
LANES = 4

# chunks whose batches may be in flight at once
_DEPTH = 2
_PATIENCE_S = 120.0
_FIRST_PAUSE_S = 0.2
_LONGEST_PAUSE_S = 5.0
_CALL_TIMEOUT_S = 60.0
_AGAIN = (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)

T = TypeVar("T")


@dataclass
class Counts:
    """What became of what was sent. `waits`: times that the door asked for patience or was away."""

    accepted: int = 0
    duplicates: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    products: int = 0
    unchanged_products: int = 0
    rejected_products: Counter[str] = field(default_factory=Counter)
    waits: int = 0
    newest_offset: int = 0

    @property
    def events(self) -> int:
        """Events answered."""
        return self.accepted + self.duplicates + self.rejected.total()


@dataclass
class _Chunk:
    """Batches under way, and on which lane each visitor travels."""

    tasks: list[asyncio.Task[None]]
    lanes: dict[str, int]


class Sender:
    """Sends events to `ingest`; used as `async with Sender(client.ingest) as sender`.

    Leaving the context waits for everything that was sent.
    """

    def __init__(self, ingest: IngestServiceAsyncStub, lanes: int = LANES, batch: int = BATCH) -> None:
        self.counts = Counts()
        self._ingest = ingest
        self._lanes = lanes
        self._batch = batch
        self._flying: deque[_Chunk] = deque()
        self._user_of: dict[str, str] = {}

    async def __aenter__(self) -> Sender:
        return self

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None:
            await self.flush()
        tasks = [task for chunk in self._flying for task in chunk.tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def write_products(self, products: Sequence[Product]) -> list[WriteResult]:
        """Writes products; durable when it returns. A result each."""
        results: list[WriteResult] = []
        for place in range(0, len(products), self._batch):
            request = WriteProductsRequest(products=products[place : place + self._batch])
            response = await self._patiently(partial(self._ingest.WriteProducts, request, timeout=_CALL_TIMEOUT_S))
            self._count_products(response.results)
            results += response.results
        return results

    async def write_facts(self, facts: Sequence[DatedFact]) -> list[WriteResult]:
        """Writes dated facts; durable when it returns. A result each."""
        results: list[WriteResult] = []
        for place in range(0, len(facts), self._batch):
            request = WriteFactsRequest(facts=facts[place : place + self._batch])
            response = await self._patiently(partial(self._ingest.WriteFacts, request, timeout=_CALL_TIMEOUT_S))
            results += response.results
            for result in response.results:
                self.counts.newest_offset = max(self.counts.newest_offset, result.offset)
        return results

    async def send(self, events: Sequence[UserEvent]) -> None:
        """Takes events in order; returns when there is room for more. Errors show here or in `flush`."""
        while len(self._flying) >= _DEPTH:
            await self._land()
        chunk = self._planned(events)
        if self._changes_lane(chunk):
            await self.flush()
        before = [self._flying[-1].tasks[lane] if self._flying else None for lane in range(self._lanes)]
        by_lane = self._by_lane(events, chunk)
        chunk.tasks += [
            asyncio.create_task(self._travel(first, lane_events))
            for first, lane_events in zip(before, by_lane, strict=True)
        ]
        self._flying.append(chunk)

    async def flush(self) -> None:
        """Returns when everything that was sent is answered."""
        while self._flying:
            await self._land()

    async def _land(self) -> None:
        await asyncio.gather(*self._flying[0].tasks)
        self._flying.popleft()

    def _planned(self, events: Sequence[UserEvent]) -> _Chunk:
        # looks ahead: what a visitor did before the log-in travels with the user who logs in
        for event in events:
            if event.user_id and event.visitor_id:
                self._user_of[event.visitor_id] = event.user_id
        visitors = {event.visitor_id for event in events if event.visitor_id}
        return _Chunk([], {visitor: self._lane(self._user_of.get(visitor, visitor)) for visitor in visitors})

    def _changes_lane(self, chunk: _Chunk) -> bool:
        return any(
            flying.lanes.get(visitor, lane) != lane for flying in self._flying for visitor, lane in chunk.lanes.items()
        )

    def _by_lane(self, events: Sequence[UserEvent], chunk: _Chunk) -> list[list[UserEvent]]:
        by_lane: list[list[UserEvent]] = [[] for _ in range(self._lanes)]
        for event in events:
            lane = self._lane(event.user_id) if event.user_id else chunk.lanes.get(event.visitor_id, 0)
            by_lane[lane].append(event)
        return by_lane

    def _lane(self, person: str) -> int:
        return zlib.crc32(person.encode()) % self._lanes

    async def _travel(self, first: asyncio.Task[None] | None, events: list[UserEvent]) -> None:
        if first is not None:
            await first
        for place in range(0, len(events), self._batch):
            request = WriteUserEventsRequest(events=events[place : place + self._batch])
            response = await self._patiently(partial(self._ingest.WriteUserEvents, request, timeout=_CALL_TIMEOUT_S))
            self._count_events(response.results)

    async def _patiently(self, call: Callable[[], Awaitable[T]]) -> T:
        waited_s, pause_s = 0.0, _FIRST_PAUSE_S
        while True:
            try:
                return await call()
            except grpc.aio.AioRpcError as error:
                if error.code() not in _AGAIN:
                    raise
                if waited_s > _PATIENCE_S:
                    raise UnavailableError(f"ingest took nothing for {waited_s:.0f} s: {error.details()}") from error
                asked_s = retry_after_s_of(error) or pause_s
            self.counts.waits += 1
            await asyncio.sleep(asked_s)
            waited_s, pause_s = waited_s + asked_s, min(2 * pause_s, _LONGEST_PAUSE_S)

    def _count_events(self, results: Sequence[WriteResult]) -> None:
        counts = self.counts
        for result in results:
            if result.outcome == WriteResult.OUTCOME_ACCEPTED:
                counts.accepted += 1
            elif result.outcome == WriteResult.OUTCOME_DUPLICATE:
                counts.duplicates += 1
            else:
                counts.rejected[result.reason] += 1
            counts.newest_offset = max(counts.newest_offset, result.offset)

    def _count_products(self, results: Sequence[WriteResult]) -> None:
        counts = self.counts
        for result in results:
            if result.outcome == WriteResult.OUTCOME_ACCEPTED:
                counts.products += 1
            elif result.outcome == WriteResult.OUTCOME_DUPLICATE:
                counts.unchanged_products += 1
            else:
                counts.rejected_products[result.reason] += 1
            counts.newest_offset = max(counts.newest_offset, result.offset)
