"""Trims the log on a schedule: the door owns the log, so it is the one that lets it forget.

Readers keep their offset with their state, and nobody keeps a list of readers. One that was away for longer
than the log remembers is told so when it reads on (TrimmedError), and stops.
"""

from __future__ import annotations

import asyncio
import logging

from headrace.ingest.catalogue import Catalogue
from headrace.runtime.clock import MICROSECONDS, now_us
from headrace.runtime.errors import HeadraceError
from headrace.runtime.eventlog import EventLog
from headrace.runtime.telemetry import counter

log = logging.getLogger(__name__)

_trimmed = counter("headrace.ingest.trimmed", "{record}", "log records forgotten because they were too old")

_DAY_US = 86_400 * MICROSECONDS


class Retention:
    """Keeps the newest `days` of the log; 0 keeps all of it."""

    def __init__(self, log: EventLog, catalogue: Catalogue, days: float) -> None:
        self._log = log
        self._catalogue = catalogue
        self._days = days

    async def run(self, every_s: float) -> None:
        """Trims for ever; a log that cannot be trimmed now is tried again at the next turn."""
        while self._days > 0:
            try:
                await self.trim()
            except HeadraceError as error:
                log.error("trim_failed", extra={"reason": str(error)})
            await asyncio.sleep(every_s)

    async def trim(self) -> int:
        """Forgets what is too old; how many records that were."""
        before_us = now_us() - int(self._days * _DAY_US)
        # a change that has no row yet is known to the log alone; what comes in from here on is not trimmed
        await self._catalogue.catch_up()
        count = await self._log.trim(before_us)
        if count:
            _trimmed.add(count)
            log.info("trimmed", extra={"records": count, "retention_days": self._days})
        return count
