"""Says once that something that is needed is away, and once that it is back; asks it again meanwhile."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from headrace.runtime.errors import UnavailableError

log = logging.getLogger(__name__)

T = TypeVar("T")

_RETRY_S = 0.2


class Outage:
    """What some `work` knows of whether `what` is there; the work tells how each try went, or lets it be tried here."""

    def __init__(self, what: str, work: str) -> None:
        self._facts = {"what": what, "work": work}
        self._lasts = False

    def begin(self, error: UnavailableError) -> None:
        if not self._lasts:
            log.warning("unavailable", extra={**self._facts, "reason": str(error)})
        self._lasts = True

    def end(self) -> None:
        if self._lasts:
            log.info("available_again", extra=self._facts)
        self._lasts = False

    async def attempt(self, ask: Callable[[], Awaitable[T]]) -> T | None:
        """The answer; None, a little later, while it is away."""
        try:
            answer = await ask()
        except UnavailableError as error:
            self.begin(error)
            await asyncio.sleep(_RETRY_S)
            return None
        self.end()
        return answer

    async def insist(self, ask: Callable[[], Awaitable[T]]) -> T:
        """The answer, however long that takes."""
        while (answer := await self.attempt(ask)) is None:
            pass
        return answer
