"""How far the fold is: noted after every slice, and awaited by those who want to read what they wrote."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from headrace.runtime.clock import now_us
from headrace.runtime.errors import DeadlineError
from headrace.runtime.eventlog import LoggedRecord
from headrace.runtime.quantiles import RecentQuantiles
from headrace.runtime.telemetry import counter, histogram

_lag = histogram("headrace.feature_store.lag", "ms", "from a record's append to its being in the state")
_folded = counter("headrace.feature_store.records", "{record}", "log records folded")

# lags noted a slice: enough for quantiles, little enough for a replay
_LAGS = 64


class Progress:
    """`offset` is that of the last record folded."""

    def __init__(self, offset: int) -> None:
        self.offset = offset
        self._lags = RecentQuantiles()
        self._moved = asyncio.Event()

    def advance(self, records: Sequence[LoggedRecord]) -> None:
        """These were folded."""
        self.offset = records[-1].offset
        self._moved.set()
        self._moved = asyncio.Event()
        now = now_us()
        lags = [(now - record.append_time_us) / 1e3 for record in records[:: max(1, len(records) // _LAGS)]]
        self._lags.extend(lags)
        for lag in lags:
            _lag.record(lag)
        _folded.add(len(records))

    def lag_ms(self, quantile: float) -> float:
        """Of the newest records, from their append to their being in the state."""
        return self._lags.at(quantile)

    async def reached(self, offset: int, timeout_s: float | None) -> None:
        """Returns once the fold is there. DeadlineError."""
        end = None if timeout_s is None else time.monotonic() + timeout_s
        while self.offset < offset:
            left = None if end is None else end - time.monotonic()
            try:
                async with asyncio.timeout(left):
                    await self._moved.wait()
            except TimeoutError as error:
                raise DeadlineError(f"folded up to {self.offset}, {offset} was asked for") from error
