"""Asks a log that may be away for any time, and says once that it is away and once that it is there again."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from headrace.runtime.errors import UnavailableError
from headrace.runtime.eventlog.log import LoggedRecord

log = logging.getLogger(__name__)

T = TypeVar("T")

_RETRY_S = 0.2


class Patience:
    """What one follower knows of whether its log is there."""

    def __init__(self) -> None:
        self._is_away = False

    async def attempt(self, ask: Callable[[], Awaitable[T]]) -> T | None:
        """The answer; None, a little later, while the log is away."""
        try:
            answer = await ask()
        except UnavailableError as error:
            if not self._is_away:
                log.warning("log_unavailable", extra={"reason": str(error)})
            self._is_away = True
            await asyncio.sleep(_RETRY_S)
            return None
        if self._is_away:
            log.info("log_available")
        self._is_away = False
        return answer

    async def insist(self, ask: Callable[[], Awaitable[T]]) -> T:
        """The answer, however long that takes."""
        while (answer := await self.attempt(ask)) is None:
            pass
        return answer


def note_late_start(after_offset: int, records: Sequence[LoggedRecord]) -> None:
    """Warns when a state that begins now cannot know the oldest records, because they were trimmed away."""
    if after_offset == 0 and records and records[0].offset > 1:
        log.warning("log_begins_late", extra={"oldest_offset": records[0].offset})
