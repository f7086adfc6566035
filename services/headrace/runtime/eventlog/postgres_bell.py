"""A bell that rings in every process when one of them has appended: LISTEN and NOTIFY."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from headrace.runtime.eventlog.postgres_connection import LOST, RETRY_S, Database, connect

CHANNEL = "event_log"


class Bell:
    """Rings when any process has appended; begins to listen at the first look."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._rung = 0
        self._next = asyncio.Event()
        self._listening: asyncio.Task[None] | None = None

    def rung(self) -> int:
        """How often it has rung."""
        if self._listening is None:
            self._listening = asyncio.create_task(self._listen(), name="eventlog-listen")
        return self._rung

    async def wait(self, rung: int, timeout_s: float) -> None:
        """Returns when it rings after the `rung`-th time, or after `timeout_s`."""
        if self._rung == rung:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._next.wait(), timeout_s)

    async def _listen(self) -> None:
        while True:
            with contextlib.suppress(*LOST):
                async with _listener(self._url) as database:
                    # what was appended before it listened
                    self._ring()
                    async for _ in database.notifies():
                        self._ring()
            await asyncio.sleep(RETRY_S)

    def _ring(self) -> None:
        self._rung += 1
        self._next.set()
        self._next = asyncio.Event()

    async def close(self) -> None:
        if self._listening is not None:
            self._listening.cancel()
            await asyncio.gather(self._listening, return_exceptions=True)


@asynccontextmanager
async def _listener(url: str) -> AsyncIterator[Database]:
    database = await connect(url)
    try:
        await database.execute(f"LISTEN {CHANNEL}".encode())
        yield database
    finally:
        await database.close()
