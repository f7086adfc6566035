"""Caps the answers in the making: uncapped, every answer gets slow before any is refused."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from headrace.runtime.errors import OverloadedError


class Admission:
    """Lets `max_concurrent` in, `max_waiting` wait in order; OverloadedError for the rest, at once."""

    def __init__(self, max_concurrent: int, max_waiting: int) -> None:
        self._turns = asyncio.Semaphore(max_concurrent)
        self._max_waiting = max_waiting
        self._waiting = 0

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        if self._turns.locked():
            await self._wait()
        else:
            await self._turns.acquire()
        try:
            yield
        finally:
            self._turns.release()

    async def _wait(self) -> None:
        if self._waiting >= self._max_waiting:
            raise OverloadedError(f"{self._waiting} calls wait for their turn already", retry_after_s=0.1)
        self._waiting += 1
        try:
            await self._turns.acquire()
        finally:
            self._waiting -= 1
