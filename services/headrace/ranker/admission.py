"""Caps the answers in the making: uncapped, every answer gets slow before any is refused."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager

from headrace.runtime.errors import OverloadedError


class Admission:
    """Lets `max_concurrent` in, `max_waiting` wait in order; the rest is refused at once.

    `calls` counts those of `methods` that have come so far, the refused ones too.
    """

    def __init__(self, max_concurrent: int, max_waiting: int, methods: Collection[str] = ()) -> None:
        self.calls = 0
        self._turns = asyncio.Semaphore(max_concurrent)
        self._max_waiting = max_waiting
        self._methods = frozenset(methods)
        self._waiting = 0

    def refusal(self, method: str) -> OverloadedError | None:
        """Why a call of `method` cannot be taken now; None when it can."""
        if method not in self._methods:
            return None
        self.calls += 1
        return self._overloaded() if self._turns.locked() and self._is_full else None

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Waits for a place, which is kept while the context is open. OverloadedError: too many wait already."""
        if self._turns.locked():
            await self._wait()
        else:
            await self._turns.acquire()
        try:
            yield
        finally:
            self._turns.release()

    async def _wait(self) -> None:
        if self._is_full:
            raise self._overloaded()
        self._waiting += 1
        try:
            await self._turns.acquire()
        finally:
            self._waiting -= 1

    @property
    def waiting(self) -> int:
        """Calls that wait for their turn."""
        return self._waiting

    @property
    def _is_full(self) -> bool:
        return self._waiting >= self._max_waiting

    def _overloaded(self) -> OverloadedError:
        return OverloadedError(f"{self._waiting} calls wait for their turn already", retry_after_s=0.1)
