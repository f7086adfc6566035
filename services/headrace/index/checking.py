"""Now and then a query is answered a second time in the plainest way, so that a wrong index is seen while it serves."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Protocol, runtime_checkable

from headrace.index.rows import F32, NO_ORDINALS, U8, U32
from headrace.runtime.telemetry import histogram

log = logging.getLogger(__name__)

# queries over which the recall is told
_NEWEST = 1_000
# a hundred hundredths, as floats add up
_WHOLE = 1 - 1e-9

_recall = histogram("headrace.index.check.recall", "1", "share of a query's true best that its answer had")


@runtime_checkable
class Checkable(Protocol):
    """A segment that takes a shorter way than scoring every vector."""

    def recall(self, queries_QD: F32, k: int, allow: U8 | None = None, deny: U32 = NO_ORDINALS) -> float:
        """The share of the true `k` best that `search` finds, both as of one moment."""
        ...

    def check(self, queries_QD: F32, k: int, allow: U8 | None = None, deny: U32 = NO_ORDINALS) -> float:
        """`recall` of queries that were asked, for the segment to learn from."""
        ...


class Checker:
    """Checks a share of the queries on `pool`, one at a time, and keeps what it found."""

    def __init__(self, share: float, pool: Executor) -> None:
        self._share = share
        self._pool = pool
        self._due = 0.0
        self._running: asyncio.Future[float] | None = None
        self._newest: deque[float] = deque(maxlen=_NEWEST)
        self.checked = 0

    @property
    def recall(self) -> float:
        """The mean over the newest 1,000 checked queries; 1 before there are any."""
        return sum(self._newest) / len(self._newest) if self._newest else 1.0

    def consider(self, queries: int, check: Callable[[], float]) -> None:
        """Checks now and then: after as many queries as make up a whole by `share` each."""
        self._due += queries * self._share
        if self._due < _WHOLE or (self._running is not None and not self._running.done()):
            return
        self._due = 0.0
        self._running = asyncio.get_running_loop().run_in_executor(self._pool, check)
        self._running.add_done_callback(self._note)

    def _note(self, done: asyncio.Future[float]) -> None:
        if done.cancelled():
            return
        if error := done.exception():
            log.error("check_failed", extra={"reason": f"{type(error).__name__}: {error}"})
            return
        self.checked += 1
        self._newest.append(done.result())
        _recall.record(done.result())
