"""Appends what was shown to the event log, in batches, and never makes an answer wait for it."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headrace.ranker.exploration import Policy
from headrace.ranker.exposure import OUTSIDE, Exposure
from headrace.runtime.errors import HeadraceError
from headrace.runtime.eventlog import EventLog, Record

log = logging.getLogger(__name__)

_BATCH = 1_000


@dataclass(frozen=True, slots=True)
class Shown:
    """A list that was shown, with all that is needed to learn from it later."""

    attribution_token: str
    user_key: str
    release: str
    serving_config: str
    ordinals: NDArray[np.uint32]
    scores: NDArray[np.float32]
    features: NDArray[np.float32]
    feature_schema: str
    time_us: int
    # of each place, given those above it
    propensities: NDArray[np.float32]
    policy: Policy
    exposure: Exposure = OUTSIDE
    # of a click on each, as the release thinks; none where no release scored them
    clicks: NDArray[np.float32] | None = None


class ImpressionLog:
    """A bounded queue in front of the event log; what does not fit is dropped and counted."""

    def __init__(
        self, event_log: EventLog, record_of: Callable[[Shown], Record], *, interval_s: float, queue_size: int
    ) -> None:
        self.logged = 0
        self.dropped = 0
        self._event_log = event_log
        self._record_of = record_of
        self._interval_s = interval_s
        self._queue_size = queue_size
        self._queue: deque[Shown | Record] = deque()

    def note(self, shown: Shown | Record) -> None:
        """Takes what was shown, or the record of it that another ranker made."""
        if len(self._queue) >= self._queue_size:
            self.dropped += 1
            return
        self._queue.append(shown)

    async def run(self) -> None:
        """Appends for ever, every `interval_s`."""
        while True:
            await asyncio.sleep(self._interval_s)
            await self.flush()

    async def flush(self) -> None:
        """Appends all that waits. A log that cannot be written costs the batch, not the answers."""
        while self._queue:
            batch = [self._queue.popleft() for _ in range(min(len(self._queue), _BATCH))]
            try:
                await self._event_log.append([self._recorded(shown) for shown in batch])
            except HeadraceError as error:
                self.dropped += len(batch)
                log.warning("impressions_dropped", extra={"count": len(batch), "reason": str(error)})
            else:
                self.logged += len(batch)

    def _recorded(self, shown: Shown | Record) -> Record:
        return shown if isinstance(shown, Record) else self._record_of(shown)
