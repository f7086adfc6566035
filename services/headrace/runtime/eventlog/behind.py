"""How far a reader is behind the end of the log: also when it stands still and so measures no lag."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from headrace.runtime.errors import UnavailableError
from headrace.runtime.eventlog.log import EventLog
from headrace.runtime.telemetry import gauge

_behind = gauge("headrace.event_log.behind", "{record}", "records between a reader and the end of the log")

_EVERY_S = 5.0


async def watch_behind(log: EventLog, offset: Callable[[], int], every_s: float = _EVERY_S) -> None:
    """Measures how far the reader, which stands at `offset()`, is behind; for ever. Nothing while the log is away."""
    while True:
        try:
            end, _ = await log.end()
            _behind.set(max(0, end - offset()))
        except UnavailableError:
            # whoever reads the log says so
            pass
        await asyncio.sleep(every_s)
